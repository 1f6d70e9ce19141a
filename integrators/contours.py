"""Silhouettes between two rays: where the surface that one ray hits ends on the way to another (theory, section 3).

A warp field needs, next to a silhouette, the silhouette's own velocity. Auxiliary rays hit surfaces, not silhouettes;
so from the point that ray i hits one walks over the surface, in the plane of the rays i and j, until the surface folds
away from the eye or ends. Meshes are walked triangle by triangle over welded edges; analytic shapes have closed forms.
The result is a point that follows the silhouette, attached, and the silhouette's direction there.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np

from .boundary.contact import Parts, meshes_in_parts
from .boundary.device import upload
from .boundary.tables import topology_key
from .boundary.topology import build_edges
from .errors import UnsupportedGradient

NONE = 0xFFFFFFFF  # "no neighbour" in the table of edges
MESH, RECTANGLE, SPHERE, DISK, CYLINDER = 1, 2, 3, 4, 5
_KINDS = {"Rectangle": RECTANGLE, "Sphere": SPHERE, "Disk": DISK, "Cylinder": CYLINDER}
#: Triangles that one walk may cross; a finer mesh than that, per width of the kernel, is followed only in part.
STEPS = 24
#: Weight of a crease, whose velocity matters less the smaller its jump is, next to that of a silhouette.
CREASE = 1e-2


@dataclass
class Walk:
    """From a ray towards a neighbour, in the plane of both; all detached.

    Attributes:
        number, prim: shape (index of the registry) and primitive that the first ray hits.
        o, d: the first ray.
        step_o, step_d: what origin and direction of the neighbour differ by.
        t: distance of the hit.
        active: walks to make.
    """

    number: mi.UInt32
    prim: mi.UInt32
    o: mi.Point3f
    d: mi.Vector3f
    step_o: mi.Vector3f
    step_d: mi.Vector3f
    t: mi.Float
    active: mi.Bool

    def __post_init__(self) -> None:
        across = self.step_o + self.t * self.step_d
        across -= self.d * dr.dot(self.d, across)
        self.across = dr.normalize(across)
        self.normal = dr.cross(self.d, self.across)
        self._o, self._d = dr.dot(self.step_o, self.across), dr.dot(self.step_d, self.across)

    def fraction(self, x: mi.Point3f) -> mi.Float:
        """How far a point of the plane is on the way from the first ray (0) to the neighbour (1).

        Behind the eye it is infinitely far, on either side: no ray between the two gets there.
        """
        q = x - self.o
        ahead = dr.dot(q, self.d)
        across = dr.dot(q, self.across)
        return dr.select(ahead > 0, across / (self._o + ahead * self._d), dr.copysign(mi.Float(dr.inf), across))

    def height(self, x: mi.Point3f) -> mi.Float:
        """Distance of a point from the plane."""
        return dr.dot(self.normal, x - self.o)


@dataclass
class Crossing:
    """Where a walk meets a silhouette (or, failing that, a crease); all detached.

    Attributes:
        weight: 1 for a silhouette, `CREASE` for a crease, 0 where there is neither.
        fraction: how far on the way.
        point: on the silhouette.
        tangent: along it.
        anchor: what carries the point: a corner of a mesh, or the row of another shape in the table of frames.
        other: the other end of a mesh's edge; `NONE` says that it is no mesh.
        mix: place on the edge (x), or the coordinates (x, y, z) in the frame of the shape.
        limb: direction in which the point lies a radius away from those coordinates.
    """

    weight: mi.Float
    fraction: mi.Float
    point: mi.Point3f
    tangent: mi.Vector3f
    anchor: mi.UInt32
    other: mi.UInt32
    mix: mi.Vector3f
    limb: mi.Vector3f

    def update(self, other: Crossing, where: mi.Bool) -> None:
        """Take over the other one's entries where the mask holds."""
        for field in fields(self):
            mine = getattr(self, field.name)
            setattr(self, field.name, type(mine)(dr.select(where, getattr(other, field.name), mine)))


def contours_key(scene: mi.Scene) -> tuple[Any, ...]:
    """Changes when a shape is added, removed, or a mesh gets other faces, while the `Contours` of before are alive."""
    shapes = scene.shapes()
    return topology_key([s for s in shapes if s.is_mesh()], [s for s in shapes if not s.is_mesh()])


class Contours:
    """The silhouettes of all shapes of a scene, for walks.

    Raises:
        UnsupportedGradient: a shape whose silhouettes are not known here.
    """

    def __init__(self, scene: mi.Scene) -> None:
        self.key, shapes = contours_key(scene), scene.shapes()
        self._alive = shapes, [s.faces_buffer() for s in shapes if s.is_mesh()]  # else keys could recur
        numbers = [int(dr.reinterpret_array(mi.UInt32, mi.ShapePtr(shape))[0]) for shape in shapes]
        kind = np.zeros(max(numbers, default=0) + 1, dtype=np.uint32)
        first = np.zeros_like(kind)  # first face of a mesh, row of the table of frames of any other shape
        self.meshes = [shape for shape in shapes if shape.is_mesh()]
        self.others = [shape for shape in shapes if not shape.is_mesh()]
        faces = rows = 0
        for shape, number in zip(shapes, numbers, strict=True):
            if shape.is_mesh():
                kind[number], first[number] = MESH, faces
                faces += shape.face_count()
            elif shape.class_name() in _KINDS:
                kind[number], first[number] = _KINDS[shape.class_name()], rows
                rows += 1
            else:
                raise UnsupportedGradient(
                    f"warped_area does not know the silhouettes of a {shape.class_name()}",
                    key=shape.id(),
                    remedy="use a mesh, rectangle, sphere, disk or cylinder, or edge_sampling, or finite_difference",
                )
        self.present = set(kind.tolist())
        self.kind, self.first = upload(mi.UInt32, kind), upload(mi.UInt32, first)
        self.faces, self.twin, self.jump = mi.UInt32(), mi.UInt32(), mi.Bool()
        self.parts: list[Parts] = []
        if self.meshes:
            self._upload_faces()

    def _upload_faces(self) -> None:
        positions, faces, owner, count = [], [], [], 0
        for k, mesh in enumerate(self.meshes):
            positions.append(np.array(mesh.vertex_positions_buffer()).reshape(-1, 3))
            faces.append(np.array(mesh.faces_buffer()).reshape(-1, 3).astype(np.int64) + count)
            owner.append(np.full(len(faces[-1]), k))
            count += len(positions[-1])
        face = np.concatenate(faces)
        smooth = np.array([bool(mesh.has_vertex_normals()) for mesh in self.meshes])
        edges = build_edges(np.concatenate(positions), face, np.concatenate(owner), smooth)
        self.parts = meshes_in_parts(self.meshes, edges.surface)
        # Side k of a face lies opposite to its corner k; a pair of sides is one edge
        corner_first = np.argmax(face[edges.first_face] == edges.opposite[:, None], axis=1)
        corner_last = np.argmax(face[edges.last_face] == edges.opposite_other[:, None], axis=1)
        side_first, side_last = 3 * edges.first_face + corner_first, 3 * edges.last_face + corner_last
        pair = edges.faces == 2
        twin = np.full(3 * len(face), NONE, dtype=np.uint32)
        twin[side_first[pair]], twin[side_last[pair]] = side_last[pair], side_first[pair]
        jump = np.ones(3 * len(face), dtype=bool)
        jump[side_first[edges.smooth]] = jump[side_last[edges.smooth]] = False
        self.faces, self.twin = upload(mi.UInt32, face.ravel().astype(np.uint32)), upload(mi.UInt32, twin)
        self.jump = upload(mi.UInt32, jump.astype(np.uint32)) != 0
        dr.eval(self.jump)

    def refresh(self) -> None:
        """Take over the current geometry, with its derivatives."""
        with dr.resume_grad():
            if self.meshes:
                buffers = [mesh.vertex_positions_buffer() for mesh in self.meshes]
                self.vertices = buffers[0] if len(buffers) == 1 else dr.concat(buffers)
            if self.others:
                rows = []
                for shape in self.others:
                    m = mi.traverse(shape)["to_world"].matrix
                    rows += [mi.Float(m[r, c]) for c in (3, 0, 1, 2) for r in range(3)]
                self.frames = dr.concat([dr.ravel(x) for x in rows])

    def kinds(self, number: mi.UInt32, active: mi.Bool) -> mi.UInt32:
        return dr.gather(mi.UInt32, self.kind, number, active)

    def crossing(self, walk: Walk) -> Crossing:
        """The first silhouette on each walk."""
        width = dr.width(walk.d)
        with dr.suspend_grad():
            result = _met(dr.zeros(mi.Float, width), mi.Float(0), mi.Point3f(0), mi.Vector3f(0))
            kind = self.kinds(walk.number, walk.active)
            row = dr.gather(mi.UInt32, self.first, walk.number, walk.active)
            if MESH in self.present:
                here = walk.active & (kind == MESH)
                result.update(self._mesh(walk, row, here), here)
            for which, find in (
                (RECTANGLE, self._rectangle), (DISK, self._disk), (SPHERE, self._sphere), (CYLINDER, self._cylinder)
            ):  # fmt: skip
                if which in self.present:
                    here = walk.active & (kind == which)
                    frame = [dr.gather(mi.Vector3f, dr.detach(self.frames), 4 * row + k, here) for k in range(4)]
                    found = find(walk, frame)
                    found.anchor = row
                    result.update(found, here)
        return result

    def follow(self, crossing: Crossing) -> mi.Point3f:
        """The points of crossings, attached: each moves as its silhouette does."""
        point = mi.Point3f(crossing.point)
        on_mesh = crossing.other != NONE
        found = crossing.weight > 0
        if self.meshes:
            here = found & on_mesh
            a, b = (self._corner(index, here) for index in (crossing.anchor, crossing.other))
            point = dr.select(here, a + crossing.mix.x * (b - a), point)
        if self.others:
            here = found & ~on_mesh
            c, x, y, z = (dr.gather(mi.Vector3f, self.frames, 4 * crossing.anchor + k, here) for k in range(4))
            m = crossing.mix
            place = c + m.x * x + m.y * y + m.z * z + dr.norm(dr.select(here, x, 1)) * crossing.limb
            point = dr.select(here, place, point)
        return mi.Point3f(point)

    def stay(self, pi: mi.PreliminaryIntersection3f, p: mi.Point3f, active: mi.Bool) -> mi.Point3f:
        """The points of surfaces that rays hit, attached: each keeps its place on its shape.

        Not through the shapes' own methods: a virtual call must not meet parameters that other curves hold outside.

        Args:
            pi: (N,) what was hit.
            p: (N,) where; detached.
        """
        number = dr.reinterpret_array(mi.UInt32, pi.shape)
        kind, row = self.kinds(number, active), dr.gather(mi.UInt32, self.first, number, active)
        point = mi.Vector3f(p)
        if self.meshes:
            here = active & (kind == MESH)
            at = 3 * (row + pi.prim_index)
            a, b, c = (self._corner(dr.gather(mi.UInt32, self.faces, at + k, here), here) for k in range(3))
            on_face = a + pi.prim_uv.x * (b - a) + pi.prim_uv.y * (c - a)
            point = dr.select(here, mi.Vector3f(on_face), point)
        if self.others:
            here = active & (kind != MESH)
            c, x, y, z = (dr.gather(mi.Vector3f, self.frames, 4 * row + k, here) for k in range(4))
            with dr.suspend_grad():
                r = dr.rcp(dr.dot(x, dr.cross(y, z)))
                q = mi.Vector3f(p) - c
                m = mi.Vector3f(dr.dot(q, dr.cross(y, z)), dr.dot(q, dr.cross(z, x)), dr.dot(q, dr.cross(x, y))) * r
            point = dr.select(here, c + m.x * x + m.y * y + m.z * z, point)
        return mi.Point3f(point)

    def may_fold(self, number: mi.UInt32, active: mi.Bool) -> mi.Bool:
        """Whether two rays may meet a shape on the same primitive with a silhouette between them."""
        return active & (self.kinds(number, active) == CYLINDER)

    # ------------------------------------------------------------------ meshes

    def _corner(self, index: mi.UInt32, active: mi.Bool) -> mi.Point3f:
        return dr.gather(mi.Point3f, self.vertices, index, active)

    def _mesh(self, walk: Walk, first: mi.UInt32, active: mi.Bool) -> Crossing:
        side, fraction, share, weight = self._walk(walk, first, active)
        found = active & (weight > 0)
        face, corner = side // 3, side % 3
        i, j = (dr.gather(mi.UInt32, self.faces, 3 * face + (corner + k) % 3, found) for k in (1, 2))
        a, b = dr.detach(self._corner(i, found)), dr.detach(self._corner(j, found))
        met = _met(weight, fraction, mi.Point3f(a + share * (b - a)), b - a, mi.Vector3f(share, 0, 0))
        met.anchor, met.other = i, j
        return met

    @dr.syntax
    def _walk(self, walk: Walk, first: mi.UInt32, active: mi.Bool) -> tuple[mi.UInt32, mi.Float, mi.Float, mi.Float]:
        """Cross triangle after triangle: (side met, fraction of the way, place on the side, weight)."""
        face = mi.UInt32(first + walk.prim)
        entry = mi.UInt32(3)  # the side through which the face was entered
        side, fraction, share, weight = mi.UInt32(0), mi.Float(0), mi.Float(0), mi.Float(0)
        going = mi.Bool(active)
        steps = mi.UInt32(0)
        while going:
            p = [self._corner(dr.gather(mi.UInt32, self.faces, 3 * face + k, going), going) for k in range(3)]
            h = [walk.height(x) for x in p]
            best, place, out = mi.Float(-dr.inf), mi.Float(0), mi.UInt32(3)
            a, b, mine = mi.Point3f(0), mi.Point3f(0), mi.Point3f(0)
            for k in range(3):
                i, j = (k + 1) % 3, (k + 2) % 3
                at = h[i] / (h[i] - h[j])
                s = walk.fraction(mi.Point3f(p[i] + at * (p[j] - p[i])))
                better = ((h[i] < 0) != (h[j] < 0)) & (entry != k) & (s > best)
                best, place, out = dr.select(better, s, best), dr.select(better, at, place), dr.select(better, k, out)
                a, b = dr.select(better, p[i], a), dr.select(better, p[j], b)
                mine = dr.select(better, p[k], mine)
            going &= (out < 3) & (best <= 1)
            twin = dr.gather(mi.UInt32, self.twin, 3 * face + out, going)
            paired = going & (twin != NONE)
            other = self._corner(dr.gather(mi.UInt32, self.faces, twin, paired), paired)
            eye = walk.o + best * walk.step_o
            plane = dr.cross(a - eye, b - eye)
            fold = dr.dot(plane, mine - eye) * dr.dot(plane, other - eye) >= 0
            silhouette = going & (~paired | fold)
            n, m = dr.cross(b - a, mine - a), dr.cross(b - a, other - a)
            flat = dr.square(dr.dot(n, m)) > (1 - 1e-6) * dr.squared_norm(n) * dr.squared_norm(m)
            crease = going & ~silhouette & ~flat & dr.gather(mi.Bool, self.jump, 3 * face + out, going)
            met = silhouette | crease
            side, fraction = dr.select(met, 3 * face + out, side), dr.select(met, best, fraction)
            share = dr.select(met, place, share)
            weight = dr.select(silhouette, 1, dr.select(crease, CREASE, weight))
            going &= ~silhouette & (steps < STEPS)
            entry = dr.select(going, twin % 3, entry)
            face = dr.select(going, twin // 3, face)
            steps += 1
        return side, fraction, share, weight

    # --------------------------------------------------------- analytic shapes

    @staticmethod
    def _rectangle(walk: Walk, frame: list[Any]) -> Crossing:
        c, x, y = mi.Point3f(frame[0]), frame[1], frame[2]
        signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
        result = _met(mi.Float(0), mi.Float(-dr.inf), mi.Point3f(0), mi.Vector3f(0))
        for (i, j), (k, l) in zip(signs, (*signs[1:], signs[0]), strict=True):
            a, b = mi.Point3f(c + i * x + j * y), mi.Point3f(c + k * x + l * y)
            h, g = walk.height(a), walk.height(b)
            at = h / (h - g)
            point = mi.Point3f(a + at * (b - a))
            s = walk.fraction(point)
            better = ((h < 0) != (g < 0)) & (s > result.fraction)
            mix = mi.Vector3f(i + at * (k - i), j + at * (l - j), 0)
            result.update(_met(dr.select(s <= 1, mi.Float(1), 0), s, point, b - a, mix), better)
        return result

    @staticmethod
    def _circle(walk: Walk, c: mi.Point3f, x: mi.Vector3f, y: mi.Vector3f) -> list[Crossing]:
        """The two points in which the plane cuts the circle (ellipse) c + x cos φ + y sin φ."""
        A, B, C = dr.dot(walk.normal, x), dr.dot(walk.normal, y), walk.height(c)
        r = dr.sqrt(A * A + B * B)
        middle, half = dr.atan2(B, A), dr.safe_acos(-C / r)
        cut = dr.abs(C) <= r
        both = []
        for sign in (-1, 1):
            sin, cos = dr.sincos(middle + sign * half)
            point = mi.Point3f(c + cos * x + sin * y)
            s = walk.fraction(point)
            weight = dr.select(cut & (s >= 0) & (s <= 1), mi.Float(1), 0)
            both.append(_met(weight, s, point, cos * y - sin * x, mi.Vector3f(cos, sin, 0)))
        return both

    def _disk(self, walk: Walk, frame: list[Any]) -> Crossing:
        one, other = self._circle(walk, mi.Point3f(frame[0]), frame[1], frame[2])
        one.update(other, other.fraction > one.fraction)
        return one

    @staticmethod
    def _tangency(walk: Walk, c: mi.Point3f, axis: mi.Vector3f | None, radius: mi.Float) -> tuple[mi.Float, mi.Bool]:
        """The first fraction at which the ray touches a sphere, or an infinite cylinder."""
        flat = (lambda v: v) if axis is None else (lambda v: v - axis * dr.dot(axis, v))
        q, d = flat(c - walk.o), flat(walk.d)
        step_o, step_d = flat(walk.step_o), flat(walk.step_d)
        # |(q − s Δo) × (d + s Δd)|² = R² |d + s Δd|², without the product of Δo and Δd (one of them is zero)
        u, v = dr.cross(q, d), dr.cross(q, step_d) - dr.cross(step_o, d)
        R2 = dr.square(radius)
        A = dr.squared_norm(v) - R2 * dr.squared_norm(step_d)
        B = dr.dot(u, v) - R2 * dr.dot(d, step_d)
        C = dr.squared_norm(u) - R2 * dr.squared_norm(d)
        root = dr.sqrt(B * B - A * C)
        # C < 0 (the first ray hits) and the ray leaves where the quadratic becomes positive
        s = dr.select(B >= 0, -C / (B + root), (root - B) / A)
        return s, (s >= 0) & (s <= 1)

    def _sphere(self, walk: Walk, frame: list[Any]) -> Crossing:
        c, radius = mi.Point3f(frame[0]), dr.norm(frame[1])
        s, found = self._tangency(walk, c, None, radius)
        eye, d = walk.o + s * walk.step_o, dr.normalize(walk.d + s * walk.step_d)
        n = dr.normalize(eye + d * dr.dot(d, c - eye) - c)
        # A sphere that turns keeps its limb: only centre and radius move it
        weight = dr.select(found, mi.Float(1), 0)
        return _met(weight, s, mi.Point3f(c + radius * n), dr.cross(n, d), mi.Vector3f(0), n)

    def _cylinder(self, walk: Walk, frame: list[Any]) -> Crossing:
        c, x, y, z = mi.Point3f(frame[0]), frame[1], frame[2], frame[3]
        radius, axis = dr.norm(x), dr.normalize(z)
        s, found = self._tangency(walk, c, axis, radius)
        eye, d = walk.o + s * walk.step_o, dr.normalize(walk.d + s * walk.step_d)
        flat = lambda v: v - axis * dr.dot(axis, v)
        t = dr.dot(flat(c - eye), flat(d)) / dr.squared_norm(flat(d))
        along = dr.dot(eye + t * d - c, axis) / dr.norm(z)
        n = dr.normalize(flat(eye + t * d - c))
        found &= (along >= 0) & (along <= 1)
        point = mi.Point3f(c + along * z + radius * n)
        nearest = _met(dr.select(found, mi.Float(1), 0), s, point, axis, mi.Vector3f(0, 0, along), n)
        # The rims, on the side of the cylinder that the first ray sees
        hit = walk.o + walk.t * walk.d
        outside = dr.dot(flat(hit - c), walk.d) < 0
        for end in (0, 1):
            centre = mi.Point3f(c + end * z)
            for rim in self._circle(walk, centre, x, y):
                rim.mix.z = end
                same = (dr.dot(rim.point - centre, walk.d) < 0) == outside
                first = (nearest.weight == 0) | (rim.fraction < nearest.fraction)
                nearest.update(rim, (rim.weight > 0) & same & first)
        return nearest


def _met(
    weight: mi.Float,
    fraction: mi.Float,
    point: mi.Point3f,
    tangent: mi.Vector3f,
    mix: mi.Vector3f | None = None,
    limb: mi.Vector3f | None = None,
) -> Crossing:
    """A crossing whose carrier is not filled in yet."""
    zero = mi.Vector3f(0)
    anchor, other = mi.UInt32(0), mi.UInt32(NONE)
    mix, limb = (zero if v is None else v for v in (mix, limb))
    return Crossing(weight, fraction, point, mi.Vector3f(tangent), anchor, other, mix, limb)
