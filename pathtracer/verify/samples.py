"""Replicates that grow by samples, and where further samples help most.

A check weighs several quantities, each from two of three sides (forward gradient, backward gradient, differences). With
n_s samples on side s, m_s to come, and V_s the sum of a side's variances over the quantities that are still open, each
in units of its squared margin,

    minimise  Σ_s V_s n_s / (n_s + m_s)    with  Σ_s c_s m_s = T,  m_s >= 0

where c_s are seconds a sample. Its solution is n_s + m_s ∝ √(V_s n_s / c_s) on the sides that get any (Neyman 1934).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


class Replicates:
    """Independent replicates of a mean, each of the same number of samples per pixel.

    Attributes:
        values: (R, ...) float64, None before the first samples.
        spp: samples per pixel of each so far.
        rate: seconds that one more sample per pixel of all replicates takes, without compilation.
        rounds: how many times samples were added; each time brings fresh seeds.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.values: np.ndarray | None = None
        self.spp = 0
        self.rate = 0.0
        self.rounds = 0

    def add(self, draw: Callable[[int], np.ndarray], spp: int, count: int) -> None:
        """Add `spp` samples per pixel to each of `count` replicates; `draw` maps a seed to a mean over so many."""
        from integrators.finite_difference import pass_seeds

        self.rounds += 1
        stack = []
        for seed in pass_seeds(self.seed + 104729 * self.rounds, count):
            start = time.monotonic()
            stack.append(draw(seed))
            last = time.monotonic() - start  # the first one compiles
        fresh, total = np.stack(stack), self.spp + spp
        self.values = fresh if self.values is None else (self.spp * self.values + spp * fresh) / total
        self.spp, self.rate = total, count * last / spp

    def forget(self) -> None:
        """Start again, with other seeds."""
        self.values, self.spp = None, 0


@dataclass(frozen=True)
class Side:
    """Samples per pixel so far, seconds for one more, and the noise that they leave in what is open (V_s)."""

    spp: int
    rate: float
    noise: float


def further_samples(sides: Mapping[str, Side], seconds: float) -> dict[str, int]:
    """m_s of every side, in samples per pixel.

    Rounded down to multiples of n_s, below it to quarters: timings differ a little from run to run, and samples should
    not always.
    """
    active = {name: s for name, s in sides.items() if s.noise > 0 and s.spp > 0 and s.rate > 0}
    totals: dict[str, float] = {}
    while active:
        pull = {name: float(np.sqrt(s.noise * s.spp / s.rate)) for name, s in active.items()}
        paid = seconds + sum(s.rate * s.spp for s in active.values())
        unit = paid / sum(s.rate * pull[name] for name, s in active.items())
        totals = {name: unit * pull[name] for name in active}
        enough = [name for name, s in active.items() if totals[name] < s.spp]
        if not enough:
            break
        for name in enough:
            del active[name]
    growth = {name: max((totals[name] - s.spp) / s.spp, 0.0) for name, s in active.items()}
    return {name: whole(growth.get(name, 0.0), side.spp) for name, side in sides.items()}


def whole(growth: float, spp: int) -> int:
    """`growth` × `spp`, rounded down to whole multiples, below one to quarters."""
    growth += 1e-6  # a doubling is one, whatever the rounding of its seconds
    return int(spp * np.floor(growth)) if growth >= 1 else int(spp * np.floor(4 * growth) / 4)
