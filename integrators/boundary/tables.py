"""What does not change while shapes move, on the device: welded edges, faces, texture lines, whose hit is whose."""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np

from .contact import Parts, meshes_in_parts
from .device import upload
from .quadrics import kind_numbers
from .texture_lines import TextureLines
from .topology import build_edges
from .tubes import TubeTables

#: Flags of an edge: one face; more than two; smoothly shaded across; no seam, so that faces in one plane show no jump.
OPEN, NON_MANIFOLD, SMOOTH, UNIFORM = 1, 2, 4, 8

#: Families of shapes; 0: nothing was hit.
MESH, QUADRIC, SPLINE, ROUND = range(1, 5)

#: Set in the numbers of surfaces that are no parts of meshes.
NO_PART = 0x80000000


class SceneTables:
    """What does not change while shapes move: welded edges, faces, and which shape a hit belongs to; on the device.

    Args:
        meshes: the triangle meshes of the scene.
        quadrics: its spheres, disks and cylinders.
        tubes: its hair-like curves.
    """

    def __init__(self, meshes: list[mi.Mesh], quadrics: list[mi.Shape], tubes: list[mi.Shape]) -> None:
        self.alive = (
            list(meshes),
            list(quadrics),
            list(tubes),
            [mesh.faces_buffer() for mesh in meshes],
        )  # else keys could recur
        self.key = topology_key(meshes, [*quadrics, *tubes])
        self.first_face, self.size, self.any_smooth = [], 0, False
        first_vertex = []
        positions, faces, owner, smooth = [np.zeros((0, 3), np.float32)], [np.zeros((0, 3), np.int64)], [], []
        vertices = triangles = 0
        for i, mesh in enumerate(meshes):
            positions.append(np.array(mesh.vertex_positions_buffer(), dtype=np.float32).reshape(-1, 3))
            faces.append(np.array(mesh.faces_buffer(), dtype=np.int64).reshape(-1, 3) + vertices)
            owner.append(np.full(len(faces[-1]), i))
            per_face = any(key.startswith("face_") for key in mi.traverse(mesh).keys())
            smooth.append(mesh.has_vertex_normals() and not mesh.has_face_normals() and not per_face)
            self.first_face.append(triangles)
            first_vertex.append(vertices)
            vertices += len(positions[-1])
            triangles += len(faces[-1])
        self.parts: list[Parts] = []
        self.lines = TextureLines(meshes, first_vertex, self.first_face)
        self.tubes = TubeTables(tubes)
        self.quadric_kind = kind_numbers(quadrics)
        if meshes:
            self._upload_edges(positions, faces, owner, smooth)
            self.parts = meshes_in_parts(meshes, self.edges.surface)
        if self.parts:
            self.surface = upload(mi.UInt32, self.edges.surface)
        self._upload_shapes(meshes, quadrics, tubes)
        #: number of curve elements, lines of textures apart
        self.curves = self.size + len(quadrics) + self.tubes.size

    def _upload_edges(self, positions: list, faces: list, owner: list, smooth: list) -> None:
        all_faces = np.concatenate(faces)
        e = self.edges = build_edges(np.concatenate(positions), all_faces, np.concatenate(owner), np.array(smooth))
        self.size = len(e)
        index = lambda array: upload(mi.UInt32, array.ravel())
        self.faces = index(all_faces)
        self.start, self.end = index(e.start), index(e.end)
        self.start_other, self.end_other = index(e.start_other), index(e.end_other)
        self.opposite, self.opposite_other = index(e.opposite), index(e.opposite_other)
        # Where a texture jumps along an edge, the edge can show a jump whatever the shading
        jumps = set_of_sides(all_faces, self.lines.sides)
        count = int(all_faces.max()) + 1
        plain = ~np.isin(e.first_face * count + e.opposite, jumps)
        plain &= ~np.isin(e.last_face * count + e.opposite_other, jumps)
        self.flags = index(
            OPEN * (e.faces == 1)
            + NON_MANIFOLD * (e.faces > 2)
            + SMOOTH * (e.smooth & plain)
            + UNIFORM * (e.uniform & plain)
        )
        self.any_smooth = bool((e.smooth & plain).any())
        shape_of = np.concatenate(owner)
        self.owner, self.owner_other = index(shape_of[e.first_face]), index(shape_of[e.last_face])

    def _upload_shapes(self, meshes: list[mi.Mesh], quadrics: list[mi.Shape], tubes: list[mi.Shape]) -> None:
        """Tables from the number that a hit's shape pointer stands for."""
        number = lambda shape: int(dr.reinterpret_array(mi.UInt32, mi.ShapePtr(shape))[0])
        first = [*self.first_face, *range(len(quadrics)), *self.tubes.first_segment]
        families = [MESH] * len(meshes) + [QUADRIC] * len(quadrics)
        families += [ROUND if tube.class_name() == "LinearCurve" else SPLINE for tube in tubes]
        numbers = [number(shape) for shape in (*meshes, *quadrics, *tubes)]
        offset, family, place = (np.zeros(max(numbers, default=0) + 1, dtype=np.uint32) for _ in range(3))
        offset[numbers], family[numbers], place[numbers] = first, families, np.arange(len(numbers))
        self.shape_offset, self.shape_family = upload(mi.UInt32, offset), upload(mi.UInt32, family)
        self.shape_place = upload(mi.UInt32, place)


def set_of_sides(faces: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Sides of faces, given as 3 · face + opposite corner, as face · (number of vertices) + opposite vertex."""
    face, corner = sides // 3, sides % 3
    return face * (int(faces.max()) + 1) + faces[face, corner]


def topology_key(meshes: list[mi.Mesh], others: list[mi.Shape]) -> tuple[Any, ...]:
    """Changes when a shape is added, removed, or a mesh gets other faces."""
    return (
        tuple((m.ptr, m.vertex_count(), m.face_count(), m.faces_buffer().index) for m in meshes),
        tuple(shape.ptr for shape in others),
    )
