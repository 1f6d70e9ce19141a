"""Boundary term of visibility between surfaces: segments x_S – x_B – x_D anywhere beyond the camera ray.

In the space of lines, the segments that pass an occluder's outline in direction ω form a curve for every ω, and light
is gained or lost where that outline moves relative to the segment:

    dI_j = − ∫_S² dσ(ω) ∫_outline(ω) W_j(x_S, ω) L(x_D → x_S) |dx_B/dt × ω| v_n dt                      (E8)
    v_n  = n · ( ẋ_B − (1 − s) ẋ_S − s ẋ_D ),   s = |x_B − x_S| / |x_D − x_S|                           (E1)

n points away from the occluder. x_D keeps its place on its surface, so only the background side counts: an occluder's
own rim does not move in its own coordinates. x_S likewise, except where the camera sees it directly: there it slides
along the camera ray, whose film position is fixed.

Two ways of drawing the line, each for a part of the light, so that nothing is counted twice (`receivers.py` is a third,
which takes shares of both):
- to a light: L is the emission of a sampled light vertex y; only for x_S that the camera sees after at least one
  bounce, since directly seen receivers belong to `shadow`.
- freely: L is what x_D reflects, without its own emission; ω is drawn among the directions from which the edge is a
  silhouette.

Samples are not guided by earlier ones: few of them carry most of the term, so what a cell of a memory holds is noise
(measured in a closed room: a third of the efficiency).

Source: Zhang, Miller, Yan, Gkioulekas, Zhao 2020, section 5, with the velocity of both ends.
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi

from ..near_field import near_weight
from .camera import FilmMap
from .curve_point import CONTACT, CurvePoint
from .deliver import tangent_of
from .distribution import Discrete
from .estimate import Contribution, estimate
from .film import FilmSplat
from .guiding import Numbers
from .importance import Connection, importance_walk, reaches_back
from .layers import TOUCH
from .lights import Lights, arriving, reached
from .shadow import ShadowCurves
from .silhouettes import GAP, Silhouettes
from .view import View

#: Distance of a receiver from a curve at which `receivers.py` takes half of the integral, in extents of the scene.
SHARED_AT = 0.03

#: 1 - cosine of the angle below which two surfaces at one place count as one.
FLUSH = 1e-4

#: Solid angle of a lamp of which (E8b) takes half.
LAMP_SHARED_AT = 0.5


def far_share(r: mi.Float, size: mi.Float) -> mi.Float:
    """Which part of the light at distance r behind a curve is left to (E8b)."""
    return mi.Float(dr.square(r) / (dr.square(r) + dr.square(SHARED_AT * size)))


def lamp_share(x: mi.Point3f, y: mi.Point3f, area: mi.Float) -> mi.Float:
    """Which part of that is left to (E8b) of the point y of a lamp: much if lamps look large from x.

    Args:
        area: of lamps, one for all: both terms have to agree on it.
    """
    angle = area / dr.squared_norm(mi.Vector3f(y - x))
    return mi.Float(dr.detach(angle / (angle + LAMP_SHARED_AT)))


def seen_from(
    scene: mi.Scene, curves: Silhouettes, start: mi.Point3f, x: mi.Point3f, n: mi.Normal3f, active: mi.Bool
) -> mi.Bool:
    """Whether nothing stands between a point just beside a curve and the receiver x, of normal n."""
    back = mi.Vector3f(x - start)
    r = dr.norm(back)
    back /= r
    active = active & ~scene.ray_test(mi.Ray3f(start, back, r * (1 - TOUCH), 0, []), active)
    if curves.tubes is not None:
        receiver = dr.zeros(mi.Interaction3f, dr.width(r))
        receiver.p, receiver.n = x, n
        active &= reaches_back(scene, receiver, start, active)
    return active


def goes_past(
    scene: mi.Scene,
    point: CurvePoint,
    outward: mi.Vector3f,
    ray: mi.Ray3f,
    hit: mi.PreliminaryIntersection3f,
    seen: mi.SurfaceInteraction3f,
    active: mi.Bool,
) -> mi.Bool:
    """Whether what lies behind the curve is seen beside the occluder only.

    An occluder that touches a sheet without thickness hides nothing from the sheet's other side: rays from there end on
    the sheet, or on a face of the occluder that lies on it, beside the curve and before the occluder alike.

    Args:
        ray: from just beside the curve.
        hit, seen: (N,) what it meets.
    """
    reach = 2 * CONTACT * point.gap
    close = active & hit.is_valid() & (hit.t < reach)
    origin = mi.Point3f(ray.o - point.gap * (2 * outward + CONTACT * ray.d))
    inner = mi.Ray3f(origin, ray.d, 2 * reach, 0, [])
    other = scene.ray_intersect_preliminary(inner, coherent=False, active=close)
    there = other.compute_surface_interaction(inner, mi.RayFlags.Minimal, close & other.is_valid())
    # of the size of round-off: the gap of a curved shape is larger, and what lies that far behind it is hidden
    off = dr.minimum(point.gap, GAP * (dr.norm(seen.p) + dr.norm(point.tangent)))
    flush = dr.abs(dr.dot(seen.n, mi.Vector3f(there.p - seen.p))) < off
    flush &= dr.abs_dot(seen.n, there.n) > 1 - FLUSH
    return active & ~(close & there.is_valid() & flush)


def near_end(
    scene: mi.Scene,
    curves: Silhouettes,
    point: CurvePoint,
    ω: mi.Vector3f,
    active: mi.Bool,
    standing: bool,
) -> tuple[mi.Point3f, mi.Vector3f, mi.PreliminaryIntersection3f, mi.SurfaceInteraction3f, mi.Point3f]:
    """x_S: what the line through a curve point hits in direction −ω.

    Args:
        standing: whether what the occluder stands on counts as seen beside it. Where it hides a point of the floor from
            x_S and from a light at once, one of the two terms must have it.

    Returns:
        The start of the line, just clear of the occluder; the outward normal n; what it meets; x_S detached, ready for
        a walk; and x_S attached to its surface.
    """
    outward = point.outward(ω)
    start = point.beside(outward, -ω if standing else None)
    ray = mi.Ray3f(start, -ω)
    hit = scene.ray_intersect_preliminary(ray, coherent=False, active=active)
    si = hit.compute_surface_interaction(ray, mi.RayFlags.All, active)
    if curves.tubes is not None:
        si.t = dr.select(reaches_back(scene, si, start, active & si.is_valid()), si.t, dr.inf)
    if not standing:
        past = goes_past(scene, point, outward, ray, hit, si, active & si.is_valid())
        si.t = dr.select(past, si.t, dr.inf)
    with dr.resume_grad():
        attached = curves.follow(hit, si.p, active)
    return start, outward, hit, dr.detach(si), attached


def segment_motion(
    camera: FilmMap,
    point: CurvePoint,
    outward: mi.Vector3f,
    near: mi.Point3f,
    near_n: mi.Normal3f,
    far_p: mi.Point3f,
    at_infinity: mi.Bool,
    link: Connection,
) -> mi.Float:
    """Attached n · (x_B − point of the segment x_S x_D beside it); its derivative is v_n of (E1)."""
    # Seen directly: the near end slides along the camera ray of its film position, on its tangent plane
    ray, _ = camera.ray(link.u, link.aperture)
    n = mi.Vector3f(near_n)
    slid = ray.o + ray.d * (dr.dot(n, mi.Vector3f(near - ray.o)) / dr.dot(n, ray.d))
    x_S = mi.Point3f(dr.select(link.bounces == 0, mi.Vector3f(slid), mi.Vector3f(near)))
    to_B = dr.norm(dr.detach(mi.Vector3f(point.p - near)))
    span = dr.select(at_infinity, 1, dr.norm(dr.detach(mi.Vector3f(far_p - near))))
    along = dr.select(at_infinity, mi.Vector3f(far_p), mi.Vector3f(far_p - x_S))
    beside = mi.Vector3f(x_S) + dr.detach(to_B / span) * along
    motion = dr.dot(dr.detach(outward), mi.Vector3f(point.p) - beside)
    return dr.select(dr.isfinite(motion), motion, 0)


def indirect_shadow_term(
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
    """One launch of (E8) towards lights, for receivers that the camera sees after at least one bounce."""
    film, camera = FilmSplat(sensor), FilmMap(sensor)

    def evaluate(numbers: Numbers) -> Contribution:
        light, index, t, probability = where.sample(numbers.place)
        active = probability > 0
        with dr.resume_grad():
            y = lights.sample(light, numbers.other, active)
            point = where.point(light, index, t, y)
        active &= point.silhouette & (y.density > 0)
        p_B, p_y = dr.detach(mi.Point3f(point.p)), dr.detach(mi.Point3f(y.p))
        ω = dr.select(y.far, mi.Vector3f(p_y), dr.normalize(mi.Vector3f(p_y - p_B)))
        start, outward, near_hit, si, near = near_end(scene, curves, point, ω, active, standing=False)
        active &= si.is_valid()
        at_B = dr.zeros(mi.SurfaceInteraction3f, dr.width(active))
        at_B.p = start
        L, _ = arriving(y, at_B, active)
        active &= dr.any(L != 0)
        active &= reached(scene, y, start, size, active)
        random, most, tubes = numbers.random, integrator.max_depth - 2, curves.tubes is not None
        link = importance_walk(integrator, scene, camera, film, random, si, ω, 1, most, tubes, active)
        with dr.resume_grad():
            motion = segment_motion(camera, point, outward, near, si.n, y.p, y.far, link)
        tangent = tangent_of(mode, motion)
        dr.eval(link, L, active, near_hit, numbers.cell, tangent)
        value = link.weight * L * dr.norm(dr.cross(point.tangent, ω))
        lamp = ~y.far & ~y.delta
        theirs = far_share(dr.norm(p_B - si.p), size)
        theirs *= dr.select(lamp, lamp_share(si.p, p_y, area), 1)
        value *= dr.select(lamp, near_weight(integrator.near_field, si.p, p_y), 1)
        share = dr.select(y.delta, 1, 1 - theirs)
        weight = dr.select(active, -share * dr.rcp(probability * numbers.density), 0)
        return Contribution(link.u, motion, value, weight, tangent=tangent)

    with dr.suspend_grad():
        size, area = lights.extent, lights.lamp_area()
        where = ShadowCurves(curves, lights)
        return estimate(evaluate, mode, film, seed, film.pixels * spp, where.choice, lights.extended, None, grad_in)


class LineCurves:
    """Curve elements for lines of any direction: by length times the share of directions that see a silhouette.

    Those that move share half of the samples, at least: the others count only on lines whose ends move.

    Attributes:
        weights: (elements,) their shares, not normalised.
        choice: for drawing them.
    """

    def __init__(self, curves: Silhouettes) -> None:
        parts = []
        with dr.suspend_grad():
            if curves.has_edges:
                _, e, c0, c1, flags = curves.all_edges()
                parts.append(dr.norm(e) * curves.lune(e, c0, c1, flags)[0] / dr.pi)
            if curves.smooth is not None:
                parts.append(dr.two_pi * curves.smooth.bounds()[1])
            weights = parts[0] if len(parts) == 1 else dr.concat(parts)
            moving = dr.select(dr.gather(mi.Bool, curves.moving(), dr.arange(mi.UInt32, curves.size)), weights, 0)
            total, share = dr.sum(weights), dr.sum(moving)
            self.weights = weights + moving * dr.select(share > 0, dr.maximum(total / share - 2, 0), 0)
            self.choice = Discrete(self.weights)


def indirect_term(
    integrator: Any,
    mode: dr.ADMode,
    scene: mi.Scene,
    curves: Silhouettes,
    size: mi.Float,
    sensor: mi.Sensor,
    seed: Any,
    spp: int,
    grad_in: mi.TensorXf | None,
) -> mi.TensorXf | None:
    """One launch of (E8) for light that x_D reflects; `size` is the extent of the scene."""
    film, camera = FilmSplat(sensor), FilmMap(sensor)

    def evaluate(numbers: Numbers) -> Contribution:
        random = numbers.random
        index, t, probability = where.choice.sample(numbers.place)
        active = probability > 0
        ω, density = curves.sample_direction(index, numbers.other, active)
        with dr.resume_grad():
            point = curves.sample(index, t, View(mi.Point3f(ω), mi.Bool(True)))
        active &= point.silhouette & (density > 0)
        start, outward, near_hit, si, near = near_end(scene, curves, point, ω, active, standing=True)
        active &= si.is_valid()
        ray = mi.Ray3f(start, ω)
        hit = scene.ray_intersect_preliminary(ray, coherent=False, active=active)
        active &= hit.is_valid()
        seen = hit.compute_surface_interaction(ray, mi.RayFlags.All, active)
        active &= goes_past(scene, point, outward, ray, hit, seen, active)
        most, tubes = integrator.max_depth - 3, curves.tubes is not None
        link = importance_walk(integrator, scene, camera, film, random, si, ω, 0, most, tubes, active)
        active &= dr.any(link.weight != 0)
        with dr.resume_grad():
            far = curves.follow(hit, seen.p, active)
            motion = segment_motion(camera, point, outward, near, si.n, far, mi.Bool(False), link)
        share = 1 - far_share(dr.norm(dr.detach(mi.Vector3f(point.p)) - mi.Vector3f(si.p)), size)
        weight = dr.select(active, -share * dr.rcp(probability * density * numbers.density), 0)
        tangent = tangent_of(mode, motion)
        dr.eval(ray, random, link, active, weight, hit, near_hit, seen, numbers.cell, tangent)
        L, _ = integrator.radiance(scene, random, mi.RayDifferential3f(ray), link.bounces + 1, active, si.p)
        L -= near_weight(integrator.near_field, si.p, seen.p) * seen.emitter(scene, active).eval(seen, active)
        dr.eval(L)
        value = link.weight * L * dr.norm(dr.cross(point.tangent, ω))
        return Contribution(link.u, motion, value, weight, tangent=tangent)

    with dr.suspend_grad():
        where = LineCurves(curves)
        return estimate(evaluate, mode, film, seed, film.pixels * spp, where.choice, True, None, grad_in)
