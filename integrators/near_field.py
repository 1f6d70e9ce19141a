"""Light that surfaces exchange within less than a pixel, which has no usable derivative along paths.

Where two surfaces meet (a wall and a floor, a body and what it stands on, the folds of a mesh) and move relative to
each other or to the camera ray, the light from one to the other changes along a path of length r at a rate ∝ v/r. These
rates cancel over the directions, but not in a sample: points at a distance h of the line where they meet have |rate| ∝
1/h, whose mean over h is not finite, let alone its variance. So the derivatives are those of an image in which what a
surface at distance r sends by reflection or as a lamp counts

    w(r) = t² (3 − 2t),   t = min(r / R, 1),   R = `near` pixels,                                                (E6)

in every term; what it mirrors or lets straight through comes from farther away and counts in full. The image itself is
not changed. What that leaves out of the derivative is the motion of the light within R of such lines: a source and a
sink less than R apart. Derivation and sweep: docs/theory/path_replay.md, section 7.
"""

from __future__ import annotations

import drjit as dr
import mitsuba as mi

#: Least R, a length that no scene has.
TINY = 1e-30


class NearField:
    """The weight of a segment between two surfaces.

    Args:
        sensor: whose pixels are the measure.
        near: R in widths of a pixel, at the distance from the camera at which the segment lies.
    """

    def __init__(self, sensor: mi.Sensor, near: float) -> None:
        with dr.suspend_grad():
            size = sensor.film().crop_size()  # positions are those of the crop
            ray = lambda x: sensor.sample_ray(0, 0.5, mi.Point2f(x, 0.5), mi.Point2f(0.5))[0]
            step = dr.opaque(mi.Float, 0.5 / size[0])
            a, b = ray(0.5 - step), ray(0.5 + step)
            scale = dr.opaque(mi.Float, near)
            self.eye = mi.Point3f(dr.detach(a.o))
            self.width, self.angle = scale * dr.norm(b.o - a.o), scale * dr.norm(b.d - a.d)
            dr.make_opaque(self.eye, self.width, self.angle)

    def weight(self, p: mi.Point3f, q: mi.Point3f) -> mi.Float:
        """w of the segment from p to q, attached to its length."""
        with dr.suspend_grad():
            middle = 0.5 * (dr.norm(p - self.eye) + dr.norm(q - self.eye))
            reach = dr.maximum(self.width + self.angle * middle, TINY)  # pixels of some sensors have no width
        t = dr.minimum(dr.norm(mi.Vector3f(q - p)) / reach, 1)
        return mi.Float(t * t * (3 - 2 * t))


def near_weight(near: NearField | None, p: mi.Point3f, q: mi.Point3f) -> mi.Float:
    """w of the segment from p to q, or one."""
    return mi.Float(1) if near is None else near.weight(p, q)
