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


def sensor(kind: str) -> mi.Sensor:
    film = {"type": "hdrfilm", "width": 50, "height": 40}
    return mi.load_dict({"type": kind, "film": film} | ({"fov": 60.0} if kind != "orthographic" else {}))


@pytest.mark.parametrize("kind", ["perspective", "orthographic"])
def test_weights_are_measured_in_pixels(kind: str) -> None:
    from integrators.near_field import NearField

    distance = 7.0
    width = 2 / 50 if kind == "orthographic" else 2 * np.tan(np.radians(30)) / 50 * distance
    near = NearField(sensor(kind), 3.0)
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
    """Measured: 2800 and 6400 times (benchmarks/near_field.py)."""
    with_it, without = (images("fold-camera", motion, f"path_replay:near={near}", 64, 6) for near in (0.5, 0))
    assert without.var(0).sum() > 50 * with_it.var(0).sum()


def test_materials_and_lights_do_not_know_it() -> None:
    a, b = (
        images("indirect-room-grows", "room.bsdf.reflectance.value", f"edge_sampling:near={near}", 16, 1)
        for near in (0, 4)
    )
    assert np.abs(a).max() > 0
    np.testing.assert_array_equal(a, b)


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
