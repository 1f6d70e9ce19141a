"""Problems: what is resolved, what is refused, and what a step computes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from tiny_scenes import corner, lamps, reference, rgb

from integrators import GradientWarning
from pathtracer.capture import View
from pathtracer.errors import InputError, UsageError
from pathtracer.inverse import Parameter, Problem
from pathtracer.inverse.arrays import as_numpy
from pathtracer.inverse.objective import Evaluation, Objective
from pathtracer.verify.gradients import gradient_image
from pathtracer.verify.motion import Motion

FLOOR, WALL, LIGHT = "floor-mat.reflectance.value", "wall-mat.reflectance.value", "light.emitter.radiance.value"


@pytest.fixture(scope="module")
def scene():
    return corner()


@pytest.fixture(scope="module")
def view(scene) -> View:
    return View("front", reference(scene))


def test_a_glob_becomes_one_unknown_per_key_in_its_natural_space(scene, view: View) -> None:
    problem = Problem(scene, view, ["*-mat.reflectance.value", LIGHT])
    assert [(u.name, u.space) for u in problem.unknowns] == [(FLOOR, "logit"), (WALL, "logit"), (LIGHT, "log")]


def test_start_values_are_written_to_the_scene_and_split_back(scene, view: View) -> None:
    problem = Problem(scene, view, [Parameter(FLOOR, init=[0.1, 0.2, 0.3]), Parameter(LIGHT, init=2.0)])
    problem.set_latent(problem.start, active=frozenset())
    np.testing.assert_allclose(as_numpy(scene.params[FLOOR]), [0.1, 0.2, 0.3], rtol=1e-5)
    np.testing.assert_allclose(as_numpy(scene.params[LIGHT]), [2, 2, 2], rtol=1e-5)


def test_a_group_shares_one_value(scene, view: View) -> None:
    problem = Problem(scene, view, [Parameter("*-mat.reflectance.value", group="mats", init=0.3)])
    assert len(problem.unknowns) == 1 and problem.start.size == 3
    assert set(problem.values(problem.start)) == {FLOOR, WALL}


@pytest.mark.parametrize(
    ("parameters", "options", "match"),
    [
        (["floor-mat.reflectanse.value"], {}, f"did you mean '{FLOOR}'"),
        ([], {}, "nothing to estimate"),
        ([FLOOR, FLOOR], {}, "named twice"),
        (["light.emitter.sampling_weight"], {}, "cannot be differentiated"),
        ([Parameter(FLOOR, init=[1, 2])], {}, r"init has the shape \(2,\), the parameter \(3,\)"),
        ([Parameter(FLOOR, space="pose")], {}, "is for `to_world`"),
        ([Parameter(LIGHT, init=0.0)], {}, "all zero or negative"),
        ([FLOOR], {"estimator": "path_repla"}, "did you mean 'path_replay'"),
        ([FLOOR], {"loss": "l3"}, "unknown loss"),
        ([FLOOR], {"view_weights": [1.0, 2.0]}, "1 view weights"),
        ([FLOOR], {"spp": 0}, "at least 1"),
    ],
)
def test_wrong_requests_are_usage_errors(scene, view: View, parameters: list, options: dict, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Problem(scene, view, parameters, **options)


def test_a_picture_of_another_size_than_the_film_names_both_sides(scene) -> None:
    with pytest.raises(InputError, match="20 x 10 pixels, the film 24 x 24"):
        Problem(scene, View("small", np.ones((10, 20, 3))), FLOOR)


def test_a_scene_that_does_not_shine_is_refused() -> None:
    dark = corner(light=(0.0, 0.0, 0.0))
    view = View("front", np.ones((24, 24, 3)))
    with pytest.raises(InputError, match="no emitter shines: light is zero"):
        Problem(dark, view, FLOOR)


def test_a_visibility_derivative_that_the_estimator_lacks_is_a_warning_and_strictly_an_error(scene, view: View) -> None:
    with pytest.warns(GradientWarning, match="path_replay leaves out"):
        Problem(scene, view, Parameter("light.to_world", space="pose"))
    with pytest.raises(UsageError, match="path_replay leaves out"):
        Problem(scene, view, Parameter("light.to_world", space="pose"), strict=True)


def test_parameters_that_lack_the_same_part_share_a_warning() -> None:
    parameters = [Parameter(f"sun{i}.to_world", space="direction") for i in range(3)]
    with pytest.warns(GradientWarning) as heard:
        Problem(lamps(), View("v", np.ones((16, 16, 3))), parameters)
    (said,) = (str(w.message) for w in heard if w.message.code == "visibility-left-out")
    assert "sun0.to_world, sun1.to_world and 1 more: path_replay leaves out" in said


def loss_at(problem: Problem, latent: np.ndarray, seed: int, spp: int = 512) -> float:
    """The loss from two independent renders; one seed is one set of random numbers whatever the latent numbers."""
    total = 0.0
    for number, view in enumerate(problem.fitted):
        a, b = (problem.render(view, latent, spp, 1000 * seed + 2 * number + k) for k in (0, 1))
        t, w = view.view.image, np.asarray(view.view.weight)[..., None]
        values = problem.loss.value(a, b, t, np) * problem.loss.weight(t)
        total += view.weight * float((values * w).sum() / (3 * w.sum()))
    return total


def difference(problem: Problem, k: int, step: float = 0.02, repeats: int = 6) -> tuple[float, float]:
    """Central difference of the loss by latent number `k` and its standard error, from repeated seeds."""
    h = np.zeros_like(problem.start)
    h[k] = step
    found = [
        (loss_at(problem, problem.start + h, r) - loss_at(problem, problem.start - h, r)) / (2 * step)
        for r in range(repeats)
    ]
    return float(np.mean(found)), float(np.std(found, ddof=1) / np.sqrt(repeats))


def mean_gradient(problem: Problem, latent: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean gradient of many steps and its standard error."""
    objective = Objective(problem, seed=8)
    gradients = np.array([objective.evaluate(latent, k).gradient for k in range(steps)])
    return gradients.mean(axis=0), gradients.std(axis=0, ddof=1) / np.sqrt(steps)


def test_gradient_of_a_step_is_the_derivative_of_the_loss() -> None:
    scene = corner(16)
    target = reference(scene)
    half = np.zeros((16, 16))
    half[:, :9] = 1
    views = [View("masked", target, mask=half, exposure=1.3), View("whole", 0.8 * target)]
    parameters = [Parameter(FLOOR, init=0.4), Parameter(LIGHT, init=3.0)]
    problem = Problem(scene, views, parameters, spp=64, view_weights=[1, 3])
    mean, error = mean_gradient(problem, problem.start, steps=24)
    for k in range(problem.start.size):
        numeric, spread = difference(problem, k)
        # 4.5 standard errors of both sides (t with 5 and 23 degrees of freedom), 1 % for the step of the difference
        assert abs(numeric - mean[k]) < 4.5 * np.hypot(error[k], spread) + 0.01 * abs(numeric)


@pytest.mark.parametrize(("spp", "least"), [(64, 0.8), (16, 0.6)])
def test_the_error_bar_of_a_loss_is_the_spread_of_losses(spp: int, least: float) -> None:
    """From 200 values, good to 5 %. With few samples noise outweighs the residual, with tails lighter than normal."""
    scene = corner()
    problem = Problem(scene, View("front", reference(scene)), Parameter(FLOOR, init=0.4), spp=spp)
    objective = Objective(problem, seed=2)
    steps = [objective.evaluate(problem.start, k) for k in range(200)]
    spread = np.std([s.loss for s in steps], ddof=1)
    claimed = np.sqrt(np.mean([s.loss_error**2 for s in steps]))
    assert least < claimed / spread < 1.25


def one_view(objective: Objective, number: int, step: int) -> tuple[Any, ...]:
    problem = objective.problem
    return objective._one(problem.start, problem.fitted[number], number, step, None, Evaluation(0, 0, problem.start))


@pytest.mark.parametrize("lit", [["sun0"], ["sun1", "sun2"], ["lamp"], ["lamp", "sun2"]])
def test_a_view_shows_exactly_the_emitters_that_are_lit_in_it(lit: list[str]) -> None:
    scene = lamps()
    parts = []
    for name in lit:
        alone = lamps()
        for other in ("sun0", "sun1", "sun2", "lamp"):
            if other != name:
                strength = "lamp.emitter.radiance.value" if other == "lamp" else f"{other}.irradiance.value"
                alone.params[strength] = type(alone.params[strength])(0.0)
        alone.params.update()
        parts.append(reference(alone, spp=512))
    problem = Problem(scene, View("some", np.sum(parts, axis=0), lit=lit), "ball-mat.reflectance.value")
    image = problem.render(problem.fitted[0], problem.start, 512, 77)
    np.testing.assert_allclose(image.mean(axis=(0, 1)), np.sum(parts, axis=0).mean(axis=(0, 1)), rtol=0.02)


def test_views_under_different_lights_replay_one_recording_and_match_unrecorded_steps(lone_scene) -> None:
    scene = lamps()
    image = reference(scene, spp=64)
    lit: list[list[str] | None] = [["sun0"], ["sun1", "lamp"], ["sun2"], ["lamp"], None]
    views = [View(f"v{i}", image, lit=names, exposure=1 + 0.1 * i) for i, names in enumerate(lit)]
    parameters = ["ball-mat.reflectance.value", "sun1.irradiance.value", "lamp.emitter.radiance.value"]
    problem = Problem(scene, views, parameters, spp=16)
    recorded, plain = Objective(problem, seed=3), Objective(problem, seed=3, freeze=False)
    for step in range(2):
        for number in range(len(views)):
            a, b = one_view(recorded, number, step), one_view(plain, number, step)
            np.testing.assert_allclose(a[0], b[0], rtol=1e-4)
            np.testing.assert_allclose(a[2], b[2], rtol=1e-3, atol=1e-6 * np.abs(b[2]).max())
    assert recorded.recordings == 1


def test_lights_that_are_off_get_no_gradient_and_come_back() -> None:
    scene = lamps()
    before = as_numpy(scene.params["sun0.irradiance.value"])
    views = [View("one", reference(scene, spp=16), lit=["sun1"])]
    problem = Problem(scene, views, ["sun0.irradiance.value", "sun1.irradiance.value"], spp=16)
    gradient = Objective(problem).evaluate(problem.start, 0).gradient
    assert np.all(gradient[:3] == 0) and np.all(gradient[3:] != 0)
    problem.settle(problem.start)
    np.testing.assert_allclose(as_numpy(scene.params["sun0.irradiance.value"]), before, rtol=1e-5)
    assert float(scene.params["sun2.sampling_weight"]) == 1.0


def test_direction_gradient_is_the_derivative_of_the_loss() -> None:
    scene = lamps(area=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradientWarning)  # a lone ball throws no shadow into the picture
        problem = Problem(
            scene,
            View("one", reference(scene, spp=256), lit=["sun1"]),
            Parameter("sun1.to_world", space="direction", init=[-1.0, 0.5, -1.2]),
            spp=64,
        )
    mean, error = mean_gradient(problem, problem.start, steps=12)
    for k in range(2):
        numeric, spread = difference(problem, k)
        assert abs(numeric - mean[k]) < 4.5 * np.hypot(error[k], spread) + 0.01 * abs(numeric)


def test_cameras_of_one_shape_share_one_recording(scene, lone_scene) -> None:
    import mitsuba as mi

    def look(x: float) -> dict[str, Any]:
        pose = mi.ScalarTransform4f().look_at(origin=[x, 0, 4], target=[0, 0, 0], up=[0, 1, 0])
        return {"type": "perspective", "fov": 40.0, "to_world": np.array(pose.matrix).tolist()}

    views = [View(f"v{x}", np.ones((24, 24, 3)), sensor=look(x)) for x in (-1.0, 0.0, 1.0)]
    problem = Problem(scene, views, FLOOR, spp=4)
    objective = Objective(problem)
    images = []
    for step in range(2):
        objective.evaluate(problem.start, step)
        images = [np.array(objective.images[v.name]) for v in views]
    assert objective.recordings == 1
    assert np.abs(images[0] - images[2]).mean() > 0.02
    same = scene.render(spp=64, seed=5)
    assert np.abs(images[1].mean(axis=(0, 1)) - same.mean(axis=(0, 1))).max() < 0.05


@pytest.mark.parametrize(
    "camera",
    [{"type": "orthographic"}, {"type": "thinlens", "fov": 40.0, "aperture_radius": 0.05, "focus_distance": 4.0}],
    ids=lambda c: c["type"],
)
def test_cameras_whose_fields_recordings_do_not_see_are_recorded_all_the_same(scene, lone_scene, camera) -> None:
    import mitsuba as mi

    def views() -> list[View]:
        poses = [mi.ScalarTransform4f().look_at(origin=[x, 0, 4], target=[0, 0, 0], up=[0, 1, 0]) for x in (-1.0, 1.0)]
        return [
            View(f"v{k}", np.ones((24, 24, 3)), sensor={**camera, "to_world": np.array(p.matrix).tolist()})
            for k, p in enumerate(poses)
        ]

    recorded, traced = (Objective(Problem(scene, views(), FLOOR, spp=4), seed=1, freeze=f) for f in (True, False))
    for step in range(3):
        a, b = (o.evaluate(o.start, step) for o in (recorded, traced))
        assert a.per_view == pytest.approx(b.per_view, rel=1e-4)
        np.testing.assert_allclose(a.gradient, b.gradient, rtol=1e-3)
    assert recorded.recordings == 1


def test_a_view_in_which_nothing_shines_is_not_taken_for_one_in_which_everything_does(scene) -> None:
    problem = Problem(scene, View("v", np.ones((24, 24, 3))), FLOOR)
    problem.lights._switching = True
    assert problem.render(problem.fitted[0], problem.start, 4, 1).max() > 0
    problem.set_latent(problem.start, frozenset(), active=frozenset())
    assert scene.render(4, 1).max() == 0
    problem.settle(problem.start)
    assert scene.render(4, 1).max() > 0


def test_a_mirrored_camera_is_refused_with_a_hint(scene) -> None:
    view = View("bad", np.ones((24, 24, 3)), sensor={"to_world": np.diag([1.0, 1, -1, 1]).tolist()})
    with pytest.raises(InputError, match="mirrors"):
        Problem(scene, view, FLOOR)


def test_mini_batches_visit_every_view_once_a_round_in_a_reproducible_order(scene) -> None:
    views = [View(f"v{i}", np.ones((24, 24, 3))) for i in range(5)]
    problem = Problem(scene, views, FLOOR)
    objective = Objective(problem, seed=1, batch=2)
    for first in (0, 3, 6):
        assert sorted(i for step in range(first, first + 3) for i in objective.views_of(step)) == [0, 1, 2, 3, 4]
    assert [objective.views_of(s) for s in range(6)] == [Objective(problem, 1, 2).views_of(s) for s in range(6)]


def test_environment_map_is_unknown_without_its_pad_columns() -> None:
    import mitsuba as mi

    from pathtracer.scenes import Scene

    texels = np.random.default_rng(0).uniform(0.5, 1.5, (4, 8, 3)).astype(np.float32)
    description = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 2},
        "sensor": {"type": "perspective", "film": {"type": "hdrfilm", "width": 8, "height": 8, "pixel_format": "rgb"}},
        "ball": {"type": "sphere", "bsdf": {"type": "diffuse", "reflectance": rgb(0.5, 0.5, 0.5)}},
        "sky": {"type": "envmap", "bitmap": mi.Bitmap(texels)},
    }
    scene = Scene.from_dict(description)
    problem = Problem(scene, View("v", np.ones((8, 8, 3))), "sky.data", spp=4)
    assert problem.start.size == texels.size
    written = problem.values(problem.start)["sky.data"]
    np.testing.assert_array_equal(written[:, 0], written[:, -2])
    np.testing.assert_array_equal(written[:, -1], written[:, 1])
    np.testing.assert_allclose(written[:, 1:-1], texels, rtol=2e-3)


def test_a_problem_that_stays_alive_does_not_disturb_the_forward_mode_of_other_scenes() -> None:
    """Dr.Jit's virtual calls look at every object of the process, so attached parameters of this scene would too."""
    scene = corner(8)
    objective = Objective(Problem(scene, View("front", reference(scene)), [FLOOR, LIGHT], spp=4), seed=1)
    assert np.any(objective.evaluate(objective.start, 0).gradient)
    other = corner(8)
    image = gradient_image(other, Motion.parse(WALL), "path_replay", spp=4)
    assert np.any(image.passes.mean)
    assert np.any(objective.evaluate(objective.start, 1).gradient)
