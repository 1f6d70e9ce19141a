"""Silhouettes of hair-like curves: cubic B-splines (open tubes) and round linear segments (cones between spheres).

A B-spline tube is swept by a circle across the curve; for each place v along it and each side, the angle at which the
line of sight is tangent solves one equation. A linear curve is the envelope of the balls between two control points:
the outline consists of the two lines along which a plane through the viewpoint touches both end balls, and of circles
on the balls. By the envelope theorem (E2) both move along their normal like the point of the ball or circle that lies
there.
"""

from __future__ import annotations

import drjit as dr
import mitsuba as mi
import numpy as np

from .device import upload
from .view import View

TUBES = {"BSplineCurve", "LinearCurve"}
SIDE_A, SIDE_B, RIM_START, RIM_END, CONE_A, CONE_B, BALL = range(7)

#: Step of the tangent along a tube, in its parameter, and Newton steps for the tangent angle.
STEP, NEWTON = 1e-3, 4


class TubeTables:
    """The curve elements of a list of tubes: what does not change while they move; on the device.

    Args:
        shapes: shapes of the classes in `TUBES`.
    """

    def __init__(self, shapes: list[mi.Shape]) -> None:
        kinds, points, self.first_segment = [], [], []
        segments: list[int] = []
        offset = 0
        self.round = [shape.class_name() == "LinearCurve" for shape in shapes]
        for shape, round_ in zip(shapes, self.round, strict=True):
            parameters = mi.traverse(shape)
            index = np.array(parameters["segment_indices"], dtype=np.int64) + offset
            self.first_segment.append(len(segments))
            segments += list(index)
            if round_:
                balls = np.union1d(index, index + 1)
                kinds += [CONE_A] * len(index) + [CONE_B] * len(index) + [BALL] * len(balls)
                points += [*index, *index, *balls]
            else:
                starts = index[np.append(True, np.diff(index) != 1)]
                ends = index[np.append(np.diff(index) != 1, True)]
                kinds += [SIDE_A] * len(index) + [SIDE_B] * len(index)
                kinds += [RIM_START] * len(starts) + [RIM_END] * len(ends)
                points += [*index, *index, *starts, *ends]
            offset += dr.width(parameters["control_points"]) // 4
        self.size = len(kinds)
        self.kinds = set(kinds)
        self.kind, self.point, self.segments = (upload(mi.UInt32, list_) for list_ in (kinds, points, segments))


class Tubes:
    """A list of B-spline and linear curves, attached to their control points.

    Args:
        shapes: shapes of the classes in `TUBES`.
        tables: their elements.
    """

    def __init__(self, shapes: list[mi.Shape], tables: TubeTables) -> None:
        buffers = [mi.traverse(shape)["control_points"] for shape in shapes]
        self.round, self.size, self.kinds = tables.round, tables.size, tables.kinds
        self.kind, self.point, self.segments = tables.kind, tables.point, tables.segments
        self.flags = [dr.grad_enabled(buffer) for buffer in buffers]
        self.buffer = buffers[0] if len(buffers) == 1 else dr.concat(buffers)
        self._moves = any(self.flags)

    def moving(self) -> list[bool]:
        """Which elements carry derivatives (all, if one does)."""
        return [self._moves] * self.size

    def control(self, index: mi.UInt32, active: mi.Bool) -> mi.Point4f:
        """Attached control points: position and radius."""
        return dr.gather(mi.Point4f, self.buffer, index, active)

    def bounds(self) -> tuple[mi.Point3f, mi.Float]:
        """Centre and radius of a ball around each element, detached."""
        with dr.suspend_grad():
            spans = dr.select(self.kind <= RIM_END, 4, dr.select(self.kind == BALL, 1, 2))
            a, b = self.control(self.point, mi.Bool(True)), self.control(self.point + spans - 1, mi.Bool(True))
            centre = mi.Point3f(0.5 * (a.x + b.x), 0.5 * (a.y + b.y), 0.5 * (a.z + b.z))
            apart = dr.norm(mi.Vector3f(a.x - b.x, a.y - b.y, a.z - b.z))
            return centre, 0.5 * apart + dr.maximum(a.w, b.w)

    def sample(
        self, index: mi.UInt32, t: mi.Float, view: View, active: mi.Bool
    ) -> tuple[mi.Point3f, mi.Vector3f, mi.Vector3f, mi.Bool]:
        """See `Quadrics.sample`."""
        kind = dr.gather(mi.UInt32, self.kind, index, active)
        first = dr.gather(mi.UInt32, self.point, index, active)
        p, tangent, inner, valid = mi.Point3f(0), mi.Vector3f(0), mi.Vector3f(0), mi.Bool(False)
        for members, curve in (
            ({SIDE_A, SIDE_B}, self._side),
            ({RIM_START, RIM_END}, self._rim),
            ({CONE_A, CONE_B}, self._cone),
            ({BALL}, self._ball),
        ):
            if members & self.kinds:
                here = active & dr.any([kind == member for member in members])
                x, dx, into, exists = curve(kind, first, t, view, here)
                p = mi.Point3f(dr.select(here, mi.Vector3f(x), mi.Vector3f(p)))
                tangent, inner = dr.select(here, dx, tangent), dr.select(here, into, inner)
                valid |= here & exists
        return p, tangent, inner, valid

    def _spline(
        self, first: mi.UInt32, v: mi.Float, active: mi.Bool
    ) -> tuple[mi.Point3f, mi.Vector3f, mi.Vector3f, mi.Float, mi.Float]:
        """Attached centre, its first and second derivative, radius and its derivative."""
        q = [self.control(first + i, active) for i in range(4)]
        u = 1 - v
        blend = lambda w: q[0] * w[0] + q[1] * w[1] + q[2] * w[2] + q[3] * w[3]
        c = blend([u * u * u / 6, (3 * v - 6) * v * v / 6 + 2 / 3, (3 * u - 6) * u * u / 6 + 2 / 3, v * v * v / 6])
        d = blend([-u * u / 2, (1.5 * v - 2) * v, -(1.5 * u - 2) * u, v * v / 2])
        e = blend([u, 3 * v - 2, 3 * u - 2, v])
        return mi.Point3f(c.x, c.y, c.z), mi.Vector3f(d.x, d.y, d.z), mi.Vector3f(e.x, e.y, e.z), c.w, d.w

    def on_spline(self, first: mi.UInt32, v: mi.Float, out: mi.Vector3f, active: mi.Bool) -> mi.Point3f:
        """The attached point of a tube at v in direction `out`, which stays across the curve as that turns."""
        c, d, _, r, _ = self._spline(first, dr.detach(v), active)
        t = dr.normalize(d)
        m = dr.detach(dr.normalize(out))
        return mi.Point3f(c + r * dr.normalize(m - t * dr.dot(m, t)))

    def _side(
        self, kind: mi.UInt32, first: mi.UInt32, t: mi.Float, view: View, active: mi.Bool
    ) -> tuple[mi.Point3f, mi.Vector3f, mi.Vector3f, mi.Bool]:
        with dr.suspend_grad():
            sign = dr.select(kind == SIDE_A, 1.0, -1.0)
            place = dr.clip(t, STEP, 1 - STEP)
            out, exists = self._tangent_angle(first, place, sign, view, active)
            at = lambda v: (
                self._spline(first, v, active)[0]
                + self._radius(first, v, active) * dr.normalize(self._tangent_angle(first, v, sign, view, active)[0])
            )
            tangent = mi.Vector3f(at(place + STEP) - at(place - STEP)) / (2 * STEP)
        return self.on_spline(first, place, out, active), tangent, -out, exists

    def _radius(self, first: mi.UInt32, v: mi.Float, active: mi.Bool) -> mi.Float:
        return self._spline(first, v, active)[3]

    def _tangent_angle(
        self, first: mi.UInt32, v: mi.Float, sign: mi.Float, view: View, active: mi.Bool
    ) -> tuple[mi.Vector3f, mi.Bool]:
        """Direction across the curve in which the line of sight touches the tube."""
        c, d, e, r, dr_dv = self._spline(first, v, active)
        w = view.toward(c)
        t = dr.normalize(d)
        e1 = dr.normalize(w - t * dr.dot(t, w))
        e2 = dr.cross(t, e1)
        across = dr.dot(e1, w)
        cosine = (dr.select(view.far, 0, -r) + dr_dv * dr.dot(d, w) / dr.squared_norm(d)) / across
        φ = dr.safe_acos(cosine) * sign

        def residual(φ: mi.Float) -> mi.Float:
            sin, cos = dr.sincos(φ)
            rad = r * (cos * e1 + sin * e2)
            n = (dr.squared_norm(d) - dr.dot(rad, e)) * rad - r * dr_dv * d
            return dr.dot(n, dr.select(view.far, w, w + rad))

        for _ in range(NEWTON):
            slope = (residual(φ + 1e-3) - residual(φ - 1e-3)) / 2e-3
            step = residual(φ) / slope
            φ -= dr.clip(dr.select(dr.isfinite(step), step, 0), -0.3, 0.3)
        sin, cos = dr.sincos(φ)
        return cos * e1 + sin * e2, dr.abs(cosine) < 1

    def _rim(
        self, kind: mi.UInt32, first: mi.UInt32, t: mi.Float, view: View, active: mi.Bool
    ) -> tuple[mi.Point3f, mi.Vector3f, mi.Vector3f, mi.Bool]:
        with dr.suspend_grad():
            v = dr.select(kind == RIM_START, mi.Float(0), 1)
            _, d, _, r, _ = self._spline(first, v, active)
            s, q = mi.coordinate_system(dr.normalize(d))
            sin, cos = dr.sincos(dr.two_pi * t)
            out = cos * s + sin * q
            tangent = dr.two_pi * r * (cos * q - sin * s)
            inner = dr.select(kind == RIM_START, d, -d)
        return self.on_spline(first, v, out, active), tangent, inner, mi.Bool(True)

    def _cone(
        self, kind: mi.UInt32, first: mi.UInt32, t: mi.Float, view: View, active: mi.Bool
    ) -> tuple[mi.Point3f, mi.Vector3f, mi.Vector3f, mi.Bool]:
        q0, q1 = self.control(first, active), self.control(first + 1, active)
        with dr.suspend_grad():
            c0, c1 = mi.Point3f(q0.x, q0.y, q0.z), mi.Point3f(q1.x, q1.y, q1.z)
            a, b = mi.Vector3f(c1 - c0), view.toward(c0)
            aa, ab, bb = dr.squared_norm(a), dr.dot(a, b), dr.squared_norm(b)
            # n touches both balls: n·a = r0 − r1, and the plane passes through the viewpoint: n·b = −r0
            f, g = q0.w - q1.w, dr.select(view.far, 0, -q0.w)
            det = aa * bb - ab * ab
            plane = ((f * bb - g * ab) * a + (g * aa - f * ab) * b) / det
            rest = 1 - dr.squared_norm(plane)
            side = dr.cross(a, b)
            n = plane + side * (dr.select(kind == CONE_A, 1, -1) * dr.safe_sqrt(rest) / dr.norm(side))
            tangent = a + (q1.w - q0.w) * n
        q = q0 * (1 - t) + q1 * t
        return mi.Point3f(mi.Vector3f(q.x, q.y, q.z) + q.w * dr.detach(n)), tangent, -n, rest > 0

    def _ball(
        self, kind: mi.UInt32, first: mi.UInt32, t: mi.Float, view: View, active: mi.Bool
    ) -> tuple[mi.Point3f, mi.Vector3f, mi.Vector3f, mi.Bool]:
        q = self.control(first, active)
        with dr.suspend_grad():
            toward = -view.toward(mi.Point3f(q.x, q.y, q.z))
            distance = dr.norm(toward)
            height = dr.select(view.far, 0, q.w / distance)
            s, r = mi.coordinate_system(toward / distance)
            sin, cos = dr.sincos(dr.two_pi * t)
            ring = dr.safe_sqrt(1 - dr.square(height))
            out = height * toward / distance + ring * (cos * s + sin * r)
            tangent = dr.two_pi * q.w * ring * (cos * r - sin * s)
        x = mi.Point3f(mi.Vector3f(q.x, q.y, q.z) + q.w * dr.detach(out))
        return x, tangent, -out, view.far | (distance > q.w)

    def follow(self, segment: mi.UInt32, v: mi.Float, p: mi.Point3f, round_: mi.Bool, active: mi.Bool) -> mi.Point3f:
        """The attached point of a curve that was hit.

        Args:
            segment: (N,) number of the segment among all curves.
            v: (N,) place along it.
            p: (N,) the point, detached.
            round_: (N,) whether it belongs to a linear curve.
        """
        first = dr.gather(mi.UInt32, self.segments, segment, active)
        result = mi.Vector3f(p)
        if not all(self.round):
            spline = active & ~round_
            c = dr.detach(self._spline(first, v, spline)[0])
            result = dr.select(spline, mi.Vector3f(self.on_spline(first, v, p - c, spline)), result)
        if any(self.round):
            linear = active & round_
            q = self.control(first, linear) * (1 - v) + self.control(first + 1, linear) * v
            c = mi.Vector3f(q.x, q.y, q.z)
            out = dr.normalize(mi.Vector3f(p) - dr.detach(c))
            result = dr.select(linear, c + q.w * out, result)
        return mi.Point3f(result)
