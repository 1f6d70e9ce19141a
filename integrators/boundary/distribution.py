"""Choosing an item with given probability, by stratified numbers, without leaving the device."""

from __future__ import annotations

import drjit as dr
import mitsuba as mi


class Discrete:
    """Items with probability proportional to non-negative weights.

    The running sum is kept in double precision: with 10^6 edges a float32 sum would give the small ones probabilities
    that are wrong by tens of per cent.

    Args:
        weights: (n,) non-negative.
    """

    def __init__(self, weights: mi.Float) -> None:
        self.size = dr.width(weights)
        cumulative = dr.cumsum(mi.Float64(dr.detach(weights)))
        dr.make_opaque(cumulative)  # also where all weights are a literal zero, which Dr.Jit would resize in place
        self.cumulative = cumulative
        self.total = dr.gather(mi.Float64, cumulative, dr.opaque(mi.UInt32, self.size - 1))
        dr.make_opaque(self.total)  # a pilot and the main call share their kernels

    def sample(self, number: mi.Float64) -> tuple[mi.UInt32, mi.Float, mi.Float]:
        """Pick an item.

        Args:
            number: (N,) in [0, 1).

        Returns:
            The index, the number stretched to [0, 1) within the item, and the item's probability (0 if all weights
            are).
        """
        target = number * self.total
        index = dr.binary_search(
            0, self.size - 1, lambda i: dr.gather(mi.Float64, self.cumulative, mi.UInt32(i)) <= target
        )
        index = mi.UInt32(index)
        below = dr.gather(mi.Float64, self.cumulative, dr.maximum(index, 1) - 1)
        below = dr.select(index > 0, below, 0)
        weight = dr.gather(mi.Float64, self.cumulative, index) - below
        inside = dr.select(weight > 0, (target - below) / weight, 0)
        probability = dr.select(self.total > 0, weight / self.total, 0)
        return index, mi.Float(dr.clip(inside, 0, 1 - 2**-24)), mi.Float(probability)


def stratified(count: int, jitter: mi.Float) -> mi.Float64:
    """One number in each of `count` equal parts of [0, 1).

    Args:
        count: number of lanes.
        jitter: (count,) in [0, 1).
    """
    return (mi.Float64(dr.arange(mi.UInt32, count)) + mi.Float64(jitter)) / dr.opaque(mi.Float64, count)
