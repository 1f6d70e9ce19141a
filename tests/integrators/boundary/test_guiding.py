"""Guiding by earlier samples: unbiased whatever the memory holds, worth its cost, and carried over as things move."""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
import pytest

from integrators.boundary.distribution import Discrete
from integrators.boundary.guiding import Cells, Guide, Guiding
from integrators.boundary.stream import Stream

TERMS = ("interior", "primary", "shadow", "indirect")


class Shadow:
    """The shadow term of a catalogue scene whose blocker moves."""

    def __init__(self, repository: Any, light: str) -> None:
        self.scene = mi.load_file(str(repository / "scenes" / "catalogue" / f"shadow-{light}.xml"), optimize=False)
        self.params = mi.traverse(self.scene)
        self.base = mi.Float(self.params["blocker.vertex_positions"])
        dr.eval(self.base)

    def images(self, guiding: bool, count: int, moved: float = 0.0, **more: Any) -> np.ndarray:
        """Derivative images of `count` calls in a row, while the blocker moves on by `moved` in all."""
        only = {term: term == "shadow" for term in TERMS}
        integrator = mi.load_dict({"type": "edge_sampling", "max_depth": 2, **only, "guiding": guiding, **more})
        return np.array([self.image(integrator, k, moved * k / count) for k in range(count)])

    def image(self, integrator: Any, seed: int, offset: float) -> np.ndarray:
        θ = mi.Float(0)
        dr.enable_grad(θ)
        points = dr.unravel(mi.Point3f, self.base) + mi.Vector3f(offset + θ, 0, 0)
        self.params["blocker.vertex_positions"] = dr.ravel(mi.Point3f(points))
        self.params.update()
        dr.set_grad(θ, 1.0)
        dr.forward(θ, dr.ADFlag.ClearEdges)
        image = integrator.render_forward(self.scene, self.params, 0, mi.UInt32(seed), 16)
        return np.array(image)[..., :3].astype(np.float64)


@pytest.mark.parametrize("light", ["point", "area"])
def test_guiding_changes_the_noise_and_not_the_expectation(light: str, repository: Any) -> None:
    """Also while things move, when the memory is of another scene."""
    shadow = Shadow(repository, light)
    count = 24
    plain, guided = (shadow.images(on, count, moved=0.3 if light == "point" else 0.0) for on in (False, True))
    # Pairs see the same scene; a bias would show in the mean of their differences
    difference = guided - plain
    error = difference.var(axis=0, ddof=1).sum() / count
    assert (difference.mean(axis=0) ** 2).sum() < 1.6 * error, "the expected ratio is 1"
    if light == "area":
        assert guided[1:].var(axis=0).sum() < 0.4 * plain[1:].var(axis=0).sum(), "a fifth was measured"


def test_samples_of_any_memory_integrate_to_the_same_number() -> None:
    """∫ of a known function over the cube, with memories of nothing, of the truth and of something else."""
    where = Discrete(mi.Float(1, 2, 0, 5))
    cells = Cells((16, 4, 4))
    for name, mean in {
        "blank": dr.zeros(mi.Float, 256),
        "one cell": dr.select(dr.arange(mi.UInt32, 256) == 7, mi.Float(1), 0),
        "varied": mi.Float(dr.arange(mi.UInt32, 256) % 13),
    }.items():
        memory = {"term": Guide(mean, mi.Float64(where.cumulative))}
        choice = Guiding(memory, "term", cells, where).choice()
        n = cells.draw(1 << 16, Stream(3, dr.arange(mi.UInt32, 1 << 16)), choice)
        value = mi.Float(n.place) ** 2 * n.other.x + n.other.y
        found = np.array(dr.mean(value / n.density))[0]
        assert found == pytest.approx(1 / 6 + 1 / 2, abs=0.01), name


def test_the_memory_follows_its_element_when_shares_change() -> None:
    """What was found on the third of four elements is still there when the element has moved along the number."""
    cells = Cells((64, 1, 1))
    before = Discrete(mi.Float(1, 1, 1, 1))
    mean = dr.select((dr.arange(mi.UInt32, 64) // 16) == 2, mi.Float(8), 0)
    memory = {"term": Guide(mean, mi.Float64(before.cumulative))}
    after = Discrete(mi.Float(4, 0, 2, 2))  # the third element: from [1/2, 3/4) to the same place, from 1/4 to 1/4
    moved = np.array(Guiding(memory, "term", cells, after).mean)
    np.testing.assert_allclose(moved, np.where(np.arange(64) // 16 == 2, 8, 0), atol=1e-4)
    wider = np.array(Guiding(memory, "term", cells, Discrete(mi.Float(1, 0, 2, 1))).mean)  # to [1/4, 3/4), half as much
    np.testing.assert_allclose(wider, np.where((np.arange(64) >= 16) & (np.arange(64) < 48), 4, 0), atol=1e-4)
