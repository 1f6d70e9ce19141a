"""Crossings (E13) that perfect mirrors show, or smooth glass: the chain is part of the camera, as in `specular`.

Segments of the film are looked along behind a chain. With τ the curve's direction, d the ray's and n ∝ τ × d, the
curve on the film has the normal and the normal speed of (E12), x_B being the point of (E14).

Source: design of this project.
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi

from .beside import Beside
from .camera import FilmMap
from .chain import ChainTables
from .crossing_search import Crossings, Probe, film_cells
from .crossings import crofton, meeting_point, sides_of_crossing
from .distribution import Discrete
from .estimate import Contribution, estimate
from .film import FilmSplat
from .guiding import Numbers
from .silhouettes import Silhouettes
from .specular import ChainView


class ChainProbe(Probe):
    """A probe that looks through chains, and through no layers behind them.

    Args:
        chain: (N,) which one.
    """

    def __init__(self, view: ChainView, chain: mi.UInt32) -> None:
        super().__init__(view.scene, view.curves, view.camera, False, mi.Float(0))
        self.see_through, self.view, self.chain = False, view, chain

    def ray(self, u: mi.Point2f, lens: mi.Point2f | None) -> mi.Ray3f:
        """The detached ray behind the chain; it meets nothing where the film position does not see the chain."""
        ray, _, fits = self.view.ray(self.chain, u, lens, mi.Bool(True))
        ray.maxt = dr.select(fits, ray.maxt, 0)
        return ray

    def distance(self, x: Crossings, lens: mi.Point2f | None) -> mi.Float:
        """From the camera to a crossing: bounces between the first one and the last are taken for a straight line."""
        ray, _ = self.camera.ray(x.u, lens)
        behind = self.ray(x.u, lens).o
        return dr.norm(mi.Vector3f(dr.detach(ray.o) - behind)) + dr.norm(mi.Vector3f(behind - x.p))


def specular_crossing_term(
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
    """One launch of (E13) behind specular chains.

    Args:
        chains: those that the film shows.
        spp: segments per pixel of the crop, spread over the chains.
        grad_in: adjoint image in backward mode.

    Returns:
        The derivative image in forward mode.
    """
    film, camera = FilmSplat(sensor), FilmMap(sensor)
    view, cells = ChainView(scene, curves, camera, chains), dr.opaque(mi.Float, film_cells(film))

    def evaluate(numbers: Numbers) -> Contribution:
        chain, _, probability = where.sample(numbers.place)
        random = numbers.random
        lens = camera.lens(random)
        probe = ChainProbe(view, chain)
        middle = mi.Point2f(film.low - 1 + numbers.other * (film.high - film.low + 2))
        x = probe.look(film, middle, lens, random, probability > 0)
        dr.eval(x, chain, probability, lens, numbers.density, numbers.cell, random)
        aim = view.aim(chain, x.u, lens, lambda o: x.p, x.valid)
        d = aim.d[0]
        n = dr.normalize(dr.cross(dr.cross(x.n_near, x.n_far), d))
        across = aim.across(n)
        size = dr.norm(across)
        normal = across / size
        active = aim.valid & dr.isfinite(normal.x) & dr.isfinite(normal.y)
        follow = lambda moving: meeting_point(moving, x, active)
        scaled = mi.Vector3f(n / size)
        motion, tangent = view.motion(integrator, mode, sensor, chain, x.u, lens, aim, random, scaled, follow, active)
        weight = dr.select(active, crofton(x) * (cells * dr.rcp(probability * numbers.density)), 0)
        on_film = lambda v: aim.solve(-mi.Vector3f(v - d * dr.dot(d, v)))
        sides = Beside.neither(*sides_of_crossing(film, probe, x, normal, lens, on_film))
        dr.eval(x.u, sides, weight, active, numbers.cell, random, tangent)
        jump, wavelengths = view.jump(integrator, chain, x.u, sides, lens, random, active)
        return Contribution(x.u, motion, jump, weight, None, None, wavelengths, tangent)

    with dr.suspend_grad():
        where = Discrete(mi.Float(chains.seen))
        memory = integrator.memory("specular crossing")
        return estimate(evaluate, mode, film, seed, film.pixels * spp, where, True, memory, grad_in)
