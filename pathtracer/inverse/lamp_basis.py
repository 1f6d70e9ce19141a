"""The images of every lamp alone, in one tracing pass.

    I_p = Σ_k B_pk x_k + I_rest      p: pixel, k: lamp, per colour channel

A path tracer that samples emitters and materials (multiple importance sampling, Veach and Guibas 1995), and adds what
it finds to the lamp that it came from: the passes of single lamps would spend most emitter samples on dark ones. The
emitter sample of the first hit is stratified over the samples of a pixel, so that each lamp gets its share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
from mitsuba.python.ad.integrators.common import mis_weight

from .environment_basis import Camera

#: Samples of one launch.
_LAUNCH = 1 << 20


def lamp_basis(
    scene: mi.Scene,
    sensor: mi.Sensor,
    bins: Mapping[int, int],
    count: int,
    seed: int,
    spp: int,
    max_depth: int,
    rr_depth: int,
    hide_emitters: bool = False,
) -> np.ndarray:
    """One Monte Carlo estimate of the images of groups of emitters.

    Args:
        scene: emitters shine as they are.
        sensor: whose picture it is; any reconstruction filter without negative lobes.
        bins: group (0 to count - 1) of each emitter by its index in `scene.emitters()`; others are left out.
        seed: of this estimate.
        spp: samples per pixel.
        max_depth, rr_depth, hide_emitters: of the path tracer, as in Mitsuba.
    Returns:
        (count, P, 3) float32: radiance of each pixel from each group.
    """
    width, height = (int(n) for n in sensor.film().crop_size())
    pixels = width * height
    ids = np.array(dr.reinterpret_array(mi.UInt32, scene.emitters_dr()))
    table = np.full(int(ids.max()) + 1, count, np.uint32)
    for index, group in bins.items():
        table[ids[index]] = group
    groups = mi.UInt32(table)
    target = dr.zeros(mi.Float, count * pixels * 3)
    share = max(1, min(spp, _LAUNCH // pixels))
    launches = -(-spp // share)
    for k in range(launches):
        camera = Camera(sensor, int(mi.sample_tea_32(seed, k)[0]), share)
        _walk(scene, camera, groups, dr.opaque(mi.UInt32, count), max_depth, rr_depth, hide_emitters, target)
        dr.eval(target)
    return np.array(target).reshape(count, pixels, 3) / np.float32(launches * share)


def _add(target: Any, groups: Any, count: Any, pixels: int, emitter: Any, value: Any, pixel: Any, on: Any) -> None:
    group = dr.gather(mi.UInt32, groups, dr.reinterpret_array(mi.UInt32, emitter), on)
    on = on & (group < count) & dr.all(dr.isfinite(value))
    for channel in range(3):
        dr.scatter_reduce(dr.ReduceOp.Add, target, value[channel], (group * pixels + pixel) * 3 + channel, on)


@dr.syntax
def _walk(
    scene: Any,
    camera: Camera,
    groups: Any,
    count: Any,
    max_depth: int,
    rr_depth: int,
    hide_emitters: bool,
    target: Any,
) -> None:
    ctx = mi.BSDFContext()
    sampler, pixel, weight, pixels = camera.sampler, camera.pixel, camera.weight, camera.pixels
    ray = mi.Ray3f(camera.ray)
    β = mi.Spectrum(1)
    η = mi.Float(1)
    depth = mi.UInt32(0)
    active = dr.max(weight) > 0
    si_prev = dr.zeros(mi.SurfaceInteraction3f)
    pdf_prev = mi.Float(1)
    delta_prev = mi.Bool(True)
    while dr.hint(active, max_iterations=max_depth, label="Lamp basis"):
        si = scene.ray_intersect(ray, ray_flags=mi.RayFlags.All, coherent=depth == 0, active=active)
        seen = mi.Bool(active)
        if dr.hint(hide_emitters, mode="scalar"):
            seen &= (depth > 0) | si.is_valid()
        ds = mi.DirectionSample3f(scene, si, si_prev)
        mis = mis_weight(pdf_prev, scene.pdf_emitter_direction(si_prev, ds, ~delta_prev))
        found = mi.Color3f(β * mis * ds.emitter.eval(si, seen)) * weight
        _add(target, groups, count, pixels, ds.emitter, found, pixel, seen & (dr.max(found) > 0))

        bsdf = si.bsdf(ray)
        active_next = active & si.is_valid() & (depth + 1 < max_depth)
        active_em = active_next & mi.has_flag(bsdf.flags(), mi.BSDFFlags.Smooth)
        u = sampler.next_2d()
        u.x = dr.select(depth == 0, camera.stratum + u.x * camera.stride, u.x)
        ds, light = scene.sample_emitter_direction(si, u, True, active_em)
        active_em &= ds.pdf != 0
        value, pdf, bs, bsdf_weight = bsdf.eval_pdf_sample(
            ctx, si, si.to_local(ds.d), sampler.next_1d(), sampler.next_2d(), active_next
        )
        mis = dr.select(ds.delta, 1, mis_weight(ds.pdf, pdf))
        found = mi.Color3f(β * mis * value * light) * weight
        _add(target, groups, count, pixels, ds.emitter, found, pixel, active_em & (dr.max(found) > 0))

        si_prev = dr.detach(si, True)
        ray = si.spawn_ray(si.to_world(bs.wo))
        η *= bs.eta
        β *= bsdf_weight
        pdf_prev = bs.pdf
        delta_prev = mi.has_flag(bs.sampled_type, mi.BSDFFlags.Delta)
        β_max = dr.max(β)
        active_next &= β_max != 0
        rr_prob = dr.minimum(β_max * η**2, 0.95)
        rr_active = depth >= rr_depth
        β[rr_active] *= dr.rcp(rr_prob)
        active_next &= ~rr_active | (sampler.next_1d() < rr_prob)
        depth[si.is_valid()] += 1
        active = active_next
