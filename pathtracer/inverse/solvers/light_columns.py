"""Which number of a problem of lights is which column of its linear model: one for a lamp, one for every texel.

The model's x (3, m) holds what every column sends out, per colour channel; latent numbers (n = 3 m) are logarithms of
it, unknown by unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ..unknowns import ArrayUnknown
from .normal import Array

if TYPE_CHECKING:
    from ..objective import Objective

#: A light that is off cannot be written as a logarithm: it is this share of the brightest.
DARK = 1e-6


@dataclass(frozen=True)
class Part:
    """One unknown: a lamp (one column), or the texels of an environment map.

    Attributes:
        count: columns per colour channel.
        first: index of its first latent number.
        prefixes: of its emitters.
        shape: (rows, columns) of the map, None for a lamp.
        unit: (3,) strength at which a lamp is rendered.
    """

    count: int
    first: int
    prefixes: frozenset[str]
    shape: tuple[int, int] | None
    unit: Array

    def latent(self, k: int, channel: int) -> int:
        """Index of the latent number of column k and a channel."""
        return self.first + 3 * k + channel


class Columns:
    """The unknowns of an objective as columns, and x from latent numbers and back.

    Args:
        objective: all of whose unknowns are lights.
    Attributes:
        parts: one for each unknown, in their order.
        count: m, of all parts.
        mapped: whether there are texels among them.
    """

    def __init__(self, objective: Objective) -> None:
        self._problem = objective.problem
        self.parts = _parts(objective)
        self.count = sum(part.count for part in self.parts)
        self.mapped = any(part.shape is not None for part in self.parts)

    def slices(self) -> list[slice]:
        """The columns of each part."""
        ends = np.cumsum([0, *(part.count for part in self.parts)])
        return [slice(int(start), int(end)) for start, end in pairwise(ends)]

    def index(self, channel: int) -> Array:
        """Latent number of every column of a channel (m,)."""
        return np.array([part.latent(k, channel) for part in self.parts for k in range(part.count)])

    def values(self, latent: Array) -> Array:
        """x (3, m) of latent numbers (n,)."""
        pieces = self._problem.split(latent)
        return np.concatenate(
            [u.display(x).reshape(-1, 3).T for u, x in zip(self._problem.unknowns, pieces, strict=True)], axis=1
        ).astype(np.float64)

    def bounds(self) -> tuple[Array, Array]:
        """Least and largest x, (3, m) each."""
        low, high = [], []
        for unknown in self._problem.unknowns:
            low.append(unknown.display(unknown.lower).reshape(-1, 3).T)
            high.append(unknown.display(unknown.upper).reshape(-1, 3).T)
        low_, high_ = np.concatenate(low, axis=1), np.concatenate(high, axis=1)
        low_[low_ < 1e-9] = 0  # the least that a logarithm can hold
        high_[high_ > 1e9] = np.inf
        return np.maximum(low_, 0), high_

    def latent(self, x: Array) -> Array:
        """Latent numbers (n,) of x (3, m)."""
        pieces = []
        least = DARK * max(float(x.max()), 1e-30)
        for columns, unknown in zip(self.slices(), self._problem.unknowns, strict=True):
            values = x[:, columns].T.ravel()
            assert isinstance(unknown, ArrayUnknown)  # `suits` saw to it
            pieces.append(np.clip(unknown.to_latent(np.maximum(values, least)), unknown.lower, unknown.upper))
        return np.concatenate(pieces)


def _parts(objective: Objective) -> list[Part]:
    problem = objective.problem
    parts, first = [], 0
    for unknown, piece in zip(problem.unknowns, problem.split(objective.start), strict=True):
        prefixes = frozenset(
            e.prefix for e in problem.emitters if any(k in e.strengths or k == e.prefix + ".data" for k in unknown.keys)
        )
        values = unknown.display(piece)
        shape = (int(values.shape[0]), int(values.shape[1])) if values.ndim == 3 else None
        unit = np.ones(3) if shape else np.maximum(values.ravel(), 1e-6)
        parts.append(Part(piece.size // 3, first, prefixes, shape, unit))
        first += piece.size
    return parts
