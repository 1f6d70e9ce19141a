"""Central differences: closed forms, error bars, the plugin in a stock script, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.statistics import assert_equivalent

RHO, EMISSION = 0.4, 0.7


@pytest.fixture(scope="module")
def furnace():
    """Inside of a glowing cube: L = E / (1 − ρ), here cut off at depth 20."""
    import mitsuba as mi

    scene = mi.load_dict(
        {
            "type": "scene",
            "sensor": {"type": "perspective", "film": {"type": "hdrfilm", "width": 8, "height": 8}},
            "ball": {
                "type": "cube",
                "flip_normals": True,
                "bsdf": {"type": "diffuse", "reflectance": {"type": "rgb", "value": RHO}},
                "emitter": {"type": "area", "radiance": {"type": "rgb", "value": EMISSION}},
            },
        },
        optimize=False,
    )
    return scene, mi.traverse(scene)


def _plugin(**properties):
    import mitsuba as mi

    return mi.load_dict({"type": "finite_difference", "max_depth": 20, "rr_depth": 1000, **properties})


def _attach(params, key, forward=True):
    import drjit as dr
    import mitsuba as mi

    theta = mi.Float(0.0)
    dr.enable_grad(theta)
    params[key] = params[key] + theta
    params.update()
    if forward:
        dr.forward(theta, dr.ADFlag.ClearEdges)
    return theta


def _detach(params, key):
    import drjit as dr

    params[key] = dr.detach(params[key])
    params.update()


def test_forward_mode_gives_the_furnace_derivative_within_its_error_bar(furnace):
    scene, params = furnace
    plugin = _plugin()
    key = "ball.bsdf.reflectance.value"
    before = np.array(params[key])
    _attach(params, key)
    image = np.array(plugin.render_forward(scene, params, seed=3, spp=64))
    exact = EMISSION / (1 - RHO) ** 2
    assert plugin.epsilon_used > 0
    bar = plugin.standard_error.mean() + plugin.step_bias.mean()
    assert abs(image.mean() - exact) < max(3 * bar, 2e-3 * exact)
    np.testing.assert_array_equal(before, np.array(params[key]))
    _detach(params, key)


def test_backward_mode_accumulates_the_same_derivative(furnace):
    import drjit as dr
    import mitsuba as mi

    scene, params = furnace
    key = "ball.emitter.radiance.value"
    theta = _attach(params, key, forward=False)
    adjoint = mi.TensorXf(np.full((8, 8, 3), 1 / 192, dtype=np.float32))
    _plugin(epsilon=0.05, replicates=2).render_backward(scene, params, adjoint, seed=5, spp=32)
    assert float(dr.grad(theta)[0]) == pytest.approx(1 / (1 - RHO), rel=5e-3)
    _detach(params, key)


def test_it_works_through_mi_render(furnace):
    import drjit as dr
    import mitsuba as mi

    scene, params = furnace
    key = "ball.emitter.radiance.value"
    theta = _attach(params, key, forward=False)
    image = mi.render(scene, params, integrator=_plugin(epsilon=0.05, replicates=2), seed=1, spp=32)
    dr.backward(dr.mean(image, axis=None))
    assert float(dr.grad(theta)[0]) == pytest.approx(1 / (1 - RHO), rel=5e-3)
    _detach(params, key)


def test_step_size_bias_is_seen_where_the_image_is_not_smooth_in_the_parameter():
    from integrators.finite_difference import central_differences, richardson

    def render(theta, seed):
        return np.full((1, 1, 1), np.exp(3 * theta))

    value, correction = richardson(central_differences(render, [0.4, 0.2], seed=0))
    assert abs(value.item() - 3) < abs(correction.item()) < 0.3
    finest, _ = richardson(central_differences(render, [0.4, 0.2, 0.1], seed=0))
    assert abs(finest.item() - 3) < 0.1 * abs(value.item() - 3)


@pytest.mark.parametrize("steps", [2, 3])
def test_richardson_has_the_order_that_it_states(steps):
    from integrators.finite_difference import central_differences, richardson

    def render(theta, seed):
        return np.full((1, 1, 1), np.sin(1 + theta))

    def error(epsilon):
        ladder = [epsilon / 2**k for k in range(steps)]
        return abs(richardson(central_differences(render, ladder, 0))[0].item() - np.cos(1))

    assert np.log2(error(0.8) / error(0.4)) == pytest.approx(2 * steps, abs=0.3)


def test_chosen_step_has_noise_and_bias_far_below_the_derivative():
    from integrators.finite_difference import choose_step

    def render(theta, seed):
        # Smooth on the scale 1, with noise that both sides do not share
        rng = np.random.default_rng([seed, int(1e6 * theta) & 0xFFFFFFFF])
        return np.sin(theta + np.arange(36.0)).reshape(6, 6, 1) + 1e-3 * rng.standard_normal((6, 6, 1))

    for scale in (0.01, 0.1, 1.0):
        choice = choose_step(render, scale, seed=1)
        noise, bias = next((n, b) for epsilon, n, b in choice.ladder if epsilon == choice.epsilon)
        assert np.hypot(noise, bias) < 0.02  # of a derivative that is 0.7 in the root mean square


def test_standard_error_is_the_spread_between_runs(furnace):
    scene, params = furnace
    key = "ball.bsdf.reflectance.value"
    means, errors = [], []
    for seed in range(8):
        _attach(params, key)
        plugin = _plugin(epsilon=0.05)
        means.append(np.array(plugin.render_forward(scene, params, seed=seed, spp=8)))
        errors.append(plugin.standard_error)
        _detach(params, key)
    spread = np.std(means, axis=0, ddof=1)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.sqrt(np.mean(spread**2)), rel=0.25)
    assert_equivalent([m.mean() for m in means], EMISSION / (1 - RHO) ** 2, relative=0.02)


def test_turning_camera_stays_rigid():
    import drjit as dr
    from verify.scenes import catalogue_scene

    from pathtracer.verify import Motion

    loaded = catalogue_scene("plane")
    bound = Motion.parse("camera.to_world rotate:y").bind(loaded.mi, loaded.params)
    plugin = _plugin(max_depth=2, replicates=2)
    with bound.attached(forward=True):
        image = np.array(plugin.render_forward(loaded.mi, loaded.params, seed=1, spp=16))
    dr.eval()
    assert np.isfinite(image).all() and np.abs(image).max() > 0


def test_no_tangent_is_an_error_not_a_zero(furnace):
    from integrators import UnsupportedGradient

    scene, params = furnace
    with pytest.raises(UnsupportedGradient, match="no parameter carries a tangent"):
        _plugin().render_forward(scene, params, spp=4)


def test_backward_mode_refuses_many_parameters_with_a_remedy():
    import drjit as dr
    import mitsuba as mi
    from verify.scenes import catalogue_scene

    from integrators import UnsupportedGradient

    loaded = catalogue_scene("mesh")
    dr.enable_grad(loaded.params["object.vertex_positions"])
    adjoint = mi.TensorXf(np.ones((24, 24, 3), dtype=np.float32))
    with pytest.raises(UnsupportedGradient, match=r"24 forward passes.*path_replay"):
        _plugin().render_backward(loaded.mi, loaded.params, adjoint, spp=4)
