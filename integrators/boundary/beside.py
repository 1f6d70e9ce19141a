"""Both sides of a sampled curve point, as rays of one launch: what is seen there, and by how much it jumps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi

from ..attached import GRAZING

#: How much farther from a limb one looks the second time. Radiance goes with cos θ, the root of the distance, there.
AGAIN = 4


@dataclass
class Beside:
    """Rays to both sides of a curve; those that pass silhouettes on the side away from the occluder begin there.

    Attributes:
        exact: (N,) whether there is one; else the side is seen by a camera ray at a distance of ε.
        far_side: (N,) whether it is the side towards which the film normal points.
        start: (N,) point just beside the silhouette.
        d: (N,) direction away from the camera.
        low, high: (N,) from the curve to where camera rays see its sides, in pixels.
        limb: (N,) how much of L(d) − L(4 d) leads from L(d) to the limb; 0 where the other side is none.
    """

    exact: mi.Bool
    far_side: mi.Bool
    start: mi.Point3f
    d: mi.Vector3f
    low: mi.Vector2f
    high: mi.Vector2f
    limb: mi.Float

    @classmethod
    def neither(cls, low: mi.Vector2f, high: mi.Vector2f) -> Beside:
        """Both sides seen by camera rays."""
        no = mi.Bool(False)
        return cls(no, no, mi.Point3f(0), mi.Vector3f(0), low, high, mi.Float(0))


def towards_limb(d: mi.Float) -> mi.Float:
    """The weight of L(d) − L(4 d) that leads to where the interior term begins, at cos θ = `GRAZING`.

    With cos θ = sqrt(2 d): to the limb itself it were 1. Bodies too small to be seen at 4 d are looked at once.

    Args:
        d: (N,) distance from the limb in radii.
    """
    weight = dr.maximum(1 - GRAZING * dr.rsqrt(2 * d), 0)
    return dr.select(AGAIN * d < 0.5, weight, 0)


class Looks:
    """The lanes that look at the sides of N curve points: low, high and, if there may be limbs, those once more.

    All looks of a point are lanes of one launch: one kernel to compile, and equal random numbers.

    Attributes:
        point: (2 N or 3 N,) to which curve point a lane belongs.
        sides: (2 N or 3 N,) its sides.
        active: (2 N or 3 N,) whether the lane has anything to look at.
        outside: (2 N or 3 N,) whether its ray begins beside a silhouette.
    """

    def __init__(self, beside: Beside, active: mi.Bool, limbs: bool) -> None:
        self.beside, self.count, self.each = beside, dr.width(active), 3 if limbs else 2
        lane = dr.arange(mi.UInt32, self.each * self.count)
        self._stride = dr.opaque(mi.UInt32, self.count)  # a literal would be compiled for every count
        number = lane // self._stride  # idle lanes together
        self.point = lane - self._stride * number
        self.sides = self.of(beside)
        self._high, self._again = number == 1, number == 2
        self.active = self.of(active) & ((self.sides.limb > 0) | ~self._again)
        self.outside = self.sides.exact & (self.sides.far_side == self._high) & ~self._again

    def of(self, value: Any) -> Any:
        """What belongs to the curve point of each lane."""
        return dr.gather(type(value), value, self.point)

    def offset(self) -> mi.Vector2f:
        """From the curve to where a camera ray sees this side, in pixels."""
        s = self.sides
        once = dr.select(self._high, s.high, s.low)
        return mi.Vector2f(dr.select(self._again, AGAIN * dr.select(s.far_side, s.low, s.high), once))

    def start(self, ray: mi.Ray3f) -> mi.RayDifferential3f:
        """The detached ray of this side: `ray`, unless it begins beside the curve."""
        onward = mi.RayDifferential3f(dr.detach(ray))
        onward.o = mi.Point3f(dr.select(self.outside, mi.Vector3f(self.sides.start), mi.Vector3f(onward.o)))
        onward.d = dr.select(self.outside, self.sides.d, onward.d)
        return onward

    def look(self, value: Any, number: int = 0) -> Any:
        """(N,) what one look of each point found: the low side, the high side, the limb again."""
        return dr.gather(type(value), value, dr.arange(mi.UInt32, self.count) + number * self._stride)

    def jump(self, value: Any, seen: mi.Bool | None = None) -> Any:
        """(N,) the value on the low side less that on the high side.

        Args:
            seen: which lanes found a value, if not all; a point whose limb was not seen again is taken as it was seen
                once, any other that lacks a side counts as 0.
        """
        low, high, again = self.look(value), self.look(value, 1), self.beside.limb > 0
        jump, both = low - high, mi.Bool(True)
        if seen is not None:
            flags = mi.UInt32(dr.select(seen, 1, 0))
            dr.eval(flags)
            both = (self.look(flags) & self.look(flags, 1)) == 1
            if self.each == 3:
                again &= self.look(flags, 2) == 1
        if self.each == 3:
            inner_low = self.beside.far_side
            more = self.beside.limb * (dr.select(inner_low, low, high) - self.look(value, 2))
            more = dr.select(again, more, 0)
            jump += dr.select(inner_low, more, -more)
        return dr.select(both, jump, 0)
