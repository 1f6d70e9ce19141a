"""Points on the lights, followed by derivatives: the far end y of a shadow boundary.

A light vertex is a position that stays with its emitter (point, spot, projector, a point of an area light) or a
direction at infinity (directional light; environment, whose directions are fixed in the world). That is the
parametrisation of the interior term, so a boundary must use it too.
"""

from __future__ import annotations

from dataclasses import dataclass

import drjit as dr
import mitsuba as mi
import numpy as np

from ..errors import UnsupportedGradient
from .device import recording, upload
from .quadrics import QUADRICS, Quadrics
from .view import View

#: Fraction of the scene's size by which shadow rays stay clear of their ends, along the ray: unlike an offset along the
#: normal this leaves the ray where it is, and with it the shadow edge.
NUDGE = 1e-4


@dataclass
class LightVertex:
    """A sampled point y of a light.

    Attributes:
        p: (N,) attached position, or unit direction towards the light if `far`.
        far: (N,) whether the light is at infinity.
        emitter: (N,) `mi.EmitterPtr`.
        record: (N,) the position sample on an area light.
        density: (N,) of y per unit area or solid angle; 1 for delta lights.
        delta: (N,) whether the light is a delta light.
    """

    p: mi.Point3f
    far: mi.Bool
    emitter: mi.EmitterPtr
    record: mi.PositionSample3f
    density: mi.Float
    delta: mi.Bool

    def view(self) -> View:
        """The light vertex as a viewpoint, detached."""
        return View(dr.detach(self.p), self.far)


#: Kinds of lights: without extent; on a shape; at infinity in all directions.
DELTA, AREA, SKY = range(3)


class LightTables:
    """What does not change while lights move: their kinds; on the device.

    Raises:
        UnsupportedGradient: an emitter whose shadows have no known geometry.
    """

    def __init__(self, scene: mi.Scene) -> None:
        self.key = light_key(scene)
        self.emitters = list(scene.emitters())  # alive, else keys could recur
        self.kinds: list[int] = []
        far = []
        for emitter in self.emitters:
            name = emitter.class_name()
            is_delta = mi.has_flag(emitter.flags(), mi.EmitterFlags.Delta)
            if name == "DirectionalArea":
                raise UnsupportedGradient(
                    "the shadows of a directionalarea light have no known boundary",
                    key=emitter.id(),
                    remedy="use a directional light, or finite_difference",
                )
            far.append(mi.has_flag(emitter.flags(), mi.EmitterFlags.Infinite))
            self.kinds.append(DELTA if is_delta else SKY if far[-1] else AREA)
        self.kind = upload(mi.UInt32, self.kinds or [0])
        self.far = upload(mi.UInt32, np.array(far or [False], np.uint32)) != 0
        area = [i for i, kind in enumerate(self.kinds) if kind == AREA]
        self.place = upload(mi.UInt32, [area.index(i) if i in area else 0 for i in range(len(self.kinds))] or [0])
        dr.eval(self.far)


def light_key(scene: mi.Scene) -> tuple[int, ...]:
    """Changes when an emitter is added or removed."""
    return tuple(emitter.ptr for emitter in scene.emitters())


def scene_extent(scene: mi.Scene) -> mi.Float:
    """Half the diagonal of the scene's bounding box; read on the host, hence not inside a recording."""
    return dr.opaque(mi.Float, 0.5 * float(dr.norm(scene.bbox().extents())))


class Lights:
    """All emitters of a scene, at its current parameters.

    Args:
        scene: the scene.
        extent: of the scene, see `scene_extent`.
        tables: what a previous call left behind, reused if the emitters are the same.

    Raises:
        UnsupportedGradient: an emitter whose shadows have no known geometry.
    """

    def __init__(self, scene: mi.Scene, extent: mi.Float, tables: LightTables | None = None) -> None:
        if tables is None or (not recording() and tables.key != light_key(scene)):
            tables = LightTables(scene)
        self.tables = tables
        self.kinds, self.kind, self.far, self.size = tables.kinds, tables.kind, tables.far, len(tables.kinds)
        self.extended = any(kind != DELTA for kind in self.kinds)
        self.extent = extent
        if not self.size:
            return
        self.emitters = scene.emitters_dr()
        self.shapes = [emitter.get_shape() for emitter in tables.emitters]
        self.moving_shapes = any(s is not None and s.parameters_grad_enabled() for s in self.shapes)
        positions = []
        dummy = dr.zeros(mi.SurfaceInteraction3f)
        for emitter, kind in zip(tables.emitters, self.kinds, strict=True):
            p = mi.Point3f(0, 0, 1)
            if kind == DELTA:
                # The sample's own position is attached to the light's transform; a directional light has a direction
                ds, _ = emitter.sample_direction(dummy, mi.Point2f(0.5))
                at_infinity = mi.has_flag(emitter.flags(), mi.EmitterFlags.Infinite)
                p = mi.Point3f(ds.d) if at_infinity else mi.Point3f(ds.p)
                if emitter.class_name() == "PointLight":
                    p = mi.Point3f(mi.traverse(emitter)["position"])
            positions.append(p)
        parts = [[p[i] for p in positions] for i in range(3)]
        self.p = mi.Point3f(*(part[0] if self.size == 1 else dr.concat(part) for part in parts))

    def lamp_area(self) -> mi.Float:
        """The mean area of the area lights, detached; zero without any."""
        with dr.suspend_grad():
            lamps = [shape for shape, kind in zip(self.shapes, self.kinds, strict=True) if kind == AREA]
            areas = [dr.rcp(shape.sample_position(0, mi.Point2f(0.5)).pdf) for shape in lamps]
            return dr.detach(sum(areas, mi.Float(0)) / max(len(areas), 1))

    def viewpoint(self, number: int) -> tuple[View, mi.Float | None] | None:
        """A representative viewpoint of a light and the radius in which its points lie; None for an environment.

        The radius of a delta light is None.
        """
        if self.kinds[number] == SKY:
            return None
        if self.kinds[number] == AREA:
            centre, radius = ball(self.shapes[number])
            return View(centre, mi.Bool(False)), radius
        at = mi.UInt32(number)
        return View(dr.gather(mi.Point3f, dr.detach(self.p), at), dr.gather(mi.Bool, self.far, at)), None

    def sample(self, number: mi.UInt32, sample: mi.Point2f, active: mi.Bool) -> LightVertex:
        """A point of the given light.

        Args:
            number: (N,) which light, in the order of this list.
            sample: (N,) uniform in the unit square.
        """
        p = mi.Point3f(dr.gather(mi.Point3f, self.p, number, active))
        with dr.suspend_grad():
            kind = dr.gather(mi.UInt32, self.kind, number, active)
            far = dr.gather(mi.Bool, self.far, number, active)
            emitter = dr.gather(mi.EmitterPtr, self.emitters, number, active)
            density = mi.Float(1)
            record = dr.zeros(mi.PositionSample3f)
        if AREA in self.kinds:
            area = active & (kind == AREA)
            with dr.resume_grad(when=self.moving_shapes):
                on_shape = self._on_shape(number, sample, area)
            p = mi.Point3f(dr.select(area, on_shape.p, p))
            record = dr.detach(on_shape)
            density = dr.select(area, record.pdf, density)
        if SKY in self.kinds:
            sky = active & (kind == SKY)
            with dr.suspend_grad():
                ds, _ = emitter.sample_direction(dr.zeros(mi.SurfaceInteraction3f), sample, sky)
            p = mi.Point3f(dr.select(sky, mi.Point3f(dr.detach(ds.d)), p))
            density = dr.select(sky, ds.pdf, density)
            record.uv = dr.select(sky, ds.uv, record.uv)  # where `eval_direction` of an environment map looks
        return LightVertex(p, far, emitter, record, density, kind == DELTA)

    def _on_shape(self, number: mi.UInt32, sample: mi.Point2f, active: mi.Bool) -> mi.PositionSample3f:
        """A point on the shape of each area light.

        Not through the emitter's shape pointer: such a call looks at every live shape of the process, those of other
        scenes too, and fails where one of them (a curve) cannot be sampled.
        """
        numbers = [i for i, kind in enumerate(self.kinds) if kind == AREA]
        draw = [lambda u, on, shape=self.shapes[i]: shape.sample_position(0, u, on) for i in numbers]
        if len(draw) == 1:
            return draw[0](sample, active)
        which = dr.gather(mi.UInt32, self.tables.place, number, active)
        return dr.switch(which, draw, sample, active)


def ball(shape: mi.Shape) -> tuple[mi.Point3f, mi.Float]:
    """Centre and radius of a ball around a shape, detached; on the device, since it may move."""
    with dr.suspend_grad():
        if shape.is_mesh():
            p = dr.unravel(mi.Point3f, dr.detach(shape.vertex_positions_buffer()))
            low, high = (mi.Point3f(reduce(p.x), reduce(p.y), reduce(p.z)) for reduce in (dr.min, dr.max))
            return mi.Point3f(0.5 * (low + high)), 0.5 * dr.norm(high - low)
        if shape.class_name() in QUADRICS:
            return Quadrics([shape], mi.UInt32(QUADRICS[shape.class_name()])).bounds()
        box = shape.bbox()
        return mi.Point3f(box.center()), mi.Float(dr.norm(box.extents())) / 2


def arriving(y: LightVertex, si: mi.SurfaceInteraction3f, active: mi.Bool) -> tuple[mi.Spectrum, mi.Vector3f]:
    """What y alone sends to a point, as if nothing stood between: irradiance over cosine, per unit area or angle of y.

    Returns:
        (emission times geometry at the light, divided by the density of y; unit direction towards the light).
    """
    with dr.suspend_grad():
        active = active & (y.density > 0)
        p = mi.Point3f(dr.detach(y.p))
        to_y = mi.Vector3f(p - si.p)
        distance = dr.norm(to_y)
        d = dr.select(y.far, mi.Vector3f(p), to_y / distance)
        _, w_delta = y.emitter.sample_direction(si, mi.Point2f(0.5), active & y.delta)
        ds = dr.zeros(mi.DirectionSample3f, dr.width(si))
        ds.p, ds.n, ds.uv, ds.d, ds.dist = p, y.record.n, y.record.uv, d, distance
        ds.pdf, ds.emitter = y.density, y.emitter
        value = y.emitter.eval_direction(si, ds, active & ~y.delta)
        geometry = dr.select(y.far, 1, dr.abs_dot(y.record.n, d) / dr.square(distance))
        value = dr.select(y.delta, w_delta, value * geometry / y.density)
        return dr.select(active & dr.all(dr.isfinite(value)), value, 0), d


def reached(scene: mi.Scene, y: LightVertex, start: mi.Point3f, size: mi.Float, active: mi.Bool) -> mi.Bool:
    """Whether nothing stands between a point just beside a silhouette and the light vertex.

    The ray starts at that point, close to which it has to be precise: another layer of the occluder may be very near.
    """
    p = mi.Point3f(dr.detach(y.p))
    to_y = mi.Vector3f(p - start)
    distance = dr.norm(to_y)
    d = dr.select(y.far, mi.Vector3f(p), to_y / distance)
    reach = dr.select(y.far, dr.largest(mi.Float), distance - dr.select(y.delta, 0, NUDGE * size))
    return active & (reach > 0) & ~scene.ray_test(mi.Ray3f(start, d, reach, 0, []), active)


def unshadowed(scene: mi.Scene, y: LightVertex, x: mi.Point3f, size: mi.Float, active: mi.Bool) -> mi.Bool:
    """Whether nothing stands between x and the light vertex; the ray passes exactly through both.

    Args:
        size: a length of the order of the scene, for the clearance at the ends.
    """
    p = mi.Point3f(dr.detach(y.p))
    clearance = NUDGE * size
    to_x = mi.Vector3f(x - p)
    distance = dr.norm(to_x)
    d = dr.select(y.far, mi.Vector3f(p), to_x / distance)
    # From the light to x, or from x to infinity; a point light has no surface to keep clear of
    start = dr.select(y.delta & ~y.far, 0, clearance)
    origin = mi.Point3f(dr.select(y.far, mi.Vector3f(x), mi.Vector3f(p)) + d * start)
    reach = dr.select(y.far, dr.largest(mi.Float), distance - start - clearance)
    return active & (reach > 0) & ~scene.ray_test(mi.Ray3f(origin, d, reach, 0, []), active)
