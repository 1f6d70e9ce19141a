"""Boundary term of the curves along which surfaces pass through each other, as the camera sees them.

Such a curve is an edge of neither surface, so it is looked for (`crossing_search`). By Crofton's formula the number of
crossings measures the length of the curve: for segments of length ℓ, one per p(u) pixels² and uniform in direction,

    ∫_Γ g dl = E[ Σ_crossings  π g / (2 ℓ p) ] ,                                                          (E13)

The curve lies in both surfaces. With q_A = n_A · (x_A − x) for the material points x_A and x_B next to a curve point x,

    ẋ = a q̇_A + b q̇_B ,   n_A · a = n_B · b = 1 ,   n_A · b = n_B · a = 0 ,   a, b ⟂ n_A × n_B             (E14)

and (E4) holds with g = h_j ΔL n · u̇.

Source: design of this project. Crofton: Santaló 1976, *Integral geometry and geometric probability*, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import drjit as dr
import mitsuba as mi

from .beside import Beside
from .camera import FilmMap
from .crossing_search import LENGTH, Crossings, Probe, dual, film_cells, middle_of
from .deliver import tangent_of
from .distribution import Discrete, stratified
from .estimate import Contribution, estimate
from .film import FilmSplat
from .guiding import Numbers
from .layers import missed
from .primary import FLOAT_LIMB, SIDE_PIXELS, jump_across, side_distance
from .silhouettes import Silhouettes
from .stream import Stream

#: In acute corners Mitsuba's rays, which start a ray epsilon above their own surface, start within the other one, and
#: the picture is wrong so far. The sides are looked at from just beyond: what a round body hides of the sky changes
#: with the root of the distance from it. Relative margin; the sharpest corner for which that is done; ray
#: epsilons more, at most, for round-off.
BEYOND, SHARPEST, FARTHEST = 1.05, 8, 4
#: Segments that find out whether there is a crossing at all.
PROBES = 1 << 14


def crossing_term(
    integrator: Any,
    mode: dr.ADMode,
    scene: mi.Scene,
    curves: Silhouettes,
    sensor: mi.Sensor,
    seed: Any,
    spp: int,
    grad_in: mi.TensorXf | None,
) -> mi.TensorXf | None:
    """One launch of (E13) and (E14).

    Args:
        spp: segments per pixel of the crop.
        grad_in: adjoint image in backward mode.

    Returns:
        The derivative image in forward mode.
    """
    film, camera = FilmSplat(sensor, integrator.aovs.names), FilmMap(sensor)

    def evaluate(numbers: Numbers) -> Contribution:
        item, inside, probability = where.sample(numbers.place)
        random = numbers.random
        lens = camera.lens(random)
        probe = Probe(scene, curves, camera, integrator.hide_emitters, random.next_1d())
        x = probe.look(film, middle_of(film, item, inside, random.next_1d()), lens, random, probability > 0)
        on_film = lambda v: camera.project_tangent(x.p, v, lens)
        du = on_film(dr.cross(x.n_near, x.n_far))
        normal = dr.normalize(mi.Vector2f(du.y, -du.x))
        active = x.valid & camera.in_front(x.p) & dr.isfinite(normal.x) & dr.isfinite(normal.y)
        with dr.resume_grad():
            p = meeting_point(curves, x, active)
            drift = integrator.film_velocity(scene, sensor, x.u, lens, random)
            motion = dr.dot(normal, mi.Vector2f(camera.project(p, lens)) - drift)
            motion = dr.select(active & dr.isfinite(motion), motion, 0)
        u = at = x.u
        if probe.see_through:
            most, hidden = integrator.max_depth, integrator.hide_emitters
            miss, _ = missed(scene, probe.ray(u, lens), x.p, most, hidden, active)
            at = mi.Point2f(u + on_film(miss))
        weight = dr.select(active, crofton(x) * dr.rcp(probability * probe.share * numbers.density), 0)
        tangent = tangent_of(mode, motion)
        sides = Beside.neither(*sides_of_crossing(film, probe, x, normal, lens, on_film))
        dr.eval(u, at, sides, weight, active, numbers.cell, random, tangent)
        jump = jump_across(integrator, scene, camera, at, lens, sides, random, active)
        return Contribution(u, motion, weight=weight, tangent=tangent, **jump)

    with dr.suspend_grad():
        where = Discrete(dr.ones(mi.Float, film_cells(film)))
        memory = integrator.memory("crossing")
        return estimate(evaluate, mode, film, seed, film.pixels * spp, where, False, memory, grad_in)


def crofton(x: Crossings) -> mi.Float:
    """Length of the curve for each crossing that one segment per square pixel finds, in pixels."""
    return 0.5 * dr.pi / LENGTH * mi.Float(x.count)


def sides_of_crossing(
    film: FilmSplat,
    probe: Probe,
    x: Crossings,
    normal: mi.Vector2f,
    lens: mi.Point2f | None,
    project: Callable[[mi.Vector3f], mi.Vector2f],
) -> tuple[mi.Vector2f, mi.Vector2f]:
    """Where to look on either side of a crossing, in pixels from it: against `normal`, and along it.

    Args:
        project: the change of the film position for a displacement of the crossing.
    """
    ray = probe.ray(x.u, lens)
    toward = lambda n: mi.Vector3f(dr.mulsign(n, -dr.dot(n, ray.d)))
    n, m = toward(x.n_near), toward(x.n_far)
    tangent = dr.cross(n, m)
    sine = dr.norm(tangent)
    # Cotangent of the angle in front of both; rays that go on behind one miss the other as far as its cosecant
    corner = dr.rcp(sine) * (1 if probe.see_through else dr.maximum(-dr.dot(n, m), 0))
    corner = dr.minimum(corner, SHARPEST)
    start = mi.math.RayEpsilon * (1 + dr.max(dr.abs(x.p)))
    round_off = FLOAT_LIMB * (probe.distance(x, lens) + dr.max(dr.abs(x.p)))
    least = side_distance(film) - SIDE_PIXELS

    def beside(into: mi.Vector3f, normal: mi.Vector3f) -> mi.Vector2f:
        # what hits and planes are off by, seen at a grazing angle, or between surfaces that hardly part
        unsure = dr.minimum(round_off / dr.minimum(dr.abs(dr.dot(normal, ray.d)), sine), FARTHEST * start)
        v = project(dr.normalize(into) * (BEYOND * corner * start + unsure))
        return mi.Vector2f(v * dr.maximum(1, least / dr.norm(v)))

    a, b = beside(dr.cross(tangent, n), n), beside(dr.cross(m, tangent), m)
    along = dr.dot(normal, a) > 0
    low, high = dr.select(along, b, a), dr.select(along, a, b)
    apart = (dr.dot(normal, low) < 0) & (dr.dot(normal, high) > 0)
    ε = side_distance(film)
    return dr.select(apart, low, -ε * normal), dr.select(apart, high, ε * normal)


def seen(scene: mi.Scene, curves: Silhouettes, sensor: mi.Sensor, hide_emitters: bool) -> bool:
    """Whether the camera sees surfaces pass through each other, as far as `PROBES` segments find out; on the host."""
    film, camera = FilmSplat(sensor), FilmMap(sensor)
    with dr.suspend_grad():
        random = Stream(0, dr.arange(mi.UInt32, PROBES))
        lens = mi.Point2f(0) if camera.needs_aperture else None
        place = stratified(PROBES, random.next_1d()) * film_cells(film)
        item = mi.UInt32(place)
        inside = mi.Float(place - mi.Float64(item))
        probe = Probe(scene, curves, camera, hide_emitters, random.next_1d())
        x = probe.look(film, middle_of(film, item, inside, random.next_1d()), lens, random, mi.Bool(True))
        return bool(dr.any(x.valid))


def meeting_point(curves: Silhouettes, x: Crossings, active: mi.Bool) -> mi.Point3f:
    """The point of the curve, attached to both surfaces by (E14)."""
    a, b = dual(x.n_near, x.n_far)
    q_near = dr.dot(x.n_near, mi.Vector3f(curves.follow(x.near, x.p_near, active) - x.p))
    q_far = dr.dot(x.n_far, mi.Vector3f(curves.follow(x.far, x.p_far, active) - x.p))
    return mi.Point3f(x.p + a * q_near + b * q_far)
