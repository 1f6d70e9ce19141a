"""Pictures, masks and cameras are cut and resampled together: what a pixel shows stays where the camera says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from capture.rig import photographed, ring

from pathtracer.capture import load_views
from pathtracer.capture.cameras import Camera
from pathtracer.capture.framing import frame
from pathtracer.errors import InputError, UsageError

WHERE = Path("photo.png")


def ramp(camera: Camera) -> np.ndarray:
    """A picture whose channels hold the direction of each pixel's ray: x/z, y/z and 1."""
    y, x = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
    slopes = [(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, np.ones_like(x)]
    return (np.stack(slopes, axis=-1) + np.array([1, 1, 0])).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"crop": [3, 2, 20, 15]},
        {"downscale": 2},
        {"downscale": 3},
        {"crop": [1, 1, 29, 21], "downscale": 4},
        {"resize": (16, 12)},
    ],
)
def test_every_pixel_keeps_its_direction(options):
    camera = ring(1)[0]
    image, weight, framed, _ = frame(ramp(camera), np.ones((24, 32), np.float32), camera, WHERE, **options)
    assert framed is not None and weight is not None
    assert image.shape == (framed.height, framed.width, 3) and weight.shape == image.shape[:2]
    np.testing.assert_allclose(image, ramp(framed), atol=1e-5)


@pytest.mark.parametrize("aspect", [0.9, 1.13])
def test_oblong_pixels_become_square_and_keep_their_directions(aspect):
    camera = replace(ring(1)[0], fy=ring(1)[0].fx * aspect)
    image, _, framed, notes = frame(ramp(camera), None, camera, WHERE)
    assert framed is not None and framed.square and "square" in notes[0]
    # the filter reaches over the edge there
    np.testing.assert_allclose(image[1:-1, 1:-1], ramp(framed)[1:-1, 1:-1], atol=2e-3)


def test_a_picture_stored_smaller_than_its_camera_scales_the_camera():
    camera = ring(1, (64, 48))[0]
    image, _, framed, notes = frame(np.zeros((24, 32, 3), np.float32), None, camera, WHERE)
    assert framed == camera.resized(32, 24) and image.shape == (24, 32, 3)
    assert "32 x 24 pixels take the cameras of 64 x 48" in notes[0]
    with pytest.raises(InputError, match="the image is 32 x 32 pixels, its camera 64 x 48"):
        frame(np.zeros((32, 32, 3), np.float32), None, camera, WHERE)


@pytest.mark.parametrize("crop", [[0, 0, 40, 10], [-1, 0, 4, 4], [0, 0, 0, 4], [0, 0, 4], [0.5, 0, 4, 4]])
def test_a_crop_that_leaves_the_picture_is_refused(crop):
    with pytest.raises(UsageError, match="crop"):
        frame(np.zeros((24, 32, 3), np.float32), None, None, WHERE, crop=crop)


def test_downscaling_to_nothing_is_refused():
    with pytest.raises(UsageError, match="downscale = 30 leaves nothing"):
        frame(np.zeros((24, 32, 3), np.float32), None, None, WHERE, downscale=30)


def test_views_carry_the_framed_camera_and_the_mask_of_their_alpha(tmp_path):
    capture = photographed(tmp_path, ring(6), alpha=True)
    views = load_views(capture.entries(), alpha="mask", crop=[4, 2, 24, 20], downscale=2, holdout_every=3)
    assert views.notes and not any("silhouettes" in n for n in views.notes)
    for k, view in enumerate(views):
        assert view.camera is not None and view.camera == ring(6)[k].crop(4, 2, 24, 20).resized(12, 10)
        assert view.image.shape == (10, 12, 3) and 0 < view.weight.mean() < 1
        assert view.sensor["fov_axis"] == "x" and view.holdout == (k % 3 == 0)


def test_views_are_held_out_by_globs_and_unknown_names_are_refused(tmp_path):
    capture = photographed(tmp_path, ring(4))
    views = load_views(capture.entries(), holdout=["photo [02]", 3])
    assert [v.holdout for v in views] == [True, False, True, True]
    with pytest.raises(UsageError, match="there is no view 'foto 1' to hold out; did you mean 'photo 1'"):
        load_views(capture.entries(), holdout=["foto 1"])


def test_exposure_and_white_balance_multiply(tmp_path):
    entries = photographed(tmp_path, ring(2)).entries()
    entries[1] |= {"exposure": 2.0, "white_balance": [1.5, 1, 0.5]}
    first, second = load_views(entries, exposure=0.5, white_balance=(1, 1, 2))
    np.testing.assert_allclose(first.gain, [0.5, 0.5, 1])
    np.testing.assert_allclose(second.gain, [3, 2, 1])
    for wrong in ([1, 1], [1, 1, "red"], 1.0):
        with pytest.raises(UsageError, match="three numbers were expected"):
            load_views(entries, white_balance=wrong)
    with pytest.raises(InputError, match="three positive numbers"):
        load_views(entries, white_balance=(1, 0, 1))
