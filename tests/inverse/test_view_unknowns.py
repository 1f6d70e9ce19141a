"""Exposure, white balance, pose and angle of single views: gradients, recovery, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from inverse.tiny_scenes import corner, rgb

from pathtracer.capture import View
from pathtracer.capture.cameras import Camera
from pathtracer.errors import UsageError
from pathtracer.inverse import Parameter, Problem, estimate
from pathtracer.inverse.objective import Objective
from pathtracer.scenes import Scene

SIZE = 12


def wall() -> Scene:
    """A wide wall with a smooth picture under light from all sides: nothing that a camera could see the edge of."""
    import mitsuba as mi

    y, x = np.mgrid[0:16, 0:16] / 15
    texels = 0.2 + 0.6 * np.stack([x, y, 0.5 * (1 + np.sin(5 * x + 3 * y))], axis=-1)
    texture = {"type": "bitmap", "data": mi.TensorXf(texels.astype(np.float32)), "raw": True}
    return Scene.from_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 2},
            "sky": {"type": "constant", "radiance": rgb(1, 0.9, 0.8)},
            "wall": {
                "type": "rectangle",
                "to_world": mi.ScalarTransform4f().scale(8),
                "bsdf": {"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": texture}},
            },
        }
    )


def camera(x: float = 0.0, turn: float = 0.0, focal: float = 14.0) -> Camera:
    """A camera 4 units in front of the wall that looks at it."""
    c, s = np.cos(turn), np.sin(turn)
    pose = np.eye(4)
    pose[:3, :3] = np.array([[-c, 0, s], [0, 1, 0], [-s, 0, -c]])
    pose[:3, 3] = (x, 0.1, 4)
    return Camera(SIZE, SIZE, focal, focal, SIZE / 2, SIZE / 2, pose)


def view(scene: Scene, name: str, seen: Camera, told: Camera | None = None, gain: Any = 1.0, **more: Any) -> View:
    """A picture taken by `seen`, said to be by `told`."""
    import mitsuba as mi

    film = {"type": "hdrfilm", "width": SIZE, "height": SIZE, "pixel_format": "rgb", "rfilter": {"type": "box"}}
    true = seen.sensor()
    pose = mi.ScalarTransform4f(true.pop("to_world"))
    sensor = mi.load_dict({**true, "to_world": pose, "film": {**film, "component_format": "float32"}})
    image = scene.render(spp=256, seed=17, sensor=sensor)
    return View(name, image * np.asarray(gain, np.float32), sensor=(told or seen).sensor(), **more)


def slopes(problem: Problem, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Gradient of the loss, and its differences with the same random numbers."""
    objective = Objective(problem, seed=4)
    start = objective.start
    gradient = objective.evaluate(start, 0).gradient
    differences = []
    for k in range(start.size):
        lower, upper = start.copy(), start.copy()
        lower[k], upper[k] = start[k] - step, start[k] + step
        differences.append((objective.evaluate(upper, 0).loss - objective.evaluate(lower, 0).loss) / (2 * step))
    return gradient, np.array(differences)


def test_the_gradient_of_exposure_and_white_balance_is_the_difference_quotient():
    scene = wall()
    views = [view(scene, "a", camera(), gain=1.4), view(scene, "b", camera(0.5), gain=(0.8, 1.1, 1.3))]
    problem = Problem(scene, views, ["views.a.exposure", "views.b.white_balance"], spp=8)
    gradient, differences = slopes(problem, 1e-3)
    np.testing.assert_allclose(gradient, differences, rtol=5e-3, atol=1e-7)
    assert (np.abs(differences) > 1e-4).all()


def test_the_gradient_of_a_pose_and_an_angle_is_the_difference_quotient():
    scene = wall()
    views = [view(scene, "a", camera(0.2, 0.05), camera()), view(scene, "b", camera(0, 0, 15.0), camera())]
    with pytest.warns(match="visibility-left-out"):
        problem = Problem(scene, views, ["views.a.to_world", "views.b.x_fov"], spp=64)
    gradient, differences = slopes(problem, 2e-3)
    np.testing.assert_allclose(gradient, differences, rtol=0.03, atol=2e-2 * np.abs(differences).max())


@pytest.mark.parametrize("solver", ["adam", "least-squares"])
def test_exposures_are_recovered_and_come_back_by_key_and_not_as_scene_values(solver):
    scene = wall()
    views = [view(scene, "a", camera()), view(scene, "b", camera(0.5), gain=1.7), view(scene, "c", camera(1), gain=0.6)]
    result = estimate(Problem(scene, views, "views.[bc].exposure", spp=16), solver, iterations=60, seed=1)
    assert result.info["views"]["views.b.exposure"] == pytest.approx(1.7, rel=0.02)
    assert result.info["views"]["views.c.exposure"] == pytest.approx(0.6, rel=0.02)
    assert result.values == {}
    picture = result.images["b"]
    assert picture["result"].mean() == pytest.approx(float(picture["target"].mean()), rel=0.03)


@pytest.mark.slow
def test_the_pose_of_one_view_is_recovered_and_the_others_stay():
    scene = wall()
    true = camera(0.3, 0.04)
    views = [view(scene, "a", camera()), view(scene, "b", true, camera())]
    with pytest.warns(match="visibility-left-out"):
        problem = Problem(scene, views, Parameter("views.b.to_world", lr=0.01), spp=64)
    result = estimate(problem, "adam", iterations=150, seed=2)
    found = np.array(result.info["views"]["views.b.to_world"])
    # turns and shifts look alike from this distance: the picture must be right, the pose nearly so
    np.testing.assert_allclose(found[:3, :3], true.to_world[:3, :3], atol=0.02)
    np.testing.assert_allclose(found[:3, 3], true.to_world[:3, 3], atol=0.08)


def test_cameras_that_differ_in_their_lenses_and_poses_share_one_recording():
    scene = wall()
    views = [view(scene, str(k), camera(0.2 * k, 0.02 * k, 13 + k)) for k in range(4)]
    texture = next(k for k in scene.params.keys() if k.endswith("reflectance.data"))  # noqa: SIM118
    problem = Problem(scene, views, texture, spp=4)
    objective = Objective(problem, batch=2)
    losses = [objective.evaluate(objective.start, k).loss for k in range(4)]
    assert objective.recordings == 1
    assert max(losses) < 2e-3, "each view is seen through its own lens"


@pytest.mark.parametrize(
    ("key", "match"),
    [
        ("views.c.exposure", r"no view has such a part; did you mean 'views.[ab].exposure'"),
        ("views.a.exposur", "did you mean 'views.a.exposure'"),
        ("views.own.to_world", "has no camera of its own; name the scene's sensor 0"),
        ("views.held.exposure", "held out"),
    ],
)
def test_parts_that_no_view_has_are_refused_with_the_nearest(key, match):
    scene = corner(SIZE)
    image = np.zeros((SIZE, SIZE, 3))
    views = [View("a", image, sensor=camera().sensor()), View("own", image), View("held", image, holdout=True)]
    with pytest.raises(UsageError, match=match):
        Problem(scene, views, key)


def test_exposure_and_white_balance_of_one_view_are_refused_together():
    scene = corner(SIZE)
    with pytest.raises(UsageError, match="only one of them can be unknown"):
        Problem(scene, [View("a", np.zeros((SIZE, SIZE, 3)))], ["views.a.exposure", "views.a.white_balance"])


@pytest.mark.filterwarnings("ignore:.*visibility-left-out")
def test_a_camera_of_the_scene_that_no_view_looks_through_is_refused():
    scene = corner(SIZE)
    image = np.ones((SIZE, SIZE, 3))
    own = View("a", image, sensor=camera().sensor())
    with pytest.raises(UsageError, match=r'1 of 1 carry cameras of their own; .*"views.a.to_world"'):
        Problem(scene, [own], "sensor.to_world")
    with pytest.raises(UsageError, match="no fitted view is taken by this camera"):
        Problem(scene, [own, View("b", image, holdout=True)], "sensor.to_world")
    Problem(scene, [own, View("b", image)], "sensor.to_world")
