"""Both sides of a sampled curve point, as rays of one launch: what is seen there, and by how much it jumps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi

from ..attached import GRAZING
from .silhouettes import AT_LIMB

#: How much farther from a limb one looks the second time. Radiance goes with the root of the distance there, so that
#: L(0) = 2 L(d) − L(4 d) up to terms of order d; and from `GRAZING` on, where the interior term begins, cos θ itself
#: leads from one to the other.
AGAIN, TOWARDS_LIMB = 4, 1 - GRAZING / math.sqrt(2 * AT_LIMB)


@dataclass
class Beside:
    """Rays to both sides of a curve; those that pass silhouettes on the side away from the occluder begin there.

    Attributes:
        exact: (N,) whether there is one; else the side is seen by a camera ray at a distance of ε.
        far_side: (N,) whether it is the side towards which the film normal points.
        start: (N,) point just beside the silhouette.
        d: (N,) direction away from the camera.
        low, high: (N,) from the curve to where camera rays see its sides, in pixels.
        limb: (N,) whether the other side is the limb of a round body.
    """

    exact: mi.Bool
    far_side: mi.Bool
    start: mi.Point3f
    d: mi.Vector3f
    low: mi.Vector2f
    high: mi.Vector2f
    limb: mi.Bool

    @classmethod
    def neither(cls, low: mi.Vector2f, high: mi.Vector2f) -> Beside:
        """Both sides seen by camera rays."""
        no = mi.Bool(False)
        return cls(no, no, mi.Point3f(0), mi.Vector3f(0), low, high, no)


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
        self.point = lane // self.each
        number = lane - self.each * self.point
        self.sides = self.of(beside)
        self._high, self._again = number == 1, number == 2
        self.active = self.of(active) & (self.sides.limb | ~self._again)
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

    def first(self, value: Any, number: int = 0) -> Any:
        """(N,) what a look of each point found."""
        return dr.gather(type(value), value, self.each * dr.arange(mi.UInt32, self.count) + number)

    def jump(self, value: Any) -> Any:
        """(N,) the value on the low side less that on the high side."""
        low, high = self.first(value), self.first(value, 1)
        if self.each == 2:
            return low - high
        inner_low = self.beside.far_side
        more = TOWARDS_LIMB * (dr.select(inner_low, low, high) - self.first(value, 2))
        more = dr.select(self.beside.limb, more, 0)
        return low - high + dr.select(inner_low, more, -more)

    def whole(self, seen: mi.Bool) -> mi.Bool:
        """(N,) whether every look of a point that was needed is among those `seen`."""
        number = mi.UInt32(dr.select(seen | ~self.active, 1, 0))
        dr.eval(number)
        found = [self.first(number, k) == 1 for k in range(self.each)]
        return found[0] & found[1] & found[-1]
