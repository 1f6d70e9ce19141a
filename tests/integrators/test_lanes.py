"""Samples that show nothing are left out of the walk: the derivative stays what it was."""

import numpy as np
import pytest

from integrators import lanes
from pathtracer.verify import Motion
from pathtracer.verify.estimate import Gradient
from pathtracer.verify.subject import load_estimator, subject_of

from ..helpers.derivatives import load_subject


def derivatives(motion: str, case: str, estimator: str = "path_replay") -> tuple[np.ndarray, float]:
    """Forward image and backward number along a motion in a case's scene, 64 samples."""
    scene, own = load_subject(case)
    subject = subject_of(scene)
    bound = Motion.parse(motion or own).bind(subject.scene, subject.params)
    gradient = Gradient(bound, subject.sensor, load_estimator(subject, estimator)[1], 4, 5)
    image = gradient.gradient_image(64, 3)
    return image, float(np.ravel(gradient.backward_gradient(np.ones_like(image), 64, 3))[0])


@pytest.fixture
def walked(monkeypatch) -> list[lanes.Lanes]:
    """The lanes of every walk for which they were chosen."""
    chosen = []
    from integrators import base

    def choose(*arguments):
        chosen.append(lanes.lanes_that_hit(*arguments))
        return chosen[-1]

    monkeypatch.setattr(base, "lanes_that_hit", choose)
    return chosen


@pytest.mark.parametrize(
    ("case", "motion"),
    [
        ("disk-turns", ""),
        ("sphere-moves", ""),
        ("gaussian-filter", "object.vertex_positions rotate:y"),
        ("mesh-seamed-cube-turns", "object.bsdf.brdf_0.reflectance.value"),
    ],
)
def test_derivatives_without_what_shows_nothing_are_the_same(case, motion, walked, monkeypatch) -> None:
    image, number = derivatives(motion, case)
    assert all(found.index is not None and np.size(found.index) < 0.7 * found.width for found in walked)
    assert walked
    monkeypatch.setattr(lanes, "WORTH_LOOKING", 2**30)
    expected, total = derivatives(motion, case)
    np.testing.assert_allclose(image, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert number == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("motion", ["sky.radiance.value", "camera.to_world translate:x"])
def test_a_sky_or_a_camera_with_derivatives_needs_every_sample(motion, walked) -> None:
    image, _ = derivatives(motion, "sphere-moves")
    assert not walked
    assert np.abs(image).max() > 0


def test_a_film_that_is_full_is_walked_as_it_is(walked) -> None:
    derivatives("", "shadow-area-receiver")
    assert walked
    assert all(found.index is None for found in walked)
