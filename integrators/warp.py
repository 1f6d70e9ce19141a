"""Warp fields: a velocity of the integration domain that moves with what is visible (docs/theory/warped_area.md).

A field V over directions (or over the film) that is continuous and moves with every visibility boundary turns the
boundary integral into the divergence of fV. Only its component across a boundary is prescribed there. Here

    V(u) = E_{c,P} [ G(P) ],      P a ring of N auxiliary positions around a centre c ~ p(c | u),

and G(P) is the velocity that best agrees, across each of them, with all silhouettes that the ring meets. Whatever G is,
V is its convolution with a smooth density, and the score function of the density gives div V without bias (W4).

Sources: Bangaru, Li, Durand 2020 (warped-area sampling); Loubet, Holzschuh, Jakob 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np

from .boundary.device import recording
from .contours import Contours
from .warp_ring import Frames, Rings, ring_velocity, velocity_seen
from .warped_film import FilmPoints, camera_ray


@dataclass
class Kernel:
    """How a field is averaged.

    Attributes:
        rays: N, auxiliary rays of one ring (at least 3); rings are traced in mirrored pairs.
        ridge: how much a ring's mean velocity counts next to the velocities across silhouettes; decides only what
            silhouettes leave open.
        debias: draw the radius too, R/2 four times in five and else R, with the weights of Richardson's extrapolation:
            what the bias has in R² vanishes, for five times the variance (W7).
        pairs: pairs of rings, turned against each other by equal angles.
    """

    rays: int
    ridge: float = 1e-3
    debias: bool = False
    pairs: int = 1

    def rings(self, lanes: int, seed: mi.UInt32, even: bool = False) -> Rings:
        """Draw the rings of every lane.

        The kernel is p(r) = (15/2π) (2/3 − r + r³/3) on the unit disk; centres are drawn from q = (2/π) (1 − r²), which
        is proportional to |∇p| and gives the divergence its smallest variance (W5). The ring is so wide that its
        polygon contains the middle wherever its centre is: a straight line through the middle cuts the polygon twice.

        Args:
            seed: a random number per lane.
            even: draw centres from p itself, where the velocity alone is wanted: it then has no noise but that of G.
        """
        number = dr.arange(mi.UInt32, 2 * self.pairs * lanes)
        lane = number // (2 * self.pairs)
        pair = (number >> 1) - self.pairs * lane
        # of the seed alone: recorded steps do not compress their lanes, and replay the rings of those that do
        a, b = mi.sample_tea_32(dr.gather(mi.UInt32, seed, lane), mi.UInt32(0), 6)
        c, d = mi.sample_tea_32(a, b, 6)
        u, v, w, z = ((mi.Float(x >> 9) + 0.5) * 2**-23 for x in (a, b, c, d))
        if even:
            r, share = _radius(u), dr.ones(mi.Float, dr.width(number))
            slope = 3 * (1 + r) * dr.rcp(r * (1 - r) * (2 + r))
        else:
            r = dr.sqrt(u / (1 + dr.sqrt(1 - u)))
            # (15/4) (2/3 − r + r³/3) / (1 − r²), without the factor (1 − r) that cancels
            share = 1.25 * (1 - r) * (2 + r) / (1 + r)
            slope = 3.75 * dr.rcp(r)
        size = dr.select((number & 1) == 0, mi.Float(1), mi.Float(-1))
        if self.debias:
            half = z < 0.8
            size *= dr.select(half, 0.5, 1)
            share *= dr.select(half, 5 / 3, -5 / 3)
            slope *= dr.select(half, 4 * 5 / 3, -5 / 3)
        s, c = dr.sincos(dr.two_pi * v + (dr.pi / self.pairs) * mi.Float(pair))
        centre = mi.Vector2f(c, s) * (r * size)
        k = dr.arange(mi.UInt32, dr.width(number) * self.rays)
        ring = k // self.rays
        angle = dr.two_pi * (dr.gather(mi.Float, w, ring) + mi.Float(k - ring * self.rays) / self.rays)
        s, c = dr.sincos(angle)
        offset = mi.Vector2f(c, s) * (dr.gather(mi.Float, size, ring) / np.cos(np.pi / self.rays))
        return Rings(self.rays, lane, centre, share, slope, ring, offset)

    def mean(self, rings: Rings, score: Any, value: Any, middle: Any = 0) -> tuple[Any, mi.Float]:
        """Mean over the rings of every lane and its divergence (W4, W5).

        Args:
            score: ∇p/q of every ring, the gradient taken at the middle (detached).
            value: attached velocity G of every ring.
            middle: attached velocity of every lane, any one, best close to those of its rings: shares scatter about
                their mean, one, and only what differs from this velocity has that noise.

        Returns:
            (V, div V), one entry per lane.
        """
        count = 2 * self.pairs
        lane = dr.arange(mi.UInt32, dr.width(rings.lane) // count)
        pick = lambda x, k: dr.gather(type(x), x, count * lane + k)
        every = [(pick(value, k), pick(score, k), pick(rings.share, k)) for k in range(count)]
        mean = middle + sum(share * (v - middle) / count for v, _, share in every)
        return type(value)(mean), sum(dr.dot(s, v) / count for v, s, _ in every)


def _radius(u: mi.Float) -> mi.Float:
    """r with 5r² − 5r³ + r⁵ = u, the share of p within r; by Newton's method, u to 1e-4."""
    r = 0.43 + 0.35 * (u - 0.5)
    for _ in range(6):
        r -= (r * r * (5 - 5 * r + r * r * r) - u) / (5 * r * (2 - 3 * r + r * r * r))
        r = dr.clip(r, 1e-3, 0.999)
    return r


@dataclass
class Looks:
    """Directions at surface points, one per lane.

    Attributes:
        p: the points, attached.
        origin, n: where rays leave them in that direction, and the normals; detached.
        d: the directions, detached.
        pi: what they meet.
        radius: largest distance of a ring's centre from its direction, radians; the same for all directions of a point.
        seed: a random number.
        direct: whether only light that arrives directly counts; see `ring_velocity`.
        active: whether the direction counts.
    """

    p: mi.Point3f
    origin: mi.Point3f
    n: mi.Vector3f
    d: mi.Vector3f
    pi: mi.PreliminaryIntersection3f
    radius: mi.Float
    seed: mi.UInt32
    direct: mi.Bool
    active: mi.Bool


def direction_field(scene: mi.Scene, contours: Contours, kernel: Kernel, looks: Looks) -> tuple[mi.Vector3f, mi.Float]:
    """Velocity of directions at surface points and its divergence; both have value zero and derivatives."""
    if recording():  # whose arrays cannot change their size
        return _field_around(scene, contours, kernel, looks)
    count = dr.width(looks.d)
    with dr.resume_grad():
        dr.eval(looks)
        lanes = dr.compress(looks.active)
        V, divergence = dr.zeros(mi.Vector3f, count), dr.zeros(mi.Float, count)
        if dr.width(lanes) > 0:
            found = _field_around(scene, contours, kernel, dr.gather(Looks, looks, lanes))
            dr.scatter(V, found[0], lanes)
            dr.scatter(divergence, found[1], lanes)
        return V, divergence


def _field_around(scene: mi.Scene, contours: Contours, kernel: Kernel, looks: Looks) -> tuple[mi.Vector3f, mi.Float]:
    d, still = looks.d, mi.Vector3f(0)
    with dr.suspend_grad():
        rings = kernel.rings(dr.width(d), looks.seed)
        middle, radius = dr.gather(mi.Vector3f, d, rings.lane), dr.gather(mi.Float, looks.radius, rings.lane)
        centre = ring_centres(middle, radius, rings)
        score = direction_score(middle, centre, radius, rings)
        s, t = mi.coordinate_system(centre)
        pick = lambda v: dr.gather(type(v), v, rings.ring)
        around = _displaced(pick(centre), pick(s), pick(t), pick(radius) * rings.offset)
        lane = pick(rings.lane)
        # What lies below the horizon of the surface is dark, and so near that it would seem to move fast
        n = dr.gather(mi.Vector3f, looks.n, lane)
        above = dr.dot(n, around) * dr.dot(n, dr.gather(mi.Vector3f, d, lane)) > 0
        on = dr.gather(mi.Bool, looks.active, lane) & above
        direct = dr.gather(mi.Bool, looks.direct, rings.lane)
        # The origins leave the surface on the side of the direction itself
        origin = dr.gather(mi.Point3f, looks.origin, lane)
    with dr.resume_grad():
        moved = mi.Vector3f(looks.p - dr.detach(looks.p))
        ray = mi.Ray3f(mi.Point3f(origin + dr.gather(mi.Vector3f, moved, lane)), around)
        g = ring_velocity(scene, contours, kernel.ridge, rings, ray, Frames(still, s, still, t), on, direct)
        x, y = mi.coordinate_system(d)
        straight = mi.Ray3f(looks.origin, d)
        here = velocity_seen(contours, looks.pi, straight, moved, still, Frames(still, x, still, y), looks.active)
        return kernel.mean(rings, score, mi.Vector3f(g.x * s + g.y * t), mi.Vector3f(here.x * x + here.y * y))


def ring_centres(middle: mi.Vector3f, radius: mi.Float, rings: Rings) -> mi.Vector3f:
    """Directions of the rings' centres around `middle`."""
    s, t = mi.coordinate_system(middle)
    return _displaced(middle, s, t, radius * rings.centre)


def direction_score(middle: mi.Vector3f, centre: mi.Vector3f, radius: mi.Float, rings: Rings) -> mi.Vector3f:
    """∇p/q on directions (W5).

    The velocity is projected onto the tangent plane of `middle`, which turns with it: −2 of the part along it.
    """
    across = centre - middle * dr.dot(middle, centre)
    return rings.slope * across / dr.square(radius) - 2 * rings.share * middle


def _displaced(d: mi.Vector3f, s: mi.Vector3f, t: mi.Vector3f, offset: mi.Vector2f) -> mi.Vector3f:
    """The direction at chord length |offset| from d; uniform offsets give uniform solid angles."""
    r2 = dr.squared_norm(offset)
    return dr.normalize((1 - 0.5 * r2) * d + dr.safe_sqrt(1 - 0.25 * r2) * (offset.x * s + offset.y * t))


def film_field(
    scene: mi.Scene,
    contours: Contours,
    kernel: Kernel,
    radius: mi.Float,
    seed: mi.UInt32,
    sensor: mi.Sensor,
    points: FilmPoints,
    even: bool = False,
) -> tuple[mi.Vector2f, mi.Float]:
    """Velocity of film positions, in pixels, and its divergence; both have value zero and derivatives.

    Args:
        radius: largest distance of a ring's centre from its position, pixels.
        seed: a random number per lane.
        even: see `Kernel.rings`.
    """
    with dr.suspend_grad():
        rings = kernel.rings(dr.width(points.u), seed, even)
        centres = points.gather(rings.lane)
        centres = centres.at(mi.Point2f(centres.u + radius * rings.centre))
        frames = Frames(*(v for axis in (0, 1) for v in _footprint(sensor, centres, axis)))
        around = centres.gather(rings.ring)
        around = around.at(mi.Point2f(around.u + radius * rings.offset))
    with dr.resume_grad():
        ray, _ = camera_ray(sensor, around)
        g = ring_velocity(scene, contours, kernel.ridge, rings, ray, frames, mi.Bool(True))
        with dr.suspend_grad():
            score = rings.slope * rings.centre / radius
        return kernel.mean(rings, score, g, 0 if even else _seen_by_camera(scene, contours, sensor, points))


def _seen_by_camera(scene: mi.Scene, contours: Contours, sensor: mi.Sensor, points: FilmPoints) -> mi.Vector2f:
    """Attached velocity of what the camera sees at film positions, in pixels."""
    ray, _ = camera_ray(sensor, points)
    δo, δd = mi.Vector3f(ray.o - dr.detach(ray.o)), mi.Vector3f(ray.d - dr.detach(ray.d))
    with dr.suspend_grad():
        fixed = mi.Ray3f(dr.detach(ray))
        frames = Frames(*(v for axis in (0, 1) for v in _footprint(sensor, points, axis)))
        pi = scene.ray_intersect_preliminary(fixed, coherent=True)
        dr.eval(pi, fixed)
    return velocity_seen(contours, pi, fixed, δo, δd, frames, mi.Bool(True))


def _footprint(sensor: mi.Sensor, points: FilmPoints, axis: int) -> tuple[mi.Vector3f, mi.Vector3f]:
    """What one pixel along `axis` changes of origin and direction of a camera ray."""
    half = mi.Vector2f(0.5, 0) if axis == 0 else mi.Vector2f(0, 0.5)
    (after, _), (before, _) = (camera_ray(sensor, points.at(mi.Point2f(points.u + s * half))) for s in (1, -1))
    return mi.Vector3f(dr.detach(after.o - before.o)), mi.Vector3f(dr.detach(after.d - before.d))
