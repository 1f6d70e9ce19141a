"""The frames of projectors: their light ends along four planes through the projector, whatever it falls on.

The curve in which a frame meets a receiver is the edge of a shadow like any other: it is treated as the shadow of a
straight edge close to the projector, which follows the projector, with the lit side inside the frame.
"""

from __future__ import annotations

import drjit as dr
import mitsuba as mi

from .curve_point import CurvePoint
from .lights import Lights

#: Distance of that edge from the projector, relative to the scene's size; what lies closer is not lit at the edge.
NEAR = 0.02


class Frames:
    """Four edges for each light that is a projector.

    Args:
        lights: all lights; attached.
    """

    def __init__(self, lights: Lights) -> None:
        self.z = NEAR * lights.extent
        emitters = lights.tables.emitters
        self.projectors = {i: emitter for i, emitter in enumerate(emitters) if emitter.class_name() == "Projector"}
        self.size = 4 if self.projectors else 0
        self.transforms = {i: mi.traverse(emitter)["to_world"] for i, emitter in self.projectors.items()}
        with dr.suspend_grad():
            self.corners = {i: self._corners(i) for i in self.projectors}

    def _corners(self, number: int) -> tuple[mi.Point2f, mi.Point2f]:
        """Opposite corners of the frame at unit distance: the film coordinates there are linear in x and y."""
        to_world = mi.Transform4f(dr.detach(self.transforms[number].matrix))
        film = []
        for x, y in ((0, 0), (1, 0), (0, 1)):
            at = dr.zeros(mi.SurfaceInteraction3f)
            at.p = mi.Point3f(to_world @ mi.Point3f(x, y, 1))
            film.append(mi.Point2f(self.projectors[number].sample_direction(at, mi.Point2f(0.5))[0].uv))
        slope = mi.Vector2f(film[1].x - film[0].x, film[2].y - film[0].y)
        return mi.Point2f(-film[0] / slope), mi.Point2f((1 - film[0]) / slope)

    def lengths(self, number: int) -> mi.Float:
        """(4,) lengths of a light's edges at unit distance; zero if it has none."""
        if number not in self.projectors:
            return dr.zeros(mi.Float, 4)
        low, high = self.corners[number]
        edge = dr.arange(mi.UInt32, 4)
        return dr.abs(dr.select(edge < 2, high.x - low.x, high.y - low.y))

    def sample(self, light: mi.UInt32, edge: mi.UInt32, t: mi.Float, active: mi.Bool) -> CurvePoint:
        """The point at parameter t of an edge (two along x, then two along y), attached to the projector."""
        p, tangent, inner = mi.Point3f(0), mi.Vector3f(0), mi.Vector3f(0)
        for number, to_world in self.transforms.items():
            here = active & (light == number)
            with dr.suspend_grad():
                low, high = self.corners[number]
                along_x, second = edge < 2, (edge & 1) == 1
                x = dr.select(along_x, dr.lerp(low.x, high.x, t), dr.select(second, high.x, low.x))
                y = dr.select(along_x, dr.select(second, high.y, low.y), dr.lerp(low.y, high.y, t))
                local = mi.Point3f(x, y, 1) * self.z
                step = mi.Vector3f(dr.select(along_x, high.x - low.x, 0), dr.select(along_x, 0, high.y - low.y), 0)
                centre = 0.5 * (low + high)
                out = mi.Vector3f(dr.select(along_x, 0, x - centre.x), dr.select(along_x, y - centre.y, 0), 0)
                fixed = mi.Transform4f(dr.detach(to_world.matrix))
                tangent = dr.select(here, fixed @ mi.Vector3f(step * self.z), tangent)
                inner = dr.select(here, fixed @ out, inner)
            world = mi.Point3f(mi.Transform4f(to_world) @ mi.Point3f(local))
            p = mi.Point3f(dr.select(here, mi.Vector3f(world), mi.Vector3f(p)))
        gap = mi.Float(1e-4 * self.z)
        none = mi.Vector3f(0)
        no, zero = mi.Bool(False), mi.Float(0)
        return CurvePoint(p, tangent, inner, mi.Bool(active), no, gap, no, none, none, zero)
