"""OpenDR: exact appearance derivatives, approximate geometry derivatives, convergence on pose and lighting."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.raster_scenes import backward_number, box_scene, forward_image, load, own_difference


def _plugin(**properties):
    import mitsuba as mi

    return mi.load_dict({"type": "opendr", **properties})


def _cube(size=24):
    description = box_scene(size=size)
    del description["floor"]
    return description


@pytest.mark.parametrize(
    "motion",
    ["lamp.position translate:x", "lamp.intensity.value", "object.bsdf.reflectance.value", "sky.radiance.value"],
)
def test_derivatives_of_light_and_albedo_are_exact(motion):
    scene, params = load(box_scene())
    forward = forward_image(_plugin(), scene, params, motion)
    difference = own_difference(_plugin(), scene, params, motion, 1e-2)
    assert np.linalg.norm(forward - difference) < 2e-3 * np.linalg.norm(difference)


@pytest.mark.parametrize(
    "motion",
    [
        "object.vertex_positions translate:x",
        "object.vertex_positions rotate:z",
        "camera.to_world translate:x",
        "floor.to_world translate:y",
    ],
)
def test_backward_mode_is_the_adjoint_of_forward_mode(motion):
    scene, params = load(box_scene())
    forward = forward_image(_plugin(), scene, params, motion)
    adjoint = np.random.default_rng(3).standard_normal(forward.shape)
    backward = backward_number(_plugin(), scene, params, motion, adjoint)
    assert backward == pytest.approx(float(np.sum(adjoint * forward)), rel=1e-4, abs=1e-4 * np.linalg.norm(forward))
    assert np.linalg.norm(forward) > 0


@pytest.mark.parametrize(
    ("motion", "tolerance"),
    [
        ("object.vertex_positions translate:x", 0.1),
        ("object.vertex_positions translate:y", 0.1),
        ("object.vertex_positions scale", 0.1),
        ("object.vertex_positions rotate:z", 0.2),
        ("camera.to_world translate:x", 0.1),
    ],
)
def test_derivative_of_a_moving_outline_is_nearly_that_of_a_finely_sampled_image(motion, tolerance):
    from scipy.ndimage import gaussian_filter

    scene, params = load(_cube())
    forward = gaussian_filter(forward_image(_plugin(), scene, params, motion), (1.5, 1.5, 0))
    fine, fine_params = load(_cube(size=24 * 16))
    large = own_difference(_plugin(), fine, fine_params, motion, 0.03)
    truth = gaussian_filter(large.reshape(24, 16, 24, 16, 3).mean((1, 3)), (1.5, 1.5, 0))
    slope = float(np.sum(forward * truth) / np.sum(truth**2))
    assert slope == pytest.approx(1, abs=tolerance)
    assert np.sum(forward * truth) > 0.9 * np.linalg.norm(forward) * np.linalg.norm(truth)


def _occluder(position):
    """A small dark plate at the given depth before or behind a bright one with a colour of its own."""
    import mitsuba as mi

    T = mi.ScalarTransform4f
    paint = lambda v: {"type": "diffuse", "reflectance": {"type": "rgb", "value": v}}
    description = _cube()
    description["camera"]["to_world"] = T().look_at([0, 0, 4], [0, 0, 0], [0, 1, 0])
    description["object"] = {"type": "rectangle", "to_world": T().scale(0.6), "bsdf": paint(0.8)}
    description["plate"] = {
        "type": "rectangle",
        "to_world": T().translate([0.5, 0, position]).scale(0.4),
        "bsdf": paint(0.1),
    }
    return description


def test_an_outline_belongs_to_the_surface_in_front():
    front = load(_occluder(0.3))
    behind = load(_occluder(-0.3))
    # The rows through the middle: the object's right rim is hidden by the plate in front of it, and by nothing else
    middle = slice(10, 14), slice(None)
    hidden = forward_image(_plugin(), *front, "object.to_world translate:x")[middle].sum(-1)
    shown = forward_image(_plugin(), *behind, "object.to_world translate:x")[middle].sum(-1)
    left, right = slice(0, 12), slice(12, 24)
    assert np.abs(hidden[:, left]).sum() == pytest.approx(np.abs(shown[:, left]).sum(), rel=0.1)
    assert np.abs(hidden[:, right]).sum() < 0.1 * np.abs(shown[:, right]).sum()


def _fit(scene, params, write, start, target, steps, damping=1e-3):
    """Damped Gauss-Newton on the plugin's own images and derivatives; returns the last numbers.

    Args:
        write: numbers (n,) of `mi.Float` to scene values.
    """
    import drjit as dr
    import mitsuba as mi

    plugin = _plugin()

    def image(numbers):
        for key, value in write([mi.Float(float(v)) for v in numbers]).items():
            params[key] = value
        params.update()
        return np.array(plugin.render(scene), dtype=np.float64)

    x = np.asarray(start, float)
    residual = image(x) - target
    for _ in range(steps):
        columns = []
        for k in range(len(x)):
            numbers = [mi.Float(float(v)) for v in x]
            dr.enable_grad(numbers[k])
            for key, value in write(numbers).items():
                params[key] = value
            params.update()
            dr.forward(numbers[k], dr.ADFlag.ClearEdges)
            columns.append(np.array(plugin.render_forward(scene, params), dtype=np.float64).ravel())
        jacobian = np.stack(columns, axis=1)
        normal = jacobian.T @ jacobian
        while damping < 1e6:
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -jacobian.T @ residual.ravel())
            trial = image(x + step) - target
            if np.sum(trial**2) < np.sum(residual**2):
                x, residual, damping = x + step, trial, max(damping / 5, 1e-6)
                break
            damping *= 4
    return x


def test_it_converges_on_the_pose_of_a_cube():
    import drjit as dr
    import mitsuba as mi

    from pathtracer.inverse.rigid import motion_jit

    scene, params = load(_cube(size=48))
    positions = dr.unravel(mi.Point3f, mi.Float(params["object.vertex_positions"]))

    def write(numbers):
        rotation, translation = motion_jit(numbers, np.zeros(3), 1.0)
        return {"object.vertex_positions": dr.ravel(mi.Point3f(rotation @ positions + translation))}

    true = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    for key, value in write([mi.Float(v) for v in true]).items():
        params[key] = value
    params.update()
    target = np.array(_plugin().render(scene), dtype=np.float64)
    start = np.array([0.12, -0.15, 0.1, 0.15, -0.1, 0.2])
    found = _fit(scene, params, write, start, target, steps=25, damping=1e-2)
    # one sample per pixel: an outline says nothing about motions of less than about a third of a pixel (0.02 here)
    assert np.abs(found[:3] - true[:3]).max() < 0.03
    assert np.abs(found[3:5] - true[3:5]).max() < 0.015
    assert abs(found[5] - true[5]) < 0.05


def test_it_converges_on_the_lighting_of_a_sphere():
    import drjit as dr
    import mitsuba as mi

    from pathtracer.verify.catalogue import catalogue_folder

    description = _cube(size=24)
    description["object"] = {"type": "ply", "filename": str(catalogue_folder() / "sphere.ply")}
    rgb = {"type": "rgb", "value": [1.0, 1.0, 1.0]}
    description["lamp"] = {"type": "directional", "direction": [0, -1, -1], "irradiance": rgb}
    scene, params = load(description)

    def write(numbers):
        up = mi.Vector3f(0, 0, 1)
        d = mi.Vector3f(numbers[0], -1.0, numbers[1])
        side = dr.normalize(dr.cross(up, d))
        forward = dr.normalize(d)
        top = dr.cross(forward, side)
        matrix = mi.Matrix4f(
            [side.x, top.x, forward.x, 0], [side.y, top.y, forward.y, 0], [side.z, top.z, forward.z, 0], [0, 0, 0, 1]
        )
        return {
            "lamp.to_world": mi.Transform4f(matrix),
            "lamp.irradiance.value": mi.Color3f(*numbers[2:5]),
            "sky.radiance.value": mi.Color3f(*numbers[5:8]),
        }

    true = np.array([0.3, -0.8, 2.0, 1.5, 1.0, 0.2, 0.3, 0.4])
    for key, value in write([mi.Float(v) for v in true]).items():
        params[key] = value
    params.update()
    target = np.array(_plugin().render(scene), dtype=np.float64)
    found = _fit(scene, params, write, [-0.2, -0.5, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5], target, steps=12)
    np.testing.assert_allclose(found, true, atol=0.01)
