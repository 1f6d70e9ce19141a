"""Attached re-evaluation of what a path tracer sampled without derivatives: emitter samples, lobes, geometric terms.

Equations (E3)-(E5) of docs/theory/path_replay.md. Everything here has the value that was sampled, plus a derivative.
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi

#: Cosine below which a surface counts as seen edge-on.
GRAZING = 1e-3
FOLLOW = mi.RayFlags.All | mi.RayFlags.FollowShape
#: What the far end of a segment needs. Its shading frame would be attached to vertex normals without being read, and
#: Dr.Jit 1.5.0 cannot propagate forward from a parameter that also enters a virtual call outside the result.
FOLLOW_END = mi.RayFlags.Minimal | mi.RayFlags.dPdUV | mi.RayFlags.FollowShape
SPECULAR = int(mi.BSDFFlags.DeltaReflection) | int(mi.BSDFFlags.DeltaTransmission)


class SceneTraits:
    """What a scene contains that needs code of its own in the kernel (known when it is traced)."""

    def __init__(self, scene: mi.Scene) -> None:
        flags = [emitter.flags() for emitter in scene.emitters()]
        delta = mi.EmitterFlags.Delta
        self.has_delta_emitters = any(mi.has_flag(f, delta) for f in flags)
        self.has_other_emitters = any(not mi.has_flag(f, delta) for f in flags)
        shapes = scene.shapes()
        self.emitters_move = any(s.is_emitter() and s.parameters_grad_enabled() for s in shapes)
        sky = scene.environment()
        turning = {} if sky is None else {k: v for k, v in mi.traverse(sky) if k.rsplit(".", 1)[-1] == "to_world"}
        self.environment_turns = any(dr.grad_enabled(value) for value in turning.values())
        bsdfs = scene_bsdfs(scene)
        self.has_delta_lobes = any(mi.has_flag(b.flags(), mi.BSDFFlags.Delta) for b in bsdfs)  # null lobes included
        specular = [b for b in bsdfs if int(b.flags()) & SPECULAR]
        self.composites = [b for b in specular if _composite(b)]
        self.resample_lobes = len(specular) > len(self.composites)
        # A call through the pointer takes composites along, whose attached weights Dr.Jit cannot propagate forward
        attached = any(dr.grad_enabled(value) for b in self.composites for _, value in mi.traverse(b))
        self.simple = [b for b in specular if b not in self.composites] if attached else []


def geometric_term(to_point: mi.Vector3f, si: mi.SurfaceInteraction3f) -> mi.Float:
    """dω/du of a point that keeps its place on its surface, up to a constant (E3).

    |cos θ| / r² times the stretch |∂p/∂u × ∂p/∂v| of the surface's own coordinates.
    """
    return projected_solid_angle(to_point, si.n) * relative_stretch(si)


def projected_solid_angle(to_point: mi.Vector3f, n: mi.Normal3f) -> mi.Float:
    """|cos θ| / r² of a surface element with normal `n`.

    Within `GRAZING` of the limb of a curved surface cos θ is mostly round-off, and so would be its relative derivative,
    which grows as 1/cos θ: there the value is kept and the derivative left out (a share of `GRAZING` of the flux).
    """
    r2 = dr.squared_norm(to_point)
    inv_r = dr.rsqrt(r2)
    cos_theta = dr.abs_dot(n, to_point) * inv_r
    value = cos_theta * dr.square(inv_r)
    return dr.select(dr.detach(cos_theta) > GRAZING, value, dr.detach(value))


def still_at_limb(si: mi.SurfaceInteraction3f, d: mi.Vector3f) -> mi.SurfaceInteraction3f:
    """A hit of an attached ray of direction d, standing still within `GRAZING` of edge-on.

    How far a hit slides along its ray grows as 1/cos θ, which is round-off there: one sample would outweigh all others.
    """
    edge_on = si.is_valid() & (dr.abs_dot(dr.detach(si.n), dr.detach(d)) < GRAZING)
    return dr.select(edge_on, dr.detach(si), si)


def relative_stretch(si: mi.SurfaceInteraction3f) -> mi.Float:
    """Value one, with the relative derivative of the area that the surface's own coordinates span."""
    area = dr.norm(dr.cross(si.dp_du, si.dp_dv))
    return dr.select(dr.detach(area) > 0, dr.relative_grad(area), 1)


def attach_emitter_sample(
    scene: mi.Scene,
    traits: SceneTraits,
    si: mi.SurfaceInteraction3f,
    ds: mi.DirectionSample3f,
    weight: mi.Spectrum,
    u: mi.Point2f,
    active: mi.Bool,
    moving: bool,
) -> tuple[mi.DirectionSample3f, mi.Spectrum]:
    """The same emitter sample with derivatives: of the light, of its position, and of the shading point.

    Args:
        si: attached shading point.
        ds, weight: the detached sample and its weight (radiance / density).
        u: the random numbers that drew it.

    Returns:
        (ds with an attached direction and point, attached weight).
    """
    d, p = ds.d, mi.Point3f(ds.p)
    value = mi.Spectrum(weight)
    if traits.has_other_emitters:
        J = mi.Float(1)
        if moving:
            surface = active & mi.has_flag(ds.emitter.flags(), mi.EmitterFlags.Surface)
            y, n = mi.Point3f(ds.p), mi.Normal3f(ds.n)
            stretch = mi.Float(1)
            if traits.emitters_move:
                # Find the sample again as a point of its shape, to let it follow the shape
                with dr.suspend_grad():
                    ray = dr.detach(si).spawn_ray_to(ds.p)
                    ray.o = dr.fma(ray.d, ray.maxt, ray.o)
                    ray.maxt = dr.largest(ray.maxt)
                    pi_y = scene.ray_intersect_preliminary(ray, coherent=False, active=surface)
                si_y = pi_y.compute_surface_interaction(ray, FOLLOW_END, surface)
                found = surface & si_y.is_valid()
                y = mi.Point3f(dr.replace_grad(y, dr.select(found, si_y.p, y)))
                n = mi.Normal3f(dr.replace_grad(n, dr.select(found, si_y.n, n)))
                stretch = dr.select(found, relative_stretch(si_y), 1)
            p = dr.select(surface, y, p)
            to_y = y - si.p
            J = dr.select(surface, dr.relative_grad(projected_solid_angle(to_y, n)) * stretch, 1)
            d = dr.replace_grad(d, dr.select(surface, dr.normalize(to_y), d))
        ds.d = d
        Le = scene.eval_emitter_direction(si, ds, active & ~ds.delta)
        if traits.environment_turns:
            # `eval_direction` of an environment map looks up the texture coordinates of the detached sample
            infinite = active & mi.has_flag(ds.emitter.flags(), mi.EmitterFlags.Infinite)
            far = dr.zeros(mi.SurfaceInteraction3f, dr.width(ds.d))
            far.wi = -ds.d
            far.wavelengths = si.wavelengths
            Le = dr.select(infinite & ~ds.delta, ds.emitter.eval(far, infinite), Le)
        attached = Le * dr.select(ds.pdf != 0, dr.rcp(ds.pdf), 0) * J
        value = dr.replace_grad(value, dr.select(ds.delta, value, attached))
    if traits.has_delta_emitters:
        # A delta light is drawn the same way every time: sampling it again attached differentiates everything
        ds_delta, w_delta = scene.sample_emitter_direction(si, u, False, active & ds.delta)
        value = dr.replace_grad(value, dr.select(ds.delta, w_delta, value))
        d = dr.replace_grad(d, dr.select(ds.delta, ds_delta.d, d))
    ds.d, ds.p = d, p
    return ds, value


def lobe_value(
    traits: SceneTraits,
    bsdf: mi.BSDFPtr,
    ctx: mi.BSDFContext,
    si: mi.SurfaceInteraction3f,
    u1: mi.Float,
    u2: mi.Point2f,
    bs: mi.BSDFSample3f,
    active: mi.Bool,
) -> mi.Spectrum:
    """Attached intensity of the delta or null lobe that was sampled (E5), up to a constant.

    `eval` of such a lobe is zero, so its derivative has to come from the sampling weight: weight times selection
    probability is the lobe itself, whatever the probability depends on.
    """
    null = active & mi.has_flag(bs.sampled_type, mi.BSDFFlags.Null)
    active = active & ~null
    lobe = mi.Spectrum(1)
    for simple in traits.simple:
        here = active & (bsdf == mi.BSDFPtr(simple))
        again, weight = simple.sample(ctx, si, u1, u2, here)
        lobe = dr.select(here, weight * again.pdf, lobe)
    if traits.resample_lobes and not traits.simple:
        again, weight = bsdf.sample(ctx, si, u1, u2, active)
        lobe = weight * again.pdf
    for composite in traits.composites:
        here = active & (bsdf == mi.BSDFPtr(composite))
        lobe = dr.select(here, _composite_lobe(composite, ctx, si, u1, u2, here), lobe)
    return dr.select(null, bsdf.eval_null_transmission(si, null), lobe)


def _composite(bsdf: mi.BSDF) -> bool:
    """Whether weight times probability is not the lobe of this material, or of one nested in it."""
    if bsdf.class_name() == "TwoSidedBRDF":
        return any(_composite(side) for side in nested(bsdf).values() if isinstance(side, mi.BSDF))
    return bsdf.class_name() in ("SmoothPlastic", "BlendBSDF", "MaskBSDF")


def _composite_lobe(
    bsdf: mi.BSDF, ctx: mi.BSDFContext, si: mi.SurfaceInteraction3f, u1: mi.Float, u2: mi.Point2f, active: mi.Bool
) -> mi.Spectrum:
    """`lobe_value` of one material that is known when the kernel is traced, by descending to the lobe that was drawn.

    A blend reports probabilities, and weights, into which it mixes the densities of its other lobes: what it renders is
    that weight times the probability of choosing the lobe. A mask divides by a detached opacity, so that its weight
    carries the derivative.
    """
    if not int(bsdf.flags()) & SPECULAR:
        return mi.Spectrum(1)
    inner = nested(bsdf)
    kind = bsdf.class_name()
    if kind == "BlendBSDF":
        weight = bsdf.sample(ctx, si, u1, u2, active)[1]
        return weight * _choice(bsdf, ctx, si, u1, u2, active)
    if kind == "MaskBSDF":
        opacity = dr.clip(inner["opacity"].eval_1(si, active), 0, 1)
        return opacity * _composite_lobe(inner["nested_bsdf"], ctx, si, u1 / dr.detach(opacity), u2, active)
    if kind == "TwoSidedBRDF":
        front = mi.Frame3f.cos_theta(dr.detach(si.wi)) > 0
        flipped = mi.SurfaceInteraction3f(si)
        flipped.wi = mi.Vector3f(si.wi.x, si.wi.y, -si.wi.z)
        a = _composite_lobe(inner["brdf_0"], ctx, si, u1, u2, active & front)
        b = _composite_lobe(inner["brdf_1"], ctx, flipped, u1, u2, active & ~front)
        return dr.select(front, a, b)
    if kind == "SmoothPlastic":
        # Its selection probability carries derivatives that cancel here, but that Dr.Jit 1.5 cannot propagate forward
        coat = mi.Spectrum(1)
        if "specular_reflectance" in inner:  # left at one, it is no attribute
            coat = bsdf.eval_attribute("specular_reflectance", si, active)
        return coat * mi.fresnel(dr.abs(mi.Frame3f.cos_theta(si.wi)), mi.traverse(bsdf)["eta"])[0]
    again, weight = bsdf.sample(ctx, si, u1, u2, active)
    return weight * again.pdf


def _choice(
    bsdf: mi.BSDF, ctx: mi.BSDFContext, si: mi.SurfaceInteraction3f, u1: mi.Float, u2: mi.Point2f, active: mi.Bool
) -> mi.Float:
    """Attached probability of choosing the delta lobe that these numbers draw."""
    if not int(bsdf.flags()) & SPECULAR:
        return mi.Float(1)
    if bsdf.class_name() == "BlendBSDF":
        inner = nested(bsdf)
        share = dr.clip(inner["weight"].eval_1(si, active), 0, 1)
        w = dr.detach(share)
        second = u1 <= w
        a = _choice(inner["bsdf_0"], ctx, si, (u1 - w) / (1 - w), u2, active & ~second)
        b = _choice(inner["bsdf_1"], ctx, si, u1 / w, u2, active & second)
        return dr.select(second, share * b, (1 - share) * a)
    if bsdf.class_name() == "MaskBSDF":
        inner = nested(bsdf)
        opacity = dr.clip(dr.detach(inner["opacity"].eval_1(si, active)), 0, 1)
        return _choice(inner["nested_bsdf"], ctx, si, u1 / opacity, u2, active)
    return bsdf.sample(ctx, si, u1, u2, active)[0].pdf


def scene_bsdfs(scene: mi.Scene) -> list[mi.BSDF]:
    """The material of every shape, once each; `scene.shapes()` lacks the shapes that are instanced."""
    shapes = list(scene.shapes())
    if any(shape.class_name() == "Instance" for shape in shapes):
        for group in nested(scene).values():
            if group.class_name().startswith("ShapeGroup"):
                shapes += [part for part in nested(group).values() if isinstance(part, mi.Shape)]
    return list(dict.fromkeys(shape.bsdf() for shape in shapes if shape.bsdf() is not None))


def nested(node: mi.Object) -> dict[str, mi.Object]:
    """The plugins that a plugin holds itself (materials, textures), by name."""

    class Collect(mi.TraversalCallback):
        def put(self, name: str, value: Any, _flags: Any, _type: Any = None) -> None:
            if isinstance(value, mi.Object):
                found[name] = value

        put_object = put_value = put

    found: dict[str, mi.Object] = {}
    node.traverse(Collect())
    return found
