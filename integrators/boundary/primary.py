"""Boundary term of what the camera sees directly, as an integral along curves on the film.

    dI_j = Σ_curves ∫ h_j(u) [L(u − εn) − L(u + εn)] n·u̇ |du| ,   u(t, θ) the projected curve            (E4)

With n = perp(du/dt)/|du/dt| the length cancels: a sample is ΔL · perp(du/dt)·u̇ / p(t). ΔL is the difference of two
camera rays that are traced to the full depth with the same random numbers, so flat shading, creases, textures,
emitters, transparency and the background need no cases. Unbiased up to ε (a small fraction of a pixel).

Source: Li, Aittala, Durand, Lehtinen 2018, section 3; formula in docs/theory/edge_sampling.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import drjit as dr
import mitsuba as mi

from .beside import Beside, Looks, towards_limb
from .camera import FilmMap
from .curve_point import CurvePoint
from .deliver import tangent_of
from .distribution import Discrete
from .estimate import Contribution, estimate
from .film import FilmSplat
from .guiding import Numbers
from .layers import TOUCH, missed, transparent
from .silhouettes import AT_LIMB, Silhouettes, classify
from .stream import Stream
from .tables import UNIFORM

#: Distance of the two rays from the curve, in pixels, plus what float32 film positions need on a large film.
SIDE_PIXELS = 2e-3
SIDE_RELATIVE = 3e-6

#: Share of the samples of a crease between almost coplanar faces, over that of a silhouette of the same length.
FAINTEST = 0.1

#: The projected length is a good density already, unless many elements are hidden or show no contrast.
WORTH_GUIDING = 256

#: Rays keep this distance from the limb of a round body, in distances from the camera: some float32 round-off.
FLOAT_LIMB = 1e-6


def side_distance(film: FilmSplat) -> mi.Float:
    """ε of (E4) in pixels."""
    return dr.opaque(mi.Float, SIDE_PIXELS + SIDE_RELATIVE * float(max(film.size + film.offset)))


def sides_of(
    film: FilmSplat,
    point: CurvePoint,
    outward: mi.Vector3f,
    normal: mi.Vector2f,
    distance: mi.Float,
    project: Callable[[mi.Vector3f], mi.Vector2f],
) -> tuple[mi.Vector2f, mi.Vector2f, mi.Float]:
    """Where to look on either side of a projected curve point, in pixels from it: against `normal`, and along it.

    A round body's radiance changes with the cosine, the root of the distance from its limb: there one looks closer, and
    twice; the third value is the weight of the second look (`Beside.limb`).

    Args:
        outward: unit vector at the point away from the occluder.
        distance: (N,) from the camera, along the way that its ray takes.
        project: the change of the projected point for a displacement of the curve point.
    """
    ε = side_distance(film)
    float_film, size = ε - SIDE_PIXELS, dr.norm(project(outward))
    float_space = size * FLOAT_LIMB * distance
    closer = dr.maximum(size * AT_LIMB * point.limb, float_space)
    round_body = point.limb > 0
    ε = dr.select(round_body, dr.clip(closer, float_film, ε), ε)
    low, high = point.sides(normal, ε, dr.maximum(float_film, float_space), project)
    return low, high, dr.select(round_body, towards_limb(ε / (size * point.limb)), 0)


def visible(scene: mi.Scene, ray: mi.Ray3f, p: mi.Point3f, exact: mi.Bool | bool, active: mi.Bool) -> mi.Bool:
    """Whether nothing opaque lies between the origin of a ray and p, a point on it.

    Args:
        exact: whether p touches no surface, so that whatever is in front of it counts, however close.
    """
    back = mi.Vector3f(ray.o - p)
    clearance = dr.select(exact, 0, TOUCH)
    shadow = mi.Ray3f(mi.Point3f(p + back * clearance), dr.normalize(back), dr.norm(back) * (1 - clearance), 0, [])
    return active & ~scene.ray_test(shadow, active)


class PrimaryCurves:
    """Where to place samples on the film: curve elements weighted by their length inside the frame.

    Args:
        curves: the boundary curves of the scene.
        camera: the film map.
        film: the frame.
        moving_only: leave out elements that do not move; right while the camera stands still.
    """

    def __init__(self, curves: Silhouettes, camera: FilmMap, film: FilmSplat, moving_only: bool = False) -> None:
        weights = []
        self.ranges: list[tuple[mi.Float, mi.Float]] = []
        with dr.suspend_grad():
            if curves.has_edges:
                weights.append(self._edges(curves, camera, film))
            if curves.smooth is not None:
                weights.append(self._smooth(curves, camera, film))
                self.ranges.append((dr.zeros(mi.Float, curves.smooth.size), dr.ones(mi.Float, curves.smooth.size)))
            if curves.topology.lines.size:
                weights.append(self._lines(curves, camera, film))
        weight = weights[0] if len(weights) == 1 else dr.concat(weights)
        if moving_only:
            weight = dr.select(curves.moving(), weight, 0)
        self.choice = Discrete(weight)
        self.t0, self.t1 = (dr.concat([pair[i] for pair in self.ranges]) for i in (0, 1))

    def _edges(self, curves: Silhouettes, camera: FilmMap, film: FilmSplat) -> mi.Float:
        a, e, c0, c1, flags = curves.all_edges()
        length, t0, t1 = clipped_length(camera, film, a, mi.Point3f(a + e))
        self.ranges.append((t0, t1))
        if camera.needs_aperture:
            return length
        silhouette, crease = classify(camera.view().toward(a), e, c0, c1, flags)
        n0, n1 = dr.normalize(dr.cross(e, c0)), dr.normalize(dr.cross(c1, e))
        bend = dr.minimum(dr.norm(n1 - n0), 1)
        faint = crease & ((flags & UNIFORM) != 0) & dr.isfinite(bend)
        contrast = dr.select(faint, dr.lerp(FAINTEST, 1, bend), 1)
        return dr.select(silhouette | crease, length * contrast, 0)

    def _lines(self, curves: Silhouettes, camera: FilmMap, film: FilmSplat) -> mi.Float:
        lines = curves.topology.lines
        a, b = lines.ends(curves.positions, dr.arange(mi.UInt32, lines.size), mi.Bool(True))
        length, t0, t1 = clipped_length(camera, film, a, b)
        self.ranges.append((t0, t1))
        return length

    def _smooth(self, curves: Silhouettes, camera: FilmMap, film: FilmSplat) -> mi.Float:
        assert curves.smooth is not None
        centre, radius = curves.smooth.bounds()
        local = mi.Point3f(camera.to_camera @ centre)
        ahead = local.z + radius > camera.near
        z = dr.maximum(local.z, dr.maximum(radius, camera.near))
        scale = dr.sqrt(
            camera.film_area(
                mi.Point3f(camera.to_world @ mi.Point3f(0, 0, z)), camera.to_world @ mi.Normal3f(0, 0, 1), mi.Point2f(0)
            )
        )
        frame = 2 * (film.high.x - film.low.x + film.high.y - film.low.y)
        return dr.select(ahead, dr.clip(dr.two_pi * radius * scale, 1e-3, frame), 0)

    def sample(self, number: mi.Float64) -> tuple[mi.UInt32, mi.Float, mi.Float, mi.Float]:
        """Draw a curve point.

        Returns:
            Element, curve parameter t, dt per unit of the number (the length of the clipped range), probability of the
            element.
        """
        index, inside, probability = self.choice.sample(number)
        t0, t1 = dr.gather(mi.Float, self.t0, index), dr.gather(mi.Float, self.t1, index)
        return index, dr.lerp(t0, t1, inside), t1 - t0, probability


def clipped_length(
    camera: FilmMap, film: FilmSplat, a: mi.Point3f, b: mi.Point3f
) -> tuple[mi.Float, mi.Float, mi.Float]:
    """Length in pixels of the part of straight lines inside the frame, and the range of the parameter there.

    Each side of the frame is a linear inequality in homogeneous film coordinates (E3).
    """
    lens = mi.Point2f(0)
    xa, ya, wa = camera.homogeneous(a, lens)
    xb, yb, wb = camera.homogeneous(b, lens)
    za, zb = mi.Point3f(camera.to_camera @ a).z, mi.Point3f(camera.to_camera @ b).z
    t0, t1 = dr.zeros(mi.Float, dr.width(a)), dr.ones(mi.Float, dr.width(a))
    limits = [(za - camera.near * 1.001, zb - camera.near * 1.001)]
    if not camera.needs_aperture:
        limits += [
            (xa - film.low.x * wa, xb - film.low.x * wb),
            (film.high.x * wa - xa, film.high.x * wb - xb),
            (ya - film.low.y * wa, yb - film.low.y * wb),
            (film.high.y * wa - ya, film.high.y * wb - yb),
        ]
    for f, g in limits:
        root = f / (f - g)
        t0 = dr.select((f < 0) & (g > 0), dr.fmax(t0, root), t0)
        t1 = dr.select((f > 0) & (g < 0), dr.fmin(t1, root), t1)
        t1 = dr.select((f <= 0) & (g <= 0), -1, t1)
    at = lambda t: (dr.lerp(xa, xb, t) / dr.lerp(wa, wb, t), dr.lerp(ya, yb, t) / dr.lerp(wa, wb, t))
    (px, py), (qx, qy) = at(t0), at(t1)
    length = dr.sqrt(dr.square(px - qx) + dr.square(py - qy))
    if camera.needs_aperture:
        # The circle of confusion can bring any edge into the frame, from any side
        length = dr.minimum(length, 4 * (film.high.x - film.low.x + film.high.y - film.low.y))
    return dr.select((t1 > t0) & dr.isfinite(length), length, 0), t0, t1


def primary_term(
    integrator: Any,
    mode: dr.ADMode,
    scene: mi.Scene,
    curves: Silhouettes,
    sensor: mi.Sensor,
    seed: Any,
    spp: int,
    grad_in: mi.TensorXf | None,
) -> mi.TensorXf | None:
    """One launch of the primary boundary term.

    Args:
        integrator: provides `radiance(scene, sampler, ray, depth, active)`.
        spp: samples per pixel of the crop; they are spread over the curves, not over the pixels.
        grad_in: adjoint image in backward mode.

    Returns:
        The derivative image in forward mode.
    """
    film, camera = FilmSplat(sensor, integrator.aovs.names), FilmMap(sensor)
    see_through = transparent(scene) or integrator.hide_emitters

    def evaluate(numbers: Numbers) -> Contribution:
        random = numbers.random
        index, t, dt, probability = where.sample(numbers.place)
        aperture = camera.lens(random)
        with dr.resume_grad():
            point = curves.sample(index, t, camera.view(aperture), with_lines=True)
            u_attached = camera.project(point.p, aperture)
        p, u = dr.detach(point.p), mi.Point2f(dr.detach(u_attached))
        du = camera.project_tangent(p, point.tangent, aperture) * dt
        perp = mi.Vector2f(du.y, -du.x)
        with dr.resume_grad():
            motion = dr.dot(perp, mi.Vector2f(u_attached))
            motion = dr.select(dr.isfinite(motion), motion, 0)
        ray, _ = camera.ray(u, aperture)
        outward = point.outward(ray.d)
        normal = dr.normalize(perp)
        active = (point.silhouette | point.crease) & (probability > 0) & film.inside(u) & camera.in_front(p)
        active &= dr.isfinite(normal.x) & dr.isfinite(normal.y)
        exact = point.silhouette & ~point.tube
        # The side of a silhouette away from the occluder: the ray that passes just beside it
        d = mi.Vector3f(dr.detach(ray.d))
        start = mi.Point3f(dr.select(exact, mi.Vector3f(point.beside(outward, -d)), mi.Vector3f(p)))
        side = dr.dot(normal, camera.project_tangent(p, outward, aperture))
        distance = dr.norm(mi.Vector3f(ray.o - p))
        on_film = lambda v: camera.project_tangent(p, v, aperture)
        low, high, limb = sides_of(film, point, outward, normal, distance, on_film)
        at = u
        if see_through:  # the same from the camera, with what is on the way
            most, hidden = integrator.max_depth, integrator.hide_emitters
            miss, _ = missed(scene, mi.Ray3f(dr.detach(ray)), p, most, hidden, active)
            at = mi.Point2f(u + camera.project_tangent(p, miss, aperture))
            start = mi.Point3f(dr.detach(ray.o))
            clear = dr.maximum(point.gap, FLOAT_LIMB * distance)
            d = dr.normalize(mi.Vector3f(p - start) + outward * clear + miss)
        else:
            active &= visible(scene, mi.Ray3f(ray), start, exact, active)
        beside = Beside(exact, side > 0, start, d, low, high, dr.select(exact, limb, 0))
        weight = dr.select(active, dr.rcp(probability * numbers.density), 0)
        tangent = tangent_of(mode, motion)
        dr.eval(u, at, perp, weight, active, numbers.cell, beside, random, tangent)
        jump = jump_across(integrator, scene, camera, at, aperture, beside, random, active, curves.has_limbs)
        return Contribution(u, motion, weight=weight, reach=dr.norm(perp), tangent=tangent, **jump)

    with dr.suspend_grad():
        where = PrimaryCurves(curves, camera, film, moving_only=not camera.moves())
        count = film.pixels * spp
        memory = integrator.memory("primary") if where.choice.size >= WORTH_GUIDING else None
        return estimate(evaluate, mode, film, seed, count, where.choice, False, memory, grad_in)


def jump_across(
    integrator: Any,
    scene: mi.Scene,
    camera: FilmMap,
    u: mi.Point2f,
    aperture: mi.Point2f | None,
    beside: Beside,
    random: Stream,
    active: mi.Bool,
    limbs: bool = False,
) -> dict[str, Any]:
    """L on the low side less L on the high side, including the sensor's weight; the same for alpha and AOVs.

    Args:
        limbs: whether there may be limbs, which are looked at from two distances.

    Returns:
        value, alpha, aovs and wavelengths of a `Contribution`.

    On the outer side of a silhouette the ray starts beside it: a camera ray at a distance of ε could miss a layer of
    the occluder close behind, which has a silhouette of its own.
    """
    looks = Looks(beside, active, limbs)
    lens = None if aperture is None else looks.of(aperture)
    ray, weight = camera.ray(mi.Point2f(looks.of(u) + looks.offset()), lens)
    onward = looks.start(mi.Ray3f(ray))
    L, valid = integrator.radiance(scene, random.gather(looks.point), onward, 0, looks.active)
    L = dr.select(looks.active, L * dr.detach(weight), 0)
    covered = dr.select(looks.active & valid, mi.Float(1), mi.Float(0))
    aovs = integrator.aovs.values(scene, mi.Ray3f(onward), mi.Point3f(dr.detach(ray.o)), looks.active)
    dr.eval(L, covered, aovs)
    return {
        "value": looks.jump(L),
        "alpha": looks.jump(covered),
        "aovs": [looks.jump(aov) for aov in aovs],
        "wavelengths": looks.look(ray.wavelengths) if mi.is_spectral else ray.wavelengths,
    }
