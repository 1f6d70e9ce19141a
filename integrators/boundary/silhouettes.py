"""Points on the curves where visibility can jump, for the shapes whose curves are known.

A curve element is one welded mesh edge, or one sphere, disk or cylinder. `Silhouettes.sample` turns (element, t) into a
world point that follows its shape, the curve's tangent, and a vector that points into the occluder.

By the envelope theorem a smooth shape's silhouette moves, along its normal, exactly as the surface point that lies on
it at the moment (E2); so the attached point of a sphere is simply that material point.
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi

from ..errors import UnsupportedGradient
from .curve_point import CurvePoint, pick
from .device import bits, recording
from .quadrics import DISK, QUADRICS, Quadrics
from .tables import (
    MESH,
    NO_PART,
    NON_MANIFOLD,
    OPEN,
    QUADRIC,
    ROUND,
    SMOOTH,
    SPLINE,
    UNIFORM,
    SceneTables,
    topology_key,
)
from .tubes import TUBES, Tubes
from .view import View

#: sine of the angle below which two faces count as one plane
FLAT = 1e-5

#: Distance at which a ray passes an occluder beside its silhouette: relative to the coordinates, some of their float32
#: round-off; and relative to the size of a curved shape. It must be small, since what lies within it is not seen: on a
#: finely tessellated smooth surface, folds as shallow as 1e-5 of its size hide many edges from the light.
GAP, GAP_SMOOTH = 1.5e-6, 1e-4

#: Distance from the limb of a round body, in radii, at which its radiance is looked at (cos θ = 0.006), and again
#: from farther.
AT_LIMB = 2e-5


def classify(
    d: mi.Vector3f, e: mi.Vector3f, c0: mi.Vector3f, c1: mi.Vector3f, flags: mi.UInt32
) -> tuple[mi.Bool, mi.Bool]:
    """Whether an edge is a silhouette or a visible crease; independent of how the faces are wound.

    Args:
        d: from the viewpoint to the start of the edge.
        e: from the start to the end of the edge.
        c0, c1: from the start to the opposite vertices of its two faces.
        flags: OPEN, NON_MANIFOLD, SMOOTH, UNIFORM.
    """
    n0, n1 = dr.cross(e, c0), dr.cross(c1, e)
    size0, size1 = dr.norm(n0), dr.norm(n1)
    far = dr.norm(d)
    s0, s1 = dr.dot(n0, d) / (size0 * far), dr.dot(n1, d) / (size1 * far)
    one_side = ~(s0 * s1 > 1e-12)  # NaN (a degenerate face) stays a candidate
    always = (flags & (OPEN | NON_MANIFOLD)) != 0
    flat = (dr.norm(dr.cross(n0, n1)) < FLAT * size0 * size1) & (dr.dot(n0, n1) > 0) & ((flags & UNIFORM) != 0)
    silhouette = always | (one_side & ~flat)
    crease = ~silhouette & ~flat & ((flags & SMOOTH) == 0)
    return silhouette, crease


class Smooth:
    """Several families of shapes with silhouettes in closed form, one after the other."""

    def __init__(self, families: list[Any]) -> None:
        self.families = families
        self.size = sum(family.size for family in families)

    def moving(self) -> list[bool]:
        """Which elements carry derivatives."""
        return [moves for family in self.families for moves in family.moving()]

    def bounds(self) -> tuple[mi.Point3f, mi.Float]:
        """Centre and radius of a ball around each element, detached."""
        balls = [family.bounds() for family in self.families]
        if len(balls) == 1:
            return balls[0]
        centre = [dr.concat([ball[0][i] for ball in balls]) for i in range(3)]
        return mi.Point3f(*centre), dr.concat([ball[1] for ball in balls])

    def sample(
        self, index: mi.UInt32, t: mi.Float, view: View, active: mi.Bool
    ) -> tuple[mi.Point3f, mi.Vector3f, mi.Vector3f, mi.Bool]:
        """See `Quadrics.sample`."""
        if len(self.families) == 1:
            return self.families[0].sample(index, t, view, active)
        result = (mi.Point3f(0), mi.Vector3f(0), mi.Vector3f(0), mi.Bool(False))
        first = 0
        for family in self.families:
            here = active & (index >= first) & (index < first + family.size)
            found = family.sample(dr.select(here, index - first, 0), t, view, here)
            result = tuple(dr.select(here, new, old) for new, old in zip(found, result, strict=True))
            first += family.size
        return result


def sorted_shapes(scene: mi.Scene) -> tuple[list[mi.Mesh], list[mi.Shape], list[mi.Shape]]:
    """The meshes, quadrics and tubes of a scene.

    Raises:
        UnsupportedGradient: a shape whose silhouettes are not known.
    """
    meshes, quadrics, tubes = [], [], []
    for shape in scene.shapes():
        name = shape.class_name()
        if shape.is_mesh() and name != "EllipsoidsMesh":
            if shape.face_count() > 0:
                meshes.append(shape)
        elif name in QUADRICS:
            quadrics.append(shape)
        elif name in TUBES:
            tubes.append(shape)
        else:
            raise UnsupportedGradient(
                f"the silhouettes of a {name} are not known, so visibility cannot be differentiated in its scene",
                key=shape.id(),
                remedy="replace it by a mesh, or use the estimator finite_difference",
            )
    return meshes, quadrics, tubes


def scene_key(scene: mi.Scene) -> tuple[Any, ...]:
    """Changes when the tables of a scene have to be made anew."""
    meshes, quadrics, tubes = sorted_shapes(scene)
    return topology_key(meshes, [*quadrics, *tubes])


class Silhouettes:
    """All boundary curves of a scene, at its current parameters.

    Args:
        scene: the scene.
        topology: what a previous call left behind, reused if the shapes and faces are the same.

    Raises:
        UnsupportedGradient: a shape whose silhouettes are not known.
    """

    def __init__(self, scene: mi.Scene, topology: SceneTables | None = None) -> None:
        meshes, quadrics, tubes = sorted_shapes(scene)
        if topology is None or (not recording() and topology.key != topology_key(meshes, [*quadrics, *tubes])):
            topology = SceneTables(meshes, quadrics, tubes)
        self.topology = topology
        self.meshes = meshes
        self.positions = mi.Float(0)
        if meshes:
            buffers = [mesh.vertex_positions_buffer() for mesh in meshes]
            self.positions = buffers[0] if len(buffers) == 1 else dr.concat(buffers)
        self.quadrics = Quadrics(quadrics, topology.quadric_kind) if quadrics else None
        self.tubes = Tubes(tubes, topology.tubes) if tubes else None
        families = [family for family in (self.quadrics, self.tubes) if family is not None]
        self.smooth = Smooth(families) if families else None
        self.has_limbs = self.quadrics is not None and self.quadrics.kinds != {DISK}
        self.edge_count = topology.size
        self.has_edges = topology.size > 0
        #: of the mesh edges; `shadow.break_at_terminators` takes SMOOTH from some
        self.flags = topology.flags if self.has_edges else mi.UInt32(0)
        self.size = self.edge_count + (self.smooth.size if self.smooth else 0)

    def moving(self) -> mi.Bool:
        """Which elements carry derivatives."""
        parts = []
        with dr.resume_grad():
            shapes = [dr.grad_enabled(mesh.vertex_positions_buffer()) for mesh in self.meshes]
            smooth = self.smooth.moving() if self.smooth else []
        if self.has_edges:
            moves = bits(shapes)
            t = self.topology
            parts.append(dr.gather(mi.Bool, moves, t.owner) | dr.gather(mi.Bool, moves, t.owner_other))
        if smooth:
            parts.append(bits(smooth))
        if self.topology.lines.size:
            parts.append(dr.full(mi.Bool, any(shapes), self.topology.lines.size))
        return parts[0] if len(parts) == 1 else dr.concat(parts)

    def moving_hit(self, hit: mi.PreliminaryIntersection3f, active: mi.Bool) -> mi.Bool:
        """Whether the shape that was hit carries derivatives."""
        with dr.resume_grad():
            moves = [dr.grad_enabled(mesh.vertex_positions_buffer()) for mesh in self.meshes]
            moves += self.quadrics.moving() if self.quadrics else []
            moves += self.tubes.flags if self.tubes else []
        active = active & hit.is_valid()
        if all(moves):
            return active
        place = dr.gather(mi.UInt32, self.topology.shape_place, dr.reinterpret_array(mi.UInt32, hit.shape), active)
        return active & dr.gather(mi.Bool, bits(moves), place, active)

    def vertex(self, index: mi.UInt32, active: mi.Bool | bool = True) -> mi.Point3f:
        """Attached vertex positions."""
        return dr.gather(mi.Point3f, self.positions, index, active)

    def all_edges(self) -> tuple[mi.Point3f, mi.Vector3f, mi.Vector3f, mi.Vector3f, mi.UInt32]:
        """Start, edge vector, vectors to the opposite vertices, flags; of every mesh edge, detached."""
        t = self.topology
        with dr.suspend_grad():
            a = self.vertex(t.start)
            return (
                a,
                mi.Vector3f(self.vertex(t.end) - a),
                mi.Vector3f(self.vertex(t.opposite) - a),
                mi.Vector3f(self.vertex(t.opposite_other) - a),
                self.flags,
            )

    def follow(self, hit: mi.PreliminaryIntersection3f, p: mi.Point3f, active: mi.Bool) -> mi.Point3f:
        """The point of a surface that was hit, attached so that it keeps its place on the surface.

        Args:
            hit: (N,) what was hit.
            p: (N,) where; detached.
        """
        active = active & hit.is_valid()
        offset, family = self.owner(hit, active)
        p = mi.Point3f(dr.detach(p))
        result = p
        attach = lambda here, value: dr.replace_grad(
            result, mi.Point3f(dr.select(here, mi.Vector3f(value), mi.Vector3f(result)))
        )
        if self.has_edges:
            on_mesh = active & (family == MESH)
            corner = 3 * (offset + hit.prim_index)
            v = [self.vertex(dr.gather(mi.UInt32, self.topology.faces, corner + i, on_mesh), on_mesh) for i in range(3)]
            b = dr.detach(hit.prim_uv)
            result = attach(on_mesh, v[0] * (1 - b.x - b.y) + v[1] * b.x + v[2] * b.y)
        if self.quadrics is not None:
            other = active & (family == QUADRIC)
            matrix = self.quadrics.matrix(offset, other)
            local = mi.Transform4f(dr.detach(matrix)).inverse() @ p
            result = attach(other, mi.Transform4f(matrix) @ mi.Point3f(dr.detach(local)))
        if self.tubes is not None:
            tube = active & ((family == SPLINE) | (family == ROUND))
            v = dr.detach(hit.prim_uv.x)
            result = attach(tube, self.tubes.follow(offset + hit.prim_index, v, p, family == ROUND, tube))
        return mi.Point3f(result)

    def owner(self, hit: mi.PreliminaryIntersection3f, active: mi.Bool) -> tuple[mi.UInt32, mi.UInt32]:
        """First face, or number within its family, of the shape that was hit; and its family."""
        number = dr.reinterpret_array(mi.UInt32, hit.shape)
        at = lambda table: dr.gather(mi.UInt32, table, number, active)
        return at(self.topology.shape_offset), at(self.topology.shape_family)

    def surface(self, hit: mi.PreliminaryIntersection3f, active: mi.Bool) -> mi.UInt32:
        """A number for the surface that was hit: of a mesh, one for each part that no edge joins to the others."""
        number = dr.reinterpret_array(mi.UInt32, hit.shape) | NO_PART
        if not self.topology.parts:
            return number
        index, family = self.owner(hit, active)
        on_mesh = active & (family == MESH)
        part = dr.gather(mi.UInt32, self.topology.surface, index + hit.prim_index, on_mesh)
        return dr.select(on_mesh, part, number)

    def sample(self, index: mi.UInt32, t: mi.Float, view: View, with_lines: bool = False) -> CurvePoint:
        """The point at parameter t of a curve element.

        Args:
            index: (N,) element: mesh edges first, then smooth shapes.
            t: (N,) in [0, 1].
            view: from where the silhouette is seen, per lane or for all.
            with_lines: whether the elements go on with the lines along which textures jump.
        """
        if self.topology.lines.size and with_lines:
            on_line = mi.Bool(index >= self.size)
            first = self.sample(dr.select(on_line, 0, index), t, view)
            second = self._on_line(dr.select(on_line, index - self.size, 0), t, on_line)
            return pick(~on_line, first, second)
        on_mesh = mi.Bool(index < self.edge_count)
        if not self.has_edges:
            return self._on_smooth(index, t, view, mi.Bool(True))
        if self.smooth is None:
            return self._on_edge(index, t, view, mi.Bool(True))
        first = self._on_edge(dr.select(on_mesh, index, 0), t, view, on_mesh)
        second = self._on_smooth(dr.select(on_mesh, 0, index - self.edge_count), t, view, ~on_mesh)
        return pick(on_mesh, first, second)

    def _on_line(self, index: mi.UInt32, t: mi.Float, active: mi.Bool) -> CurvePoint:
        a, b = self.topology.lines.ends(self.positions, index, active)
        e = dr.detach(mi.Vector3f(b - a))
        p = mi.Point3f(a + dr.detach(t) * (b - a))
        none = mi.Vector3f(0)
        return CurvePoint(p, e, none, mi.Bool(False), active, mi.Float(0), mi.Bool(False), none, none, mi.Float(0))

    @staticmethod
    def lune(e: mi.Vector3f, c0: mi.Vector3f, c1: mi.Vector3f, flags: mi.UInt32) -> tuple[mi.Float, mi.Vector3f]:
        """The angle of the line directions, about the edge, from which it is a silhouette; and where they begin.

        Seen along the edge, a line through it leaves both faces on one side unless it runs through the sector between
        them.
        """
        t = dr.normalize(e)
        f0, f1 = dr.normalize(c0 - t * dr.dot(t, c0)), dr.normalize(c1 - t * dr.dot(t, c1))
        between = dr.atan2(dr.norm(dr.cross(f0, f1)), dr.dot(f0, f1))
        whole = ((flags & (OPEN | NON_MANIFOLD)) != 0) | ~dr.isfinite(between)
        return dr.select(whole, dr.pi, dr.pi - between), mi.Vector3f(dr.select(whole, f0, f1))

    def sample_direction(self, index: mi.UInt32, sample: mi.Point2f, active: mi.Bool) -> tuple[mi.Vector3f, mi.Float]:
        """A direction from which a curve element is a silhouette, and its density per solid angle (0: none)."""
        with dr.suspend_grad():
            uniform = mi.warp.square_to_uniform_sphere(sample)
            density = mi.Float(dr.inv_four_pi)
            if not self.has_edges:
                return uniform, density
            t = self.topology
            on_mesh = active & (index < self.edge_count)
            at = lambda array: dr.gather(mi.UInt32, array, index, on_mesh)
            a = self.vertex(at(t.start), on_mesh)
            e = mi.Vector3f(self.vertex(at(t.end), on_mesh) - a)
            c0 = mi.Vector3f(self.vertex(at(t.opposite), on_mesh) - a)
            c1 = mi.Vector3f(self.vertex(at(t.opposite_other), on_mesh) - a)
            angle, first = self.lune(e, c0, c1, at(self.flags))
            axis = dr.normalize(e)
            # From the second face to the opposite of the first, in the sense that turns away from the first
            turn = dr.normalize(c0 - axis * dr.dot(axis, c0))
            side = mi.Vector3f(dr.cross(axis, first))
            side = mi.Vector3f(dr.mulsign(side, -dr.dot(side, turn)))
            number = 2 * sample.y
            back = number >= 1
            sin, cos = dr.sincos((number - dr.select(back, 1, 0)) * angle)
            z = 1 - 2 * sample.x
            r = dr.safe_sqrt(1 - dr.square(z))
            lune = z * axis + r * (cos * first + sin * side)
            lune = mi.Vector3f(dr.select(back, -lune, lune))
            # dσ = dz dφ, over z in [-1, 1] and twice the angle
            lune_density = dr.select(angle > 0, dr.rcp(4 * angle), 0)
            if self.smooth is None:
                return lune, lune_density
            return mi.Vector3f(dr.select(on_mesh, lune, uniform)), dr.select(on_mesh, lune_density, density)

    def _on_edge(self, index: mi.UInt32, t: mi.Float, view: View, active: mi.Bool) -> CurvePoint:
        topology = self.topology
        at = lambda array: dr.gather(mi.UInt32, array, index, active)
        flags = at(self.flags)
        # A seam stores the edge twice: let both copies carry half of the derivative.
        a = mi.Point3f(0.5 * (self.vertex(at(topology.start), active) + self.vertex(at(topology.start_other), active)))
        b = mi.Point3f(0.5 * (self.vertex(at(topology.end), active) + self.vertex(at(topology.end_other), active)))
        p = mi.Point3f(a + dr.detach(t) * (b - a))
        with dr.suspend_grad():
            a, b = dr.detach(a), dr.detach(b)
            e = mi.Vector3f(b - a)
            c0 = mi.Vector3f(self.vertex(at(topology.opposite), active) - a)
            c1 = mi.Vector3f(self.vertex(at(topology.opposite_other), active) - a)
            silhouette, crease = classify(view.toward(a), e, c0, c1, flags)
            gap = GAP * dr.maximum(dr.norm(a), dr.norm(b)) + 0.1 * GAP * dr.norm(e)
            into0, into1 = mi.Vector3f(c0 - t * e), mi.Vector3f(c1 - t * e)
        no = mi.Bool(False)
        return CurvePoint(p, e, c0, silhouette & active, crease & active, gap, no, into0, into1, mi.Float(0))

    def _on_smooth(self, index: mi.UInt32, t: mi.Float, view: View, active: mi.Bool) -> CurvePoint:
        assert self.smooth is not None
        p, tangent, inner, valid = self.smooth.sample(index, t, view, active)
        with dr.suspend_grad():
            radius = dr.gather(mi.Float, self.smooth.bounds()[1], index, active)
            flat = mi.Bool(False)
            if self.quadrics is not None and DISK in self.quadrics.kinds:
                kind = dr.gather(mi.UInt32, self.quadrics.kind, index, active & (index < self.quadrics.size))
                flat = (index < self.quadrics.size) & (kind == DISK)
            gap = GAP * dr.norm(dr.detach(p)) + dr.select(flat, GAP, GAP_SMOOTH) * radius
            tube = index >= (self.quadrics.size if self.quadrics else 0)
        none, tube = mi.Vector3f(0), mi.Bool(tube)
        limb = mi.Float(0) if self.quadrics is None else self.quadrics.radius(index, active & ~flat & ~tube)
        return CurvePoint(p, tangent, inner, valid & active, mi.Bool(False), gap, tube, none, none, limb)
