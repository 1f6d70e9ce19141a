"""Spaces: one-to-one, within bounds, and the Dr.Jit version has the derivative of the NumPy version."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pathtracer.errors import UsageError
from pathtracer.inverse import rigid
from pathtracer.inverse.spaces import Box, Identity, Log, Logit, Space, make_space

SPACES = [
    (Log(), np.array([1e-3, 0.5, 40.0])),
    (Log(0.1, 10.0), np.array([0.11, 1.0, 9.0])),
    (Logit(), np.array([0.02, 0.5, 0.97])),
    (Logit(1.0, 3.0), np.array([1.1, 2.0, 2.9])),
    (Box(-2.0, 5.0), np.array([-2.0, 0.0, 5.0])),
    (Identity(scale=10.0), np.array([-20.0, 0.0, 3.0])),
]


@pytest.mark.parametrize(("space", "values"), SPACES)
def test_inverse_then_forward_gives_the_value_back(space: Space, values: np.ndarray) -> None:
    np.testing.assert_allclose(space.forward(space.inverse(values)), values, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("space", "values"), SPACES)
def test_no_latent_number_leaves_the_bounds(space: Space, values: np.ndarray) -> None:
    x = space.forward(np.array([-1e9, -50.0, -1.0, 0.0, 1.0, 50.0, 1e9]))
    assert np.all(x >= space.lower) and np.all(x <= space.upper) and np.all(np.isfinite(x))


@pytest.mark.parametrize(("space", "values"), SPACES)
def test_drjit_forward_has_the_value_and_the_derivative_of_numpy(space: Space, values: np.ndarray) -> None:
    import drjit as dr
    import mitsuba as mi

    u = space.inverse(values)
    leaf = mi.Float(u.astype(np.float32))
    dr.enable_grad(leaf)
    x = space.forward_jit(leaf)
    dr.backward(dr.sum(x))
    h = 1e-5
    derivative = (space._forward(u + h, np) - space._forward(u - h, np)) / (2 * h)
    np.testing.assert_allclose(x.numpy(), values, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dr.grad(leaf).numpy(), derivative, rtol=1e-3)


def test_a_start_on_a_logit_bound_moves_inside_where_there_is_a_gradient() -> None:
    x = Logit().forward(Logit().inverse(np.array([0.0, 1.0])))
    assert 0 < x[0] < 0.01 and 0.99 < x[1] < 1


def test_a_black_channel_of_a_light_starts_at_a_thousandth_of_the_largest() -> None:
    np.testing.assert_allclose(Log().forward(Log().inverse(np.array([5.0, 0.0]))), [5.0, 0.005])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Logit(0.0, math.inf), "two finite bounds"),
        (lambda: Box(1.0, 1.0), "lower < upper"),
        (lambda: Log(-1.0), "0 <= lower"),
        (lambda: Log().inverse(np.zeros(3)), "all zero"),
        (lambda: Logit().inverse(np.array([np.nan])), "not finite"),
        (lambda: make_space("identity", (2.0, 1.0), np.ones(1)), "lower < upper"),
    ],
)
def test_impossible_bounds_and_starts_are_refused(make, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        make()


@pytest.mark.parametrize("size", [0.0, 1e-6, 1e-3, 0.02, 1.0, 3.0])
def test_motion_in_drjit_is_the_motion_of_scipy_at_any_angle(size: float) -> None:
    import mitsuba as mi

    rng = np.random.default_rng(3)
    latent = np.concatenate([size * np.array([0.6, -0.64, 0.48]), rng.normal(size=3)])
    centre = np.array([1.0, 2.0, 3.0])
    rotation, translation = rigid.motion_jit([mi.Float(x) for x in latent], centre, 2.0)
    matrix = np.array(rigid.matrix4_jit(rotation, translation)).reshape(4, 4)
    np.testing.assert_allclose(matrix, rigid.motion_matrix(latent, centre, 2.0), atol=2e-6)


def test_motion_has_the_generators_as_its_derivative_at_rest() -> None:
    import drjit as dr
    import mitsuba as mi

    # d(R x)/dω_k at ω = 0 is e_k × x
    x = np.array([0.3, -1.2, 0.7])
    for k in range(3):
        latent = [mi.Float(0) for _ in range(6)]
        dr.enable_grad(latent[k])
        rotation, _ = rigid.motion_jit(latent, np.zeros(3), 1.0)
        moved = rotation @ mi.Vector3f(*x.tolist())
        dr.forward(latent[k])
        np.testing.assert_allclose(np.array(dr.grad(moved)).ravel(), np.cross(np.eye(3)[k], x), atol=1e-6)


def test_motion_latent_inverts_motion_matrix() -> None:
    latent = np.array([0.3, -0.2, 0.9, 0.1, 0.2, -0.4])
    centre = np.array([0.5, 0.0, -1.0])
    back = rigid.motion_latent(rigid.motion_matrix(latent, centre, 3.0), centre, 3.0)
    np.testing.assert_allclose(back, latent, atol=1e-12)


@pytest.mark.parametrize("wanted", [(0, 0, 1), (1, 0, 0), (0.3, -0.4, 0.2), (0, 0, -1)])
def test_direction_latent_turns_the_start_into_the_wanted_direction(wanted: tuple[float, ...]) -> None:
    start = np.array([0.0, 0.0, 1.0])
    latent = rigid.direction_latent(start, np.array(wanted, float))
    turned = rigid.rotation_matrix(rigid.tangents(start).T @ latent) @ start
    np.testing.assert_allclose(turned, np.array(wanted) / np.linalg.norm(wanted), atol=1e-9)
