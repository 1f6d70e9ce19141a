"""Boundary term of the environment's light on what the camera sees: the outlines that hide the sky from a receiver.

Directly seen receivers again, but from their side. A film position u is drawn, so that its receiver X is in view
whatever the sky looks like; then a curve element, of which X sees a silhouette point x_B or not. With directions at X
fixed and the sky at infinity (s = 0 in E1) the light of direction ω = (x_B − X)/r is lost where the outline advances:

    dI_j = − ∫ h_j(u) du Σ ∫ ρ(X, ω) cos θ L_sky(ω) |dx_B/dt × ω| n · (ẋ_B − Ẋ) dt / r²                  (E10)

X slides along the camera ray, whose film position is fixed; n points away from the occluder. The same derivative by
(E7), with ω drawn from the sky, spends most samples on shadows that fall outside of the frame; but 1/r² has no bounded
variance where a body shades itself from close by. The two share the integral by the densities with which they find it
(`sky_share`).

Sources: Li, Aittala, Durand, Lehtinen 2018, section 4, with the motion of both ends; Veach and Guibas 1995 (balance
    heuristic).
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi

from .camera import FilmMap
from .deliver import tangent_of
from .estimate import Contribution, estimate
from .film import FilmSplat
from .guiding import Numbers
from .indirect import LineCurves, seen_from
from .layers import TOUCH
from .lights import NUDGE
from .shadow import first_surface
from .silhouettes import Silhouettes
from .view import View

#: Samples of (E7) for the sky over those of (E10).
SKY_SHADOW = 0.25


def sky_share(
    camera: FilmMap,
    film: FilmSplat,
    sky: mi.Emitter,
    x: mi.Point3f,
    n: mi.Normal3f,
    p_B: mi.Point3f,
    ω: mi.Vector3f,
    aperture: mi.Point2f | None,
    active: mi.Bool,
) -> mi.Float:
    """Which part of the sky's light (E10) takes, (E7) taking the rest: the balance heuristic.

    Of the directions at a curve point, (E10) finds those towards visible receivers with the density of their film
    positions, (E7) all with the sky's own. Any share that both agree on is unbiased.

    Args:
        x, n: (N,) receiver and its geometric normal.
        p_B: (N,) the curve point.
        ω: (N,) unit direction from x towards it.
    """
    ds = dr.zeros(mi.DirectionSample3f, dr.width(ω))
    ds.d = ω
    sky_density = SKY_SHADOW * sky.pdf_direction(dr.zeros(mi.SurfaceInteraction3f), ds, active)
    frame = (film.high.x - film.low.x) * (film.high.y - film.low.y)
    density = camera.film_area(x, n, aperture) * dr.squared_norm(mi.Vector3f(p_B - x)) / (frame * dr.abs_dot(n, ω))
    share = dr.detach(density / (density + sky_density))
    return mi.Float(dr.select(dr.isfinite(share), share, 1))


def sky_term(
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
    """One launch of (E10).

    Args:
        size: extent of the scene.
        spp: samples per pixel of the crop.
        grad_in: adjoint image in backward mode.

    Returns:
        The derivative image in forward mode.
    """
    film, camera = FilmSplat(sensor), FilmMap(sensor)
    sky = scene.environment()

    def evaluate(numbers: Numbers) -> Contribution:
        index, t, probability = where.choice.sample(numbers.place)
        u = mi.Point2f(film.low + numbers.other * (film.high - film.low))
        lens = camera.lens(numbers.random)
        with dr.resume_grad():
            ray, response = camera.ray(u, lens)
        onward = mi.RayDifferential3f(dr.detach(ray))
        hit, si = first_surface(integrator, scene, onward, probability > 0)
        active = si.is_valid() & mi.has_flag(si.bsdf().flags(), mi.BSDFFlags.Smooth)
        with dr.resume_grad():
            # On the tangent plane, following the receiver: a turn about the point itself does not move it
            n = mi.Vector3f(dr.detach(si.n))
            receiver = curves.follow(hit, si.p, active)
            X = ray.o + ray.d * (dr.dot(n, mi.Vector3f(receiver - ray.o)) / dr.dot(n, ray.d))
            point = curves.sample(index, t, View(mi.Point3f(si.p), mi.Bool(False)))
        active &= point.silhouette
        to_B = mi.Vector3f(dr.detach(mi.Point3f(point.p)) - si.p)
        r = dr.norm(to_B)
        ω = to_B / r
        active &= r > TOUCH * NUDGE * size

        far = dr.zeros(mi.SurfaceInteraction3f, dr.width(ω))
        far.wi, far.wavelengths = -ω, si.wavelengths
        value = si.bsdf().eval(mi.BSDFContext(), si, si.to_local(ω), active) * sky.eval(far, active)
        active &= dr.any(value != 0)
        outward = point.outward(ω)
        start = point.beside(outward)
        active &= ~scene.ray_test(mi.Ray3f(start, ω), active)
        active &= seen_from(scene, curves, start, si.p, si.n, active)
        with dr.resume_grad():
            motion = dr.dot(dr.detach(outward), mi.Vector3f(point.p) - mi.Vector3f(X))
            motion = dr.select(active & dr.isfinite(motion), motion, 0)
        value *= dr.detach(response) * (dr.norm(dr.cross(point.tangent, ω)) / dr.square(r))
        value *= sky_share(camera, film, sky, si.p, si.n, dr.detach(mi.Point3f(point.p)), ω, lens, active)
        area = (film.high.x - film.low.x) * (film.high.y - film.low.y)
        weight = dr.select(active, -area * dr.rcp(probability * numbers.density), 0)
        tangent = tangent_of(mode, motion)
        dr.eval(u, value, weight, numbers.cell, hit, tangent)
        return Contribution(u, motion, value, weight, None, None, onward.wavelengths, tangent)

    with dr.suspend_grad():
        where = LineCurves(curves)
        memory = integrator.memory("sky")
        return estimate(evaluate, mode, film, seed, film.pixels * spp, where.choice, True, memory, grad_in)
