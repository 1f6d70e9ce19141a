"""Lighting in closed form: basis images against renders, lamps, environment maps, bounds, ambiguities, going on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tiny_scenes import camera, corner, reference, rgb

from pathtracer.capture import View
from pathtracer.errors import UsageError
from pathtracer.inverse import Estimation, Parameter, Problem, estimate
from pathtracer.inverse.objective import Objective
from pathtracer.inverse.solvers import choose
from pathtracer.inverse.solvers.quadratic import bounded, sphere_smoothness
from pathtracer.scenes import Scene

SIZE = 20


def lit_room(*lamps: dict[str, Any], sky: np.ndarray | None = None, rfilter: str = "box", alpha: float = 0.4) -> Scene:
    """Two balls, one of them glossy, on nothing; lamps lamp0, lamp1, ... and an environment map."""
    import mitsuba as mi

    view = camera(SIZE, fov=32.0)
    view["film"]["rfilter"] = {"type": rfilter}
    scene: dict[str, Any] = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 3},
        "sensor": view,
        "dull": {"type": "sphere", "center": [-0.52, 0, 0], "radius": 0.5, "bsdf": {"type": "diffuse"}},
        "shiny": {
            "type": "sphere",
            "center": [0.52, 0, 0],
            "radius": 0.5,
            "bsdf": {"type": "roughconductor", "alpha": alpha},
        },
    }
    for k, lamp in enumerate(lamps):
        scene[f"lamp{k}"] = lamp
    if sky is not None:
        turn = mi.ScalarTransform4f().rotate([0, 1, 0], 30)
        scene["sky"] = {"type": "envmap", "bitmap": mi.Bitmap(sky), "scale": 1.5, "to_world": turn}
    return Scene.from_dict(scene)


def smooth_sky(rows: int = 8, columns: int = 16) -> np.ndarray:
    y, x = np.meshgrid(np.linspace(0, np.pi, rows), np.arange(columns) / columns * 2 * np.pi, indexing="ij")
    light = 0.3 + 0.6 * (1 + np.cos(y))[..., None] * (1 + 0.4 * np.sin(x[..., None] + np.arange(3)))
    return light.astype(np.float32)


def sky_error(found: np.ndarray, truth: np.ndarray) -> float:
    w = np.sin(np.linspace(0, np.pi, len(truth)))[:, None, None]
    return float(np.sqrt((w * (found - truth) ** 2).sum() / (w * truth**2).sum()))


LAMPS = (
    {"type": "point", "position": [2.0, 1.0, 2.0], "intensity": {"type": "rgb", "value": [5.0, 4.0, 3.0]}},
    {"type": "point", "position": [-2.0, 1.0, 1.5], "intensity": {"type": "rgb", "value": [1.0, 3.0, 6.0]}},
    {"type": "directional", "direction": [0.2, -1.0, -0.5], "irradiance": {"type": "rgb", "value": [2.0, 1.0, 1.0]}},
)
KEYS = ("lamp0.intensity.value", "lamp1.intensity.value", "lamp2.irradiance.value")


@pytest.mark.parametrize("rfilter", ["box", "gaussian"])
def test_one_pass_over_all_texels_predicts_the_render_of_any_map(rfilter: str) -> None:
    from pathtracer.inverse.environment_basis import environment_basis

    sky = np.random.default_rng(0).uniform(0.2, 2.0, (6, 8, 3)).astype(np.float32)
    scene = lit_room(sky=sky, rfilter=rfilter)
    several = [
        np.einsum(
            "ptc,tc->pc", environment_basis(scene.mi, scene.sensor(0), (6, 8), seed, 128, 3, 5), sky.reshape(-1, 3)
        )
        for seed in range(6)
    ]
    renders = [scene.render(spp=128, seed=seed).reshape(-1, 3) for seed in range(6)]
    error = np.sqrt((np.var(several, axis=0, ddof=1) + np.var(renders, axis=0, ddof=1)) / 6)
    difference = np.mean(several, axis=0) - np.mean(renders, axis=0)
    z = difference[error > 0] / error[error > 0]
    assert abs(np.mean(z)) < 0.2 and 0.8 < np.std(z) < 1.6  # t-distributed with few repeats
    assert np.abs(difference[error == 0]).max(initial=0.0) < 1e-4  # pixels that see the sky alone through a box
    assert abs(difference.mean()) < 5 * np.sqrt((error**2).sum()) / error.size


def test_one_pass_over_all_lamps_gives_the_image_of_each_alone() -> None:
    import mitsuba as mi

    from pathtracer.inverse.lamp_basis import lamp_basis

    panel = {
        "type": "rectangle",
        "to_world": mi.ScalarTransform4f().translate([0, 2.5, 0]).rotate([1, 0, 0], 90),
        "emitter": {"type": "area", "radiance": {"type": "rgb", "value": [3.0, 2.0, 1.0]}},
    }
    scene = lit_room(*LAMPS, panel, rfilter="gaussian")
    bins = {k: k for k in range(4)}
    several = np.array([lamp_basis(scene.mi, scene.sensor(0), bins, 4, s, 64, 3, 5) for s in range(6)])
    renders = np.array([scene.render(spp=64, seed=seed).reshape(-1, 3) for seed in range(6)])
    passes = several.sum(axis=1)
    error = np.sqrt((np.var(passes, axis=0, ddof=1) + np.var(renders, axis=0, ddof=1)) / 6)
    seen = renders.mean(axis=0) > 0.01 * renders.mean(axis=0).max()  # where a rare hit does not make all of the noise
    z = ((passes - renders).mean(axis=0) / np.maximum(error, 1e-12))[seen]
    assert abs(np.mean(z)) < 0.2 and 0.8 < np.std(z) < 1.6  # t-distributed with few repeats
    emitters = list(scene.mi.emitters())
    for k, lamp in enumerate((*LAMPS, panel)):
        name = f"lamp{k}.emitter" if k == 3 else f"lamp{k}"
        owner = scene.params.properties[f"{name}.sampling_weight"][2]
        alone = lit_room(lamp, rfilter="gaussian").render(spp=256, seed=0)
        assert several[:, emitters.index(owner)].mean() == pytest.approx(float(alone.mean()), rel=0.03)


def test_lamps_of_any_kind_are_found_in_one_step_with_their_errors() -> None:
    scene = lit_room(*LAMPS)
    image = reference(scene, 4096)
    parameters = [Parameter(k, init=2.0, truth="scene") for k in KEYS]
    problem = Problem(scene, View("v", image), parameters, loss="noise_weighted", spp=16)
    name, why = choose(Objective(problem))
    assert name == "linear-lighting" and "linear" in why
    result = estimate(problem, seed=1, pictures=False)
    assert result.info["stopped"] == "settled"
    for row in result.recovered:
        assert row.error is not None and row.error < 0.01, row
        assert np.all(np.abs(row.value - row.truth) < 4.5 * row.standard_error + 1e-4), row


def test_a_known_lamp_stays_and_one_that_is_off_comes_out_dark() -> None:
    scene = lit_room(*LAMPS)
    dark = lit_room(LAMPS[0], {**LAMPS[1], "intensity": {"type": "rgb", "value": [0.0, 0.0, 0.0]}}, LAMPS[2])
    image = reference(dark, 2048)
    problem = Problem(scene, View("v", image), [Parameter(k, init=2.0) for k in KEYS[:2]], spp=16)
    result = estimate(problem, "linear-lighting", seed=1, pictures=False)
    np.testing.assert_allclose(result.values[KEYS[0]], [5, 4, 3], rtol=0.02)
    assert np.all(result.values[KEYS[1]] < 0.05)
    assert not any("[not-determined]" in w for w in result.warnings)  # that it is off is well known
    assert KEYS[2] not in result.values


def test_lamps_that_no_picture_tells_apart_are_named() -> None:
    scene = lit_room(LAMPS[0], LAMPS[0])
    keys = ["lamp0.intensity.value", "lamp1.intensity.value"]
    problem = Problem(scene, View("v", reference(scene, 1024)), [Parameter(k, init=2.0) for k in keys], spp=16)
    result = estimate(problem, seed=1, pictures=False)
    notes = [w for w in result.warnings if "[not-determined]" in w]
    assert len(notes) == 1 and f"{keys[0]} and {keys[1]} trade off" in notes[0]
    total = sum(result.values[k] for k in keys)
    np.testing.assert_allclose(total, [10, 8, 6], rtol=0.02)


def test_an_environment_map_is_found_from_one_picture_of_two_balls() -> None:
    sky = smooth_sky()
    scene = lit_room(sky=sky, alpha=0.1)
    key = next(k for k in scene.params.keys() if k.endswith(".data"))  # noqa: SIM118
    problem = Problem(scene, View("v", reference(scene, 1024)), [Parameter(key, init=1.0)], spp=16)
    result = estimate(problem, seed=1, pictures=False)
    assert result.info["solver"].startswith("linear-lighting: 384 unknown numbers")
    found = result.recovered[0].value
    assert sky_error(found, sky) < 0.04
    errors = result.recovered[0].standard_error
    assert errors is not None and errors.shape == found.shape and np.all(np.isfinite(errors))
    stored = result.values[key]
    np.testing.assert_array_equal(stored[:, 0], stored[:, -2])  # the pad columns repeat the other edge
    np.testing.assert_allclose(stored[:, 1:-1], found, rtol=1e-5)


@pytest.mark.skipif("'llvm' not in __import__('mitsuba').variant()", reason="the order of sums on a GPU is not fixed")
def test_going_on_from_a_checkpoint_on_one_thread_gives_the_same_bits() -> None:
    import drjit as dr

    scene = lit_room(*LAMPS)
    image = reference(scene, 64)

    def run(state: dict[str, np.ndarray] | None = None) -> Estimation:
        problem = Problem(lit_room(*LAMPS), View("v", image), [Parameter(k, init=2.0) for k in KEYS], spp=4)
        return Estimation(problem, "linear-lighting", seed=1, state=state, iterations=3, stop="never")

    count = dr.thread_count()
    dr.set_thread_count(1)
    try:
        whole = run()
        list(whole)
        first = run()
        first.step()
        second = run({k: np.array(v) for k, v in first.checkpoint().items()})
        assert [s.index for s in second] == [1, 2]
    finally:
        dr.set_thread_count(count)
    np.testing.assert_array_equal(second.latent, whole.latent)


def test_other_unknowns_are_refused_with_a_reason() -> None:
    scene = corner(8)
    problem = Problem(scene, View("v", reference(scene, 16)), ["floor-mat.reflectance.value"])
    with pytest.raises(UsageError, match=r"floor-mat.reflectance.value is not the strength of a light"):
        estimate(problem, "linear-lighting", pictures=False)


def test_bounded_squares_agree_with_scipy() -> None:
    from scipy.optimize import lsq_linear

    rng = np.random.default_rng(3)
    for n in (3, 40):
        M = rng.normal(size=(2 * n, n))
        t = rng.normal(size=2 * n)
        low, high = np.zeros(n), np.where(rng.random(n) < 0.3, 0.1, np.inf)
        expected = lsq_linear(M, t, bounds=(low, high), method="bvls", tol=1e-14).x
        np.testing.assert_allclose(bounded(M.T @ M, M.T @ t, low, high), expected, atol=1e-6)


def test_smoothness_charges_nothing_for_a_constant_map() -> None:
    L = sphere_smoothness((6, 12))
    assert np.abs(L @ np.ones(72)).max() < 1e-9
    assert np.linalg.eigvalsh(L)[1] > 0
    assert rgb(1, 2, 3)["value"] == [1, 2, 3]
