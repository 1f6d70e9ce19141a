"""What straight lines go on behind: masks, panes and, where the camera does not see them, emitters."""

from __future__ import annotations

import drjit as dr
import mitsuba as mi

#: What lies closer in front of a curve point than this fraction of its distance does not hide it.
TOUCH = 1e-3


def transparent(scene: mi.Scene) -> bool:
    """Whether a straight line can continue through some surface (masks, null boundaries)."""
    null = mi.BSDFFlags.Null
    return any(s.bsdf() is not None and mi.has_flag(s.bsdf().flags(), null) for s in scene.shapes())


def is_layer(si: mi.SurfaceInteraction3f, hide_emitters: bool) -> mi.Bool:
    """Whether straight lines go on behind what was met."""
    through = mi.has_flag(si.bsdf().flags(), mi.BSDFFlags.Null)
    return through | si.shape.is_emitter() if hide_emitters else through


@dr.syntax
def missed(
    scene: mi.Scene, ray: mi.Ray3f, p: mi.Point3f, most: int, hide_emitters: bool, active: mi.Bool
) -> tuple[mi.Vector3f, mi.UInt32]:
    """By how much a ray that goes straight on behind the layers in front of a point on it passes that point.

    Mitsuba goes on from some ray epsilons behind each of them along its normal, which is sideways where it is tilted.

    Args:
        p: (N,) detached points on the rays.
        most: number of layers that are followed.

    Returns:
        (N,) from the ray to the point, perpendicular to the ray; (N,) the number of layers.
    """
    o, d = mi.Point3f(ray.o), mi.Vector3f(ray.d)
    going, layers = mi.Bool(active), mi.UInt32(0)
    while dr.hint(going, label="Layers in front of a curve"):
        onward = mi.Ray3f(o, d)
        hit = scene.ray_intersect_preliminary(onward, coherent=False, active=going)
        going &= hit.is_valid() & (hit.t < (1 - TOUCH) * dr.dot(mi.Vector3f(p - o), d))
        si = hit.compute_surface_interaction(onward, mi.RayFlags.Minimal, going)
        going &= is_layer(si, hide_emitters)
        o = mi.Point3f(dr.select(going, mi.Vector3f(si.spawn_ray(d).o), mi.Vector3f(o)))
        layers += dr.select(going, 1, 0)
        going &= layers < most
    away = mi.Vector3f(p - o)
    return away - d * dr.dot(d, away), layers


@dr.syntax
def behind(
    scene: mi.Scene, ray: mi.Ray3f, layers: mi.UInt32, hide_emitters: bool, active: mi.Bool
) -> tuple[mi.Ray3f, mi.Bool]:
    """The part of a ray behind as many layers, on the same line; whether there are so many."""
    o, d = mi.Point3f(ray.o), mi.Vector3f(ray.d)
    there, k = mi.Bool(active), mi.UInt32(0)
    while dr.hint(there & (k < layers), label="Layers"):
        onward = mi.Ray3f(o, d)
        hit = scene.ray_intersect_preliminary(onward, coherent=False, active=there)
        si = hit.compute_surface_interaction(onward, mi.RayFlags.Minimal, there & hit.is_valid())
        there &= hit.is_valid() & is_layer(si, hide_emitters)
        o = mi.Point3f(o + d * (hit.t + mi.math.RayEpsilon * (1 + dr.max(dr.abs(si.p)))))
        k += 1
    return mi.Ray3f(o, d), there
