"""What no warp of the first vertices follows, from edge sampling: curves on the film, relative to the warped film.

Positions on the film move with V (docs/theory/warped_area.md, section 8), so a curve that V does not follow sweeps over
them with its own normal speed less that of V:

    dI_j = (W2) + ∫_Γ h_j (f⁻ − f⁺) (v_n − V·n) dl                                                        (W11)

over the edges of hard shadows, silhouettes behind perfect mirrors and smooth glass, curves along which surfaces pass
through each other, and horizons of interpolated normals. V is estimated anew at every sample: (W11) is linear in it, so
the sum is as unbiased as either part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import drjit as dr
import mitsuba as mi

from .boundary.deliver import nothing
from .boundary.film import FilmSplat
from .boundary.lights import DELTA, Lights
from .boundary.limits import Limit
from .boundary.shadow import shadow_term
from .boundary.stream import Stream
from .edge_sampling import EdgeSampling
from .warped_film import FilmPoints

#: Terms of `edge_sampling` whose curves a warp leaves alone, and limits of theirs that hold here too.
TERMS = ("shadow", "specular", "crossing", "horizon")
LIMITS = ("specular-shadow", "specular-curved", "specular-many")


class LeftToEdges(EdgeSampling):
    """The terms of `edge_sampling` that `warped_area` takes when asked for `hybrid`.

    Args:
        props: of the integrator; the budgets and switches of `edge_sampling` are understood.
        film_field: `WarpedArea.film_field` of the integrator whose film they are relative to.
    """

    def __init__(self, props: mi.Properties, film_field: Callable[..., tuple[mi.Vector2f, mi.Float]]) -> None:
        super().__init__(props)
        self.guiding = False  # no memory: nothing to keep in checkpoints
        self.film_field = film_field

    def curve_terms(self) -> list[tuple[Any, int | float]]:
        """The terms, as `derivative_terms` gives them."""
        names = [name for name, _, _ in self._named_terms()]
        return [term for name, term in zip(names, super().derivative_terms(None), strict=True) if name in TERMS]

    def film_velocity(
        self, scene: mi.Scene, sensor: mi.Sensor, u: mi.Point2f, lens: mi.Point2f | None, random: Stream
    ) -> mi.Vector2f:
        """One estimate of V at film positions; see `EdgeSampling.film_velocity`."""
        with dr.suspend_grad():
            aperture = mi.Point2f(0.5) if lens is None else mi.warp.uniform_disk_to_square_concentric(lens)
            points = FilmPoints(mi.Point2f(u), mi.Float(sensor.shutter_open()), mi.Float(0), mi.Point2f(aperture))
        with dr.resume_grad():
            velocity, _ = self.film_field(scene, sensor, random, points, True)
        return velocity

    def _shadow(self, mode: Any, scene: Any, curves: Any, sensor: Any, seed: Any, *rest: Any) -> Any:
        lights = Lights(scene, self._extent, self._lights)
        if DELTA not in lights.kinds:
            return nothing(FilmSplat(sensor), mode)
        spp, grad_in = rest
        return shadow_term(self, mode, scene, curves, lights, sensor, seed, spp, grad_in, (DELTA,))

    def _say(self, limits: list[Limit]) -> None:
        super()._say([limit for limit in limits if limit[0] in LIMITS])
