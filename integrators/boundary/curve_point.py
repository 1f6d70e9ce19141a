"""A sampled point of a boundary curve, and where to look to see what lies on either side of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import drjit as dr
import mitsuba as mi

#: How far in front of a silhouette a ray begins, in gaps: above the floor that it lies on, seen at 2 degrees or more.
CONTACT = 30

#: How far from a crease towards the opposite vertex one looks: in parts of that way, and in ε at most. The shading
#: changes on that way, too, and what changes there is no part of the jump. Round-off may ask for more, up to a quarter.
INSIDE, INSIDE_SIDES, INSIDE_MOST = 1e-3, 4, 0.25


@dataclass
class CurvePoint:
    """A sampled point of a boundary curve.

    Attributes:
        p: the point, attached to its shape.
        tangent: derivative of p with respect to the curve parameter, detached.
        inner: a vector from p into the occluder, detached.
        silhouette: the occluder lies on one side of the plane through the viewpoint and the tangent.
        crease: both faces are on different sides, and shading may jump.
        gap: distance at which a ray passes beside the curve.
        tube: it belongs to a hair-like curve, which rays that start inside do not hit.
        into0, into1: vectors from p to the vertices of the faces of an edge that are not on it, detached; 0 elsewhere.
        limb: the radius of a round body; 0 elsewhere.
    """

    p: mi.Point3f
    tangent: mi.Vector3f
    inner: mi.Vector3f
    silhouette: mi.Bool
    crease: mi.Bool
    gap: mi.Float
    tube: mi.Bool
    into0: mi.Vector3f
    into1: mi.Vector3f
    limb: mi.Float

    def outward(self, d: mi.Vector3f) -> mi.Vector3f:
        """Unit normal of the plane through the tangent and d, pointing away from the occluder."""
        n = dr.normalize(dr.cross(self.tangent, d))
        return mi.Vector3f(dr.mulsign(n, -dr.dot(n, self.inner)))

    def beside(self, outward: mi.Vector3f, back: mi.Vector3f | None = None) -> mi.Point3f:
        """The point just clear of the occluder, detached.

        Args:
            back: unit vector towards the viewpoint; with it the point is also in front of what the occluder stands on.
        """
        p = dr.detach(mi.Point3f(self.p)) + outward * self.gap
        return mi.Point3f(p if back is None else p + back * (CONTACT * self.gap))

    def sides(
        self, normal: mi.Vector2f, ε: mi.Float, least: mi.Float, project: Callable[[mi.Vector3f], mi.Vector2f]
    ) -> tuple[mi.Vector2f, mi.Vector2f]:
        """Where to look from the projected point to see either side: against `normal`, and along it.

        At a distance of ε; of a crease within its two faces, which can be thinner than ε where they are seen edge-on.

        Args:
            normal: unit normal of the projected curve.
            least: distance that round-off needs.
            project: the change of the projected point for a displacement of p.
        """
        a, b = project(self.into0), project(self.into1)
        along = dr.dot(normal, a) > 0
        low, high = dr.select(along, b, a), dr.select(along, a, b)

        def inside(v: mi.Vector2f) -> mi.Vector2f:
            scale = dr.rcp(dr.norm(v))
            needed = dr.minimum(INSIDE_MOST, least * scale)
            return mi.Vector2f(v * dr.maximum(dr.minimum(INSIDE, INSIDE_SIDES * ε * scale), needed))

        faces = self.crease & (dr.dot(normal, low) < 0) & (dr.dot(normal, high) > 0)
        return dr.select(faces, inside(low), -ε * normal), dr.select(faces, inside(high), ε * normal)


def pick(choice: mi.Bool, a: CurvePoint, b: CurvePoint) -> CurvePoint:
    """Lane by lane a or b."""
    either = lambda x, y: dr.select(choice, x, y)
    return CurvePoint(
        mi.Point3f(either(mi.Vector3f(a.p), mi.Vector3f(b.p))),
        either(a.tangent, b.tangent),
        either(a.inner, b.inner),
        either(a.silhouette, b.silhouette),
        either(a.crease, b.crease),
        either(a.gap, b.gap),
        either(a.tube, b.tube),
        either(a.into0, b.into0),
        either(a.into1, b.into1),
        either(a.limb, b.limb),
    )
