"""Silhouettes of spheres, disks and cylinders in closed form.

Each shape is an affine image of a canonical one (unit sphere; unit disk; cylinder of radius 1 about z in [0, 1]), and
affine maps keep tangency, so the silhouette is found in canonical space for the viewpoint mapped there.

- sphere: a circle; empty from inside.
- disk: its rim, always.
- cylinder: its two rims, always, and the two lines along which the viewing direction is tangent.
"""

from __future__ import annotations

import drjit as dr
import mitsuba as mi

from .device import upload
from .view import View

SPHERE, DISK, CYLINDER = 0, 1, 2
QUADRICS = {"Sphere": SPHERE, "Disk": DISK, "Cylinder": CYLINDER}


class Quadrics:
    """A list of spheres, disks and cylinders, attached to their `to_world`.

    Args:
        shapes: the shapes, each of a class in `QUADRICS`.
        kind: (n,) their `QUADRICS`, if they are on the device already.
    """

    def __init__(self, shapes: list[mi.Shape], kind: mi.UInt32 | None = None) -> None:
        self.kinds = {QUADRICS[shape.class_name()] for shape in shapes}
        self.size = len(shapes)
        self.kind = kind_numbers(shapes) if kind is None else kind
        self.transforms = transforms = [mi.traverse(shape)["to_world"] for shape in shapes]
        rows = [[mi.Float(m.matrix[i, j]) for m in transforms] for i in range(3) for j in range(4)]
        self.rows = [row[0] if self.size == 1 else dr.concat(row) for row in rows]

    def moving(self) -> list[bool]:
        """Which of the shapes carry derivatives."""
        return [dr.grad_enabled(m.matrix) for m in self.transforms]

    def bounds(self) -> tuple[mi.Point3f, mi.Float]:
        """Centre and radius of a ball around each shape, detached."""
        r = [dr.detach(row) for row in self.rows]
        axis = [dr.norm(mi.Vector3f(r[j], r[4 + j], r[8 + j])) for j in range(3)]
        half = dr.select(self.kind == CYLINDER, 0.5, 0.0)
        centre = mi.Point3f(r[3] + half * r[2], r[7] + half * r[6], r[11] + half * r[10])
        ball = dr.maximum(axis[0], axis[1])
        tall = dr.sqrt(dr.square(ball) + dr.square(0.5 * axis[2]))
        return centre, dr.select(
            self.kind == CYLINDER, tall, dr.select(self.kind == SPHERE, dr.maximum(ball, axis[2]), ball)
        )

    def radius(self, index: mi.UInt32, active: mi.Bool) -> mi.Float:
        """The largest radius of curvature across the axis of a cylinder, or of any section of a sphere; detached."""
        m = dr.detach(self.matrix(index, active))
        axis = [dr.norm(mi.Vector3f(m[0, j], m[1, j], m[2, j])) for j in range(3)]
        round_ = dr.maximum(axis[0], axis[1])
        kind = dr.gather(mi.UInt32, self.kind, index, active)
        return dr.select(active, dr.select(kind == SPHERE, dr.maximum(round_, axis[2]), round_), 0)

    def matrix(self, index: mi.UInt32, active: mi.Bool) -> mi.Matrix4f:
        """Attached local-to-world matrices."""
        m = [dr.gather(mi.Float, row, index, active) for row in self.rows]
        return mi.Matrix4f(m[0:4], m[4:8], m[8:12], [0, 0, 0, 1])

    def reaches(self, index: mi.UInt32, p: mi.Point3f, active: mi.Bool) -> mi.Bool:
        """Whether p, near the surface, lies within the rims: always on a sphere."""
        kind = dr.gather(mi.UInt32, self.kind, index, active)
        local = mi.Transform4f(dr.detach(self.matrix(index, active))).inverse() @ mi.Point3f(dr.detach(p))
        on_disk = dr.square(local.x) + dr.square(local.y) < 1
        on_cylinder = (local.z > 0) & (local.z < 1)
        return active & dr.select(kind == DISK, on_disk, (kind == SPHERE) | on_cylinder)

    def sample(
        self, index: mi.UInt32, t: mi.Float, view: View, active: mi.Bool
    ) -> tuple[mi.Point3f, mi.Vector3f, mi.Vector3f, mi.Bool]:
        """The silhouette point at parameter t.

        Returns:
            The attached point, the tangent dp/dt, a vector into the occluder, and whether the silhouette exists.
        """
        matrix = self.matrix(index, active)
        to_world = mi.Transform4f(matrix)
        with dr.suspend_grad():
            fixed = mi.Transform4f(dr.detach(matrix))
            kind = dr.gather(mi.UInt32, self.kind, index, active)
            point = mi.Point3f(fixed.inverse() @ mi.Point3f(view.p))
            direction = mi.Vector3f(fixed.inverse() @ mi.Vector3f(view.p))
            v = mi.Vector3f(dr.select(view.far, dr.normalize(direction), mi.Vector3f(point)))
            local, tangent, inner = dr.zeros(mi.Point3f), dr.zeros(mi.Vector3f), dr.zeros(mi.Vector3f)
            valid = mi.Bool(False)
            for number, curve in ((SPHERE, _sphere), (DISK, _disk), (CYLINDER, _cylinder)):
                if number in self.kinds:
                    here = kind == number
                    x, dx, into, exists = curve(v, view.far, t)
                    local[here] = x
                    tangent[here] = dx
                    inner[here] = into
                    valid |= here & exists
            tangent = mi.Vector3f(fixed @ tangent)
            inner = mi.Vector3f(fixed @ inner)
        return mi.Point3f(to_world @ mi.Point3f(local)), tangent, inner, valid


def kind_numbers(shapes: list[mi.Shape]) -> mi.UInt32:
    """(n,) the `QUADRICS` of shapes, on the device; one zero if there are none."""
    return upload(mi.UInt32, [QUADRICS[shape.class_name()] for shape in shapes] or [0])


def _sphere(v: mi.Vector3f, far: mi.Bool, t: mi.Float) -> tuple[mi.Point3f, mi.Vector3f, mi.Vector3f, mi.Bool]:
    distance = dr.norm(v)
    height = dr.select(far, 0, 1 / distance)
    radius = dr.safe_sqrt(1 - dr.square(height))
    axis = v / distance
    s, q = mi.coordinate_system(axis)
    sin, cos = dr.sincos(dr.two_pi * t)
    p = height * axis + radius * (cos * s + sin * q)
    return mi.Point3f(p), mi.Vector3f(dr.two_pi * radius * (cos * q - sin * s)), mi.Vector3f(-p), far | (distance > 1)


def _disk(v: mi.Vector3f, far: mi.Bool, t: mi.Float) -> tuple[mi.Point3f, mi.Vector3f, mi.Vector3f, mi.Bool]:
    sin, cos = dr.sincos(dr.two_pi * t)
    p = mi.Point3f(cos, sin, 0)
    return p, mi.Vector3f(-dr.two_pi * sin, dr.two_pi * cos, 0), -mi.Vector3f(p), mi.Bool(True)


def _cylinder(v: mi.Vector3f, far: mi.Bool, t: mi.Float) -> tuple[mi.Point3f, mi.Vector3f, mi.Vector3f, mi.Bool]:
    """A quarter of the parameter range for each rim and each tangent line."""
    part = dr.minimum(mi.UInt32(4 * t), 3)
    inside = 4 * t - mi.Float(part)
    sin, cos = dr.sincos(dr.two_pi * inside)
    top = dr.select(part == 1, 1, 0)
    rim = mi.Point3f(cos, sin, top)
    rim_tangent = mi.Vector3f(-8 * dr.pi * sin, 8 * dr.pi * cos, 0)
    rim_inner = mi.Vector3f(0, 0, 1 - 2 * mi.Float(top))

    distance = dr.sqrt(dr.square(v.x) + dr.square(v.y))
    half = dr.select(far, 0.5 * dr.pi, dr.safe_acos(1 / distance))
    angle = dr.atan2(v.y, v.x) + dr.select(part == 2, half, -half)
    sin, cos = dr.sincos(angle)
    line = mi.Point3f(cos, sin, inside)
    on_rim = part < 2
    return (
        dr.select(on_rim, rim, line),
        dr.select(on_rim, rim_tangent, mi.Vector3f(0, 0, 4)),
        dr.select(on_rim, rim_inner, mi.Vector3f(-cos, -sin, 0)),
        on_rim | dr.select(far, distance > 0, distance > 1),
    )
