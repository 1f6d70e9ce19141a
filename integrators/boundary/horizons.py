"""Boundary term of the curves on meshes with interpolated normals where the shading normal turns away from the eye.

There the shading cosine N · w of the direction w to the eye changes sign, and with it a BSDF drops to zero, or to that
of the other side. No edge lies there. In a triangle with corners v_i and normals n_i, seen from o,

    F(b, θ) = Σ_i b_i n_i · (o − Σ_j b_j v_j) = 0                                                         (E15)

is a conic in the barycentric coordinates b: a line meets it in at most two points, found in closed form. By Crofton's
formula, for lines of the film at a uniform angle and a uniform place across the triangle, which is W wide there,

    ∫_Γ g dl = E[ Σ_points  π W g / 2 ] ,                                                                 (E16)

and (E4) holds with g = h_j ΔL n · u̇. The curve slides over the triangle while F changes: with G the gradient of F on
it, the point that stays on the curve moves with ẋ = Σ b_i v̇_i − G Ḟ / |G|², b fixed in Ḟ.

Source: design of this project.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np

from .beside import Beside
from .camera import FilmMap
from .deliver import tangent_of
from .device import upload
from .distribution import Discrete
from .estimate import Contribution, estimate
from .film import FilmSplat
from .guiding import Numbers
from .layers import behind, missed, transparent
from .primary import jump_across, side_distance
from .view import View


def smooth_meshes(scene: mi.Scene) -> list[mi.Mesh]:
    """The meshes whose normals are interpolated."""
    meshes = (shape for shape in scene.shapes() if shape.is_mesh() and shape.face_count() > 0)
    return [mesh for mesh in meshes if mesh.has_vertex_normals() and not mesh.has_face_normals()]


class SmoothFaces:
    """The corners of all triangles with interpolated normals; on the device, for recorded steps.

    Args:
        meshes: `smooth_meshes` of a scene.

    Attributes:
        size: number of triangles.
    """

    def __init__(self, meshes: list[mi.Mesh]) -> None:
        first, faces = 0, [np.zeros((0, 3), np.int64)]
        for mesh in meshes:
            faces.append(np.array(mesh.faces_buffer(), dtype=np.int64).reshape(-1, 3) + first)
            first += mesh.vertex_count()
        joined = np.concatenate(faces)
        self.size = len(joined)
        self.corners = upload(mi.UInt32, joined.ravel())


@dataclass
class Triangle:
    """Triangles, attached: corners and the normals there."""

    v: list[mi.Point3f]
    n: list[mi.Vector3f]

    def point(self, b: mi.Vector3f) -> mi.Point3f:
        """The point with barycentric coordinates b."""
        return mi.Point3f(self.v[0] * b[0] + self.v[1] * b[1] + self.v[2] * b[2])

    def facing(self, b: mi.Vector3f, view: View) -> mi.Float:
        """F of (E15), for an eye that is a point or, at infinity, a direction."""
        normal = self.n[0] * b[0] + self.n[1] * b[1] + self.n[2] * b[2]
        return -dr.dot(normal, view.toward(self.point(b)))

    def forms(self, view: View) -> list[list[mi.Float]]:
        """F as a quadratic form: F = Σ_ij b_i b_j forms_ij, symmetric."""
        raw = [[-dr.dot(n, view.toward(v)) for v in self.v] for n in self.n]
        return [[0.5 * (raw[i][j] + raw[j][i]) for j in range(3)] for i in range(3)]


class Horizons:
    """The triangles of a scene on which the shading normal may turn away from a viewpoint.

    Args:
        meshes: `smooth_meshes` of the scene.
        faces: their corners.
    """

    def __init__(self, meshes: list[mi.Mesh], faces: SmoothFaces) -> None:
        self.faces = faces
        join = lambda buffers: buffers[0] if len(buffers) == 1 else dr.concat(buffers)
        self.positions = join([mesh.vertex_positions_buffer() for mesh in meshes])
        self.normals = join([mesh.vertex_normals_buffer() for mesh in meshes])

    def triangle(self, index: mi.UInt32) -> Triangle:
        """Triangles by number."""
        corner = [dr.gather(mi.UInt32, self.faces.corners, 3 * index + i) for i in range(3)]
        v = [dr.gather(mi.Point3f, self.positions, c) for c in corner]
        n = [dr.gather(mi.Vector3f, self.normals, c) for c in corner]
        return Triangle(v, n)

    def weights(self, camera: FilmMap, film: FilmSplat) -> mi.Float:
        """(triangles,) size on the film of those that may hold a part of the curve.

        A quadratic form whose coefficients in the Bernstein basis have one sign has no zero in the triangle.
        """
        index = dr.arange(mi.UInt32, self.faces.size)
        triangle = self.triangle(index)
        q = [camera.project(v, mi.Point2f(0)) for v in triangle.v]
        low = mi.Point2f(dr.minimum(dr.minimum(q[0], q[1]), q[2]))
        high = mi.Point2f(dr.maximum(dr.maximum(q[0], q[1]), q[2]))
        size = mi.Vector2f(high - low)
        candidate = camera.in_front(triangle.v[0]) & camera.in_front(triangle.v[1]) & camera.in_front(triangle.v[2])
        if not camera.needs_aperture:
            form = triangle.forms(camera.view())
            all_of = [form[i][j] for i in range(3) for j in range(i, 3)]
            least, most = all_of[0], all_of[0]
            for value in all_of[1:]:
                least, most = dr.minimum(least, value), dr.maximum(most, value)
            candidate &= (least < 0) & (most > 0)
            candidate &= (high.x > film.low.x) & (low.x < film.high.x) & (high.y > film.low.y) & (low.y < film.high.y)
        frame = 2 * (film.high.x - film.low.x + film.high.y - film.low.y)
        return dr.select(candidate, dr.minimum(size.x + size.y, frame), 0)


def chord(
    triangle: Triangle, camera: FilmMap, lens: mi.Point2f | None, angle: mi.Float, number: mi.Float
) -> tuple[mi.Vector3f, mi.Vector3f, mi.Float]:
    """A line of the film across a triangle.

    Args:
        angle: direction of the line's normal.
        number: (N,) in [0, 1), its place.

    Returns:
        Barycentric coordinates of the two points where it enters and leaves, and how wide the triangle is across it.
    """
    sin, cos = dr.sincos(angle)
    corners = [camera.homogeneous(v, lens) for v in triangle.v]
    at = [(cos * x + sin * y) / w for x, y, w in corners]
    low, high = dr.minimum(dr.minimum(at[0], at[1]), at[2]), dr.maximum(dr.maximum(at[0], at[1]), at[2])
    place = dr.lerp(low, high, number)
    # On which side of the line, in homogeneous coordinates: linear on the triangle itself
    g = [(s - place) * w for s, (_, _, w) in zip(at, corners, strict=True)]
    ends = [mi.Vector3f(1, 0, 0), mi.Vector3f(1, 0, 0)]
    found = mi.Bool(False)
    unit = [mi.Vector3f(1, 0, 0), mi.Vector3f(0, 1, 0), mi.Vector3f(0, 0, 1)]
    for i, j in ((0, 1), (1, 2), (2, 0)):
        crossed = (g[i] < 0) != (g[j] < 0)
        point = dr.lerp(unit[i], unit[j], g[i] / (g[i] - g[j]))
        ends[1] = dr.select(crossed & found, point, ends[1])
        ends[0] = dr.select(crossed & ~found, point, ends[0])
        found |= crossed
    return ends[0], ends[1], high - low


def zero_on(
    form: list[list[mi.Float]], a: mi.Vector3f, b: mi.Vector3f, number: mi.Float
) -> tuple[mi.Vector3f, mi.Float]:
    """A zero of a quadratic form between two points, and how many there are (of two, one is picked)."""
    times = lambda x, y: sum(x[i] * form[i][j] * y[j] for i in range(3) for j in range(3))
    # In the Bernstein basis: c0 (1 − t)² + 2 c1 t (1 − t) + c2 t²
    c0, c1, c2 = times(a, a), times(a, b), times(b, b)
    second, first = c0 - 2 * c1 + c2, c1 - c0
    root = dr.safe_sqrt(dr.square(first) - second * c0)
    real = dr.square(first) >= second * c0
    larger = -(first + dr.mulsign(root, first))  # without cancellation
    t = larger / second, c0 / larger
    inside = [real & (x >= 0) & (x <= 1) for x in t]
    count = dr.select(inside[0], 1.0, 0.0) + dr.select(inside[1], 1.0, 0.0)
    take_first = inside[0] & (~inside[1] | (number < 0.5))
    return dr.lerp(a, b, dr.select(take_first, t[0], t[1])), dr.select(dr.isfinite(count), count, 0)


def horizon_term(
    integrator: Any,
    mode: dr.ADMode,
    scene: mi.Scene,
    horizons: Horizons,
    sensor: mi.Sensor,
    seed: Any,
    spp: int,
    grad_in: mi.TensorXf | None,
) -> mi.TensorXf | None:
    """One launch of (E16).

    Args:
        horizons: attached.
        spp: samples per pixel of the crop, spread over the triangles.
        grad_in: adjoint image in backward mode.

    Returns:
        The derivative image in forward mode.
    """
    film, camera = FilmSplat(sensor, integrator.aovs.names), FilmMap(sensor)
    see_through = transparent(scene) or integrator.hide_emitters

    def evaluate(numbers: Numbers) -> Contribution:
        index, number, probability = where.sample(numbers.place)
        random = numbers.random
        lens = camera.lens(random)
        triangle = horizons.triangle(index)
        view = camera.view(lens)
        start, end, width = chord(triangle, camera, lens, dr.pi * random.next_1d(), number)
        b, count = zero_on(triangle.forms(view), start, end, random.next_1d())
        active = (probability > 0) & (count > 0)

        p = triangle.point(b)
        n = dr.normalize(
            dr.cross(mi.Vector3f(triangle.v[1] - triangle.v[0]), mi.Vector3f(triangle.v[2] - triangle.v[0]))
        )
        gradient = slope(triangle, b, n, view)
        du = camera.project_tangent(p, dr.cross(n, gradient), lens)
        normal = dr.normalize(mi.Vector2f(du.y, -du.x))
        u = camera.project(p, lens)
        active &= film.inside(u) & camera.in_front(p) & dr.isfinite(normal.x) & dr.isfinite(normal.y)
        with dr.resume_grad():
            attached = horizons.triangle(index)
            facing = attached.facing(b, camera.attached_view(lens))
            x = mi.Point3f(attached.point(b) - gradient * (facing / dr.squared_norm(gradient)))
            drift = integrator.film_velocity(scene, sensor, u, lens, random)
            motion = dr.dot(normal, mi.Vector2f(camera.project(x, lens)) - drift)
            motion = dr.select(active & dr.isfinite(motion), motion, 0)
        at, beyond = u, lambda ray: (ray, active)
        if see_through:
            ray = mi.Ray3f(dr.detach(camera.ray(u, lens)[0]))
            most, hidden = integrator.max_depth, integrator.hide_emitters
            miss, layers = missed(scene, ray, p, most, hidden, active)
            at = mi.Point2f(u + camera.project_tangent(p, miss, lens))
            beyond = lambda ray: behind(scene, ray, layers, hidden, active)
        active &= turns_away(scene, camera, film, u, normal, lens, beyond)
        weight = dr.select(active, 0.5 * dr.pi * width * count / (probability * numbers.density), 0)
        tangent = tangent_of(mode, motion)
        dr.eval(u, at, normal, weight, active, numbers.cell, random, tangent)
        ε = side_distance(film)
        sides = Beside.neither(-ε * normal, ε * normal)
        jump = jump_across(integrator, scene, camera, at, lens, sides, random, active)
        return Contribution(u, motion, weight=weight, tangent=tangent, **jump)

    with dr.suspend_grad():
        where = Discrete(horizons.weights(camera, film))
        memory = integrator.memory("horizon")
        return estimate(evaluate, mode, film, seed, film.pixels * spp, where, False, memory, grad_in)


def slope(triangle: Triangle, b: mi.Vector3f, n: mi.Vector3f, view: View) -> mi.Vector3f:
    """G: the gradient of F on the triangle, in world space."""
    e1, e2 = mi.Vector3f(triangle.v[1] - triangle.v[0]), mi.Vector3f(triangle.v[2] - triangle.v[0])
    form = triangle.forms(view)
    partial = [2 * sum(form[i][j] * b[j] for j in range(3)) for i in range(3)]
    area = dr.norm(dr.cross(e1, e2))
    # Reciprocal vectors of the two sides
    r1, r2 = dr.cross(e2, n) / area, dr.cross(n, e1) / area
    return mi.Vector3f(r1 * (partial[1] - partial[0]) + r2 * (partial[2] - partial[0]))


def turns_away(
    scene: mi.Scene,
    camera: FilmMap,
    film: FilmSplat,
    u: mi.Point2f,
    normal: mi.Vector2f,
    lens: mi.Point2f | None,
    beyond: Callable[[mi.Ray3f], tuple[mi.Ray3f, mi.Bool]],
) -> mi.Bool:
    """Whether the camera sees the shading normal turn away between the two sides of a curve point.

    Not if the surface ends within the distance of the sides: then its silhouette shows the whole jump.

    Args:
        beyond: the part of a ray behind as many layers as are in front of the point, and whether there are so many.
    """
    ε = side_distance(film)
    sides = []
    for step in (-ε, ε):
        ray = camera.ray(mi.Point2f(u + step * normal), lens)[0]
        ray, active = beyond(mi.Ray3f(dr.detach(ray)))
        hit = scene.ray_intersect_preliminary(ray, coherent=False, active=active)
        si = hit.compute_surface_interaction(ray, mi.RayFlags.ShadingFrame | mi.RayFlags.Minimal, active)
        sides.append((active & si.is_valid(), dr.dot(si.sh_frame.n, ray.d) > 0, si.shape))
    (a, a_away, a_shape), (b, b_away, b_shape) = sides
    return a & b & (a_away != b_away) & (a_shape == b_shape)
