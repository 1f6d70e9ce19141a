"""What cameras look at is found, and a wrong convention is recognised with and without masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from capture.rig import look_at, ring, silhouette

from pathtracer.capture.cameras import AXES, Camera, inverse, stored
from pathtracer.capture.layout import clip_range, doubts, layout, silhouette_agreement


def reread(camera: Camera, written: str, read: str, inverted: bool = False) -> Camera:
    """A camera written in one convention and read in another."""
    pose = stored(camera.to_world, written)
    pose = inverse(pose) if inverted else pose
    pose[:3, :3] *= AXES[read]
    return replace(camera, to_world=pose)


def test_cameras_on_a_ring_look_at_its_centre():
    where = layout(ring(6))
    np.testing.assert_allclose(where.focus, (1, 2, 0), atol=1e-9)
    assert where.distance == pytest.approx(np.sqrt(29)) and where.looking == 1 and where.spread < 1e-6
    assert where.up[2] > 0.9
    near, far = clip_range(where)
    assert near < 0.01 * where.distance and far > 100 * where.distance


def test_one_camera_and_parallel_cameras_have_a_layout_too():
    one = ring(1)
    for cameras in (one, [one[0], replace(one[0], to_world=one[0].to_world + np.eye(4)[3] * 0)]):
        where = layout(cameras)
        assert where.distance > 0 and where.looking == 1 and np.isfinite(where.focus).all()
    points = np.random.default_rng(0).normal(3, 1, (100, 3))
    np.testing.assert_allclose(layout(one, points).focus, np.median(points, axis=0))


@pytest.mark.parametrize("written", AXES)
@pytest.mark.parametrize("read", AXES)
@pytest.mark.parametrize("inverted", [False, True])
def test_silhouettes_tell_the_convention(written, read, inverted):
    cameras = ring(8)
    masks = [silhouette(c).astype(np.float32) for c in cameras]
    wrong = [reread(c, written, read, inverted) for c in cameras]
    found = doubts(wrong, masks, read)
    if written == read and not inverted:
        assert found == []
    else:
        way = "world-to-camera" if inverted else "camera-to-world"
        assert len(found) == 1 and f'convention = "{written}", matrices = "{way}"' in found[0], found


@pytest.mark.parametrize(("axis", "name"), [(1, "mirrored left to right"), (0, "upside down")])
def test_silhouettes_tell_flipped_pictures(axis, name):
    cameras = [replace(c, cx=16.0, cy=12.0) for c in ring(8)]
    masks = [np.flip(silhouette(c), axis).astype(np.float32) for c in cameras]
    assert name in doubts(cameras, masks, None)[0]


def test_good_silhouettes_agree_and_wrong_ones_do_not():
    cameras = ring(8)
    masks = [silhouette(c) for c in cameras]
    assert silhouette_agreement(cameras, masks) > 0.9
    assert silhouette_agreement([*cameras[1:], cameras[0]], masks) < 0.7


def test_without_masks_cameras_that_look_away_are_doubted_and_others_are_not():
    cameras = ring(6)
    nothing = [None] * 6
    assert doubts(cameras, nothing, "opengl") == []
    away = [reread(c, "opencv", "opengl") for c in cameras]
    assert "6 of 6 cameras look away from it" in doubts(away, nothing, "opengl")[0]
    assert 'convention = "opencv"' in doubts(away, nothing, "opengl")[0]
    hanging = [reread(c, "mitsuba", "opencv") for c in cameras]
    assert "upside down" in doubts(hanging, nothing, "opencv")[0]


def test_cameras_that_look_at_no_one_thing_are_not_doubted():
    rng = np.random.default_rng(1)
    cameras = [
        Camera(32, 24, 30, 30, 16, 12, look_at(p, p + rng.normal(size=3), np.array([0, 0, 1.0])))
        for p in rng.normal(0, 3, (12, 3))
    ]
    assert doubts(cameras, [None] * 12, "opengl") == []
