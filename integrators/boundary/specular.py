"""Boundary term of what the camera sees in perfect mirrors and through smooth glass.

Behind a chain of specular bounces the film position u looks along the ray (o(u), d(u)), so the chain is part of the
camera: a silhouette point x_B(t) appears where the ray meets it, at the zero of

    F(u, t, θ) = x_B − o − s d ,   s = d · (x_B − o) ,                                                     (E11)

which Newton's method finds from a film position that sees the chain. With n the normal of the plane through the ray and
the curve's tangent, and m = n · (∂o/∂u + s ∂d/∂u) the film's gradient of the distance n · F, the curve on the film has

    normal m/|m| ,   normal speed  n · (ẋ_B − ȯ − s ḋ) / |m| ,   du/dt = −(∂F/∂u)⁻¹ ∂F/∂t ,                (E12)

and (E4) holds as it is. The two sides are rays through the same chain, times its throughput; ȯ and ḋ are those of the
attached chain, so that camera, mirrors, glass and what they show may all move.

Source: design of this project; the zero of (E11) is a manifold walk (Jakob and Marschner 2012; Zeltner et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi

from .beside import Beside, Looks
from .camera import FilmMap
from .chain import ChainTables
from .distribution import Discrete
from .estimate import Contribution, estimate
from .film import FilmSplat
from .guiding import Numbers
from .indirect import LineCurves
from .layers import TOUCH, missed, transparent
from .primary import sides_of
from .silhouettes import Silhouettes
from .stream import Stream
from .view import View

#: Steps of Newton's method; how near it must come, and the width of its differences, in pixels.
STEPS, NEAR, STENCIL = 14, 3e-4, 2e-2


@dataclass
class Aim:
    """A ray behind a chain that passes a curve point, and two more for film positions a stencil's width beside it.

    Attributes:
        o, d: (N,) the three rays, detached.
        q: (N,) from each ray to the curve point that it sees, perpendicular to the ray.
        s: (N,) distance of the curve point along the first ray.
        valid: (N,) whether all three fit the chain and the point lies ahead.
    """

    o: list[mi.Point3f]
    d: list[mi.Vector3f]
    q: list[mi.Vector3f]
    s: mi.Float
    valid: mi.Bool

    def newton(self) -> mi.Vector2f:
        """−(∂q/∂u)⁻¹ q, pixels."""
        return self.solve(-self.q[0])

    def solve(self, v: mi.Vector3f) -> mi.Vector2f:
        """(∂q/∂u)⁻¹ v in the plane across the first ray."""
        a, b = mi.coordinate_system(self.d[0])
        x, y = (mi.Vector3f((q - self.q[0]) / STENCIL) for q in self.q[1:])
        m00, m01, m10, m11 = dr.dot(a, x), dr.dot(a, y), dr.dot(b, x), dr.dot(b, y)
        v0, v1 = dr.dot(a, v), dr.dot(b, v)
        r = dr.rcp(m00 * m11 - m01 * m10)
        return mi.Vector2f((m11 * v0 - m01 * v1) * r, (m00 * v1 - m10 * v0) * r)

    def across(self, n: mi.Vector3f) -> mi.Vector2f:
        """n · ∂(o + s d)/∂u."""
        moved = (
            mi.Vector3f(o - self.o[0]) + self.s * (d - self.d[0]) for o, d in zip(self.o[1:], self.d[1:], strict=True)
        )
        return mi.Vector2f(*(dr.dot(n, mi.Vector3f(v)) / STENCIL for v in moved))


class ChainView:
    """A camera behind chains."""

    def __init__(self, scene: mi.Scene, curves: Silhouettes, camera: FilmMap, chains: ChainTables) -> None:
        self.scene, self.curves, self.camera, self.chains = scene, curves, camera, chains

    def ray(
        self, chain: mi.UInt32, u: mi.Point2f, lens: mi.Point2f | None, active: mi.Bool
    ) -> tuple[mi.Ray3f, mi.Spectrum, mi.Bool]:
        """The detached ray behind the chain of a film position, its throughput with the sensor's weight, validity."""
        first, response = self.camera.ray(u, lens)
        ray, W, fits = self.chains.follow(self.scene, self.curves, chain, mi.Ray3f(dr.detach(first)), active)
        return ray, W * dr.detach(response), fits

    @dr.syntax
    def aim(
        self, chain: mi.UInt32, u: mi.Point2f, lens: Any, target: Callable[[mi.Point3f], mi.Point3f], active: mi.Bool
    ) -> Aim:
        """Where the rays of a film position and of two beside it pass their targets.

        Args:
            target: detached point that a ray from the given origin is to pass.
        """
        j = mi.UInt32(0)
        o = [mi.Point3f(0), mi.Point3f(0), mi.Point3f(0)]
        d = [mi.Vector3f(0), mi.Vector3f(0), mi.Vector3f(0)]
        q = [mi.Vector3f(0), mi.Vector3f(0), mi.Vector3f(0)]
        s, valid = mi.Float(0), mi.Bool(active)
        while dr.hint(valid & (j < 3), label="Stencil"):  # a loop: one chain to compile
            step = mi.Vector2f(dr.select(j == 1, STENCIL, 0), dr.select(j == 2, STENCIL, 0))
            ray, _, fits = self.ray(chain, mi.Point2f(u + step), lens, valid)
            away = mi.Vector3f(target(ray.o) - ray.o)
            ahead = dr.dot(away, ray.d)
            valid &= fits & (ahead > 0) & dr.isfinite(ahead)
            for i in range(3):
                here = j == i
                o[i] = mi.Point3f(dr.select(here, mi.Vector3f(ray.o), mi.Vector3f(o[i])))
                d[i] = dr.select(here, ray.d, d[i])
                q[i] = dr.select(here, mi.Vector3f(away - ahead * ray.d), q[i])
            s = dr.select(j == 0, ahead, s)
            j += 1
        return Aim(o, d, q, s, valid)

    def motion(
        self,
        integrator: Any,
        mode: dr.ADMode,
        sensor: mi.Sensor,
        chain: mi.UInt32,
        u: mi.Point2f,
        lens: mi.Point2f | None,
        aim: Aim,
        random: Stream,
        n: mi.Vector3f,
        follow: Callable[[Silhouettes], mi.Point3f],
        active: mi.Bool,
    ) -> tuple[mi.Float, mi.Float | None]:
        """Attached n · (x_B − o − s d); in forward mode its tangent.

        Forward mode propagates through the chain before the curves are attached: Dr.Jit 1.5.0 cannot take derivatives
        of a parameter through a virtual call while others leave it outside of the call.

        Args:
            n: (N,) n, of any length.
            follow: x_B of the attached curves that it is given.
        """
        flags = dr.ADFlag.ClearEdges | dr.ADFlag.AllowNoGrad
        with dr.resume_grad():
            drift = integrator.film_velocity(self.scene, sensor, u, lens, random)
            first, _ = self.camera.ray(mi.Point2f(u + drift), lens)
            o, d = self.chains.attached(self.scene, chain, mi.Ray3f(first), active)
            if mode != dr.ADMode.Forward:
                p = follow(Silhouettes(self.scene, self.curves.topology))
                motion = dr.dot(n, mi.Vector3f(p - o) - aim.s * d)
                return dr.select(active & dr.isfinite(motion), motion, 0), None
            dr.forward_to(o, d, flags=flags)
            δo, δd = mi.Vector3f(dr.grad(o)), mi.Vector3f(dr.grad(d))
            p = follow(Silhouettes(self.scene, self.curves.topology))
            dr.forward_to(p, flags=flags)
            tangent = dr.dot(n, mi.Vector3f(dr.grad(p)) - δo - aim.s * δd)
            return mi.Float(0), dr.detach(dr.select(active & dr.isfinite(tangent), tangent, 0))

    def silhouette(self, index: mi.UInt32, t: mi.Float) -> Callable[[mi.Point3f], mi.Point3f]:
        """The point of a curve that rays from an origin see as its silhouette."""
        return lambda o: dr.detach(mi.Point3f(self.curves.sample(index, t, View(o, mi.Bool(False))).p))

    @dr.syntax
    def find(
        self, chain: mi.UInt32, lens: Any, index: mi.UInt32, t: mi.Float, active: mi.Bool
    ) -> tuple[mi.Point2f, mi.Bool]:
        """The film position that sees a curve point through a chain; steps that leave the chain are halved."""
        _, eye, _ = self.chains.kept(chain, 0)
        u = self.chains.start(chain, self.silhouette(index, t)(eye))
        trial = mi.Point2f(u)
        step = mi.Vector2f(0)
        found, going = mi.Bool(False), mi.Bool(active)
        k = mi.UInt32(0)
        while dr.hint(going, label="Newton"):
            aim = self.aim(chain, trial, lens, self.silhouette(index, t), going)
            if aim.valid:
                u = mi.Point2f(trial)
                step = aim.newton()
                found = dr.max(dr.abs(step)) < NEAR
            else:
                step = 0.5 * step
            trial = mi.Point2f(u + step)
            k += 1
            going &= ~found & (k < STEPS) & dr.isfinite(step.x) & dr.isfinite(step.y)
        return trial, found & active  # after its last step, which is below NEAR

    def jump(
        self,
        integrator: Any,
        chain: mi.UInt32,
        u: mi.Point2f,
        beside: Beside,
        lens: mi.Point2f | None,
        random: Any,
        active: mi.Bool,
        limbs: bool = False,
    ) -> tuple[mi.Spectrum, Any]:
        """L on the low side less L on the high side, and the wavelengths; see `primary.jump_across`."""
        looks = Looks(beside, active, limbs)
        chain = looks.of(chain)
        at = mi.Point2f(looks.of(u) + looks.offset())
        ray, W, fits = self.ray(chain, at, None if lens is None else looks.of(lens), looks.active)
        length = dr.gather(mi.UInt32, self.chains.length, chain)
        L, _ = integrator.radiance(self.scene, random.gather(looks.point), looks.start(ray), length, fits)
        L = dr.select(fits & dr.all(dr.isfinite(L)), L * W, 0)
        dr.eval(L, fits)
        return looks.jump(L, fits), looks.look(ray.wavelengths) if mi.is_spectral else ray.wavelengths


def specular_term(
    integrator: Any,
    mode: dr.ADMode,
    scene: mi.Scene,
    curves: Silhouettes,
    chains: ChainTables,
    sensor: mi.Sensor,
    seed: Any,
    spp: int,
    grad_in: mi.TensorXf | None,
) -> mi.TensorXf | None:
    """One launch of (E4) behind specular chains.

    Args:
        chains: those that the film shows.
        spp: samples per pixel of the crop, spread over chains and curves.
        grad_in: adjoint image in backward mode.

    Returns:
        The derivative image in forward mode.
    """
    film, camera = FilmSplat(sensor), FilmMap(sensor)
    view = ChainView(scene, curves, camera, chains)
    see_through = transparent(scene)

    def evaluate(numbers: Numbers) -> Contribution:
        item, t, probability = where.sample(numbers.place)
        chain = item // curves.size
        index = item - chain * curves.size
        random = numbers.random
        lens = camera.lens(random)
        active = probability > 0
        u, found = view.find(chain, lens, index, t, active)
        dr.eval(u, found, chain, index, t, lens, probability, numbers.density, numbers.cell, random)
        aim = view.aim(chain, u, lens, view.silhouette(index, t), found)
        o, d = aim.o[0], aim.d[0]
        point = curves.sample(index, t, View(o, mi.Bool(False)))
        outward = point.outward(d)
        across = aim.across(outward)
        size = dr.norm(across)
        normal = across / size
        du = aim.solve(-mi.Vector3f(point.tangent - d * dr.dot(d, point.tangent)))
        active = aim.valid & (point.silhouette | point.crease) & film.inside(u)
        active &= dr.isfinite(normal.x) & dr.isfinite(du.x)
        stretch = dr.norm(du) / size
        follow = lambda moving: moving.sample(index, t, View(o, mi.Bool(False))).p
        scaled = mi.Vector3f(outward * stretch)
        motion, tangent = view.motion(integrator, mode, sensor, chain, u, lens, aim, random, scaled, follow, active)
        exact = mi.Bool(False) if see_through else point.silhouette & ~point.tube
        start = mi.Point3f(
            dr.select(exact, mi.Vector3f(point.beside(outward, -d)), mi.Vector3f(dr.detach(mi.Point3f(point.p))))
        )
        at = u
        if see_through:
            miss, _ = missed(scene, mi.Ray3f(o, d), start, integrator.max_depth, False, active)
            at = mi.Point2f(u + aim.solve(-miss))
        else:
            back = mi.Vector3f(o - start)
            clear = dr.select(exact, 0, TOUCH)
            hidden = mi.Ray3f(
                mi.Point3f(start + back * clear), dr.normalize(back), dr.norm(back) * (1 - TOUCH - clear), 0, []
            )
            active &= ~scene.ray_test(hidden, active)
        weight = dr.select(active, dr.rcp(probability * numbers.density), 0)
        move = lambda v: aim.solve(-mi.Vector3f(v - d * dr.dot(d, v)))
        distance = dr.norm(mi.Vector3f(camera.ray(u, lens)[0].o - o)) + dr.norm(mi.Vector3f(start - o))
        low, high, limb = sides_of(film, point, outward, normal, distance, move)
        dr.eval(u, at, low, high, limb, weight, active, start, d, exact, stretch, numbers.cell, tangent)
        beside = Beside(exact, mi.Bool(True), start, d, low, high, dr.select(exact, limb, 0))
        limbs = curves.has_limbs
        jump, wavelengths = view.jump(integrator, chain, at, beside, lens, random, active, limbs)
        return Contribution(u, motion, jump, weight, stretch * size, None, wavelengths, tangent)

    with dr.suspend_grad():
        chain_of = dr.arange(mi.UInt32, chains.padded * curves.size) // curves.size
        shares = dr.tile(LineCurves(curves).weights, chains.padded)
        where = Discrete(dr.select(dr.gather(mi.UInt32, chains.length, chain_of) > 0, shares, 0))
        memory = integrator.memory("specular")
        return estimate(evaluate, mode, film, seed, film.pixels * spp, where, False, memory, grad_in)
