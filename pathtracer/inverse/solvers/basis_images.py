"""Basis images: what each light alone adds to the pictures, at unit strength, and what lights that are known add.

Lamps take one tracing pass together (`lamp_basis.py`) where the estimator traces plain paths and the film's filter has
no negative lobes, else one each; the texels of an environment map take one pass (`environment_basis.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...errors import UsageError
from .light_columns import Columns
from .normal import Array

if TYPE_CHECKING:
    from ..objective import Objective
    from ..prepared_views import PreparedView

#: Samples of the first round of an environment map, doubled by every further one.
_SAMPLES = 1 << 18
#: Their renders are those of `lamp_basis.py`; others render lamp by lamp.
_PATH_TRACERS = ("path_replay", "edge_sampling", "warped_area", "prb", "prb_basic")


class BasisImages:
    """Renders basis images of all views.

    Args:
        objective: whose views and seeds they are.
        columns: of its unknowns.
    """

    def __init__(self, objective: Objective, columns: Columns) -> None:
        from ..environment_basis import has_no_lobes

        self._start, self._columns = objective.start, columns
        self._linearizer = p = objective.linearizer
        self._together = p.problem.estimator["type"] in _PATH_TRACERS and all(
            has_no_lobes(v.sensor.film().rfilter()) for v in p.views
        )

    def render(self, step: int, copies: int) -> tuple[Array, Array, int]:
        """Two independent estimates.

        Args:
            step: tells the seeds apart.
            copies: launches whose mean is taken.
        Returns:
            the basis images (2, 3, m, P), what known lights add (2, 3, P), and the camera paths spent.
        """
        p, parts = self._linearizer, self._columns.parts
        basis = np.zeros((2, 3, self._columns.count, p.pixels), np.float32)
        rest = np.zeros((2, 3, p.pixels))
        samples = 0
        unknown = frozenset().union(*(part.prefixes for part in parts))
        columns = self._columns.slices()
        row = 0
        for index, view in enumerate(p.views):
            rows = slice(row, row + view.view.width * view.view.height)
            row = rows.stop
            others = view.lit - unknown
            lamps = {k: part.prefixes & view.lit for k, part in enumerate(parts) if part.shape is None}
            lamps = {k: lit for k, lit in lamps.items() if lit}
            together = self._together and len(lamps) + bool(others) > 1
            for half in (0, 1):
                for k, part in enumerate(parts):
                    seed = p._seed(step, index, 32 + 2 * k + half, 0)
                    if part.shape is not None and part.prefixes & view.lit:
                        image, spent = self._sky(view, part.shape, seed, copies)
                        basis[half, :, columns[k], rows] = image.transpose(2, 1, 0)
                        samples += spent
                    elif k in lamps and not together:
                        image, spent = p.lit_by(self._start, view, lamps[k], seed, copies)
                        basis[half, :, columns[k].start, rows] = image.T / part.unit[:, None]
                        samples += spent
                seed = p._seed(step, index, 30 + half, 0)
                if together:
                    groups = [*lamps.values(), others]
                    images, spent = self._lamps(view, groups, seed, copies)
                    for k, image in zip(lamps, images, strict=False):
                        basis[half, :, columns[k].start, rows] = image.T / parts[k].unit[:, None]
                    rest[half, :, rows] = images[-1].T
                    samples += spent
                elif others:
                    image, spent = p.lit_by(self._start, view, others, seed, copies)
                    rest[half, :, rows] = image.T
                    samples += spent
        return basis, rest, samples

    def _lamps(self, view: PreparedView, groups: list[frozenset[str]], seed: int, copies: int) -> tuple[Array, int]:
        """The images (groups, P, 3) of groups of emitters in one pass."""
        from ..lamp_basis import lamp_basis

        p, problem = self._linearizer, self._linearizer.problem
        problem.lights.begin()
        p._place(self._start, view, frozenset())
        params, emitters = problem.scene.params, list(problem.scene.mi.emitters())
        bins = {}
        for k, group in enumerate(groups):
            for prefix in group:
                owner = params.properties[prefix + ".sampling_weight"][2]
                bins[next(i for i, e in enumerate(emitters) if e == owner)] = k
        integrator = problem.integrator
        spp = 2 * copies * p.spp(view)
        images = lamp_basis(
            problem.scene.mi,
            view.sensor,
            bins,
            len(groups),
            seed,
            spp,
            int(integrator.max_depth),
            int(integrator.rr_depth),
            bool(integrator.hide_emitters),
        )
        gain = np.array(problem.gain(view), np.float32).ravel()[:3]
        return images * gain, spp * images.shape[1]

    def _sky(self, view: PreparedView, shape: tuple[int, int], seed: int, copies: int) -> tuple[Array, int]:
        """The images (P, texels, 3) of the texels of a map in one pass."""
        from ..environment_basis import environment_basis

        p, problem = self._linearizer, self._linearizer.problem
        p._place(self._start, view, frozenset())
        pixels = view.view.width * view.view.height
        spp = max(problem.spp, _SAMPLES // pixels) * copies
        integrator = problem.integrator
        try:
            image = environment_basis(
                problem.scene.mi,
                view.sensor,
                shape,
                seed,
                spp,
                int(integrator.max_depth),
                int(integrator.rr_depth),
                bool(integrator.hide_emitters),
            )
        except ValueError as error:
            raise UsageError(str(error), where="film", remedy="use a box or gaussian filter, or adam") from error
        gain = np.array(problem.gain(view), np.float32).ravel()[:3]
        return image * gain, spp * pixels
