"""Boundary term of indirect visibility from the camera's side: receivers found by walks, then curve points for them.

The same integral as `indirect.py` (E8), sampled in the other order. A walk from the camera goes from surface to surface
as the path tracer does; each of its vertices X_k is a receiver from which one curve point x_B hides what lies behind:

    dI_j = − ∫ h_j(u) Π f … Σ ∫ f(X_k, ω) cos θ L(x_B → X_k) |dx_B/dt × ω| n · v dt / r² ,   ω = (x_B − X_k)/r     (E8b)

Every sample reaches the film, and narrow lobes between the camera and X_k are sampled, not met by chance. But 1/r² has
no bounded variance where receivers touch curves, while the lines of (E8) do not know r at all. The two share the
integral by the distance: (E8b) takes r²/(r² + a²) of it, of lamps less where they look small from X_k, (E8) the rest,
which is unbiased for any a.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi

from ..near_field import NearField, near_weight
from .camera import FilmMap
from .deliver import tangent_of
from .estimate import Contribution, estimate
from .film import FilmSplat
from .guiding import Numbers
from .importance import Connection
from .indirect import LineCurves, far_share, goes_past, lamp_share, seen_from, segment_motion
from .layers import TOUCH
from .lights import NUDGE, Lights
from .shadow import first_surface
from .silhouettes import Silhouettes
from .stream import Stream
from .view import View


@dataclass
class Receiver:
    """One vertex of a walk, kept from all of them.

    Attributes:
        hit: (N,) what was hit there.
        p, n: (N,) where, and its geometric normal.
        bounces: (N,) vertices between it and the camera.
        value: (N,) throughput to and including its BSDF, times |dx_B/dt × ω| / r², over the probability of keeping it.
    """

    hit: mi.PreliminaryIntersection3f
    p: mi.Point3f
    n: mi.Normal3f
    bounces: mi.UInt32
    value: mi.Spectrum


def receiver_term(
    integrator: Any,
    mode: dr.ADMode,
    scene: mi.Scene,
    curves: Silhouettes,
    lights: Lights,
    sensor: mi.Sensor,
    seed: Any,
    spp: int,
    grad_in: mi.TensorXf | None,
) -> mi.TensorXf | None:
    """One launch of (E8b): light that surfaces reflect; after at least one bounce a share of lamps, and the sky's.

    Args:
        spp: samples per pixel of the crop.
        grad_in: adjoint image in backward mode.

    Returns:
        The derivative image in forward mode.
    """
    film, camera, size = FilmSplat(sensor), FilmMap(sensor), lights.extent
    most = integrator.max_depth - 2

    def evaluate(numbers: Numbers) -> Contribution:
        random = numbers.random
        index, t, probability = where.choice.sample(numbers.place)
        u = mi.Point2f(film.low + numbers.other * (film.high - film.low))
        lens = camera.lens(random)
        ray, response = camera.ray(u, lens)
        onward = mi.RayDifferential3f(dr.detach(ray))
        hit, si = first_surface(integrator, scene, onward, probability > 0)
        rr_depth, hits = integrator.rr_depth, si.is_valid()
        kept = walk(scene, curves, index, t, size, random, hit, si, most, rr_depth, near_field, hits)
        active = dr.any(kept.value != 0)
        with dr.resume_grad():
            point = curves.sample(index, t, View(mi.Point3f(kept.p), mi.Bool(False)))
        ω = dr.normalize(mi.Vector3f(dr.detach(mi.Point3f(point.p)) - kept.p))
        outward = point.outward(ω)
        start = point.beside(outward, -ω)
        active &= seen_from(scene, curves, start, kept.p, kept.n, active)
        beyond = mi.Ray3f(start, ω, 0, onward.wavelengths)
        far = scene.ray_intersect_preliminary(beyond, coherent=False, active=active)
        seen = far.compute_surface_interaction(beyond, mi.RayFlags.All, active)
        active &= goes_past(scene, point, outward, beyond, far, seen, active)
        escapes = ~far.is_valid()
        active &= ~escapes | (kept.bounces > 0)
        moves = dr.gather(mi.Bool, moving, index) | curves.moving_hit(kept.hit, active) | curves.moving_hit(far, active)
        active &= moves | (camera_moves & (kept.bounces == 0))
        with dr.resume_grad():
            near = curves.follow(kept.hit, kept.p, active)
            end = dr.select(escapes, ω, mi.Vector3f(curves.follow(far, seen.p, active)))
            link = Connection(u, mi.Spectrum(0), kept.bounces, mi.Point2f(0) if lens is None else lens)
            motion = segment_motion(camera, point, outward, near, kept.n, mi.Point3f(end), escapes, link)
        frame = (film.high.x - film.low.x) * (film.high.y - film.low.y)
        weight = dr.select(active, -frame * dr.rcp(probability * numbers.density), 0)
        value = kept.value * dr.detach(response)
        tangent = tangent_of(mode, motion)
        dr.eval(beyond, random, kept, far, value, active, weight, seen, escapes, numbers.cell, tangent)
        L, _ = integrator.radiance(scene, random, mi.RayDifferential3f(beyond), kept.bounces + 1, active, kept.p)
        lit = active & ~escapes
        ours = dr.select(kept.bounces > 0, lamp_share(kept.p, seen.p, area), 0)
        theirs = (1 - ours) * near_weight(near_field, kept.p, seen.p)
        L -= dr.select(lit, theirs * seen.emitter(scene, lit).eval(seen, lit), 0)
        dr.eval(L)
        return Contribution(u, motion, value * L, weight, None, None, onward.wavelengths, tangent)

    with dr.suspend_grad():
        where, area, near_field = LineCurves(curves), lights.lamp_area(), integrator.near_field
        moving, camera_moves = curves.moving(), mi.Bool(camera.moves())
        memory = integrator.memory("receivers")
        return estimate(evaluate, mode, film, seed, film.pixels * spp, where.choice, True, memory, grad_in)


@dr.syntax
def walk(
    scene: mi.Scene,
    curves: Silhouettes,
    index: mi.UInt32,
    t: mi.Float,
    size: mi.Float,
    stream: Stream,
    hit: mi.PreliminaryIntersection3f,
    si: mi.SurfaceInteraction3f,
    most: int,
    rr_depth: int,
    near_field: NearField | None,
    active: mi.Bool,
) -> Receiver:
    """Walk on from a first hit, and keep one vertex by weighted reservoir sampling.

    Args:
        index, t: (N,) the curve points that the vertices look at.
        hit, si: (N,) the first hit.
        most: largest number of bounces before a receiver.
        rr_depth: bounces after which Russian roulette sets in.
        near_field: weighs the segments of the walk.
    """
    ctx = mi.BSDFContext()
    hit, si = mi.PreliminaryIntersection3f(hit), mi.SurfaceInteraction3f(si)
    active = mi.Bool(active)
    β = mi.Spectrum(1)
    bounces = mi.UInt32(0)
    total = mi.Float(0)
    kept_hit = dr.zeros(mi.PreliminaryIntersection3f, dr.width(index))
    kept_p, kept_n = mi.Point3f(0), mi.Normal3f(0)
    kept_bounces, kept = mi.UInt32(0), mi.Spectrum(0)

    while dr.hint(active, label="Receiver walk"):
        bsdf = si.bsdf()
        # ------------------------- the curve point, seen from here -------------------------
        point = curves.sample(index, t, View(mi.Point3f(si.p), mi.Bool(False)))
        to_B = mi.Vector3f(dr.detach(mi.Point3f(point.p)) - si.p)
        r = dr.norm(to_B)
        ω = to_B / r
        looks = active & point.silhouette & (r > TOUCH * NUDGE * size)
        value = β * bsdf.eval(ctx, si, si.to_local(ω), looks)
        value *= far_share(r, size) * dr.norm(dr.cross(point.tangent, ω)) / dr.square(r)
        weight = dr.max(mi.unpolarized_spectrum(value))
        looks &= (weight > 0) & dr.isfinite(weight)
        total += dr.select(looks, weight, 0)
        replace = looks & (stream.next_1d() * total < weight)
        kept_hit = dr.select(replace, hit, kept_hit)
        kept_p, kept_n = dr.select(replace, si.p, kept_p), dr.select(replace, si.n, kept_n)
        kept_bounces = dr.select(replace, bounces, kept_bounces)
        kept = dr.select(replace, value / weight, kept)

        # ----------------------------- next vertex -----------------------------
        active &= bounces < most
        sample, factor = bsdf.sample(ctx, si, stream.next_1d(), stream.next_2d(), active)
        β *= factor
        # A specular lobe would need the whole chain to be attached: left out, see `limits.py`
        active &= ~mi.has_flag(sample.sampled_type, mi.BSDFFlags.Delta) & (dr.max(mi.unpolarized_spectrum(β)) > 0)
        survive = dr.minimum(dr.max(mi.unpolarized_spectrum(β)), 0.95)
        roulette = bounces + 1 >= rr_depth
        active &= ~roulette | (stream.next_1d() < survive)
        β *= dr.select(roulette, dr.rcp(survive), 1)
        ray = si.spawn_ray(si.to_world(sample.wo))
        hit = scene.ray_intersect_preliminary(ray, coherent=False, active=active)
        si = hit.compute_surface_interaction(ray, mi.RayFlags.All, active)
        active &= si.is_valid()
        β *= dr.select(active, near_weight(near_field, ray.o, si.p), 1)
        bounces += 1

    return Receiver(kept_hit, kept_p, kept_n, kept_bounces, kept * total)
