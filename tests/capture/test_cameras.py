"""Cameras of three conventions are the same camera, and Mitsuba sees what `project` says."""

from __future__ import annotations

import numpy as np
import pytest
from capture.rig import BY_HAND, ring

from pathtracer.capture.cameras import Camera, camera_to_world, inverse, stored
from pathtracer.errors import InputError, UsageError


@pytest.mark.parametrize("convention", BY_HAND)
def test_matrices_written_by_hand_in_each_convention_are_one_camera(convention):
    pose, scale = camera_to_world(BY_HAND[convention], "here", convention)
    np.testing.assert_allclose(pose, BY_HAND["mitsuba"], atol=1e-12)
    assert scale == 1
    np.testing.assert_allclose(stored(pose, convention), BY_HAND[convention], atol=1e-12)
    back, _ = camera_to_world(inverse(np.array(BY_HAND[convention], float)), "here", convention, "world-to-camera")
    np.testing.assert_allclose(back, pose, atol=1e-12)


def test_points_right_of_and_above_the_axis_appear_right_and_above():
    pose, _ = camera_to_world(BY_HAND["opengl"], "here", "opengl")
    camera = Camera(100, 80, 90.0, 90.0, 50.0, 40.0, pose)
    pixels, depth = camera.project([[0, 0, 1], [1, 0, 1], [0, 0, 2], [0, -8, 1]])
    np.testing.assert_allclose(depth, [4, 4, 4, -4])
    np.testing.assert_allclose(pixels[:3], [[50, 40], [72.5, 40], [50, 17.5]])


@pytest.mark.parametrize("index", [0, 3])
def test_mitsuba_sees_a_point_where_project_puts_it(index):
    import mitsuba as mi

    camera = ring(6)[index]
    places = camera.position + camera.to_world[:3, :3] @ np.array([0.4, -0.3, 4.0])
    sensor = camera.sensor()
    pose = mi.ScalarTransform4f(sensor.pop("to_world"))
    film = {"type": "hdrfilm", "width": camera.width, "height": camera.height, "rfilter": {"type": "box"}}
    lamp = {"type": "sphere", "center": places.tolist(), "radius": 0.15}
    lamp["emitter"] = {"type": "area", "radiance": {"type": "rgb", "value": 1.0}}
    scene = mi.load_dict(
        {"type": "scene", "sensor": {**sensor, "to_world": pose, "film": film}, "lamp": lamp},
        optimize=False,
    )
    image = np.array(mi.render(scene, integrator=mi.load_dict({"type": "direct"}), spp=256))[..., 0]
    y, x = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
    centroid = np.array([(x * image).sum(), (y * image).sum()]) / image.sum()
    np.testing.assert_allclose(centroid, camera.project([places])[0][0], atol=0.05)


def test_crop_and_resize_keep_where_points_appear():
    camera = ring(1)[0]
    point = [[1.1, 2.2, 0.1]]
    (x, y), _ = camera.project(point)[0][0], None
    np.testing.assert_allclose(camera.crop(4, 3, 20, 18).project(point)[0][0], (x - 4, y - 3))
    np.testing.assert_allclose(camera.resized(16, 12).project(point)[0][0], (x / 2, y / 2))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda m: m.__setitem__((slice(0, 3), 0), -m[:3, 0]), "mirrors: its determinant is negative"),
        (lambda m: m.__setitem__((0, 0), 1.5), "is not a rotation: its columns have the lengths"),
        (lambda m: m.__setitem__((0, 3), np.nan), "not finite"),
        (lambda m: m.__setitem__((3, 0), 0.5), "the last row"),
    ],
)
def test_a_matrix_that_is_no_pose_is_refused_with_the_reason(change, match):
    matrix = np.array(BY_HAND["opengl"], float)
    change(matrix)
    with pytest.raises(InputError, match=match):
        camera_to_world(matrix, "cams.json: frame 3", "opengl")


def test_a_transposed_matrix_is_recognised():
    with pytest.raises(InputError, match="looks transposed"):
        camera_to_world(np.array(BY_HAND["opengl"]).T, "here", "opengl")


def test_a_uniform_scale_is_taken_out_and_reported():
    matrix = np.array(BY_HAND["opengl"], float)
    matrix[:3, :3] *= 2.5
    pose, scale = camera_to_world(matrix, "here", "opengl")
    np.testing.assert_allclose(pose, BY_HAND["mitsuba"], atol=1e-12)
    assert scale == pytest.approx(2.5)


@pytest.mark.parametrize("matrix", ["eye", [[1, 2], [3, 4]], [[1, 2, 3], [4]], None, {}])
def test_what_is_no_table_of_numbers_is_refused(matrix):
    with pytest.raises(InputError, match="matrix"):
        camera_to_world(matrix, "here")


def test_an_unknown_convention_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'opengl'"):
        camera_to_world(np.eye(4), "here", "opengll")
