"""Points on the curves where visibility can jump, for the shapes whose curves are known.

A curve element is one welded mesh edge, or one sphere, disk or cylinder. `Silhouettes.sample` turns (element, t) into a
world point that follows its shape, the curve's tangent, and a vector that points into the occluder.

By the envelope theorem a smooth shape's silhouette moves, along its normal, exactly as the surface point that lies on it
at the moment (E2); so the attached point of a sphere is simply that material point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np

from ..errors import UnsupportedGradient
from .quadrics import QUADRICS, Quadrics
from .topology import Edges, build_edges
from .view import View

OPEN, NON_MANIFOLD, SMOOTH, UNIFORM = 1, 2, 4, 8

#: sine of the angle below which two faces count as one plane
FLAT = 1e-5


@dataclass
class CurvePoint:
    """A sampled point of a boundary curve.

    Attributes:
        p: the point, attached to its shape.
        tangent: derivative of p with respect to the curve parameter, detached.
        inner: a vector from p into the occluder, detached.
        silhouette: the occluder lies on one side of the plane through the viewpoint and the tangent.
        crease: both faces are on different sides, and shading may jump.
    """

    p: mi.Point3f
    tangent: mi.Vector3f
    inner: mi.Vector3f
    silhouette: mi.Bool
    crease: mi.Bool

    def outward(self, d: mi.Vector3f) -> mi.Vector3f:
        """Unit normal of the plane through the tangent and d, pointing away from the occluder."""
        n = dr.normalize(dr.cross(self.tangent, d))
        return mi.Vector3f(dr.mulsign(n, -dr.dot(n, self.inner)))


class MeshTopology:
    """The welded edges of all meshes of a scene on the device; kept while the meshes and their faces stay the same."""

    def __init__(self, meshes: list[mi.Mesh]) -> None:
        self.meshes = list(meshes)  # keeps them alive, so that the key below cannot be reused by others
        self.buffers = [mesh.faces_buffer() for mesh in meshes]
        self.key = topology_key(meshes)
        positions, faces, owner, smooth = [], [], [], []
        offset = 0
        for i, mesh in enumerate(meshes):
            positions.append(np.array(mesh.vertex_positions_buffer(), dtype=np.float32).reshape(-1, 3))
            faces.append(np.array(mesh.faces_buffer(), dtype=np.int64).reshape(-1, 3) + offset)
            owner.append(np.full(len(faces[-1]), i))
            per_face = any(name.startswith("face_") for name, _ in mi.traverse(mesh) if isinstance(name, str))
            smooth.append(mesh.has_vertex_normals() and not mesh.has_face_normals() and not per_face)
            offset += len(positions[-1])
        self.edges: Edges = build_edges(
            np.concatenate(positions), np.concatenate(faces), np.concatenate(owner), np.array(smooth)
        )
        e = self.edges
        self.size = len(e)
        self.start, self.end = mi.UInt32(e.start), mi.UInt32(e.end)
        self.start_other, self.end_other = mi.UInt32(e.start_other), mi.UInt32(e.end_other)
        self.opposite, self.opposite_other = mi.UInt32(e.opposite), mi.UInt32(e.opposite_other)
        self.flags = mi.UInt32(
            OPEN * (e.faces == 1) + NON_MANIFOLD * (e.faces > 2) + SMOOTH * e.smooth + UNIFORM * e.uniform
        )


def topology_key(meshes: list[mi.Mesh]) -> tuple[Any, ...]:
    """Changes when a mesh is added, removed, or gets other faces."""
    return tuple((m.ptr, m.vertex_count(), m.face_count(), m.faces_buffer().index) for m in meshes)


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


class Silhouettes:
    """All boundary curves of a scene, at its current parameters.

    Args:
        scene: the scene.
        topology: what a previous call left behind, reused if the meshes are the same.

    Raises:
        UnsupportedGradient: a shape whose silhouettes are not known.
    """

    def __init__(self, scene: mi.Scene, topology: MeshTopology | None = None) -> None:
        meshes, quadrics = [], []
        for shape in scene.shapes():
            name = shape.class_name()
            if shape.is_mesh() and name != "EllipsoidsMesh":
                if shape.face_count() > 0:
                    meshes.append(shape)
            elif name in QUADRICS:
                quadrics.append(shape)
            else:
                raise UnsupportedGradient(
                    f"the silhouettes of a shape of type {name} are not known, so its visibility cannot be differentiated",
                    key=shape.id(),
                    remedy="replace it by a mesh, or use the estimator warped_area or finite_difference",
                )
        self.topology: MeshTopology | None = None
        self.positions = mi.Float(0)
        if meshes:
            if topology is None or topology.key != topology_key(meshes):
                topology = MeshTopology(meshes)
            self.topology = topology
            buffers = [mesh.vertex_positions_buffer() for mesh in meshes]
            self.positions = buffers[0] if len(buffers) == 1 else dr.concat(buffers)
        self.quadrics = Quadrics(quadrics) if quadrics else None
        self.edge_count = self.topology.size if self.topology else 0
        self.size = self.edge_count + (self.quadrics.size if self.quadrics else 0)

    def grad_enabled(self) -> bool:
        """Whether any curve moves."""
        return dr.grad_enabled(self.positions) or (self.quadrics is not None and self.quadrics.grad_enabled())

    def vertex(self, index: mi.UInt32, active: mi.Bool | bool = True) -> mi.Point3f:
        """Attached vertex positions."""
        return dr.gather(mi.Point3f, self.positions, index, active)

    def all_edges(self) -> tuple[mi.Point3f, mi.Vector3f, mi.Vector3f, mi.Vector3f, mi.UInt32]:
        """Start, edge vector, vectors to the opposite vertices, flags; of every mesh edge, detached."""
        t = self.topology
        assert t is not None
        with dr.suspend_grad():
            a = self.vertex(t.start)
            return (
                a,
                mi.Vector3f(self.vertex(t.end) - a),
                mi.Vector3f(self.vertex(t.opposite) - a),
                mi.Vector3f(self.vertex(t.opposite_other) - a),
                t.flags,
            )

    def sample(self, index: mi.UInt32, t: mi.Float, view: View) -> CurvePoint:
        """The point at parameter t of a curve element.

        Args:
            index: (N,) element: mesh edges first, then quadrics.
            t: (N,) in [0, 1].
            view: from where the silhouette is seen, per lane or for all.
        """
        on_mesh = mi.Bool(index < self.edge_count)
        if self.topology is None:
            assert self.quadrics is not None
            return self._on_quadric(index, t, view, mi.Bool(True))
        if self.quadrics is None:
            return self._on_edge(index, t, view, mi.Bool(True))
        first = self._on_edge(dr.select(on_mesh, index, 0), t, view, on_mesh)
        second = self._on_quadric(dr.select(on_mesh, 0, index - self.edge_count), t, view, ~on_mesh)
        pick = lambda x, y: dr.select(on_mesh, x, y)
        return CurvePoint(
            p=pick(first.p, second.p),
            tangent=pick(first.tangent, second.tangent),
            inner=pick(first.inner, second.inner),
            silhouette=pick(first.silhouette, second.silhouette),
            crease=pick(first.crease, second.crease),
        )

    def _on_edge(self, index: mi.UInt32, t: mi.Float, view: View, active: mi.Bool) -> CurvePoint:
        topology = self.topology
        assert topology is not None
        at = lambda array: dr.gather(mi.UInt32, array, index, active)
        flags = at(topology.flags)
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
        return CurvePoint(p, e, c0, silhouette & active, crease & active)

    def _on_quadric(self, index: mi.UInt32, t: mi.Float, view: View, active: mi.Bool) -> CurvePoint:
        assert self.quadrics is not None
        p, tangent, inner, valid = self.quadrics.sample(index, t, view, active)
        return CurvePoint(p, tangent, inner, valid & active, mi.Bool(False))
