"""Scrambled sequences: uniform for every lane, even within a pixel, independent between pixels; less noise for it."""

from __future__ import annotations

import drjit as dr
import mitsuba as mi
import numpy as np
import pytest
from scipy import stats

from integrators.sampling import ScrambledSobol

PIXELS = 1500


def draw(spp: int, requests: int = 3, seed: int = 3) -> np.ndarray:
    """(requests, pixels, spp, 2) points."""
    sampler = ScrambledSobol(seed, PIXELS * spp, spp)
    return np.stack([np.array(sampler.next_2d()).T.reshape(PIXELS, spp, 2) for _ in range(requests)])


@pytest.mark.parametrize("spp", [4, 16, 64])
def test_samples_of_a_pixel_fall_into_different_cells_of_every_elementary_division(spp: int) -> None:
    points = draw(spp)
    log = int(np.log2(spp))
    for i in range(log + 1):
        columns, rows = 2**i, 2 ** (log - i)
        cell = np.floor(points[..., 0] * columns) * rows + np.floor(points[..., 1] * rows)
        assert (np.sort(cell, axis=-1) == np.arange(spp)).all()


@pytest.mark.parametrize("spp", [1, 5, 16])
def test_every_sample_alone_is_uniform_and_requests_and_pixels_are_uncorrelated(spp: int) -> None:
    points = draw(spp)
    for sample in range(min(spp, 3)):
        for values in points[:, :, sample].reshape(3, PIXELS, 2).transpose(0, 2, 1).reshape(6, PIXELS):
            assert stats.kstest(values, "uniform").pvalue > 1e-4
        flat = points[:, :, sample].transpose(0, 2, 1).reshape(6, PIXELS)
        off = np.corrcoef(flat)[~np.eye(6, dtype=bool)]
        assert np.abs(off).max() < 5 / np.sqrt(PIXELS)
        assert np.abs([np.corrcoef(row[:-1], row[1:])[0, 1] for row in flat]).max() < 5 / np.sqrt(PIXELS)


def test_one_number_at_a_time_is_as_even_as_two() -> None:
    sampler = ScrambledSobol(1, PIXELS * 8, 8)
    values = np.array(sampler.next_1d()).reshape(PIXELS, 8)
    assert (np.sort(np.floor(values * 8), axis=1) == np.arange(8)).all()
    assert values.min() >= 0 and values.max() < 1


def test_a_clone_goes_on_with_the_same_numbers_and_another_seed_with_others() -> None:
    sampler = ScrambledSobol(mi.UInt32(5), 64, 4)
    sampler.next_2d()
    clone = sampler.clone()
    first, second = np.array(sampler.next_2d()), np.array(clone.next_2d())
    assert (first == second).all()
    assert (np.array(ScrambledSobol(6, 64, 4).next_2d()) != np.array(ScrambledSobol(5, 64, 4).next_2d())).mean() > 0.99


def _lit_plate(spread: bool) -> tuple[mi.Scene, mi.Integrator]:
    T = mi.ScalarTransform4f
    scene = mi.load_dict(
        {
            "type": "scene",
            "sensor": {
                "type": "perspective",
                "fov": 30,
                "to_world": T().look_at([0, 0, 3], [0, 0, 0], [0, 1, 0]),
                "film": {"type": "hdrfilm", "width": 8, "height": 8, "rfilter": {"type": "box"}, "pixel_format": "rgb"},
            },
            "plate": {
                "type": "rectangle",
                "to_world": T().scale(3),
                "bsdf": {"type": "roughconductor", "alpha": 0.3},
            },
            "lamp": {
                "type": "rectangle",
                "to_world": T().translate([0, 1, 4]).rotate([1, 0, 0], 180),
                "emitter": {"type": "area", "radiance": 3.0},
            },
        },
        optimize=False,
    )
    return scene, mi.load_dict({"type": "path_replay", "max_depth": 2, "spread": spread})


def test_derivatives_keep_their_mean_and_lose_most_of_their_variance() -> None:
    images = {}
    for spread in (False, True):
        scene, integrator = _lit_plate(spread)
        params = mi.traverse(scene)
        key = "plate.bsdf.alpha.value"
        found = []
        for seed in range(24):
            alpha = mi.Float(0.3)
            dr.enable_grad(alpha)
            params[key] = alpha
            params.update()
            dr.forward(alpha, dr.ADFlag.ClearEdges)
            image = integrator.render_forward(scene, params, seed=dr.opaque(mi.UInt32, seed), spp=16)
            found.append(np.array(image, dtype=np.float64))
        images[spread] = np.array(found)
    plain, even = images[False], images[True]
    assert even.var(0, ddof=1).mean() < 0.35 * plain.var(0, ddof=1).mean()
    totals = [x.mean((1, 2, 3)) for x in (plain, even)]
    assert stats.ttest_ind(*totals, equal_var=False).pvalue > 1e-4
    assert totals[0].std(ddof=1) / np.sqrt(24) < 0.05 * abs(totals[0].mean())


def test_a_sampler_that_the_scene_asks_for_is_used() -> None:
    scene, integrator = _lit_plate(True)
    sensor = scene.sensors()[0]
    sampler, spp = integrator.prepare(sensor, 0, 5)
    assert type(sampler).__name__ == "ScrambledSobol" and spp == 5
    own = mi.load_dict({"type": "perspective", "sampler": {"type": "stratified", "sample_count": 4}})
    sampler, spp = integrator.prepare(own, 0, 4)
    assert isinstance(sampler, mi.Sampler) and spp == 4


def test_another_seed_takes_the_same_kernels(repository) -> None:
    from pathtracer.scenes import load_scene

    scene = load_scene(repository / "scenes" / "painted-wall" / "scene.xml", res=8)
    integrator = mi.load_dict({**scene.default_integrator(), "type": "path_replay"})
    hashes = []
    with dr.scoped_set_flag(dr.JitFlag.KernelHistory, True):
        for seed in (1, 2):
            scene.render(spp=2, seed=seed, integrator=integrator)
            hashes.append({entry["hash"] for entry in dr.kernel_history([dr.KernelType.JIT])})
    assert hashes[0] and hashes[1] <= hashes[0]
