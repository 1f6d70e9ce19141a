"""Warp fields: a velocity of the integration domain that moves with what is visible (docs/theory/warped_area.md).

A field V over directions (or over the film) that is continuous and equals the velocity of every visibility boundary on
that boundary turns the boundary integral into the divergence of fV. Here V(ω) is the mean, over sets P of N auxiliary
directions drawn around ω, of Σ aᵢ Vᵢ: Vᵢ is the velocity of the surface point that direction i hits, aᵢ favours points
close to a silhouette of their own shape. The weights do not depend on ω, so V is the convolution of a bounded function
with a Gaussian: smooth, with a divergence that the score function of the Gaussian gives without bias for every N (W4).

Sources: Bangaru, Li, Durand 2020 (warped-area sampling); Loubet, Holzschuh, Jakob 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np

from .attached import FOLLOW
from .boundary.topology import build_edges
from .errors import UnsupportedGradient

NONE = 0xFFFFFFFF  # "no neighbour" in the table of edges
MESH, RECTANGLE, SPHERE, DISK, CYLINDER = 1, 2, 3, 4, 5
_KINDS = {"Rectangle": RECTANGLE, "Sphere": SPHERE, "Disk": DISK, "Cylinder": CYLINDER}


class Silhouettes:
    """How far a visible point is from the silhouette of its own shape, for the shapes of one scene.

    Raises:
        UnsupportedGradient: a shape whose silhouettes are not known here.
    """

    def __init__(self, scene: mi.Scene) -> None:
        shapes = scene.shapes()
        numbers = [int(dr.reinterpret_array(mi.UInt32, mi.ShapePtr(shape))[0]) for shape in shapes]
        kind = np.zeros(max(numbers, default=0) + 1, dtype=np.uint32)
        first_face = np.zeros_like(kind)
        self.meshes = [shape for shape in shapes if shape.is_mesh()]
        offset = 0
        for shape, number in zip(shapes, numbers, strict=True):
            if shape.is_mesh():
                kind[number], first_face[number] = MESH, offset
                offset += shape.face_count()
            elif shape.class_name() in _KINDS:
                kind[number] = _KINDS[shape.class_name()]
            else:
                raise UnsupportedGradient(
                    f"warped_area does not know the silhouettes of a {shape.class_name()}",
                    key=shape.id(),
                    remedy="use a mesh, rectangle, sphere, disk or cylinder, or finite_difference",
                )
        self.present = set(kind.tolist())
        self.kind, self.first_face = mi.UInt32(kind), mi.UInt32(first_face)
        if self.meshes:
            self._upload_faces()

    def _upload_faces(self) -> None:
        positions, faces, count = [], [], 0
        for mesh in self.meshes:
            positions.append(np.array(mesh.vertex_positions_buffer()).reshape(-1, 3))
            faces.append(np.array(mesh.faces_buffer()).reshape(-1, 3).astype(np.int64) + count)
            count += len(positions[-1])
        face = np.concatenate(faces)
        edges = build_edges(np.concatenate(positions), face)
        # Across each side of each face: the vertex opposite to it in the neighbouring face
        across = np.full((len(face), 3), NONE, dtype=np.uint32)
        pair = edges.faces == 2
        for here, opposite, there in (
            (edges.first_face, edges.opposite, edges.opposite_other),
            (edges.last_face, edges.opposite_other, edges.opposite),
        ):
            # the side of a face that lies opposite to its corner k is side k
            corner = np.argmax(face[here] == opposite[:, None], axis=1)
            across[here[pair], corner[pair]] = there[pair]
        degenerate = np.setdiff1d(np.arange(len(face)), np.concatenate([edges.first_face, edges.last_face]))
        across[degenerate] = NONE
        self.faces, self.across = mi.UInt32(face.ravel().astype(np.uint32)), mi.UInt32(across.ravel())

    def refresh(self) -> None:
        """Take over the current vertex positions."""
        if self.meshes:
            self.vertices = dr.concat([dr.detach(mesh.vertex_positions_buffer()) for mesh in self.meshes])

    def distance(self, si: mi.SurfaceInteraction3f, prim: mi.UInt32, o: mi.Point3f, active: mi.Bool) -> mi.Float:
        """Distance from a visible point to the silhouette of its shape, across the view from `o`, world units.

        Zero at silhouettes and open edges, positive inside; only that and the order of magnitude matter.
        """
        number = dr.reinterpret_array(mi.UInt32, si.shape)
        kind = dr.gather(mi.UInt32, self.kind, number, active)
        d = mi.Float(dr.inf)
        present = self.present
        if MESH in present:
            d = dr.select(kind == MESH, self._mesh(si, prim, number, o, active & (kind == MESH)), d)
        if RECTANGLE in present:
            corner = si.p - si.uv.x * si.dp_du - si.uv.y * si.dp_dv
            other = corner + si.dp_du + si.dp_dv
            sides = [_across_view(si.p, a, e, o) for a in (corner, other) for e in (si.dp_du, si.dp_dv)]
            d = dr.select(kind == RECTANGLE, _least(sides), d)
        if SPHERE in present:
            c = dr.dot(si.n, dr.normalize(si.p - o))
            radius = dr.norm(si.dp_dv) / dr.pi
            d = dr.select(kind == SPHERE, radius * (1 - dr.safe_sqrt(1 - c * c)), d)
        if DISK in present:
            rim = si.p + (1 - si.uv.x) * si.dp_du
            d = dr.select(kind == DISK, _across_view(si.p, rim, si.dp_dv, o), d)
        if CYLINDER in present:
            axis = dr.normalize(si.dp_dv)
            view = dr.normalize(si.p - o)
            c = dr.dot(si.n, dr.normalize(view - axis * dr.dot(view, axis)))
            radius = dr.norm(si.dp_du) / dr.two_pi
            caps = [_across_view(si.p, si.p + (k - si.uv.y) * si.dp_dv, si.dp_du, o) for k in (0, 1)]
            d = dr.select(kind == CYLINDER, _least([radius * (1 - dr.safe_sqrt(1 - c * c)), *caps]), d)
        return dr.select(active, dr.select(dr.isnan(d), 0, d), dr.inf)

    def is_sphere(self, si: mi.SurfaceInteraction3f, active: mi.Bool) -> mi.Bool:
        return dr.gather(mi.UInt32, self.kind, dr.reinterpret_array(mi.UInt32, si.shape), active) == SPHERE

    def _mesh(
        self, si: mi.SurfaceInteraction3f, prim: mi.UInt32, number: mi.UInt32, o: mi.Point3f, active: mi.Bool
    ) -> mi.Float:
        face = dr.gather(mi.UInt32, self.first_face, number, active) + prim
        corner = [dr.gather(mi.UInt32, self.faces, 3 * face + k, active) for k in range(3)]
        p = [dr.gather(mi.Point3f, self.vertices, index, active) for index in corner]
        distances = []
        for k in range(3):
            a, b, mine = p[(k + 1) % 3], p[(k + 2) % 3], p[k]
            index = dr.gather(mi.UInt32, self.across, 3 * face + k, active)
            paired = active & (index != NONE)
            other = dr.gather(mi.Point3f, self.vertices, index, paired)
            plane = dr.cross(a - o, b - o)
            same_side = dr.dot(plane, mine - o) * dr.dot(plane, other - o) >= 0
            distances.append(dr.select(~paired | same_side, _across_view(si.p, a, b - a, o), dr.inf))
        return _least(distances)


def _across_view(p: mi.Point3f, on_line: mi.Point3f, along: mi.Vector3f, o: mi.Point3f) -> mi.Float:
    """Distance of p from the plane that o and a line span."""
    normal = dr.cross(on_line - o, along)
    return dr.abs(dr.dot(normal, p - o)) / dr.norm(normal)


def _least(values: list[mi.Float]) -> mi.Float:
    least = values[0]
    for value in values[1:]:
        least = dr.fmin(least, value)
    return least


@dataclass
class Kernel:
    """How a field is averaged.

    Attributes:
        rays: N, auxiliary rays of one ring (at least 3); two mirrored rings are traced.
        reach: the distance from a silhouette, in radii of the kernel, over which points are preferred.
        exponent: γ of the weight (B + floor)^−γ.
        floor: the least B, which bounds the ratio of weights.
    """

    rays: int
    reach: float
    exponent: float
    floor: float = 1e-3

    def weight(self, distance: mi.Float) -> mi.Float:
        """Weight of a point at `distance` (in radii of the kernel) from the silhouette of its shape."""
        return (dr.fmin(distance / self.reach, 1) + self.floor) ** (-self.exponent)

    def pattern(self, lanes: int, seed: mi.UInt32) -> tuple[mi.UInt32, mi.Vector2f, mi.Float, mi.Vector2f]:
        """Auxiliary offsets of every lane: a ring of N around a random centre, then the mirror image of both.

        The centre has the density (3/π) (1 − r²)² on the unit disk. The ring is so wide that its polygon contains the
        middle of the disk wherever its centre is: a straight silhouette through the middle has points on both sides.

        Args:
            seed: a random number per lane.

        Returns:
            (lane of every auxiliary ray, centre, 1 − r², offset from the centre): 2 N entries a lane, lane after lane.
        """
        k = dr.arange(mi.UInt32, lanes * 2 * self.rays)
        lane = k // (2 * self.rays)
        i = k - lane * (2 * self.rays)
        a, b = mi.sample_tea_32(dr.gather(mi.UInt32, seed, lane), lane, 6)
        c, _ = mi.sample_tea_32(a, b, 6)
        u, v, w = (mi.Float(x >> 8) * 2**-24 for x in (a, b, c))
        rest = (1 - u) ** (1 / 3)  # 1 − r²
        sign = dr.select(i < self.rays, mi.Float(1), mi.Float(-1))
        s, c = dr.sincos(dr.two_pi * v)
        centre = mi.Vector2f(c, s) * dr.safe_sqrt(1 - rest) * sign
        s, c = dr.sincos(dr.two_pi * (w + mi.Float(i) / self.rays))
        return lane, centre, rest, mi.Vector2f(c, s) * (sign / np.cos(np.pi / self.rays))

    def mean(self, w: mi.Float, score: Any, value: Any) -> tuple[Any, mi.Float]:
        """Mean field of the two mirrored rings and its divergence (W3, W4).

        Args:
            w: weight of every auxiliary ray (detached).
            score: gradient, at the middle, of the log density of its ring's centre (detached).
            value: attached velocity at every ray.

        Returns:
            (V, div V), one entry per lane.
        """
        ring = dr.arange(mi.UInt32, dr.width(w)) // self.rays
        a = w / dr.gather(mi.Float, dr.block_reduce(dr.ReduceOp.Add, w, self.rays), ring)
        dr.eval(a, score)
        add = lambda x: 0.5 * dr.block_reduce(dr.ReduceOp.Add, x, 2 * self.rays)
        return type(value)(*[add(a * v) for v in value]), add(a * dr.dot(score, value))


def direction_field(
    scene: mi.Scene,
    silhouettes: Silhouettes,
    kernel: Kernel,
    radius: mi.Float,
    seed: mi.UInt32,
    si: mi.SurfaceInteraction3f,
    d: mi.Vector3f,
    active: mi.Bool,
) -> tuple[mi.Vector3f, mi.Float]:
    """Velocity of directions at a surface point and its divergence; both have value zero and derivatives.

    Args:
        radius: largest distance of a ring's centre from its direction, radians.
        seed: a random number per lane.
        si: attached surface point.
        d: detached directions.
    """
    with dr.suspend_grad():
        lane, centre, rest, offset = kernel.pattern(dr.width(d), seed)
        middle = dr.gather(mi.Vector3f, d, lane)
        to_centre = _displaced(middle, radius * centre)
        score = 4 * (to_centre - middle * dr.dot(middle, to_centre)) / (dr.square(radius) * rest) - 2 * middle
        spawned = dr.detach(si).spawn_ray(d)
        ray = mi.Ray3f(dr.gather(mi.Point3f, spawned.o, lane), _displaced(to_centre, radius * offset))
        on = dr.gather(mi.Bool, active, lane)
    with dr.resume_grad():
        hit, shift, t, distance = hit_points(scene, silhouettes, ray, on)
        origin = mi.Vector3f(si.p - dr.detach(si.p)) + dr.zeros(mi.Vector3f, dr.width(d))
        shift -= dr.gather(mi.Vector3f, origin, lane)
        shift -= ray.d * dr.dot(ray.d, shift)
        velocity = dr.select(hit, shift / t, 0)
        with dr.suspend_grad():
            w = kernel.weight(distance / (t * radius))
        return kernel.mean(w, score, velocity)


def _displaced(d: mi.Vector3f, offset: mi.Vector2f) -> mi.Vector3f:
    """The direction at chord length |offset| from d; uniform offsets give uniform solid angles."""
    r2 = dr.squared_norm(offset)
    s, t = mi.coordinate_system(d)
    return dr.normalize((1 - 0.5 * r2) * d + dr.safe_sqrt(1 - 0.25 * r2) * (offset.x * s + offset.y * t))


def hit_points(
    scene: mi.Scene, silhouettes: Silhouettes, ray: mi.Ray3f, active: mi.Bool = True
) -> tuple[mi.Bool, mi.Vector3f, mi.Float, mi.Float]:
    """What auxiliary rays hit.

    Args:
        ray: detached rays.

    Returns:
        (whether anything is hit, displacement of the point hit (value zero, attached), distance along the ray,
        distance to the silhouette).
    """
    with dr.suspend_grad():
        pi = scene.ray_intersect_preliminary(ray, coherent=False, active=active)
        hit = pi.is_valid()
        si_fixed = pi.compute_surface_interaction(ray, mi.RayFlags.All, hit)
        distance = silhouettes.distance(si_fixed, pi.prim_index, ray.o, hit)
        t = dr.select(hit, pi.t, 1)
        sphere = silhouettes.is_sphere(si_fixed, hit)
        outward = dr.sign(-dr.dot(si_fixed.n, dr.cross(si_fixed.dp_du, si_fixed.dp_dv)))
        radius = outward * dr.norm(si_fixed.dp_dv) / dr.pi
    si = pi.compute_surface_interaction(ray, FOLLOW, hit)
    shift = si.p - dr.detach(si.p)
    # A sphere that turns keeps its silhouette: what counts is how its centre and its radius move
    turn = radius * mi.Vector3f(si.n - dr.detach(si.n))
    shift = mi.Vector3f(dr.select(sphere, shift - turn, shift))
    return hit, dr.select(hit, shift, mi.Vector3f(0)), t, distance
