"""Where a boundary term finds its contributions: a memory of earlier samples that directs the next ones.

Every term maps the unit cube (one number for the place on the curves, two for the light or the direction) to a
contribution f. The cube is divided into cells, and each cell remembers the mean of |f| that samples found in it. New
samples are drawn from cells in proportion, mixed with the unguided density, so that a cell that earlier samples missed
keeps a positive one. (The root of the mean square would be the better choice if it were known; where few samples carry
most of it, what they left in a cell is noise.)

The memory outlives the call: what an optimisation step finds directs the next step, at no cost but the bookkeeping. It
forgets by age, and it follows the scene: the place on the curves is a number that runs along all curve elements by
their share, which changes as things move, so the memory is carried over element by element. The first call, which has
no memory, spends an eighth of its samples on one.

Each estimate divides by the density it was drawn from, and that density was fixed before its random numbers were drawn:
it is unbiased whatever the memory holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi

from .device import recording
from .distribution import Discrete, stratified
from .stream import Stream

#: Shares of the mixture: all cells alike; by the place on the curves alone; the rest by the cell itself.
UNIFORM, MARGINAL = 0.2, 0.3
#: What is left of the memory after one more call.
MEMORY = 0.9
#: Cells along the curves: at most so many per element; and cells along each of the two other numbers.
ALONG, SIDE = 16, 4
FEWEST, MOST = 64, 1 << 16


@dataclass
class Guide:
    """What earlier calls found, as a tree of arrays that `dr.freeze` takes as input and output of a step.

    Attributes:
        mean: (cells,) mean of |f| in each cell.
        cumulative: (elements,) running sum of the shares of the curve elements when that was found.
    """

    mean: mi.Float
    cumulative: mi.Float64


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


class Cells:
    """A division of the unit cube; `sides` cells along the place on the curves and along the two other numbers."""

    def __init__(self, sides: tuple[int, int, int]) -> None:
        self.sides = sides
        self.count = sides[0] * sides[1] * sides[2]

    @classmethod
    def of(cls, pixels: int, elements: int, directions: bool) -> Cells:
        """Two cells for each pixel, about: within the reach of its memory each sees many samples.

        Args:
            elements: number of curve elements.
            directions: whether the two further numbers matter.
        """
        side = SIDE if directions else 1
        most = min(max(2 * pixels, FEWEST), MOST) // (side * side)
        return cls((max(4, min(most, ALONG * elements)), side, side))

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


class Guiding:
    """The memory of one term at one film, and the mixture that follows from it.

    Args:
        memory: the estimator's memory, by key; read and renewed.
        key: of the term and the film.
        cells: the division of the cube.
        where: the curve elements by their share.
    """

    def __init__(self, memory: dict[str, Guide], key: str, cells: Cells, where: Discrete) -> None:
        self.memory, self.key, self.cells, self.where = memory, key, cells, where
        old = memory.get(key)
        fits = old is not None and dr.width(old.mean) == cells.count and dr.width(old.cumulative) == where.size
        self.cold = not fits and not recording()
        self.mean = self._carried(old) if old is not None and fits else dr.zeros(mi.Float, cells.count)

    def _carried(self, old: Guide) -> mi.Float:
        """The memory of each cell's place on its curve element, wherever the cells lay at that time."""
        inner = self.cells.sides[1] * self.cells.sides[2]
        lane = dr.arange(mi.UInt32, self.cells.count)
        place = lane // inner
        along = dr.opaque(mi.Float64, self.cells.sides[0])
        element, inside, probability = self.where.sample((mi.Float64(place) + 0.5) / along)
        below = dr.gather(mi.Float64, old.cumulative, dr.maximum(element, 1) - 1)
        below = dr.select(element > 0, below, 0)
        share = dr.gather(mi.Float64, old.cumulative, element) - below
        last = dr.gather(mi.Float64, old.cumulative, dr.opaque(mi.UInt32, self.where.size - 1))
        number = (below + share * mi.Float64(inside)) / last
        known = (share > 0) & (last > 0)
        before = dr.minimum(mi.UInt32(dr.select(known, number, 0) * along), self.cells.sides[0] - 1)
        # f counts per unit of the number: an element with half the share holds twice as much per unit
        scale = dr.select(known, share / last / mi.Float64(dr.maximum(probability, 1e-12)), 0)
        found = dr.gather(mi.Float, old.mean, before * inner + (lane - place * inner))
        return dr.select(known, found * dr.minimum(mi.Float(scale), 1e3), dr.mean(old.mean))

    def choice(self) -> Discrete:
        """The mixture: cells by what they hold, by their place, and all alike."""
        inner = self.cells.sides[1] * self.cells.sides[2]
        found = self.mean
        along = dr.repeat(dr.block_sum(found, inner), inner) / inner if inner > 1 else found
        uniform = mi.Float(1 / self.cells.count)
        total = dr.sum(found)
        mixed = UNIFORM * uniform + (MARGINAL * along + (1 - UNIFORM - MARGINAL) * found) / total
        return Discrete(dr.select(total > 0, mixed, uniform))

    def learn(self, numbers: Numbers, size: mi.Float, keep: float = MEMORY) -> None:
        """Take in what samples found.

        Args:
            size: (N,) absolute contributions over their density.
            keep: what is left of the memory so far.
        """
        size = dr.select(dr.isfinite(size), size, 0) * (self.cells.count / dr.opaque(mi.Float, dr.width(size)))
        found = dr.zeros(mi.Float, self.cells.count)
        dr.scatter_reduce(dr.ReduceOp.Add, found, size, numbers.cell)
        self.mean = keep * self.mean + (1 - keep) * found
        cumulative = mi.Float64(self.where.cumulative)
        dr.eval(self.mean, cumulative)
        self.memory[self.key] = Guide(self.mean, cumulative)


def blank(cells: Cells, elements: int) -> Guide:
    """A memory of nothing, in memory of its own: a recording has to find it as it will look later."""
    mean = dr.zeros(mi.Float, cells.count) + dr.opaque(mi.Float, 0)
    cumulative = dr.zeros(mi.Float64, elements) + dr.opaque(mi.Float64, 0)
    dr.eval(mean, cumulative)
    return Guide(mean, cumulative)


def film_key(name: str, film: Any) -> str:
    """The key of a term's memory: films of one size share it."""
    return f"{name} {film.size[0]} x {film.size[1]}"
