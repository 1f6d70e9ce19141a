"""From a surface point to the camera: the importance that a boundary segment's near end carries, by a random walk.

The walk starts at x_S, which receives light from direction ω, and moves away from the light as a light path would; each
vertex is connected to the camera. One connection per walk is kept, by weighted reservoir sampling, because the far
end of the boundary segment must know how many segments the near side used.

Shading normals: the path tracer weighs incoming light by the cosine with the shading normal, whereas the geometric
cosine belongs to the change of measure, so every vertex carries cos_s(ω)/cos_g(ω) (Veach 1997, section 5.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi

from ..near_field import near_weight
from .camera import FilmMap
from .film import FilmSplat
from .layers import TOUCH
from .shadow import first_surface
from .stream import Stream


@dataclass
class Connection:
    """One connection of a walk to the camera.

    Attributes:
        u: (N,) film position.
        weight: (N,) importance in pixels per unit area and solid angle, over the probability of keeping this
            connection.
        bounces: (N,) vertices between x_S and the one that was connected; 0 if x_S itself was.
        aperture: (N,) point of the unit disc, for a thin lens.
    """

    u: mi.Point2f
    weight: mi.Spectrum
    bounces: mi.UInt32
    aperture: mi.Point2f


def cosine_ratio(si: mi.SurfaceInteraction3f, d: mi.Vector3f) -> mi.Float:
    """cos_s(d) / cos_g(d) in absolute value."""
    geometric = dr.abs_dot(si.n, d)
    return dr.select(geometric > 0, dr.abs_dot(si.sh_frame.n, d) / geometric, 0)


def reaches_back(scene: mi.Scene, at: mi.Interaction3f, start: mi.Point3f, active: mi.Bool) -> mi.Bool:
    """Whether nothing stands between what a ray hit and the point where it started, which touches nothing.

    A ray that starts within a tube leaves it unnoticed; the way back meets it. Clear of `at` along the normal (along
    the way it might start within the tube), up to `start` itself (a thin tube ends close to it).
    """
    origin = at.spawn_ray(dr.normalize(mi.Vector3f(start - at.p))).o
    back = mi.Vector3f(start - origin)
    length = dr.norm(back)
    return active & ~scene.ray_test(mi.Ray3f(origin, back / length, length, 0, []), active)


@dr.syntax
def importance_walk(
    integrator: Any,
    scene: mi.Scene,
    camera: FilmMap,
    film: FilmSplat,
    stream: Stream,
    start: mi.SurfaceInteraction3f,
    toward_light: mi.Vector3f,
    least: int,
    most: int,
    tubes: bool,
    active: mi.Bool,
) -> Connection:
    """Connect x_S to the camera.

    Args:
        integrator: has `rr_depth`, bounces after which Russian roulette sets in, and `hide_emitters`.
        start: (N,) x_S.
        toward_light: (N,) unit direction in which x_S sees the far end.
        least, most: which numbers of bounces may be connected.
        tubes: whether there are curves, which rays leave unnoticed, so that every segment is tested from its far end.
    """
    ctx, adjoint = mi.BSDFContext(), mi.BSDFContext()
    adjoint.mode = mi.TransportMode.Importance
    si = mi.SurfaceInteraction3f(start)
    ω = mi.Vector3f(toward_light)  # Direction of the light side
    active = mi.Bool(active)
    β = mi.Spectrum(1)  # Throughput
    bounces = mi.UInt32(0)
    total = mi.Float(0)  # Sum of the reservoir's weights
    kept_u = mi.Point2f(0)
    kept = mi.Spectrum(0)
    kept_bounces = mi.UInt32(0)
    kept_aperture = mi.Point2f(0)

    while dr.hint(active, label="Importance walk"):
        bsdf = si.bsdf()
        # ------------------------- connection to the camera -------------------------
        aperture = mi.Point2f(0)
        if dr.hint(camera.needs_aperture, mode="scalar"):
            aperture = mi.warp.square_to_uniform_disk_concentric(stream.next_2d())
        u = mi.Point2f(dr.detach(camera.project(si.p, aperture)))
        connect = active & (bounces >= least) & film.inside(u) & camera.in_front(si.p)
        connect &= mi.has_flag(bsdf.flags(), mi.BSDFFlags.Smooth)
        ray, response = camera.ray(u, aperture)
        si_camera = mi.SurfaceInteraction3f(si)
        si_camera.wi = si.to_local(-ray.d)
        value = bsdf.eval(ctx, si_camera, si.to_local(ω), connect)
        cos_light = dr.abs_dot(si.n, ω)
        value *= dr.select(cos_light > 0, camera.film_area(si.p, si.n, aperture) / cos_light, 0)
        value *= β * response
        size = dr.max(mi.unpolarized_spectrum(value))
        connect &= (size > 0) & dr.isfinite(size)
        distance = dr.norm(si.p - ray.o)
        if dr.hint(integrator.hide_emitters, mode="scalar"):
            _, first = first_surface(integrator, scene, mi.RayDifferential3f(dr.detach(ray)), connect)
            connect &= first.is_valid() & (dr.norm(first.p - si.p) < TOUCH * distance)
        else:
            shadow = mi.Ray3f(ray.o, ray.d, distance * (1 - TOUCH), 0, [])
            connect &= ~scene.ray_test(shadow, connect)
        total += dr.select(connect, size, 0)
        replace = connect & (stream.next_1d() * total < size)
        kept_u = dr.select(replace, u, kept_u)
        kept = dr.select(replace, value / size, kept)
        kept_bounces = dr.select(replace, bounces, kept_bounces)
        kept_aperture = dr.select(replace, aperture, kept_aperture)

        # ----------------------------- next vertex -----------------------------
        si.wi = si.to_local(ω)
        active &= bounces < most
        sample, weight = bsdf.sample(adjoint, si, stream.next_1d(), stream.next_2d(), active)
        onward = si.to_world(sample.wo)
        ratio = cosine_ratio(si, ω) / cosine_ratio(si, onward)
        β *= weight * dr.select(dr.isfinite(ratio), ratio, 0)
        # The specular lobe of a vertex would need the whole chain to be attached: left out, see `limits.py`
        active &= ~mi.has_flag(sample.sampled_type, mi.BSDFFlags.Delta) & (dr.max(mi.unpolarized_spectrum(β)) > 0)
        survive = dr.minimum(dr.max(mi.unpolarized_spectrum(β)), 0.95)
        roulette = bounces + 1 >= integrator.rr_depth
        active &= ~roulette | (stream.next_1d() < survive)
        β *= dr.select(roulette, dr.rcp(survive), 1)
        ray_on = si.spawn_ray(onward)
        si = scene.ray_intersect(ray_on, active)
        ω = -onward
        active &= si.is_valid()
        β *= dr.select(active, near_weight(integrator.near_field, ray_on.o, si.p), 1)
        if dr.hint(tubes, mode="scalar"):
            active &= reaches_back(scene, si, ray_on.o, active)
        bounces += 1

    return Connection(kept_u, kept * total, kept_bounces, kept_aperture)
