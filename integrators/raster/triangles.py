"""All surfaces of a scene as one table of projected triangles, with derivatives.

A row is a triangle in front of the near plane, in pixels of the film, with what shading needs at its corners. Triangles
that cross the near plane are cut there into at most two, so that a floor on which the camera stands is drawn right. The
table is one flat array, which makes it a convenient place to stop: derivatives of the image with respect to the table,
then of the table with respect to the scene.
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np

from ..boundary.camera import FilmMap
from ..errors import UnsupportedGradient
from ..support import type_name

#: Floats of one corner: film x, y; 1/w; depth; position; normal; texture coordinates.
CORNER = 12
#: Floats of one row: three corners, albedo, emission.
ROW = 3 * CORNER + 6
#: Depth of the plane at which triangles are cut when the camera's near plane is closer, in scene units.
SMALLEST_DEPTH = 1e-4


class Corner:
    """A corner of a triangle, or a point inside, in the world.

    Attributes:
        p: position. n: unit normal. uv: texture coordinates.
    """

    def __init__(self, p: mi.Point3f, n: mi.Normal3f, uv: mi.Point2f) -> None:
        self.p, self.n, self.uv = p, n, uv


def mix(corners: list[Corner], weights: list[mi.Float]) -> Corner:
    """The point with the given barycentric weights; the normal is not normalised."""
    p, n, uv = mi.Vector3f(0), mi.Vector3f(0), mi.Vector2f(0)
    for corner, weight in zip(corners, weights, strict=True):
        p += mi.Vector3f(corner.p) * weight
        n += mi.Vector3f(corner.n) * weight
        uv += mi.Vector2f(corner.uv) * weight
    return Corner(mi.Point3f(p), mi.Normal3f(n), mi.Point2f(uv))


class Triangles:
    """The triangles of a scene as a camera sees them, attached to everything that carries derivatives.

    Attributes:
        count: rows of the table.
        table: (ROW * count + 2,) attached; column k of row i at `k * count + i`, then nearest and farthest depth.
        shape: (count,) index into `scene.shapes()`.
        two_sided: (count,) whether the back is shaded like the front.
        textured: whether albedos vary over a triangle (then they are not in the table).

    Raises:
        UnsupportedGradient: a sensor or shape that has no triangles here.
    """

    def __init__(self, scene: mi.Scene, sensor: mi.Sensor, name: str) -> None:
        if sensor.class_name() not in ("PerspectiveCamera", "OrthographicCamera"):
            raise UnsupportedGradient(
                f"{name} cannot project onto the film of a {sensor.class_name()}",
                key=sensor.id(),
                remedy="use a perspective or orthographic sensor, or edge_sampling",
            )
        film = FilmMap(sensor)
        self.textured = any(
            mi.has_flag(s.bsdf().flags(), mi.BSDFFlags.SpatiallyVarying) for s in scene.shapes() if s.bsdf() is not None
        )
        parts: list[list[mi.Float]] = []
        shapes, sides = [], []
        for index, shape in enumerate(scene.shapes()):
            corners = shape_triangles(shape, name)
            albedo, emission = _uniform_albedo(shape, self.textured), _emission(shape, name)
            width = dr.width(corners[0].p)
            for piece, real in _clipped(film, corners):
                columns = [_column(film, corner) for corner in piece]
                if not np.any(real.numpy()):
                    continue
                keep = dr.compress(real)
                row = [c for column in columns for c in column]
                row += [_wide(v, width) for v in (*albedo, *emission)]
                parts.append([dr.gather(mi.Float, c, keep) for c in row])
                shapes.append(np.full(dr.width(keep), index))
                back = shape.bsdf() is not None and mi.has_flag(shape.bsdf().flags(), mi.BSDFFlags.BackSide)
                sides.append(np.full(dr.width(keep), back))
        self.count = sum(len(s) for s in shapes)
        if self.count == 0:
            self.table = mi.Float(0)
            return
        columns = [dr.concat([p[k] for p in parts]) if len(parts) > 1 else parts[0][k] for k in range(ROW)]
        depth = dr.concat([columns[c * CORNER + 3] for c in range(3)])
        dr.eval(depth)
        depths = depth.numpy()
        ends = dr.gather(mi.Float, depth, mi.UInt32([int(depths.argmin()), int(depths.argmax())]))
        self.table = dr.concat([*columns, ends])
        self.shape = mi.UInt32(np.concatenate(shapes).astype(np.uint32))
        self.two_sided = mi.Bool(np.concatenate(sides))
        dr.eval(self.table, self.shape, self.two_sided)

    def row(self, table: mi.Float, index: mi.UInt32, active: mi.Bool | bool = True) -> Row:
        """Row `index` of `table`, which is `self.table` or a copy with its own derivatives."""
        count = dr.opaque(mi.UInt32, self.count)
        get = lambda k: dr.gather(mi.Float, table, k * count + index, active)
        return Row(
            get, dr.gather(mi.UInt32, self.shape, index, active), dr.gather(mi.Bool, self.two_sided, index, active)
        )

    def depth_range(self, table: mi.Float) -> tuple[mi.Float, mi.Float]:
        """Nearest and farthest depth of any corner."""
        end = ROW * self.count
        return dr.gather(mi.Float, table, mi.UInt32(end)), dr.gather(mi.Float, table, mi.UInt32(end + 1))


class Row:
    """One triangle per lane.

    Attributes:
        film: three film positions in pixels. inverse: 1/w of each. depth: of each.
        corners: the world at each. albedo, emission: of the triangle. shape, two_sided: see `Triangles`.
    """

    def __init__(self, get: Any, shape: mi.UInt32, two_sided: mi.Bool) -> None:
        starts = [k * CORNER for k in range(3)]
        self.film = [mi.Point2f(get(s), get(s + 1)) for s in starts]
        self.inverse = [get(s + 2) for s in starts]
        self.depth = [get(s + 3) for s in starts]
        self.corners = [
            Corner(
                mi.Point3f(get(s + 4), get(s + 5), get(s + 6)),
                mi.Normal3f(get(s + 7), get(s + 8), get(s + 9)),
                mi.Point2f(get(s + 10), get(s + 11)),
            )
            for s in starts
        ]
        end = 3 * CORNER
        self.albedo = mi.Color3f(get(end), get(end + 1), get(end + 2))
        self.emission = mi.Color3f(get(end + 3), get(end + 4), get(end + 5))
        self.shape, self.two_sided = shape, two_sided

    def barycentrics(self, q: mi.Point2f) -> tuple[list[mi.Float], mi.Bool]:
        """Barycentric weights of a film position in the projected triangle (negative outside), and whether it has any.

        Args:
            q: (N,) film position in pixels.
        """
        a, b, c = self.film
        area = cross(b - a, c - a)
        solid = dr.abs(area) > 1e-8
        scale = dr.select(solid, dr.rcp(dr.select(solid, area, 1)), 0)
        return [cross(b - q, c - q) * scale, cross(c - q, a - q) * scale, cross(a - q, b - q) * scale], solid

    def in_space(self, weights: list[mi.Float]) -> list[mi.Float]:
        """Weights on the triangle in space from weights on the film (perspective)."""
        raw = [w * i for w, i in zip(weights, self.inverse, strict=True)]
        scale = dr.rcp(raw[0] + raw[1] + raw[2])
        return [r * scale for r in raw]


def cross(a: mi.Vector2f, b: mi.Vector2f) -> mi.Float:
    """The third component of the cross product."""
    return a.x * b.y - a.y * b.x


def require_drawable(shape: mi.Shape, name: str) -> None:
    """Raise for a shape that has no triangles here."""
    if not (isinstance(shape, mi.Mesh) or type_name(shape) == "Rectangle"):
        raise UnsupportedGradient(
            f"{name} draws triangles and rectangles, not a {type_name(shape)}",
            key=shape.id(),
            remedy="replace it by a mesh, or use edge_sampling",
        )


def shape_triangles(shape: mi.Shape, name: str) -> list[Corner]:
    """The three corners of every triangle of a mesh or rectangle, attached; normals are the shading normals.

    Raises:
        UnsupportedGradient: another shape.
    """
    require_drawable(shape, name)
    values = mi.traverse(shape)
    rectangle = type_name(shape) == "Rectangle"
    if not rectangle:
        faces = dr.unravel(mi.Vector3u, mi.UInt32(values["faces"]))
        index = [faces.x, faces.y, faces.z]
        count = shape.vertex_count()
        points = [_gather(mi.Point3f, values["vertex_positions"], i) for i in index]
        texels = shape.has_vertex_texcoords() and dr.width(values["vertex_texcoords"]) == 2 * count
        uvs = [_gather(mi.Point2f, values["vertex_texcoords"], i) if texels else mi.Point2f(0) for i in index]
        smooth = shape.has_vertex_normals() and not shape.has_face_normals()
        smooth = smooth and dr.width(values["vertex_normals"]) == 3 * count
        if smooth:
            normals = [_gather(mi.Normal3f, values["vertex_normals"], i) for i in index]
    else:
        to_world = values["to_world"]
        square = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
        order = [[0, 0], [1, 2], [2, 3]]
        points, uvs = [], []
        for pair in order:
            x, y = (mi.Float([float(square[v][axis]) for v in pair]) for axis in (0, 1))
            points.append(mi.Point3f(to_world @ mi.Point3f(x, y, 0)))
            uvs.append(mi.Point2f(0.5 * x + 0.5, 0.5 * y + 0.5))
        smooth = False
    if not smooth:
        normal = dr.cross(points[1] - points[0], points[2] - points[0])
        normal *= dr.rcp(dr.maximum(dr.norm(normal), 1e-20))
        if rectangle:
            with dr.suspend_grad():
                true = shape.sample_position(0.0, mi.Point2f(0.5)).n
                sign = dr.select(dr.dot(dr.detach(normal), true) < 0, -1.0, 1.0)
            normal *= sign
        normals = [mi.Normal3f(normal)] * 3
    return [Corner(p, n, uv) for p, n, uv in zip(points, normals, uvs, strict=True)]


def _gather(kind: Any, flat: mi.Float, index: mi.UInt32) -> Any:
    size = dr.size_v(kind)
    return kind(*[dr.gather(mi.Float, flat, index * size + k) for k in range(size)])


def _column(film: FilmMap, corner: Corner) -> list[mi.Float]:
    x, y, w = film.homogeneous(corner.p)
    inverse = dr.rcp(w)
    depth = mi.Point3f(film.to_camera @ mi.Point3f(corner.p)).z
    width = dr.width(corner.p)
    values = [x * inverse, y * inverse, inverse, depth, *corner.p, *corner.n, *corner.uv]
    return [_wide(v, width) for v in values]


def _wide(value: Any, width: int) -> mi.Float:
    value = mi.Float(value)
    return value if dr.width(value) == width else value + dr.zeros(mi.Float, width)


def _clipped(film: FilmMap, corners: list[Corner]) -> list[tuple[list[Corner], mi.Bool]]:
    """What lies in front of the near plane, as two triangles per triangle, and which of them exist."""
    near = dr.maximum(film.near, SMALLEST_DEPTH)
    depth = [mi.Point3f(film.to_camera @ mi.Point3f(c.p)).z - near for c in corners]
    front = [d > 0 for d in depth]
    number = dr.select(front[0], 1, 0) + dr.select(front[1], 1, 0) + dr.select(front[2], 1, 0)
    # Turn the triangle so that the odd one out, of the three, comes first
    lone = lambda k: dr.select(number == 1, front[k], (number == 2) & ~front[k])
    turn = [dr.select(lone(1), 1, dr.select(lone(2), 2, 0)) == k for k in range(3)]

    def pick(values: list[Any], k: int) -> Any:
        a, b, c = values[k], values[(k + 1) % 3], values[(k + 2) % 3]
        return dr.select(turn[0], a, dr.select(turn[1], b, c))

    turned = [
        Corner(pick([c.p for c in corners], k), pick([c.n for c in corners], k), pick([c.uv for c in corners], k))
        for k in range(3)
    ]
    a, b, c = turned
    da, db, dc = (pick(depth, k) for k in range(3))

    def cut(end: Corner, d_end: mi.Float) -> Corner:
        crosses = (da > 0) != (d_end > 0)
        t = dr.select(crosses, da / dr.select(crosses, da - d_end, 1), 0)
        return mix([a, end], [1 - t, t])

    ab, ac = cut(b, db), cut(c, dc)
    choose = lambda mask, x, y: Corner(
        dr.select(mask, x.p, y.p), dr.select(mask, x.n, y.n), dr.select(mask, x.uv, y.uv)
    )
    whole, one, two = number == 3, number == 1, number == 2
    first = [choose(two, ab, a), choose(one, ab, b), choose(one, ac, c)]
    second = [ab, c, ac]
    return [(first, whole | one | two), (second, two)]


def _uniform_albedo(shape: mi.Shape, textured: bool) -> list[Any]:
    if textured or shape.bsdf() is None:
        return [0.0, 0.0, 0.0]
    si = dr.zeros(mi.SurfaceInteraction3f)
    si.wi = mi.Vector3f(0, 0, 1)
    return list(shape.bsdf().eval_diffuse_reflectance(si))


def _emission(shape: mi.Shape, name: str) -> list[Any]:
    emitter = shape.emitter()
    if emitter is None:
        return [0.0, 0.0, 0.0]
    if mi.has_flag(emitter.flags(), mi.EmitterFlags.SpatiallyVarying):
        raise UnsupportedGradient(
            f"{name} draws lamps of one colour, not textured ones", key=emitter.id(), remedy="use edge_sampling"
        )
    si = dr.zeros(mi.SurfaceInteraction3f)
    si.wi = mi.Vector3f(0, 0, 1)
    return list(emitter.eval(si))


def lamps(scene: mi.Scene, name: str) -> list[tuple[list[mi.Point3f], mi.Vector3f, mi.Float, mi.Color3f]]:
    """The triangles of every area light, attached: corners, normal on the emitting side, area, radiance."""
    found = []
    for shape in scene.shapes():
        if not shape.is_emitter():
            continue
        corners = shape_triangles(shape, name)
        points = [c.p for c in corners]
        normal = dr.cross(points[1] - points[0], points[2] - points[0])
        size = dr.norm(normal)
        normal *= dr.rcp(dr.maximum(size, 1e-20))
        with dr.suspend_grad():
            flip = dr.select(dr.dot(dr.detach(normal), dr.detach(corners[0].n)) < 0, -1.0, 1.0)
        found.append((points, mi.Vector3f(normal * flip), mi.Float(0.5 * size), mi.Color3f(*_emission(shape, name))))
    return found
