"""Well spread random numbers for camera paths: scrambled (0, 2)-sequences, one for every pixel and every request.

The samples of one pixel share the points of Sobol's first two dimensions, in an order and with an Owen scrambling of
their own for each pair of numbers that a path asks for (padding). Every number is uniform and every pair of samples of
different pixels or seeds independent, so means over seeds are as unbiased as with independent numbers, at any number of
samples; but the samples of a pixel cover each pair of dimensions evenly. Where an integrand is smooth in what the first
bounces draw, as derivatives by material and light are, its variance falls by an order of magnitude.

Sources: Burley 2020, Practical Hash-based Owen Scrambling, JCGT 9(4), with the hash of Laine and Karras 2011; Kollig
and Keller 2002 for padding.
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi

#: x << b, masked, for b = 1, 2, 4, 8, 16: the Pascal matrix modulo 2 that makes Sobol's second dimension of the first.
_PASCAL = ((1, 0xAAAAAAAA), (2, 0xCCCCCCCC), (4, 0xF0F0F0F0), (8, 0xFF00FF00), (16, 0xFFFF0000))


class ScrambledSobol:
    """The face of a Mitsuba sampler, for wavefronts whose lanes are pixels × samples.

    Args:
        seed: of the pass (an integer or `mi.UInt32`).
        lanes: pixels times `spp`; the samples of a pixel lie side by side.
        spp: samples per pixel.
    """

    DRJIT_STRUCT = {"order": mi.UInt32, "key": mi.UInt32, "request": mi.UInt32}  # noqa: RUF012 - read by Dr.Jit

    def __init__(self, seed: Any = 0, lanes: int = 0, spp: int = 0) -> None:
        self.spp = spp
        if not lanes:
            self.order, self.key, self.request = mi.UInt32(), mi.UInt32(), mi.UInt32()
            return
        lane = dr.arange(mi.UInt32, lanes)
        pixel = lane // dr.opaque(mi.UInt32, spp)
        #: number of the sample within its pixel, its bits reversed; a hash of seed and pixel; requests so far
        self.order = dr.brev(lane - pixel * dr.opaque(mi.UInt32, spp))
        # in memory, or every seed would compile kernels of its own
        seed = seed if dr.is_jit_v(seed) else dr.opaque(mi.UInt32, seed)
        self.key = mi.sample_tea_32(mi.UInt32(seed), pixel)[0]
        self.request = mi.UInt32(0)

    def clone(self) -> ScrambledSobol:
        """One that goes on with the same numbers."""
        result = ScrambledSobol()
        result.spp, result.order, result.key = self.spp, mi.UInt32(self.order), mi.UInt32(self.key)
        result.request = mi.UInt32(self.request)
        return result

    def gather(self, lane: mi.UInt32) -> ScrambledSobol:
        """A sampler whose lanes go on as the given lanes of this one; equal lanes draw equal numbers."""
        result = self.clone()
        result.order, result.key = dr.gather(mi.UInt32, self.order, lane), dr.gather(mi.UInt32, self.key, lane)
        return result

    def sample_count(self) -> int:
        """Samples per pixel."""
        return self.spp

    def next_1d(self, active: Any = True) -> mi.Float:
        """A number in [0, 1)."""
        first, hash = self._point()
        return _number(_scrambled(dr.brev(first), hash))

    def next_2d(self, active: Any = True) -> mi.Point2f:
        """A point of the unit square."""
        first, hash = self._point()
        second = first
        for shift, mask in _PASCAL:
            second = second ^ ((second << shift) & mask)
        other = hash * 0x2C9277B5 + 0x5F356495
        return mi.Point2f(
            _number(_scrambled(dr.brev(first), hash)), _number(_scrambled(dr.brev(second), other ^ (other >> 15)))
        )

    def _point(self) -> tuple[mi.UInt32, mi.UInt32]:
        """Sobol's first dimension at this sample's place in the shuffled order, and a hash for scrambling it."""
        hash = _mixed(self.key + self.request * 0x9E3779B9)
        self.request += 1
        return _laine_karras(self.order, hash), _mixed(hash ^ 0x68BC21EB)


def spread_over(film: mi.Film, seed: Any, spp: int) -> ScrambledSobol:
    """A sampler for `spp` samples of every pixel of a film, its border included where that is sampled."""
    size = film.crop_size()
    if film.sample_border():
        size += 2 * film.rfilter().border_size()
    lanes = int(size[0]) * int(size[1]) * spp
    if lanes >= 2**32:
        raise ValueError(f"{lanes} samples in one launch, fewer than {2**32} were expected: render in several")
    return ScrambledSobol(seed, lanes, spp)


def _mixed(x: mi.UInt32) -> mi.UInt32:
    """An integer hash."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


def _laine_karras(x: mi.UInt32, seed: mi.UInt32) -> mi.UInt32:
    """Owen scrambling of numbers whose bits are reversed: every bit is flipped by a hash of the lower ones."""
    x = x ^ (x * 0x3D20ADEA)
    x = (x + seed) * ((seed >> 16) | 1)
    x = x ^ (x * 0x05526C56)
    return x ^ (x * 0x53A22864)


def _scrambled(reversed_bits: mi.UInt32, seed: mi.UInt32) -> mi.UInt32:
    return dr.brev(_laine_karras(reversed_bits, seed))


def _number(bits: mi.UInt32) -> mi.Float:
    return mi.Float(bits >> 8) * 2.0**-24
