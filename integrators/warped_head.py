"""The first vertices of a path, with every outgoing direction warped (docs/theory/warped_area.md, section 5).

At each vertex the directions of the emitter sample and of the BSDF sample are replaced by ω + V(ω), and what they hit
slides along the attached ray. A vertex therefore moves with all the vertices before it: the whole head is one graph of
derivatives, written out vertex by vertex, and path replay starts from the attached ray that leaves its last vertex.
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi
from mitsuba.ad.integrators.common import mis_weight

from .attached import GRAZING, SceneTraits, lobe_value
from .specular_chain import SpecularChain


def warped_head(
    scene: mi.Scene, sampler: mi.Sampler, head: SpecularChain, vertices: int, max_depth: int, warp: Any
) -> SpecularChain:
    """Walk `vertices` vertices with derivatives of everything, visibility included.

    Args:
        head: where the walk starts; its ray is attached.
        warp: `warp(si, d, active)` returns velocity and divergence of the directions d at si.

    Returns:
        The walk so far as a chain: attached ray, weight, radiance collected, path segments used.
    """
    ctx = mi.BSDFContext()
    traits = SceneTraits(scene)
    ray, depth, active = mi.Ray3f(head.ray), mi.UInt32(head.length), mi.Bool(head.active)
    β, emitted = mi.Spectrum(head.weight), mi.Spectrum(head.emitted)
    si_prev = dr.zeros(mi.SurfaceInteraction3f)
    pdf_prev, delta_prev = mi.Float(1), mi.Bool(True)
    for k in range(vertices + 1):
        pi = scene.ray_intersect_preliminary(dr.detach(ray), coherent=k == 0, active=active)
        si = pi.compute_surface_interaction(ray, mi.RayFlags.All, active)
        # At the limb of a curved surface, how far a hit slides grows as 1/cos: there a single sample would outweigh all
        edge_on = active & si.is_valid() & (dr.abs_dot(dr.detach(si.n), dr.detach(ray.d)) < GRAZING)
        si = dr.select(edge_on, dr.detach(si), si)

        # ------------------------------ emission ------------------------------
        ds = mi.DirectionSample3f(scene, si=dr.detach(si), ref=si_prev)
        mis = dr.detach(mis_weight(pdf_prev, scene.pdf_emitter_direction(si_prev, ds, ~delta_prev)))
        Le = β * si.emitter(scene, active).eval(si, active)
        if k == vertices:
            # Path replay counts the emission at its first hit in full: take off what emitter sampling has counted
            emitted += dr.select(active, (mis - 1) * Le, 0)
            break
        emitted += dr.select(active, mis * Le, 0)
        active &= si.is_valid() & (depth + 1 < max_depth)
        bsdf = si.bsdf(ray)

        # --------------------------- emitter sampling ---------------------------
        active_em = active & mi.has_flag(bsdf.flags(), mi.BSDFFlags.Smooth)
        emitted += β * _emitter_sample(scene, traits, sampler, si, bsdf, active_em, warp)

        # ---------------------------- BSDF sampling ----------------------------
        u1, u2 = sampler.next_1d(), sampler.next_2d()
        with dr.suspend_grad():
            fixed = dr.detach(si)
            bs, _ = bsdf.sample(ctx, fixed, u1, u2, active)
            active &= bs.pdf > 0
            delta = mi.has_flag(bs.sampled_type, mi.BSDFFlags.Delta)
            d = fixed.to_world(bs.wo)
            origin = fixed.spawn_ray(d).o
        shift, divergence = warp(si, d, active & ~delta)
        d_warped = dr.normalize(d + shift)
        value = bsdf.eval(ctx, si, si.to_local(d_warped), active & ~delta) * dr.rcp(bs.pdf) * (1 + divergence)
        if traits.has_delta_lobes:
            again, lobe_weight = bsdf.sample(ctx, si, u1, u2, active & delta)
            lobe = lobe_value(traits, bsdf, ctx, si, u1, u2, bs, active & delta)
            value = dr.select(delta, dr.detach(lobe_weight) * dr.relative_grad(lobe), value)
            d_warped = dr.select(delta, dr.replace_grad(d, si.to_world(again.wo)), d_warped)
        β = dr.select(active, β * value, β)
        active &= dr.any(dr.detach(β) != 0)
        onward = mi.Point3f(origin + mi.Vector3f(si.p - dr.detach(si.p)))
        ray.o = mi.Point3f(dr.select(active, onward, ray.o))
        ray.d = dr.select(active, d_warped, ray.d)
        depth += dr.select(active, 1, 0)
        si_prev, pdf_prev, delta_prev = fixed, bs.pdf, delta
    return SpecularChain(ray, β, emitted, depth, active)


def _emitter_sample(
    scene: mi.Scene,
    traits: SceneTraits,
    sampler: mi.Sampler,
    si: mi.SurfaceInteraction3f,
    bsdf: mi.BSDFPtr,
    active: mi.Bool,
    warp: Any,
) -> mi.Spectrum:
    """Light of one emitter sample that si reflects, with derivatives of everything, its visibility included."""
    ctx = mi.BSDFContext()
    u = sampler.next_2d()
    with dr.suspend_grad():
        fixed = dr.detach(si)
        ds, visible = scene.sample_emitter_direction(fixed, u, True, active)
        active &= (ds.pdf != 0) & dr.any(visible != 0)
    result = mi.Spectrum(0)
    if traits.has_other_emitters:
        smooth = active & ~ds.delta
        with dr.suspend_grad():
            mis = mis_weight(ds.pdf, bsdf.pdf(ctx, fixed, fixed.to_local(ds.d), smooth))
            ray = fixed.spawn_ray(ds.d)
            pi = scene.ray_intersect_preliminary(ray, coherent=False, active=smooth)
        shift, divergence = warp(si, ds.d, smooth)
        attached = mi.Ray3f(ray)
        attached.o = mi.Point3f(ray.o + mi.Vector3f(si.p - dr.detach(si.p)))
        attached.d = dr.normalize(ds.d + shift)
        light = pi.compute_surface_interaction(attached, mi.RayFlags.All, smooth)
        emitter = light.emitter(scene, smooth)
        smooth &= emitter == ds.emitter
        Le = emitter.eval(light, smooth) * dr.rcp(ds.pdf) * (1 + divergence)
        result += dr.select(smooth, mis * bsdf.eval(ctx, si, si.to_local(attached.d), smooth) * Le, 0)
    if traits.has_delta_emitters:
        point = active & ds.delta
        ds_point, weight = scene.sample_emitter_direction(si, u, False, point)
        result += dr.select(point, bsdf.eval(ctx, si, si.to_local(ds_point.d), point) * weight, 0)
    return result
