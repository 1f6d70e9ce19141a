"""Running a boundary term: a pilot that finds where the contribution lies, then the samples, then the film.

Every term maps numbers in the unit cube (one for the place on the curves, two for the light or the direction) to a
contribution. The cube is divided into cells; a pilot with a fraction of the samples measures how much each cell
contributes, and the samples are drawn from the cells in proportion, mixed with the unguided density, so that a cell
that the pilot missed keeps a positive one. The estimate divides by the mixture's density and stays unbiased whatever
the pilot found. The pilot
uses its own random numbers and is part of the call: the result depends on scene and seed only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi

from .deliver import deliver
from .distribution import Discrete, stratified
from .film import FilmSplat
from .stream import Stream

#: Share of the samples that the pilot draws, and the least number for which one pays.
PILOT_SHARE, PILOT_LEAST = 8, 2048
#: Shares of the mixture: all cells alike; by the place on the curves alone; by the cell itself.
UNIFORM, MARGINAL = 0.2, 0.3
#: Pilot samples per cell.
PER_CELL = 4


@dataclass
class Numbers:
    """Points of the unit cube with their density.

    Attributes:
        place: (N,) double precision number for the place on the curves.
        other: (N,) two more numbers.
        density: (N,) of the points in the cube.
        cell: (N,) which cell each belongs to.
        random: further random numbers.
    """

    place: mi.Float64
    other: mi.Point2f
    density: mi.Float
    cell: mi.UInt32
    random: Stream


@dataclass
class Contribution:
    """What one launch of a term found.

    Attributes:
        u: (N,) film positions.
        motion: (N,) attached: the derivative's first factor.
        value: (N,) spectra: its second factor.
        weight: (N,) reciprocal density of the sample; zero where there is no contribution.
        reach: (N,) how much a unit of motion counts, for the pilot; 1 unless motion is scaled.
        alpha: (N,) second factor of coverage.
        wavelengths: of the samples, in spectral variants.
    """

    u: mi.Point2f
    motion: mi.Float
    value: Any
    weight: mi.Float
    reach: mi.Float | None = None
    alpha: mi.Float | None = None
    wavelengths: Any = None


#: evaluate(numbers, attach): attach is whether motion shall carry derivatives
Evaluate = Callable[[Numbers, bool], Contribution]


class Cells:
    """A division of the unit cube; `sides` cells along the place on the curves and along the two other numbers."""

    def __init__(self, sides: tuple[int, int, int]) -> None:
        self.sides = sides
        self.count = sides[0] * sides[1] * sides[2]

    def draw(self, count: int, random: Stream, choice: Discrete | None) -> Numbers:
        """`count` points, stratified over the cells in the order of their place on the curves."""
        number = stratified(count, random.next_1d())
        n0, n1, n2 = (dr.opaque(mi.UInt32, n) for n in self.sides)
        cells = dr.opaque(mi.Float, self.count)
        if choice is None:
            scaled = number * mi.Float64(cells)
            cell = dr.minimum(mi.UInt32(scaled), n0 * n1 * n2 - 1)
            inside, density = mi.Float(scaled - mi.Float64(cell)), mi.Float(1)
        else:
            cell, inside, probability = choice.sample(number)
            density = probability * cells
        place = cell // (n1 * n2)
        rest = cell - place * (n1 * n2)
        row = rest // n2
        if self.count > self.sides[0]:
            # What remains of the number orders the other coordinates too; take fresh ones for the position in the cell
            inside = random.next_1d()
        other = random.next_2d()
        x = (mi.Float(row) + other.x) / mi.Float(n1)
        y = (mi.Float(rest - row * n2) + other.y) / mi.Float(n2)
        where = (mi.Float64(place) + mi.Float64(inside)) / mi.Float64(n0)
        return Numbers(where, mi.Point2f(x, y), density, cell, random)

    def learn(self, cell: mi.UInt32, size: mi.Float) -> Discrete:
        """The mixture that follows from a pilot.

        Args:
            cell: (N,) where the pilot's samples lay.
            size: (N,) absolute contributions.
        """
        found = dr.zeros(mi.Float, self.count)
        dr.scatter_reduce(dr.ReduceOp.Add, found, dr.select(dr.isfinite(size), size, 0), cell)
        total = dr.sum(found)
        inner = self.sides[1] * self.sides[2]
        along = dr.repeat(dr.block_sum(found, inner), inner) / inner if inner > 1 else found
        uniform = mi.Float(1 / self.count)
        mixed = UNIFORM * uniform + (MARGINAL * along + (1 - UNIFORM - MARGINAL) * found) / total
        return Discrete(dr.select(total > 0, mixed, uniform))


def divide(pilot: int, elements: int, directions: bool) -> Cells:
    """Cells for a pilot of the given size: the curve first, then directions as far as samples allow."""
    cells = max(1, pilot // PER_CELL)
    if not directions:
        return Cells((min(cells, max(16, 8 * elements)), 1, 1))
    side = 4 if cells >= 1024 else 2
    return Cells((max(1, min(cells // (side * side), max(16, 4 * elements))), side, side))


def estimate(
    evaluate: Evaluate,
    mode: dr.ADMode,
    film: FilmSplat,
    seed: Any,
    count: int,
    elements: int,
    directions: bool,
    guiding: bool,
    grad_in: mi.TensorXf | None,
) -> mi.TensorXf | None:
    """Estimate a boundary term with `count` samples.

    Args:
        elements: number of curve elements.
        directions: whether the two further numbers matter.
        guiding: whether to run a pilot.
    """
    choice = None
    pilot = count // PILOT_SHARE
    if guiding and pilot >= PILOT_LEAST:
        cells = divide(pilot, elements, directions)
        random = Stream(mi.sample_tea_32(seed, 0x51A7)[0], dr.arange(mi.UInt32, pilot))
        numbers = cells.draw(pilot, random, None)
        found = evaluate(numbers, False)
        size = dr.max(dr.abs(mi.unpolarized_spectrum(found.value))) * dr.abs(found.weight)
        if found.reach is not None:
            size *= found.reach
        choice = cells.learn(numbers.cell, dr.select(found.weight != 0, size, 0))
    else:
        cells = Cells((1, 1, 1))
    random = Stream(seed, dr.arange(mi.UInt32, count))
    found = evaluate(cells.draw(count, random, choice), True)
    scale = found.weight / dr.opaque(mi.Float, count)
    return deliver(mode, film, found.u, found.motion, found.value, scale, grad_in, found.alpha, found.wavelengths)
