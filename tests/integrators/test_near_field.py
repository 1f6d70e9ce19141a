"""Light from close by: left out of derivatives by moving geometry, and of nothing else."""

from __future__ import annotations

import drjit as dr
import mitsuba as mi
import numpy as np
import pytest

from pathtracer.verify import Motion
from pathtracer.verify.estimate import Gradient
from pathtracer.verify.subject import load_estimator, subject_of

from ..helpers.derivatives import load_subject


def images(case: str, motion: str, estimator: str, spp: int, count: int) -> np.ndarray:
    """Derivative images of several seeds."""
    scene, own = load_subject(case)
    subject = subject_of(scene)
    bound = Motion.parse(motion or own).bind(subject.scene, subject.params)
    gradient = Gradient(bound, subject.sensor, load_estimator(subject, estimator)[1], 4, 5)
    return np.stack([gradient.gradient_image(spp, seed) for seed in range(count)])


def sensor(kind: str, **film: int) -> mi.Sensor:
    film = {"type": "hdrfilm", "width": 50, "height": 40, **film}
    return mi.load_dict({"type": kind, "film": film} | ({"fov": 60.0} if kind != "orthographic" else {}))


@pytest.mark.parametrize("crop", [{}, {"crop_width": 10, "crop_height": 8, "crop_offset_x": 20, "crop_offset_y": 16}])
@pytest.mark.parametrize("kind", ["perspective", "orthographic"])
def test_weights_are_measured_in_pixels(kind: str, crop: dict[str, int]) -> None:
    from integrators.near_field import NearField

    distance = 7.0
    width = 2 / 50 if kind == "orthographic" else 2 * np.tan(np.radians(30)) / 50 * distance
    near = NearField(sensor(kind, **crop), 3.0)
    length = np.array([0, 0.75, 1.5, 3, 30]) * width
    p = mi.Point3f(0, 0, distance)
    found = np.array(near.weight(p, p + mi.Vector3f(mi.Float(length), 0, 0)))
    np.testing.assert_allclose(found, [0, 5 / 32, 0.5, 1, 1], atol=0.01)


def test_weights_are_attached_to_the_length() -> None:
    from integrators.near_field import NearField

    near = NearField(sensor("perspective"), 3.0)
    p, length, h = mi.Point3f(0, 0, 7), 0.2, 1e-3
    at = lambda x: near.weight(p, p + mi.Vector3f(x, 0, 0))
    x = mi.Float(length)
    dr.enable_grad(x)
    y = at(x)
    dr.forward(x)
    slope = float(np.array(dr.grad(y))[0])
    expected = (np.array(at(mi.Float(length + h))) - np.array(at(mi.Float(length - h)))) / (2 * h)
    assert slope == pytest.approx(float(expected[0]), rel=0.02)


@pytest.mark.parametrize("motion", ["wall.vertex_positions translate:0.3,0,1", "camera.to_world translate:y"])
def test_noise_along_a_fold_is_bounded(motion: str) -> None:
    """Measured: 2800 and 6300 times (benchmarks/near_field.py)."""
    with_it, without = (images("fold-camera", motion, f"path_replay:near={near}", 64, 6) for near in (0.5, 0))
    assert without.var(0).sum() > 50 * with_it.var(0).sum()


@pytest.mark.parametrize(
    ("case", "motion"),
    [
        ("indirect-room-grows", "room.bsdf.reflectance.value"),
        ("shadow-point-light", "lamp.position translate:x"),  # what a light's place changes has no 1/r
    ],
)
def test_materials_and_lights_do_not_know_it(case: str, motion: str) -> None:
    a, b = (images(case, motion, f"edge_sampling:near={near},max_depth=4", 16, 1) for near in (0, 4))
    assert np.abs(a).max() > 0
    if "llvm" in mi.variant():  # the order of sums on a GPU is not fixed
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(a).max())


def test_the_image_does_not_know_it() -> None:
    scene, _ = load_subject("fold-camera")
    subject = subject_of(scene)
    render = lambda near: np.array(
        load_estimator(subject, f"edge_sampling:near={near}")[1].render(subject.scene, subject.sensor, seed=1, spp=4)
    )
    np.testing.assert_array_equal(render(0), render(4))


@pytest.mark.parametrize("near", [-1.0, float("nan"), float("inf")])
def test_a_radius_that_is_none_is_refused(near: float) -> None:
    with pytest.raises(Exception, match="near is"):
        mi.load_dict({"type": "path_replay", "near": near})


@pytest.mark.filterwarnings("ignore::integrators.GradientWarning")  # shadows of the sheet are not of interest
@pytest.mark.parametrize(
    "sheet",
    [
        {"type": "thindielectric"},
        {"type": "mask", "opacity": 0.2, "nested": {"type": "diffuse", "reflectance": {"type": "rgb", "value": 0.0}}},
    ],
    ids=["pane", "mask"],
)
def test_what_is_seen_through_a_sheet_close_by_counts_in_full(sheet: dict) -> None:
    """A twentieth of a pixel behind it; the sheet itself reflects nothing of note."""
    up = mi.ScalarTransform4f().translate([0, 0, 0.004])
    scene = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 6},
        "camera": {
            "type": "perspective",
            "fov": 40,
            "to_world": mi.ScalarTransform4f().look_at([0, 0, 4], [0, 0, 0], [0, 1, 0]),
            "film": {"type": "hdrfilm", "width": 32, "height": 32, "rfilter": {"type": "box"}, "pixel_format": "rgb"},
        },
        "object": {"type": "rectangle", "bsdf": {"type": "diffuse", "reflectance": {"type": "rgb", "value": 0.5}}},
        "sheet": {"type": "rectangle", "to_world": up, "bsdf": sheet},
        "sky": {"type": "constant"},
    }
    subject = subject_of(scene)
    bound = Motion.parse("object.to_world translate:x + sheet.to_world translate:x").bind(subject.scene, subject.params)

    def right_half(near: float) -> float:
        estimator = load_estimator(subject, f"edge_sampling:near={near},shadow=false,indirect=false")[1]
        return float(Gradient(bound, subject.sensor, estimator, 4, 5).gradient_image(64, 1)[:, 16:].sum())

    assert right_half(0.5) == pytest.approx(right_half(0), rel=0.02)


def test_sensors_whose_pixel_has_no_width_leave_nothing_out() -> None:
    scene = mi.load_dict(
        {
            "type": "scene",
            "sensor": {
                "type": "radiancemeter",
                "origin": [0, 0, 3],
                "direction": [0.1, 0, -1],
                "film": {"type": "hdrfilm", "width": 1, "height": 1, "rfilter": {"type": "box"}},
            },
            "floor": {"type": "rectangle"},
            "lamp": {
                "type": "rectangle",
                "to_world": mi.ScalarTransform4f().translate([1.5, 0, 1]).rotate([0, 1, 0], -90),
                "emitter": {"type": "area", "radiance": 2.0},
            },
        },
        optimize=False,
    )
    params = mi.traverse(scene)
    bound = Motion.parse("lamp.to_world translate:z").bind(scene, params)

    def derivative(near: float) -> float:
        integrator = mi.load_dict({"type": "path_replay", "max_depth": 3, "near": near})
        with bound.attached(forward=True):
            found = float(np.mean(np.array(integrator.render_forward(scene, params, seed=1, spp=4096))))
        assert int(np.array(integrator.dropped).item()) == 0
        return found

    assert derivative(0.5) == pytest.approx(derivative(0), rel=1e-3)
    assert derivative(0) != 0
