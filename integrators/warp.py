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

from .attached import FOLLOW
from .contours import Contours, Walk
from .warped_film import FilmPoints, camera_ray

#: How far beyond a silhouette one looks for what it hides, as a fraction of a ring's side.
BEYOND = 0.02


@dataclass
class Rings:
    """Two mirrored rings for every lane.

    Attributes:
        size: positions N of a ring.
        lane: lane of every ring.
        centre: offset of every ring's centre from the middle of its lane, in units of the kernel's radius.
        rest: 1 − |centre|².
        ring: ring of every position.
        offset: offset of every position from its centre, same units.
    """

    size: int
    lane: mi.UInt32
    centre: mi.Vector2f
    rest: mi.Float
    ring: mi.UInt32
    offset: mi.Vector2f


@dataclass
class Kernel:
    """How a field is averaged.

    Attributes:
        rays: N, auxiliary rays of one ring (at least 3); two mirrored rings are traced.
        ridge: how much a ring's mean velocity counts next to the velocities across silhouettes; decides only what
            silhouettes leave open.
    """

    rays: int
    ridge: float = 1e-3

    def rings(self, lanes: int, seed: mi.UInt32) -> Rings:
        """Draw the rings of every lane.

        A centre has the density (3/π) (1 − r²)² on the unit disk. The ring is so wide that its polygon contains the
        middle wherever its centre is: a straight line through the middle cuts the polygon twice.

        Args:
            seed: a random number per lane.
        """
        number = dr.arange(mi.UInt32, 2 * lanes)
        lane = number >> 1
        a, b = mi.sample_tea_32(dr.gather(mi.UInt32, seed, lane), lane, 6)
        c, _ = mi.sample_tea_32(a, b, 6)
        u, v, w = (mi.Float(x >> 8) * 2**-24 for x in (a, b, c))
        rest = (1 - u) ** (1 / 3)
        sign = dr.select((number & 1) == 0, mi.Float(1), mi.Float(-1))
        s, c = dr.sincos(dr.two_pi * v)
        centre = mi.Vector2f(c, s) * dr.safe_sqrt(1 - rest) * sign
        k = dr.arange(mi.UInt32, 2 * lanes * self.rays)
        ring = k // self.rays
        angle = dr.two_pi * (dr.gather(mi.Float, w, ring) + mi.Float(k - ring * self.rays) / self.rays)
        s, c = dr.sincos(angle)
        offset = mi.Vector2f(c, s) * (dr.gather(mi.Float, sign, ring) / np.cos(np.pi / self.rays))
        return Rings(self.rays, lane, centre, rest, ring, offset)

    def mean(self, score: Any, value: Any) -> tuple[Any, mi.Float]:
        """Mean of the two mirrored rings of every lane and its divergence (W3, W4).

        Args:
            score: gradient, at the middle, of the log density of every ring's centre (detached).
            value: attached velocity G of every ring.

        Returns:
            (V, div V), one entry per lane.
        """
        add = lambda x: 0.5 * dr.block_reduce(dr.ReduceOp.Add, x, 2)
        return type(value)(*[add(v) for v in value]), add(dr.dot(score, value))


@dataclass
class Frames:
    """What unit steps of the two coordinates of a ring's domain do to a point seen at distance t: o + t d."""

    x_o: mi.Vector3f
    x_d: mi.Vector3f
    y_o: mi.Vector3f
    y_d: mi.Vector3f

    def gather(self, index: mi.UInt32) -> Frames:
        pick = lambda v: dr.gather(mi.Vector3f, v, index) if dr.width(v) > 1 else v
        return Frames(*(pick(v) for v in (self.x_o, self.x_d, self.y_o, self.y_d)))

    def steps(self, t: mi.Float, finite: mi.Bool = True) -> tuple[mi.Vector3f, mi.Vector3f]:
        """The two displacements; at infinity only directions count."""
        x, y = (dr.select(finite, o, 0) + t * d for o, d in ((self.x_o, self.x_d), (self.y_o, self.y_d)))
        return mi.Vector3f(x), mi.Vector3f(y)


def ring_velocity(
    scene: mi.Scene, contours: Contours, kernel: Kernel, rings: Rings, ray: Any, frames: Frames, active: mi.Bool
) -> mi.Vector2f:
    """Velocity G of every ring: it moves across each silhouette that the ring meets as the silhouette does.

        G = argmin Σₖ wₖ (rₖ·G − sₖ)² + μ |G − Ḡ|²                                                         (W5)

    rₖ and sₖ: normal and normal speed of a silhouette; Ḡ: mean velocity of the points on the silhouettes, or, where
    there are none, of the points seen.

    Args:
        ray: attached auxiliary rays.
        frames: of every ring.
        active: of every ring.

    Returns:
        Attached velocity in the coordinates of `frames`, one entry per ring.
    """
    n = rings.size
    on = dr.gather(mi.Bool, active, rings.ring) if dr.width(active) > 1 else active
    with dr.suspend_grad():
        fixed = mi.Ray3f(dr.detach(ray))
        pi = scene.ray_intersect_preliminary(fixed, coherent=False, active=on)
        hit = pi.is_valid() & on
        t = dr.select(hit, pi.t, 1)
        number = dr.reinterpret_array(mi.UInt32, pi.shape)
        # Two walks start at every position, towards its two neighbours
        walker = dr.arange(mi.UInt32, 2 * dr.width(fixed.d))
        start = walker >> 1
        ring = start // n
        place = start - ring * n
        end = ring * n + (place + dr.select((walker & 1) == 0, mi.UInt32(1), mi.UInt32(n - 1))) % n
        at = lambda x, index: dr.gather(type(x), x, index)
        dr.eval(fixed.o, fixed.d, t, number, pi.prim_index, hit)
        o, d = mi.Point3f(at(fixed.o, start)), at(fixed.d, start)
        step_o, step_d = mi.Vector3f(at(fixed.o, end) - o), mi.Vector3f(at(fixed.d, end) - d)
        begin = at(hit, start)
        walk = Walk(at(number, start), at(pi.prim_index, start), o, d, step_o, step_d, at(t, start), begin)
    with dr.resume_grad():
        # Points seen, relative to the attached ray
        si = pi.compute_surface_interaction(fixed, FOLLOW, hit)
        seen = dr.select(hit, si.p - dr.detach(si.p), 0)
        δo, δd = mi.Vector3f(ray.o - dr.detach(ray.o)), mi.Vector3f(ray.d - dr.detach(ray.d))
        seen = mi.Vector3f(seen) - dr.select(hit, δo, 0) - t * δd
        v_seen = _solve(seen, *frames.gather(rings.ring).steps(t, hit), fixed.d)

        ends, basis = _Ends(start, end, o, d, step_o, step_d, δo, δd), frames.gather(ring)
        first = _Constraint.of(contours, walk, mi.Float(0), ends, basis)
        # What is seen beyond the silhouette may end before the neighbour is reached, and hide from both
        with dr.suspend_grad():
            beyond = first.fraction + BEYOND
            go_on = (first.weight == 1) & (beyond < 1)
            again = mi.Ray3f(mi.Point3f(o + beyond * step_o), dr.normalize(d + beyond * step_d))
            pi_2 = scene.ray_intersect_preliminary(again, coherent=False, active=go_on)
            number_2 = dr.reinterpret_array(mi.UInt32, pi_2.shape)
            go_on &= pi_2.is_valid() & ~((number_2 == at(number, end)) & (pi_2.prim_index == at(pi.prim_index, end)))
            rest_o, rest_d = mi.Vector3f(o + step_o - again.o), d + step_d - again.d
            t_2 = dr.select(go_on, pi_2.t, 1)
            onward = Walk(number_2, pi_2.prim_index, again.o, again.d, rest_o, rest_d, t_2, go_on)
        second = _Constraint.of(contours, onward, beyond, ends, basis)

        add = lambda f, block=2 * n: dr.block_reduce(dr.ReduceOp.Add, f(first) + f(second), block)
        total = add(lambda c: c.weight)
        some = total > 0
        inverse = dr.select(some, dr.rcp(total), 0)
        on_silhouettes = [add(lambda c, k=k: c.weight * c.velocity[k]) * inverse for k in (0, 1)]
        of_points = [dr.block_reduce(dr.ReduceOp.Add, dr.select(hit, v, 0), n) * (1 / n) for v in v_seen]
        mean = dr.select(some, mi.Vector2f(*on_silhouettes), mi.Vector2f(*of_points))
        with dr.suspend_grad():
            μ = dr.select(some, kernel.ridge * total, 1)
            xx = add(lambda c: c.weight * dr.square(c.row.x)) + μ
            yy = add(lambda c: c.weight * dr.square(c.row.y)) + μ
            xy = add(lambda c: c.weight * c.row.x * c.row.y)
            r = dr.rcp(xx * yy - xy * xy)
        bx = add(lambda c: c.weight * c.row.x * c.speed) + μ * mean.x
        by = add(lambda c: c.weight * c.row.y * c.speed) + μ * mean.y
        return mi.Vector2f((yy * bx - xy * by) * r, (xx * by - xy * bx) * r)


@dataclass
class _Ends:
    """The two rays between which walks are made: indices, the first ray, the step to the second, attached shifts."""

    start: mi.UInt32
    end: mi.UInt32
    o: mi.Point3f
    d: mi.Vector3f
    step_o: mi.Vector3f
    step_d: mi.Vector3f
    δo: mi.Vector3f
    δd: mi.Vector3f

    def shift(self, x: mi.Vector3f, s: mi.Float) -> mi.Vector3f:
        """Attached shift at fraction s of the way."""
        a, b = (dr.gather(mi.Vector3f, x, index) if dr.width(x) > 1 else x for index in (self.start, self.end))
        return a + s * (b - a)


@dataclass
class _Constraint:
    """row · G = speed: what a silhouette between two rays asks of the velocity of its ring.

    Attributes:
        weight: 0 where no silhouette was met.
        fraction: where, as a fraction of the way.
        row: unit vector across the silhouette, in the coordinates of the ring.
        speed: attached speed of the silhouette along `row`.
        velocity: attached velocity of the point on the silhouette.
    """

    weight: mi.Float
    fraction: mi.Float
    row: mi.Vector2f
    speed: mi.Float
    velocity: mi.Vector2f

    @staticmethod
    def of(contours: Contours, walk: Walk, before: mi.Float, ends: _Ends, frames: Frames) -> _Constraint:
        """The constraint that a walk finds, which begins at the fraction `before`."""
        cross = contours.crossing(walk)
        s = before + (1 - before) * cross.fraction
        with dr.suspend_grad():
            eye, gaze = ends.o + s * ends.step_o, dr.normalize(ends.d + s * ends.step_d)
            distance = dr.dot(dr.detach(cross.point) - eye, gaze)
            across = dr.normalize(dr.cross(cross.tangent, gaze))
            x, y = frames.steps(distance)
            row = mi.Vector2f(dr.dot(across, x), dr.dot(across, y))
            scale = dr.rcp(dr.norm(row))
            row *= scale
            fine = dr.isfinite(dr.squared_norm(row)) & (distance > 0) & (cross.weight > 0)
            weight, row = dr.select(fine, cross.weight, 0), dr.select(fine, row, 0)
        moved = mi.Vector3f(cross.point - dr.detach(cross.point))
        moved = moved - ends.shift(ends.δo, s) - distance * ends.shift(ends.δd, s)
        velocity = _solve(moved, x, y, gaze)
        speed = dr.select(fine, scale * dr.dot(across, moved), 0)
        return _Constraint(weight, s, row, speed, dr.select(fine, velocity, 0))


def _solve(v: mi.Vector3f, x: mi.Vector3f, y: mi.Vector3f, d: mi.Vector3f) -> mi.Vector2f:
    """Coordinates, in steps x and y, of a displacement as seen along d."""
    with dr.suspend_grad():
        x, y = x - d * dr.dot(d, x), y - d * dr.dot(d, y)
        xx, xy, yy = dr.dot(x, x), dr.dot(x, y), dr.dot(y, y)
        r = dr.rcp(xx * yy - xy * xy)
        to_x, to_y = (yy * x - xy * y) * r, (xx * y - xy * x) * r
    return mi.Vector2f(dr.dot(to_x, v), dr.dot(to_y, v))


def direction_field(
    scene: mi.Scene,
    contours: Contours,
    kernel: Kernel,
    radius: mi.Float,
    seed: mi.UInt32,
    si: mi.SurfaceInteraction3f,
    d: mi.Vector3f,
    active: mi.Bool,
) -> tuple[mi.Vector3f, mi.Float]:
    """Velocity of directions at a surface point and its divergence; both have value zero and derivatives.

    Args:
        radius: largest distance of a ring's centre from its direction, radians; the same for all directions of a point.
        seed: a random number per lane.
        si: attached surface point.
        d: detached directions.
    """
    with dr.suspend_grad():
        rings = kernel.rings(dr.width(d), seed)
        middle = dr.gather(mi.Vector3f, d, rings.lane)
        wide = mi.Float(radius) + dr.zeros(mi.Float, dr.width(d))
        radius = dr.gather(mi.Float, wide, rings.lane)
        s, t = mi.coordinate_system(middle)
        centre = _displaced(middle, s, t, radius * rings.centre)
        score = 4 * (centre - middle * dr.dot(middle, centre)) / (dr.square(radius) * rings.rest) - 2 * middle
        s, t = mi.coordinate_system(centre)
        pick = lambda v: dr.gather(mi.Vector3f, v, rings.ring)
        around = _displaced(pick(centre), pick(s), pick(t), dr.gather(mi.Float, radius, rings.ring) * rings.offset)
        lane = dr.gather(mi.UInt32, rings.lane, rings.ring)
        # The origins leave the surface on the side of the direction itself
        origin = dr.gather(mi.Point3f, dr.detach(si).spawn_ray(d).o, lane)
        on = dr.gather(mi.Bool, active, rings.lane)
        frames = Frames(mi.Vector3f(0), s, mi.Vector3f(0), t)
    with dr.resume_grad():
        moved = mi.Vector3f(si.p - dr.detach(si.p)) + dr.zeros(mi.Vector3f, dr.width(d))
        ray = mi.Ray3f(mi.Point3f(origin + dr.gather(mi.Vector3f, moved, lane)), around)
        g = ring_velocity(scene, contours, kernel, rings, ray, frames, on)
        return kernel.mean(score, g.x * s + g.y * t)


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
) -> tuple[mi.Vector2f, mi.Float]:
    """Velocity of film positions, in pixels, and its divergence; both have value zero and derivatives.

    Args:
        radius: largest distance of a ring's centre from its position, pixels.
        seed: a random number per lane.
    """
    with dr.suspend_grad():
        rings = kernel.rings(dr.width(points.u), seed)
        centres = points.gather(rings.lane)
        centres = centres.at(mi.Point2f(centres.u + radius * rings.centre))
        frames = Frames(*(v for axis in (0, 1) for v in _footprint(sensor, centres, axis)))
        around = centres.gather(rings.ring)
        around = around.at(mi.Point2f(around.u + radius * rings.offset))
    with dr.resume_grad():
        ray, _ = camera_ray(sensor, around)
        g = ring_velocity(scene, contours, kernel, rings, ray, frames, mi.Bool(True))
        with dr.suspend_grad():
            score = 4 * rings.centre / (radius * rings.rest)
        return kernel.mean(score, g)


def _footprint(sensor: mi.Sensor, points: FilmPoints, axis: int) -> tuple[mi.Vector3f, mi.Vector3f]:
    """What one pixel along `axis` changes of origin and direction of a camera ray."""
    half = mi.Vector2f(0.5, 0) if axis == 0 else mi.Vector2f(0, 0.5)
    (after, _), (before, _) = (camera_ray(sensor, points.at(mi.Point2f(points.u + s * half))) for s in (1, -1))
    return mi.Vector3f(dr.detach(after.o - before.o)), mi.Vector3f(dr.detach(after.d - before.d))
