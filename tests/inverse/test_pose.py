"""Poses and positions as unknowns: how they start, how far off they are, and that a step with them is recorded once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_scenes import camera, rgb

from pathtracer.capture import View
from pathtracer.errors import UsageError
from pathtracer.inverse import Estimation, Parameter, Problem
from pathtracer.inverse.objective import Objective
from pathtracer.inverse.result import Recovered
from pathtracer.scenes import Scene

BLOCK = "block.vertex_positions"


def shadow_scene(size: int = 16) -> Scene:
    """A block and a lid over a wall, a point light and a lamp: every kind of boundary table takes part."""
    import mitsuba as mi

    t = mi.ScalarTransform4f
    return Scene.from_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 3},
            "camera": camera(size),
            "wall": {"type": "rectangle", "to_world": t().scale(2)},
            "block": {"type": "cube", "to_world": t().translate([0.3, 0, 0.6]).scale(0.25)},
            "lid": {"type": "disk", "to_world": t().translate([-0.5, 0.2, 0.5]).scale(0.3)},
            "point": {"type": "point", "position": [0.8, 1.0, 2.5], "intensity": rgb(6, 6, 6)},
            "lamp": {
                "type": "rectangle",
                "to_world": t().translate([-1, 0, 2.5]).rotate([0, 1, 0], 160).scale(0.3),
                "emitter": {"type": "area", "radiance": rgb(8, 6, 4)},
            },
        }
    )


def pose_problem(estimator: Any = "edge_sampling", **options: Any) -> Problem:
    scene = shadow_scene()
    target = View("front", scene.render(spp=16, seed=7))
    unknown = Parameter(BLOCK, space="pose", init=[2.0, 0.0, 5.0, 0.1, 0.0, -0.1], truth="scene")
    return Problem(scene, target, unknown, estimator=estimator, spp=4, **options)


@pytest.mark.filterwarnings("ignore::integrators.GradientWarning")  # hard shadows are left out without hybrid
@pytest.mark.parametrize("estimator", ["edge_sampling", "warped_area", "warped_area hybrid"])
def test_a_step_is_recorded_once_and_replayed_with_the_numbers_of_a_traced_one(estimator: str) -> None:
    name, *hybrid = estimator.split()
    properties = {"type": name} | ({"hybrid": True} if hybrid else {})
    latents = [pose_problem(properties).start * scale for scale in (1.0, 0.9, 0.5)]
    found = []
    for freeze in (False, True):
        objective = Objective(pose_problem(properties), seed=3, freeze=freeze)
        found.append([objective.evaluate(latent, step) for step, latent in enumerate(latents)])
        assert objective.recordings == int(freeze)
    for traced, replayed in zip(*found, strict=True):
        assert np.linalg.norm(traced.gradient) > 0
        np.testing.assert_allclose(replayed.gradient, traced.gradient, rtol=1e-3, atol=1e-5)


def test_six_numbers_turn_and_move_from_where_the_scene_has_the_object() -> None:
    unknown = pose_problem().unknowns[0]
    np.testing.assert_allclose(unknown.display(unknown.start), [2, 0, 5, 0.1, 0, -0.1], atol=1e-12)
    moved = unknown.values(unknown.start)[BLOCK].reshape(-1, 3)
    np.testing.assert_allclose(moved.mean(axis=0), [0.4, 0.0, 0.5], atol=1e-6)
    np.testing.assert_allclose(unknown.truth, 0, atol=1e-12)


def test_a_pose_of_other_numbers_is_refused_with_what_was_expected() -> None:
    with pytest.raises(UsageError, match="6 numbers"):
        Problem(
            shadow_scene(),
            View("front", np.zeros((16, 16, 3), np.float32)),
            Parameter(BLOCK, space="pose", init=[0, 0, 1]),
            estimator="edge_sampling",
        )


def test_the_error_of_a_pose_is_the_angle_left_and_a_distance() -> None:
    truth, start = np.zeros(6), np.array([0, 0, 90, 3, 4, 0.0])
    row = Recovered("x", ("x",), "pose", start, np.array([0, 0.3, 0.4, 0.02, 0, 0]), truth, measure="pose")
    assert row.errors() == pytest.approx({"degrees": 0.5, "distance": 0.02})
    assert row.errors(start) == pytest.approx({"degrees": 90, "distance": 5})
    assert row.error_text() == "0.5 deg, 0.02 units"


def test_the_error_of_a_position_is_a_distance() -> None:
    row = Recovered("p", ("p",), "identity", np.ones(3), np.array([1.0, 0, 2]), np.zeros(3), measure="position")
    assert row.errors() == pytest.approx({"distance": np.sqrt(5)}) and row.error_text() == "2.2 units"
    lamp = Parameter("point.position", init=[1.0, 1.0, 2.0])
    black = View("front", np.zeros((16, 16, 3), np.float32))
    assert Problem(shadow_scene(), black, lamp, estimator="edge_sampling").unknowns[0].measure == "position"


def test_samples_are_split_by_variance_and_cost_once_and_the_split_is_recorded() -> None:
    objective = Objective(pose_problem(), seed=3)
    objective.problem.integrator = _with_split(objective.problem)
    for step in range(3):
        evaluation = objective.evaluate(objective.start, step)
    assert evaluation.finite and objective.recordings == 1
    terms = {"interior", "primary", "horizon", "crossing", "specular", "shadow", "sky", "sky shadow"}
    terms |= {"indirect shadow", "indirect", "receivers"}
    assert set(objective.shares) == terms
    assert min(objective.shares.values()) < 1 < max(objective.shares.values())


@pytest.mark.skipif("'llvm' not in __import__('mitsuba').variant()", reason="the order of sums on a GPU is not fixed")
def test_what_guiding_remembers_and_the_split_of_samples_outlive_an_interruption(one_thread) -> None:
    def begin(state: dict[str, np.ndarray] | None) -> Estimation:
        problem = pose_problem()
        problem.integrator = _with_split(problem)
        return Estimation(problem, "adam", seed=3, state=state, iterations=20)

    first = begin(None)
    for _ in range(3):
        first.step()
    state = {k: np.array(v) for k, v in first.checkpoint().items()}
    second = begin(state)
    for _ in range(3):
        first.step()
        second.step()
    np.testing.assert_array_equal(second.latent, first.latent)
    assert second.objective.shares == first.objective.shares and any(k.startswith("estimator.mean") for k in state)


def _with_split(problem: Problem) -> Any:
    import mitsuba as mi

    return mi.load_dict({**problem.scene.default_integrator(), "type": "edge_sampling", "split": "auto"})
