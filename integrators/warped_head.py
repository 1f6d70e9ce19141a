"""The first vertices of a path, with every outgoing direction warped (docs/theory/warped_area.md, section 5).

At each vertex the directions of the emitter sample and of the BSDF sample are replaced by ω + V(ω), and what they hit
slides along the attached ray. A vertex therefore moves with all the vertices before it: the whole head is one graph of
derivatives, written out vertex by vertex, and path replay starts from the attached ray that leaves its last vertex.

The light of the sky is taken for what an unhidden sky sends, less what is hidden of it: the first has no silhouettes
and needs no warp, the second is warped (W12).
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
from mitsuba.python.ad.integrators.common import mis_weight

from .attached import SceneTraits, lobe_value, still_at_limb
from .near_field import NearField, near_weight
from .specular_chain import SpecularChain

#: Largest over mean texel of a sky that is taken apart: a sun that something hides would add its noise to all of the
#: shadow. A choice, not swept.
SUN = 20.0


def even_sky(scene: mi.Scene) -> bool:
    """Whether the scene has an environment without a sun; read on the host."""
    sky = scene.environment()
    if sky is None:
        return False
    params = mi.traverse(sky)
    if "data" not in params:
        return bool(sky.class_name() == "ConstantBackgroundEmitter")
    texels = np.asarray(params["data"])[..., :3]
    return bool(texels.max() <= SUN * texels.mean())


class Sky:
    """The environment of a scene, as if nothing stood before it; without one it is black.

    Attributes:
        emitter: the environment, or None.
    """

    def __init__(self, scene: mi.Scene | None) -> None:
        self.emitter = None if scene is None else scene.environment()

    def __bool__(self) -> bool:
        return self.emitter is not None

    def radiance(self, d: mi.Vector3f, wavelengths: Any, active: mi.Bool = True) -> mi.Spectrum:
        """What arrives from the (attached) directions d."""
        if self.emitter is None:
            return mi.Spectrum(0)
        si = dr.zeros(mi.SurfaceInteraction3f, dr.width(d))
        si.wi, si.wavelengths = -d, wavelengths
        return self.emitter.eval(si, active)

    def pdf(self, scene: mi.Scene, si: mi.SurfaceInteraction3f, d: mi.Vector3f, active: mi.Bool) -> mi.Float:
        """Density with which emitter sampling at si draws directions d of the sky."""
        ds = dr.zeros(mi.DirectionSample3f, dr.width(d))
        ds.d, ds.emitter = d, mi.EmitterPtr(self.emitter)
        return scene.pdf_emitter_direction(si, ds, active)


def warped_head(
    scene: mi.Scene,
    sampler: mi.Sampler,
    head: SpecularChain,
    vertices: int,
    max_depth: int,
    warp: Any,
    sky: Sky,
    near: NearField | None,
) -> SpecularChain:
    """Walk `vertices` vertices with derivatives of everything, visibility included.

    Args:
        head: where the walk starts; its ray is attached.
        warp: `warp(si, d, pi, direct, active)` returns velocity and divergence of the directions d at si, in which
            pi is met, and along which only light that arrives directly counts, or all.
        sky: what is differentiated without a warp as far as nothing hides it.
        near: weighs the segments between surfaces.

    Returns:
        The walk so far as a chain: attached ray, weight, radiance collected, path segments used.
    """
    ctx = mi.BSDFContext()
    traits = SceneTraits(scene)
    ray, depth, active = mi.Ray3f(head.ray), mi.UInt32(head.length), mi.Bool(head.active)
    β, emitted = mi.Spectrum(head.weight), mi.Spectrum(head.emitted)
    si_prev, p_prev = dr.zeros(mi.SurfaceInteraction3f), mi.Point3f(0)
    pdf_prev, delta_prev = mi.Float(1), mi.Bool(True)
    pi = scene.ray_intersect_preliminary(dr.detach(ray), coherent=True, active=active)
    for k in range(vertices + 1):
        si = still_at_limb(pi.compute_surface_interaction(ray, mi.RayFlags.All, active), ray.d)
        before = mi.Spectrum(β)
        if k > 0:
            β *= dr.select(active & si.is_valid() & ~delta_prev, near_weight(near, p_prev, si.p), 1)
        p_prev = mi.Point3f(si.p)
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
        dr.eval(si, active, β, emitted)

        # --------------------------- emitter sampling ---------------------------
        active_em = active & mi.has_flag(bsdf.flags(), mi.BSDFFlags.Smooth)
        last = depth + 2 >= max_depth
        emitted += β * _emitter_sample(scene, traits, sky, sampler, si, bsdf, active_em, last, warp, near)

        # ---------------------------- BSDF sampling ----------------------------
        u1, u2 = sampler.next_1d(), sampler.next_2d()
        with dr.suspend_grad():
            fixed = dr.detach(si)
            bs, _ = bsdf.sample(ctx, fixed, u1, u2, active)
            active &= bs.pdf > 0
            delta = mi.has_flag(bs.sampled_type, mi.BSDFFlags.Delta)
            d = fixed.to_world(bs.wo)
            origin = fixed.spawn_ray(d).o
            smooth = active & ~delta & _true_side(fixed, d) if sky else mi.Bool(False)
            pi = scene.ray_intersect_preliminary(mi.Ray3f(origin, d), coherent=False, active=active)
            # Where nothing comes from at all, no direction counts
            lit = pi.is_valid() & (bool(sky) | ~last | mi.ShapePtr(pi.shape).is_emitter())
            lit |= ~pi.is_valid() & ~smooth & (scene.environment() is not None)
            dr.eval(pi, bs, lit)
        shift, divergence = warp(si, d, pi, last, active & ~delta & lit)
        d_warped = dr.normalize(d + shift)
        value = bsdf.eval(ctx, si, si.to_local(d_warped), active & ~delta) * dr.rcp(bs.pdf) * (1 + divergence)
        if sky:
            mis = dr.detach(mis_weight(bs.pdf, sky.pdf(scene, fixed, d, smooth)))
            plain = bsdf.eval(ctx, si, si.to_local(d), smooth) * dr.rcp(bs.pdf)
            seen = plain * sky.radiance(d, ray.wavelengths, smooth)
            seen -= value * sky.radiance(d_warped, ray.wavelengths, smooth)
            emitted += dr.select(smooth, dr.detach(β) * mis * seen, 0)
        if traits.has_delta_lobes:
            again, lobe_weight = bsdf.sample(ctx, si, u1, u2, active & delta)
            lobe = lobe_value(traits, bsdf, ctx, si, u1, u2, bs, active & delta)
            value = dr.select(delta, dr.detach(lobe_weight) * dr.relative_grad(lobe), value)
            d_warped = dr.select(delta, dr.replace_grad(d, si.to_world(again.wo)), d_warped)
        β = dr.select(active, dr.select(delta, before, β) * value, β)
        active &= dr.any(dr.detach(β) != 0)
        onward = mi.Point3f(origin + mi.Vector3f(si.p - dr.detach(si.p)))
        ray.o = mi.Point3f(dr.select(active, onward, ray.o))
        ray.d = dr.select(active, d_warped, ray.d)
        ray.maxt = dr.select(active, dr.largest(mi.Float), ray.maxt)  # a camera sees no farther than its far plane
        depth += dr.select(active, 1, 0)
        si_prev, pdf_prev, delta_prev = fixed, bs.pdf, delta
    return SpecularChain(ray, β, emitted, depth, active)


def _emitter_sample(
    scene: mi.Scene,
    traits: SceneTraits,
    sky: Sky,
    sampler: mi.Sampler,
    si: mi.SurfaceInteraction3f,
    bsdf: mi.BSDFPtr,
    active: mi.Bool,
    last: mi.Bool,
    warp: Any,
    near: NearField | None,
) -> mi.Spectrum:
    """Light of one emitter sample that si reflects, with derivatives of everything, its visibility included."""
    ctx = mi.BSDFContext()
    u = sampler.next_2d()
    with dr.suspend_grad():
        fixed = dr.detach(si)
        ds, _ = scene.sample_emitter_direction(fixed, u, False, active)
        active &= ds.pdf != 0
        ray = fixed.spawn_ray(ds.d)
        pi = scene.ray_intersect_preliminary(ray, coherent=False, active=active)
        blocked = pi.is_valid() & (pi.t < (1 - mi.math.ShadowEpsilon) * dr.norm(ds.p - ray.o))
    result = mi.Spectrum(0)
    if traits.has_other_emitters:
        smooth = active & ~ds.delta
        of_sky = mi.Bool(False)
        if sky:
            of_sky = smooth & (ds.emitter == mi.EmitterPtr(sky.emitter)) & _true_side(fixed, ds.d)
        with dr.suspend_grad():
            mis = mis_weight(ds.pdf, bsdf.pdf(ctx, fixed, fixed.to_local(ds.d), smooth)) * dr.rcp(ds.pdf)
        counts = smooth & (blocked == of_sky)
        dr.eval(pi, ds, ray, mis, counts, of_sky)
        shift, divergence = warp(si, ds.d, pi, last, counts)
        attached = mi.Ray3f(ray)
        attached.o = mi.Point3f(ray.o + mi.Vector3f(si.p - dr.detach(si.p)))
        attached.d = dr.normalize(ds.d + shift)
        lamp = counts & ~of_sky
        light = pi.compute_surface_interaction(attached, mi.RayFlags.All, lamp)
        emitter = light.emitter(scene, lamp)
        Le = dr.select(lamp & (emitter == ds.emitter), emitter.eval(light, lamp), 0)
        Le *= dr.select(lamp, near_weight(near, si.p, light.p), 1)
        if sky:
            Le -= dr.select(counts & of_sky, sky.radiance(attached.d, ray.wavelengths, of_sky), 0)
            plain = bsdf.eval(ctx, si, si.to_local(ds.d), of_sky) * sky.radiance(ds.d, ray.wavelengths, of_sky)
            result += dr.select(of_sky, mis * plain, 0)
        result += dr.select(
            counts, mis * bsdf.eval(ctx, si, si.to_local(attached.d), counts) * Le * (1 + divergence), 0
        )
    if traits.has_delta_emitters:
        point = active & ds.delta & ~blocked
        ds_point, weight = scene.sample_emitter_direction(si, u, False, point)
        result += dr.select(point, bsdf.eval(ctx, si, si.to_local(ds_point.d), point) * weight, 0)
    return result


def _true_side(si: mi.SurfaceInteraction3f, d: mi.Vector3f) -> mi.Bool:
    """Whether d lies on the side of the surface (that of the eye, or the other) on which its shading normal has it.

    If not, a body blocks the view with what is beside the point itself, as near as one likes: the sky would be hidden
    at any speed.
    """
    shading = mi.Frame3f.cos_theta(si.to_local(d)) * mi.Frame3f.cos_theta(si.wi)
    return dr.dot(si.n, d) * dr.dot(si.n, si.to_world(si.wi)) * shading > 0
