"""Motions: text in, a scene that depends on θ out."""

from __future__ import annotations

import numpy as np
import pytest
from verify.scenes import catalogue_scene

from pathtracer.errors import UsageError
from pathtracer.verify import Motion

MOTIONS = [
    ("mesh", {}, "object.vertex_positions translate:x"),
    ("mesh", {}, "object.vertex_positions rotate:0,1,1@0,0,1"),
    ("mesh", {}, "object.vertex_positions scale"),
    ("shape", {}, "object.vertex_positions random:3"),
    ("shape", {"shape": "sphere"}, "object.to_world translate:1,2,3"),
    ("shape", {"shape": "disk"}, "object.to_world rotate:y"),
    ("shape", {"shape": "cylinder"}, "object.to_world scale"),
    ("curve", {}, "object.control_points rotate:z"),
    ("shadow-point", {}, "lamp.position translate:-z"),
    ("shadow-point", {}, "lamp.intensity.value value:1,0,0.5"),
    ("shadow-point", {}, "blocker.vertex_positions translate:x + lamp.position translate:y"),
    ("shadow-directional", {}, "lamp.to_world rotate:x"),
    ("plane", {}, "plane.bsdf.reflectance.data random:2"),
    ("plane", {}, "plane.bsdf.reflectance.data value:1,0,0"),
    ("plane", {}, "camera.to_world rotate:y"),
    ("plane", {}, "camera.x_fov"),
]


def _numbers(value):
    import mitsuba as mi

    return np.array(value.matrix if isinstance(value, mi.Transform4f) else value, dtype=float)


@pytest.mark.parametrize(("scene", "defines", "text"), MOTIONS, ids=[m[2] for m in MOTIONS])
def test_attached_tangent_is_the_derivative_of_the_plain_motion(scene, defines, text):
    import drjit as dr

    loaded = catalogue_scene(scene, **defines)
    bound = Motion.parse(text).bind(loaded.mi, loaded.params)
    before = {key: _numbers(loaded.params[key]) for key in bound.motion.keys}
    with bound.attached(forward=True):
        tangents = {key: _numbers(dr.grad(loaded.params[key])) for key in bound.motion.keys}
    step = 0.05
    bound.apply(step)
    after = {key: _numbers(loaded.params[key]) for key in bound.motion.keys}
    bound.apply(-step)
    for key in bound.motion.keys:
        difference = (after[key] - _numbers(loaded.params[key])) / (2 * step)
        assert np.any(tangents[key] != 0)
        np.testing.assert_allclose(tangents[key], difference, atol=2e-3 * max(1.0, np.abs(difference).max()))
    bound.restore()
    for key in bound.motion.keys:
        np.testing.assert_array_equal(_numbers(loaded.params[key]), before[key])


def test_restoring_a_mesh_brings_its_stored_normals_back():
    loaded = catalogue_scene("shape")
    key = "object.vertex_normals"
    before = np.array(loaded.params[key])
    bound = Motion.parse("object.vertex_positions", "random").bind(loaded.mi, loaded.params)
    bound.apply(0.3)
    assert not np.allclose(before, np.array(loaded.params[key]))
    bound.restore()
    np.testing.assert_array_equal(before, np.array(loaded.params[key]))


def test_random_motion_does_not_tear_seams():
    loaded = catalogue_scene("shape")
    positions = np.array(loaded.params["object.vertex_positions"]).reshape(-1, 3)
    bound = Motion.parse("object.vertex_positions random:1").bind(loaded.mi, loaded.params)
    moved = np.array(bound.values(0.1)["object.vertex_positions"]).reshape(-1, 3)
    corners, group = np.unique(positions.round(4), axis=0, return_inverse=True)
    assert len(corners) == 8 and len(positions) == 24
    for corner in range(8):
        assert np.ptp(moved[group.reshape(-1) == corner], axis=0).max() < 1e-5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("object.vertex_position translate:x", "did you mean 'object.vertex_positions'"),
        ("object.vertex_positions translat:x", "did you mean 'translate'"),
        ("object.vertex_positions translate:q", "neither an axis nor numbers"),
        ("object.vertex_positions translate:1,2", "three numbers"),
        ("camera.to_world value", "cannot value"),
        ("camera.film.size translate:x", "cannot move continuously"),
        ("a b c", "not 'KEY' or 'KEY MOTION'"),
    ],
)
def test_wrong_motions_are_named_with_their_mend(text, says):
    loaded = catalogue_scene("mesh")
    with pytest.raises(UsageError, match=says):
        Motion.parse(text).bind(loaded.mi, loaded.params)


def test_natural_motion_suits_the_key():
    loaded = catalogue_scene("plane")

    def natural(key):
        return str(Motion.parse(key).bind(loaded.mi, loaded.params).motion)

    assert natural("plane.to_world") == "plane.to_world translate:x"
    assert natural("lamp.position") == "lamp.position translate:x"
    assert natural("lamp.intensity.value") == "lamp.intensity.value value"
    assert natural("plane.bsdf.reflectance.data") == "plane.bsdf.reflectance.data random:0"
