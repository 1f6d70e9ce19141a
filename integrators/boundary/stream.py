"""Random numbers of the boundary passes: the face of a Mitsuba sampler, and lanes that can share a sequence.

The two sides of a discontinuity are traced with the same random numbers, so that their difference is the jump and not
noise. Mitsuba's samplers tie one sequence to one lane; here the sequence number of a lane is chosen freely.
"""

from __future__ import annotations

import drjit as dr
import mitsuba as mi


class Stream:
    """One PCG32 sequence a lane.

    Args:
        seed: seed of the pass (an integer or `mi.UInt32`).
        sequence: (N,) `mi.UInt32`; for lanes that draw equal values see `gather` (Dr.Jit sets all lanes apart).
    """

    DRJIT_STRUCT = {"rng": mi.PCG32}  # noqa: RUF012 - read by Dr.Jit

    def __init__(self, seed: int | mi.UInt32 = 0, sequence: mi.UInt32 | None = None) -> None:
        if sequence is None:
            self.rng = mi.PCG32()
            return
        state, stream = mi.sample_tea_32(mi.UInt32(seed), sequence)
        self.rng = mi.PCG32(dr.width(sequence), mi.UInt64(state), mi.UInt64(stream))

    def gather(self, lane: mi.UInt32) -> Stream:
        """A stream whose lanes continue the given lanes of this one; equal lanes draw equal values."""
        result = Stream()
        result.rng.state = dr.gather(mi.UInt64, self.rng.state, lane)
        result.rng.inc = dr.gather(mi.UInt64, self.rng.inc, lane)
        return result

    def next_1d(self, active: mi.Bool | bool = True) -> mi.Float:
        """A number in [0, 1)."""
        return mi.Float(self.rng.next_float32(mi.Bool(active)))

    def next_2d(self, active: mi.Bool | bool = True) -> mi.Point2f:
        """A point of the unit square."""
        x = self.next_1d(active)
        return mi.Point2f(x, self.next_1d(active))
