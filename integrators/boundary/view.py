"""A viewpoint, or a direction when it lies at infinity."""

from __future__ import annotations

from dataclasses import dataclass

import drjit as dr
import mitsuba as mi


@dataclass
class View:
    """Where silhouettes are seen from.

    Attributes:
        p: (N or 1,) the viewpoint; at infinity, the unit direction towards it.
        far: (N or 1,) whether it lies at infinity.
    """

    p: mi.Point3f
    far: mi.Bool

    def toward(self, x: mi.Point3f) -> mi.Vector3f:
        """The vector from the viewpoint to x (a unit vector when the viewpoint is at infinity)."""
        return mi.Vector3f(dr.select(self.far, -mi.Vector3f(self.p), mi.Vector3f(x - self.p)))
