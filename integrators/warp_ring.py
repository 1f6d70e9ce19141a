"""The velocity of a ring of auxiliary rays: that of the silhouettes that it meets (docs/theory/warped_area.md).

Everything but the velocities themselves is found without derivatives. Then the velocity of a ring is a weighted sum of
displacements of points that follow silhouettes, and only those are attached.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import drjit as dr
import mitsuba as mi

from .boundary.device import recording
from .contours import Contours, Crossing, Walk

#: How far beyond a silhouette one looks for what it hides, as a fraction of a ring's side.
BEYOND = 0.02
#: Relative distance by which something must lie before a silhouette to hide it.
BEFORE = 1e-3
#: What is nearer than this, in units of the gap by which rays keep clear of surfaces, is taken to stand still: at an
#: edge a ray may meet the next face at no distance, and would see it pass at any speed.
CLEAR = 4
#: The number of the sky among the emitters: one that no shape has.
SKY = 0xFFFFFFFF


@dataclass
class Rings:
    """Pairs of mirrored rings for every lane, one after the other.

    Attributes:
        size: positions N of a ring.
        lane: lane of every ring.
        centre: offset of every ring's centre from the middle of its lane, in units of the kernel's radius.
        share: p/q of every ring, how much it counts in the mean.
        slope: |∇p|/q of every ring, over |centre|.
        ring: ring of every position.
        offset: offset of every position from its centre, same units as `centre`.
    """

    size: int
    lane: mi.UInt32
    centre: mi.Vector2f
    share: mi.Float
    slope: mi.Float
    ring: mi.UInt32
    offset: mi.Vector2f


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
    scene: mi.Scene,
    contours: Contours,
    ridge: float,
    rings: Rings,
    ray: mi.Ray3f,
    frames: Frames,
    active: mi.Bool,
    direct: mi.Bool | None = None,
) -> mi.Vector2f:
    """Velocity G of every ring: it moves across each silhouette that the ring meets as the silhouette does.

        G = argmin Σₖ wₖ (rₖ·G − sₖ)² + μ |G − Ḡ|²                                                         (W6)

    rₖ and sₖ: normal and normal speed of a silhouette; Ḡ: mean velocity of the points on the silhouettes. A ring that
    meets none takes the velocity of the point that its first ray sees.

    Args:
        ridge: μ as a share of the sum of the weights.
        ray: attached auxiliary rays.
        frames: of every ring.
        active: of every auxiliary ray.
        direct: of every ring: whether only light that arrives directly is looked for. There silhouettes between light
            and dark count, and others only where there are none of these.

    Returns:
        Attached velocity in the coordinates of `frames`, one entry per ring.
    """
    count = dr.width(rings.lane)
    with dr.suspend_grad():
        fixed = mi.Ray3f(dr.detach(ray))
        every = dr.zeros(mi.Vector3f, dr.width(rings.ring))  # parallel rays have one direction
        fixed.o, fixed.d = mi.Point3f(fixed.o + every), mi.Vector3f(fixed.d + every)
        pi = scene.ray_intersect_preliminary(fixed, coherent=False, active=active)
        sky = scene.environment() is not None
        seen = _Seen(pi, mi.Point3f(fixed.o), mi.Vector3f(fixed.d), active, sky)
        sides = _sides(contours, rings, seen)
        found = [] if dr.width(sides.start) == 0 else _silhouettes(scene, contours, rings, seen, sides, frames)
        if direct is not None:
            _leave_dark(count, found, direct)
        fit = _Fit(count, found, ridge)
    result = dr.zeros(mi.Vector2f, count)
    with dr.resume_grad():
        δo, δd = mi.Vector3f(ray.o - dr.detach(ray.o)), mi.Vector3f(ray.d - dr.detach(ray.d))
        for one in found:
            moved = mi.Vector3f(contours.follow(one.crossing) - one.crossing.point)
            moved -= sides.between(δo, one.crossing.fraction) + one.distance * sides.between(δd, one.crossing.fraction)
            x, y = fit.coefficients(one)
            dr.scatter_add(result.x, dr.dot(x, moved), one.ring, one.weight > 0)
            dr.scatter_add(result.y, dr.dot(y, moved), one.ring, one.weight > 0)
        # Elsewhere any velocity will do: the one of what is seen lets divergences of rigid motion cancel
        first = rings.size * dr.arange(mi.UInt32, count)
        pi = mi.PreliminaryIntersection3f(dr.gather(mi.PreliminaryIntersection3f, pi, first))
        alone = ~fit.some & (dr.gather(mi.Bool, active, first) if dr.width(active) > 1 else active)
        pick = lambda v: dr.gather(mi.Vector3f, v, first) if dr.width(v) > 1 else v
        seen_by = velocity_seen(contours, pi, dr.gather(mi.Ray3f, fixed, first), pick(δo), pick(δd), frames, alone)
        return result + seen_by


def velocity_seen(
    contours: Contours,
    pi: mi.PreliminaryIntersection3f,
    ray: mi.Ray3f,
    δo: mi.Vector3f,
    δd: mi.Vector3f,
    frames: Frames,
    active: mi.Bool,
) -> mi.Vector2f:
    """Attached velocity of what rays see, in the coordinates of `frames`; zero where that is nothing, or too near.

    Args:
        pi: what the rays hit.
        ray: detached.
        δo, δd: value zero, with the derivatives of its origin and direction.
    """
    active = active & (~pi.is_valid() | (pi.t > _near(ray.o)))
    valid = pi.is_valid() & active
    t = dr.select(valid, pi.t, 1)
    p = contours.stay(pi, mi.Point3f(dr.detach(ray(t))), valid)
    moved = dr.select(valid, mi.Vector3f(p - dr.detach(p)) - δo, 0) - t * δd
    x, y = _dual(*frames.steps(t, valid), ray.d)
    return mi.Vector2f(dr.select(active, dr.dot(x, moved), 0), dr.select(active, dr.dot(y, moved), 0))


@dataclass
class _Seen:
    """What the auxiliary rays hit."""

    pi: mi.PreliminaryIntersection3f
    o: mi.Point3f
    d: mi.Vector3f
    on: mi.Bool
    sky: bool

    def __post_init__(self) -> None:
        self.hit = self.pi.is_valid() & self.on
        self.t = dr.select(self.hit, self.pi.t, 1)
        self.number = dr.reinterpret_array(mi.UInt32, self.pi.shape)
        self.prim = self.pi.prim_index
        self.light = _light(self.pi, self.sky)
        dr.eval(self.o, self.d, self.hit, self.t, self.number, self.prim, self.light, self.pi)


def _light(pi: mi.PreliminaryIntersection3f, sky: bool) -> mi.UInt32:
    """The number of the emitter that is seen: that of a shape, `SKY`, or 0 for what is dark."""
    valid = pi.is_valid()
    lamp = valid & mi.ShapePtr(pi.shape).is_emitter()
    number = dr.select(lamp, dr.reinterpret_array(mi.UInt32, pi.shape), 0)
    return dr.select(valid, number, SKY) if sky else number


def _lit(one: mi.UInt32, other: mi.UInt32) -> mi.Bool:
    """Whether light may differ across a silhouette: not if both sides are dark, or the sky."""
    return (one != other) | ((one != 0) & (one != SKY))


@dataclass
class _Sides:
    """The sides of rings that a silhouette may cross, each in both directions: from which position to which."""

    start: mi.UInt32
    end: mi.UInt32
    active: mi.Bool

    def between(self, x: mi.Vector3f, s: mi.Float) -> mi.Vector3f:
        """The attached value at fraction s of the way."""
        if dr.width(x) == 1:
            return x
        a, b = (dr.gather(mi.Vector3f, x, index) for index in (self.start, self.end))
        return a + s * (b - a)


def _sides(contours: Contours, rings: Rings, seen: _Seen) -> _Sides:
    """Sides whose ends see different primitives; a flat or convex piece of surface has no silhouette between."""
    n = rings.size
    side = dr.arange(mi.UInt32, 2 * dr.width(rings.ring))
    start = side >> 1
    place = start % n
    end = start - place + (place + dr.select((side & 1) == 0, mi.UInt32(1), mi.UInt32(n - 1))) % n
    at = lambda x, index: dr.gather(type(x), x, index)
    begins = at(seen.hit, start)
    number = at(seen.number, start)
    same = at(seen.hit, end) & (number == at(seen.number, end)) & (at(seen.prim, start) == at(seen.prim, end))
    active = begins & (~same | contours.may_fold(number, begins))
    if recording():  # whose arrays cannot change their size
        dr.eval(start, end, active)
        return _Sides(start, end, active)
    chosen = dr.compress(active)
    start, end = at(start, chosen), at(end, chosen)
    dr.eval(start, end)
    return _Sides(start, end, mi.Bool(True))


@dataclass
class _Silhouette:
    """row · G = speed: what a silhouette between two rays asks of the velocity of its ring (all detached).

    Attributes:
        crossing: where it is; its fraction counts from the start of the side.
        weight: 0 where no silhouette was met, or it is hidden.
        ring: which ring it belongs to.
        distance: from the eye.
        row: unit vector across the silhouette, in the coordinates of the ring.
        to_speed: what gives the speed along `row` of a displacement.
        to_x, to_y: what give its coordinates.
        lit: whether light that arrives directly may differ across it.
    """

    crossing: Crossing
    weight: mi.Float
    ring: mi.UInt32
    distance: mi.Float
    row: mi.Vector2f
    to_speed: mi.Vector3f
    to_x: mi.Vector3f
    to_y: mi.Vector3f
    lit: mi.Bool


def _silhouettes(
    scene: mi.Scene, contours: Contours, rings: Rings, seen: _Seen, sides: _Sides, frames: Frames
) -> list[_Silhouette]:
    """The first silhouettes on the way along every side, and those of what is seen behind them."""
    at = lambda x, index: dr.gather(type(x), x, index)
    o, d = mi.Point3f(at(seen.o, sides.start)), at(seen.d, sides.start)
    step_o, step_d = mi.Vector3f(at(seen.o, sides.end) - o), mi.Vector3f(at(seen.d, sides.end) - d)
    number, prim, t = (at(x, sides.start) for x in (seen.number, seen.prim, seen.t))
    ring = sides.start // rings.size
    basis = frames.gather(ring)
    cross = contours.crossing(Walk(number, prim, o, d, step_o, step_d, t, sides.active))
    _evaluate(cross)

    # A look just beyond it: something in front may hide it, and what is behind it may end before the side does
    beyond = dr.minimum(cross.fraction + BEYOND, 1)
    look = mi.Ray3f(mi.Point3f(o + beyond * step_o), dr.normalize(d + beyond * step_d))
    met = cross.weight > 0
    pi = scene.ray_intersect_preliminary(look, coherent=False, active=met & sides.active)
    light = _light(pi, seen.sky)
    first = _silhouette(cross, ring, mi.Point3f(o), d, step_o, step_d, basis, _lit(light, at(seen.light, sides.start)))
    hidden = pi.is_valid() & (pi.t < (1 - BEFORE) * first.distance)
    first.weight = dr.select(hidden, 0, first.weight)

    number, prim = dr.reinterpret_array(mi.UInt32, pi.shape), pi.prim_index
    go_on = (first.weight == 1) & (beyond < 1) & pi.is_valid()
    go_on &= ~((number == at(seen.number, sides.end)) & (prim == at(seen.prim, sides.end)))
    rest_o, rest_d = mi.Vector3f(o + step_o - look.o), d + step_d - look.d
    dr.eval(go_on, light, number, prim, beyond, look.o, look.d, rest_o, rest_d, pi.t)
    cross = contours.crossing(Walk(number, prim, look.o, look.d, rest_o, rest_d, dr.select(go_on, pi.t, 1), go_on))
    cross.fraction = beyond + (1 - beyond) * cross.fraction
    _evaluate(cross)
    both = [first, _silhouette(cross, ring, o, d, step_o, step_d, basis, _lit(light, at(seen.light, sides.end)))]
    dr.eval([(x.weight, x.ring, x.distance, x.row, x.to_speed, x.to_x, x.to_y, x.lit) for x in both])
    return both


def _evaluate(crossing: Crossing) -> None:
    dr.eval([getattr(crossing, field.name) for field in fields(crossing)])


def _silhouette(
    cross: Crossing,
    ring: mi.UInt32,
    o: mi.Point3f,
    d: mi.Vector3f,
    step_o: mi.Vector3f,
    step_d: mi.Vector3f,
    frames: Frames,
    lit: mi.Bool,
) -> _Silhouette:
    eye, gaze = o + cross.fraction * step_o, dr.normalize(d + cross.fraction * step_d)
    distance = dr.dot(cross.point - eye, gaze)
    across = dr.normalize(dr.cross(cross.tangent, gaze))
    x, y = frames.steps(distance)
    row = mi.Vector2f(dr.dot(across, x), dr.dot(across, y))
    scale = dr.rcp(dr.norm(row))
    row *= scale
    fine = dr.isfinite(dr.squared_norm(row)) & (distance > _near(o)) & (cross.weight > 0)
    to_x, to_y = _dual(x, y, gaze)
    keep = lambda v: dr.select(fine, v, 0)
    return _Silhouette(
        cross, keep(cross.weight), ring, distance, keep(row), keep(scale * across), keep(to_x), keep(to_y), lit
    )


def _leave_dark(count: int, found: list[_Silhouette], direct: mi.Bool) -> None:
    """Of rings that are `direct` and meet a silhouette between light and dark, take the others away."""
    some = dr.zeros(mi.UInt32, count)
    for one in found:
        dr.scatter(some, mi.UInt32(1), one.ring, (one.weight > 0) & one.lit)
    only = direct & (some == 1)
    for one in found:
        one.weight = dr.select(one.lit | ~dr.gather(mi.Bool, only, one.ring), one.weight, 0)
    dr.eval([one.weight for one in found])


class _Fit:
    """The solution of (W6) as a sum over silhouettes.

    Attributes:
        some: rings that met a silhouette.
    """

    def __init__(self, count: int, found: list[_Silhouette], ridge: float) -> None:
        total, xx, yy, xy = (dr.zeros(mi.Float, count) for _ in range(4))
        for one in found:
            met = one.weight > 0
            x, y = one.row.x, one.row.y
            for target, value in ((total, mi.Float(1)), (xx, x * x), (yy, y * y), (xy, x * y)):
                dr.scatter_add(target, one.weight * value, one.ring, met)
        self.some = total > 0
        μ = dr.select(self.some, ridge * total, 1)
        xx, yy = xx + μ, yy + μ
        r = dr.rcp(xx * yy - xy * xy)
        self.xx, self.xy, self.yy = yy * r, -xy * r, xx * r  # of the inverse
        self.share = dr.select(self.some, μ / total, 0)  # of a silhouette's own velocity, per weight
        dr.eval(self.some, self.xx, self.xy, self.yy, self.share)

    def coefficients(self, one: _Silhouette) -> tuple[mi.Vector3f, mi.Vector3f]:
        """Vectors whose products with a silhouette's displacement are its parts of G."""
        with dr.suspend_grad():
            xx, xy, yy, share = (dr.gather(mi.Float, v, one.ring) for v in (self.xx, self.xy, self.yy, self.share))
            bx = one.weight * (one.row.x * one.to_speed + share * one.to_x)
            by = one.weight * (one.row.y * one.to_speed + share * one.to_y)
            x, y = mi.Vector3f(xx * bx + xy * by), mi.Vector3f(xy * bx + yy * by)
            dr.eval(x, y)
        return x, y


def _near(o: mi.Point3f) -> mi.Float:
    """The distance from o below which nothing counts."""
    return CLEAR * mi.math.RayEpsilon * (1 + dr.max(dr.abs(o)))


def _dual(x: mi.Vector3f, y: mi.Vector3f, d: mi.Vector3f) -> tuple[mi.Vector3f, mi.Vector3f]:
    """Vectors whose products with a displacement, as seen along d, are its coordinates in steps x and y."""
    with dr.suspend_grad():
        x, y = x - d * dr.dot(d, x), y - d * dr.dot(d, y)
        xx, xy, yy = dr.dot(x, x), dr.dot(x, y), dr.dot(y, y)
        area = xx * yy - xy * xy
        r = dr.select(area > 0, dr.rcp(area), 0)  # zero at infinity for parallel rays
        return mi.Vector3f((yy * x - xy * y) * r), mi.Vector3f((xx * y - xy * x) * r)
