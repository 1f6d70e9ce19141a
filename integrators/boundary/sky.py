"""Boundary term of the environment's light on what the camera sees: the outlines that hide the sky from a receiver.

Directly seen receivers again, but from their side. A film position u is drawn, so that its receiver X is in view
whatever the sky looks like; then a curve element, of which X sees a silhouette point x_B or not. With directions at X
fixed and the sky at infinity (s = 0 in E1) the light of direction ω = (x_B − X)/r is lost where the outline advances:

    dI_j = − ∫ h_j(u) du Σ ∫ ρ(X, ω) cos θ L_sky(ω) |dx_B/dt × ω| n · (ẋ_B − Ẋ) dt / r²                  (E10)

X slides along the camera ray, whose film position is fixed; n points away from the occluder. The same derivative by
(E7), with ω drawn from the sky, spends most samples on shadows that fall outside of the frame.

Source: Li, Aittala, Durand, Lehtinen 2018, section 4, with the motion of both ends.
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi

from .camera import FilmMap
from .estimate import Contribution, estimate
from .film import FilmSplat
from .guiding import Numbers
from .indirect import LineCurves, seen_from
from .lights import NUDGE
from .primary import TOUCH
from .shadow import first_surface
from .silhouettes import Silhouettes
from .view import View


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

    def evaluate(numbers: Numbers, attach: bool) -> Contribution:
        index, t, probability = where.choice.sample(numbers.place)
        u = mi.Point2f(film.low + numbers.other * (film.high - film.low))
        lens = mi.warp.square_to_uniform_disk_concentric(numbers.random.next_2d()) if camera.needs_aperture else None
        with dr.resume_grad(when=attach):
            ray, response = camera.ray(u, lens)
        onward = mi.RayDifferential3f(dr.detach(ray))
        hit, si = first_surface(integrator, scene, onward, probability > 0)
        active = si.is_valid() & mi.has_flag(si.bsdf().flags(), mi.BSDFFlags.Smooth)
        with dr.resume_grad(when=attach):
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
        active &= seen_from(scene, curves, start, si.p, size, active)
        with dr.resume_grad(when=attach):
            motion = dr.dot(dr.detach(outward), mi.Vector3f(point.p) - mi.Vector3f(X))
            motion = dr.select(active & dr.isfinite(motion), motion, 0)
        value *= dr.detach(response) * (dr.norm(dr.cross(point.tangent, ω)) / dr.square(r))
        area = (film.high.x - film.low.x) * (film.high.y - film.low.y)
        weight = dr.select(active, -area * dr.rcp(probability * numbers.density), 0)
        return Contribution(u, motion, value, weight, None, None, onward.wavelengths)

    with dr.suspend_grad():
        where = LineCurves(curves)
        memory = integrator.memory("sky")
        return estimate(evaluate, mode, film, seed, film.pixels * spp, where.choice, True, memory, grad_in)
