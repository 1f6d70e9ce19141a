"""OpenDR: an approximate derivative of a rasterised image (Loper and Black 2014).

    I_i = C(p_i)          colour of the surface that pixel centre i sees, Lambertian
    dI_i = ∂C/∂(light, albedo, position, normal) at a point that stays on its triangle           appearance  (E1)
         − Σ_axis ½ Σ_neighbours (difference to the neighbour along the axis) · u̇                  geometry    (E2)

u̇ is the film velocity of the surface, from the barycentric weights and the velocities of the projected corners: a
surface that moves by u̇ carries its image with it. Differences are taken by pairs of neighbouring pixels (E3):
  same surface     both pixels see the difference move with their own surface; a pixel with one such neighbour on an
                   axis takes the one-sided difference;
  occlusion        the outline belongs to the nearer surface, whose velocity moves the jump; half of the jump goes to
                   each of the two pixels. The surface behind does not move it.
Biased: a first-order model of an image of one sample per pixel, without shadows and interreflection. Fast, without
noise: a baseline and a control. Derivation and what "occlusion" means here: docs/theory/opendr.md.
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi

from .raster.base import Rasterizer, pixel_centres
from .raster.shading import Shading, surface_point
from .raster.triangles import Row, Triangles

#: Two triangles of one shape are one surface where their depths, each continued to the other's pixel, differ by less
#: than this fraction of the depth.
SAME_SURFACE = 0.02


class OpenDR(Rasterizer):
    """Mitsuba plugin `opendr`.

    Properties:
        light_divisions: points along each edge of a triangle of an area light (default 2).
        hide_emitters: a constant environment is not seen directly.

    Raises (when rendered):
        UnsupportedGradient: see `raster.base.Rasterizer`.
    """

    name = "opendr"

    def draw(self, scene: mi.Scene, sensor: mi.Sensor) -> mi.TensorXf:
        triangles, shading = self.prepare_scene(scene, sensor)
        seen = _visible(triangles, pixel_centres(sensor))
        color = self._appearance(triangles, shading, sensor, *seen)[0]
        return self._tensor(sensor, color, dr.select(seen[1], mi.Float(1), 0))

    def render_forward(
        self, scene: mi.Scene, params: Any, sensor: int | mi.Sensor = 0, seed: Any = 0, spp: int = 0
    ) -> mi.TensorXf:
        """The approximate derivative image along the tangents that `params` carry; `seed` and `spp` are ignored."""
        sensor = scene.sensors()[sensor] if isinstance(sensor, int) else sensor
        self.require(scene, params)
        image = self._surrogate(scene, sensor)
        dr.forward_to(image, flags=dr.ADFlag.ClearEdges | dr.ADFlag.AllowNoGrad)
        return dr.grad(image)

    def render_backward(
        self,
        scene: mi.Scene,
        params: Any,
        grad_in: mi.TensorXf,
        sensor: int | mi.Sensor = 0,
        seed: Any = 0,
        spp: int = 0,
    ) -> None:
        """Accumulate the approximate gradient of <grad_in, image> into the attached parameters."""
        sensor = scene.sensors()[sensor] if isinstance(sensor, int) else sensor
        self.require(scene, params)
        image = self._surrogate(scene, sensor)
        if dr.grad_enabled(image):
            dr.set_grad(image, grad_in)
            dr.enqueue(dr.ADMode.Backward, image)
            dr.traverse(dr.ADMode.Backward, flags=dr.ADFlag.ClearInterior)

    # -------------------------------------------------------------- parts

    def _surrogate(self, scene: mi.Scene, sensor: mi.Sensor) -> mi.TensorXf:
        """A tensor whose derivative is that of the image; its value means nothing."""
        triangles, shading = self.prepare_scene(scene, sensor)
        q = pixel_centres(sensor)
        index, hit = _visible(triangles, q)
        color, film, row = self._appearance(triangles, shading, sensor, index, hit)
        alpha = dr.select(hit, mi.Float(1), 0)
        height, width, channels = self.film_shape(sensor)
        values = [color.x, color.y, color.z, alpha][:channels]
        if row is not None and dr.grad_enabled(film):
            still = [dr.detach(v) for v in values]
            moved = [mi.Float(v) for v in values]
            scene_grid = _Grid(triangles, row, index, hit, q, width, height)
            for axis in (0, 1):
                scene_grid.add_geometry(axis, still, film, moved)
            values = moved
        return _interleave(values, height, width)

    def _appearance(
        self, triangles: Triangles, shading: Shading, sensor: mi.Sensor, index: mi.UInt32, hit: mi.Bool
    ) -> tuple[mi.Color3f, mi.Point2f, Row | None]:
        """(E1): colour at points that keep their place on their triangle; their film positions; their triangles."""
        back = self.background(shading) + dr.zeros(mi.Color3f, dr.width(index))
        q = pixel_centres(sensor)
        if triangles.count == 0:
            return back, q, None
        row = triangles.row(triangles.table, index, hit)
        with dr.suspend_grad():
            weights, _ = row.barycentrics(q)
            weights = row.in_space([dr.detach(w) for w in weights])
            weights = [dr.select(hit, w, 1 / 3) for w in weights]
            to_world = sensor.world_transform()
            origin, axis = mi.Point3f(to_world @ mi.Point3f(0, 0, 0)), mi.Vector3f(to_world @ mi.Vector3f(0, 0, 1))
        weights = [dr.detach(w) for w in weights]
        point = surface_point(row, weights)
        eye = -axis if sensor.class_name() == "OrthographicCamera" else origin - dr.detach(point.p)
        color = shading.color(row, point, mi.Vector3f(eye), hit)
        # Film position of the fixed surface point: weights in space back to weights on the film, attached
        w = [dr.rcp(dr.select(hit, i, 1)) for i in row.inverse]
        scale = sum((a * b for a, b in zip(weights, w, strict=True)), mi.Float(0))
        film = mi.Vector2f(0)
        for a, b, u in zip(weights, w, row.film, strict=True):
            film += mi.Vector2f(u) * (a * b / scale)
        film = mi.Point2f(dr.select(hit, film, 0))
        return mi.Color3f(dr.select(hit, color, back)), film, row

    def _tensor(self, sensor: mi.Sensor, color: mi.Color3f, alpha: mi.Float) -> mi.TensorXf:
        height, width, channels = self.film_shape(sensor)
        return _interleave([color.x, color.y, color.z, alpha][:channels], height, width)

    def to_string(self) -> str:
        return "OpenDR[]"


def _interleave(values: list[mi.Float], height: int, width: int) -> mi.TensorXf:
    channels = len(values)
    flat = dr.zeros(mi.Float, height * width * channels)
    pixel = dr.arange(mi.UInt32, height * width)
    for k, value in enumerate(values):
        dr.scatter_add(flat, value, pixel * channels + k)
    return mi.TensorXf(flat, shape=(height, width, channels))


def _visible(triangles: Triangles, q: mi.Point2f) -> tuple[mi.UInt32, mi.Bool]:
    """The nearest triangle at each film position, and whether there is one."""
    with dr.suspend_grad():
        index = dr.zeros(mi.UInt32, dr.width(q))
        nearest = dr.full(mi.Float, dr.inf, dr.width(q))
        found = dr.zeros(mi.UInt32, dr.width(q))
        count = dr.opaque(mi.UInt32, triangles.count)

        def more(index: Any, nearest: Any, found: Any) -> Any:
            return index < count

        def test(index: Any, nearest: Any, found: Any) -> Any:
            row = triangles.row(triangles.table, index)
            weights, solid = row.barycentrics(q)
            inside = solid & (weights[0] >= 0) & (weights[1] >= 0) & (weights[2] >= 0)
            depth = sum((w * z for w, z in zip(row.in_space(weights), row.depth, strict=True)), mi.Float(0))
            closer = inside & (depth < nearest)
            return index + 1, dr.select(closer, depth, nearest), dr.select(closer, index, found)

        if triangles.count:
            _, nearest, found = dr.while_loop((index, nearest, found), more, test)
        hit = nearest < dr.inf
        dr.eval(found, hit)
        return found, hit


class _Grid:
    """Pairs of neighbouring pixels: which of them see one surface, and which of two surfaces hides the other."""

    def __init__(
        self, triangles: Triangles, row: Row, index: mi.UInt32, hit: mi.Bool, q: mi.Point2f, width: int, height: int
    ) -> None:
        self.triangles, self.index, self.hit, self.q = triangles, index, hit, q
        self.size = (width, height)
        self.pixel = dr.arange(mi.UInt32, width * height)
        self.place = (self.pixel % dr.opaque(mi.UInt32, width), self.pixel // dr.opaque(mi.UInt32, width))
        self.shape = dr.detach(row.shape)

    def _depth(self, of: mi.UInt32, at: mi.UInt32) -> mi.Float:
        """Depth of the plane of the triangle that pixel `of` sees, at pixel `at`."""
        row = self.triangles.row(dr.detach(self.triangles.table), dr.gather(mi.UInt32, self.index, of))
        weights, _ = row.barycentrics(dr.gather(mi.Point2f, self.q, at))
        # Linear in space over the plane; not positive where the plane passes behind the camera
        raw = [w * i for w, i in zip(weights, row.inverse, strict=True)]
        total = raw[0] + raw[1] + raw[2]
        depth = sum((r * z for r, z in zip(raw, row.depth, strict=True)), mi.Float(0)) / total
        return dr.select(total > 0, depth, dr.inf)

    def classify(self, axis: int) -> tuple[mi.UInt32, mi.Bool, mi.Bool, mi.Bool]:
        """For each pixel and its successor on the axis.

        Returns:
            index of the successor; whether both see one surface; whether this pixel's surface owns an outline between
            them; whether the successor's does.
        """
        with dr.suspend_grad():
            step = (1, self.size[0])[axis]
            inside = self.place[axis] + 1 < dr.opaque(mi.UInt32, self.size[axis])
            here, there = self.pixel, dr.select(inside, self.pixel + dr.opaque(mi.UInt32, step), self.pixel)
            hit_here, hit_there = self.hit, dr.gather(mi.Bool, self.hit, there)
            both = hit_here & hit_there
            one_shape = self.shape == dr.gather(mi.UInt32, self.shape, there)
            near, near_there = self._depth(here, here), self._depth(there, there)
            gap, gap_there = near - self._depth(there, here), self._depth(here, there) - near_there
            # Planes that cross between the two pixels, or all but agree, are one surface with a crease
            crossing = gap * gap_there <= 0
            close = dr.minimum(dr.abs(gap), dr.abs(gap_there)) < SAME_SURFACE * near
            same = inside & both & one_shape & (crossing | close)
            jump = inside & (hit_here | hit_there) & ~same
            owner_here = jump & hit_here & (~hit_there | (near <= near_there))
            return there, same, owner_here, jump & ~owner_here

    def add_geometry(self, axis: int, still: list[mi.Float], film: mi.Point2f, moved: list[mi.Float]) -> None:
        """Add (E2) along one axis to the attached values `moved`, pairs as in (E3)."""
        there, same, owner_here, owner_there = self.classify(axis)
        u = film[axis]
        u_there = dr.gather(mi.Float, u, there)
        # Pixels with a same-surface neighbour on one side only take the one-sided difference whole
        number = dr.zeros(mi.Float, dr.width(u))
        one = dr.select(same, mi.Float(1), 0)
        dr.scatter_add(number, one, self.pixel)
        dr.scatter_add(number, one, there)
        share = dr.select(number > 0, dr.rcp(dr.maximum(number, 1)), 0)
        share_there = dr.gather(mi.Float, share, there)
        for value, total in zip(still, moved, strict=True):
            difference = dr.gather(mi.Float, value, there) - value
            smooth = dr.select(same, difference, 0)
            velocity = dr.select(owner_here, u, u_there)
            outline = dr.select(owner_here | owner_there, 0.5 * difference, 0) * (velocity - dr.detach(velocity))
            own = smooth * share * (u - dr.detach(u))
            theirs = smooth * share_there * (u_there - dr.detach(u_there))
            dr.scatter_add(total, -(own + outline), self.pixel)
            dr.scatter_add(total, -(theirs + outline), there)
