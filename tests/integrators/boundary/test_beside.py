"""The looks at both sides of a curve: which lane is which, and how limbs are extrapolated."""

from __future__ import annotations

import drjit as dr
import mitsuba as mi
import numpy as np
import pytest

from integrators.attached import GRAZING
from integrators.boundary.beside import AGAIN, Beside, Looks, towards_limb

#: Radiance of a limb by cos θ, and of what is behind it.
LIMB, SLOPE, BEHIND = 2.0, -3.0, 5.0


def points(far_side: list[bool], limb: list[float]) -> Beside:
    count = len(limb)
    nowhere, side = dr.zeros(mi.Point3f, count), dr.zeros(mi.Vector2f, count)
    exact = mi.Bool([True] * count)
    return Beside(exact, mi.Bool(far_side), nowhere, mi.Vector3f(nowhere), side - 1, side + 1, mi.Float(limb))


def test_the_second_look_leads_to_where_the_interior_term_begins() -> None:
    d = mi.Float([2e-5, 6e-4, 1e-3])
    near, far = dr.sqrt(2 * d), dr.sqrt(2 * AGAIN * d)
    np.testing.assert_allclose(near + towards_limb(d) * (near - far), GRAZING, rtol=1e-3)


@pytest.mark.parametrize("d", [1e-9, 0.2, np.inf])
def test_limbs_within_that_and_bodies_too_small_are_looked_at_once(d: float) -> None:
    assert towards_limb(mi.Float(d))[0] == 0


@pytest.mark.parametrize("inner_low", [True, False])
def test_jumps_at_limbs_are_those_of_the_limb_itself(inner_low: bool) -> None:
    """Three points: a limb, one whose second look is lost, and one that lacks its outer side."""
    looks = Looks(points([inner_low] * 3, [1.0] * 3), mi.Bool([True] * 3), True)
    assert np.array(looks.offset())[0].tolist() == [-1] * 3 + [1] * 3 + [-AGAIN if inner_low else AGAIN] * 3
    inner = [LIMB + SLOPE * 0.1] * 3
    low, high = (inner, [BEHIND] * 3) if inner_low else ([BEHIND] * 3, inner)
    L = mi.Float([*low, *high, *[LIMB + SLOPE * 0.2] * 3])
    outer = 5 if inner_low else 2
    seen = [k not in (outer, 7) for k in range(9)]
    sign = 1 if inner_low else -1
    expected = sign * (np.array([LIMB, LIMB + SLOPE * 0.1, BEHIND]) - BEHIND)
    np.testing.assert_allclose(looks.jump(L, mi.Bool(seen)), expected, atol=1e-6)
    np.testing.assert_allclose(looks.jump(L), [sign * (LIMB - BEHIND)] * 3, atol=1e-6)


def test_other_points_are_looked_at_from_both_sides_only() -> None:
    looks = Looks(points([True, True], [0.0, 1.0]), mi.Bool([True, True]), True)
    assert np.array(looks.active).tolist() == [True, True, True, True, False, True]
    assert np.array(looks.outside).tolist() == [False, False, True, True, False, False]
    assert dr.width(Looks(points([True], [0.0]), mi.Bool([True]), False).point) == 2
