"""Perfectly specular bounces at the start of a camera path, as part of the camera.

A camera ray that meets a perfect mirror or smooth glass leaves it in one direction only: the chain of such bounces maps
the camera ray to another ray, differentiably. Path replay starts behind the chain with that attached ray, so that
whatever is seen in a mirror slides along its ray just as what is seen directly (docs/theory/path_replay.md, section 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import drjit as dr
import mitsuba as mi

from .attached import SceneTraits, lobe_value, scene_bsdfs, still_at_limb


@dataclass
class SpecularChain:
    """Camera rays behind their specular bounces.

    Attributes:
        ray: attached rays that leave the last specular vertex (camera rays where there is none).
        weight: attached throughput of the chain.
        emitted: attached radiance emitted by the specular surfaces themselves.
        length: number of bounces per lane.
        active: lanes that go on.
    """

    ray: mi.Ray3f
    weight: mi.Spectrum
    emitted: mi.Spectrum
    length: mi.UInt32
    active: mi.Bool


def lobe_number(transmitted: mi.UInt32) -> mi.Float:
    """The random number with which a specular material reflects (0) or transmits (1), if it can."""
    return dr.select(transmitted == 0, mi.Float(0), mi.Float(1 - 2**-24))


def purely_specular(scene: mi.Scene) -> bool:
    """Whether some surface may let a ray go on in one direction only."""
    return any(mi.has_flag(b.flags(), mi.BSDFFlags.Delta) for b in scene_bsdfs(scene))  # includes null lobes


def trace_specular_chain(
    scene: mi.Scene, sampler: mi.Sampler, ray: mi.Ray3f, bounces: int, max_depth: int
) -> SpecularChain:
    """Follow camera rays through at most `bounces` purely specular surfaces, with derivatives.

    Args:
        ray: attached camera rays.
    """
    ctx = mi.BSDFContext()
    traits = SceneTraits(scene)
    current = mi.Ray3f(ray)
    weight, emitted = mi.Spectrum(1), mi.Spectrum(0)
    length = mi.UInt32(0)
    active = mi.Bool(True)
    chain = mi.Bool(True)  # lanes whose every surface so far was purely specular
    for bounce in range(bounces):
        # The chain may use up all but the last segment, which replay still needs
        pi = scene.ray_intersect_preliminary(dr.detach(current), coherent=bounce == 0, active=chain)
        si = still_at_limb(pi.compute_surface_interaction(current, mi.RayFlags.All, chain), current.d)
        bsdf = si.bsdf()
        u1, u2 = sampler.next_1d(), sampler.next_2d()
        flags = bsdf.flags()
        hit = chain & si.is_valid() & (bounce + 1 < max_depth)
        specular = hit & mi.has_flag(flags, mi.BSDFFlags.Delta) & ~mi.has_flag(flags, mi.BSDFFlags.Smooth)
        clear = dr.all(dr.detach(bsdf.eval_null_transmission(si, hit)) >= 1)  # the hole of a cut-out
        chain = hit & (specular | clear)
        emitted += dr.select(chain, weight * si.emitter(scene, chain).eval(si, chain), 0)
        bs, lobe_weight = bsdf.sample(ctx, si, u1, u2, chain)
        lobe = lobe_value(traits, bsdf, ctx, si, u1, u2, bs, chain)
        step = dr.detach(lobe_weight) * dr.relative_grad(lobe)
        weight *= dr.select(chain, step, 1)
        onward = si.spawn_ray(si.to_world(bs.wo))
        current.o = mi.Point3f(dr.select(chain, onward.o, current.o))
        current.d = dr.select(chain, onward.d, current.d)
        length += dr.select(chain, 1, 0)
    active &= dr.any(dr.detach(weight) != 0)
    return SpecularChain(current, weight, emitted, length, active)
