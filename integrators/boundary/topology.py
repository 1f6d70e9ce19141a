"""Edges of triangle meshes, welded by position.

Meshes split vertices at UV and normal seams (Mitsuba's `cube` has 24 for 8 corners), and a surface that was exported in
pieces repeats the vertices of its cuts. An edge list built on vertex *indices* sees two open edges there and counts the
silhouette twice. Here vertices are identified by position, so that each curve in space is one edge whatever the
indices say.

Pure NumPy, on the host, once per topology; positions are never stored: the list holds vertex indices into the
concatenation of all meshes, and whoever uses it gathers the current, attached positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

IntArray = npt.NDArray[np.int64]

#: Vertices closer than this fraction of the largest coordinate are the same point (round-off of a float32 transform).
WELD_TOLERANCE = 4e-7


@dataclass(frozen=True)
class Edges:
    """Welded edges of a set of triangle meshes; all arrays but `surface` have one entry per edge.

    Attributes:
        start, end: vertex indices of the edge as its first face stores them.
        start_other, end_other: the same two points as its last face stores them (equal where there is no seam).
        opposite, opposite_other: the third vertex of the first and of the last face.
        faces: how many faces meet here: 1 open, 2 manifold, more non-manifold.
        smooth: both faces belong to one smoothly shaded surface without a seam, so only a silhouette can be a jump.
        uniform: both faces belong to one shape and share their vertices, so a flat pair of faces shows no jump.
        first_face, last_face: indices into the faces.
        surface: (T,) which surface each face is part of: faces of one shape that edges join; −1 for those left out.
        skipped_edges: edges of zero length that were left out.
        skipped_faces: faces of zero area that were left out.
    """

    start: IntArray
    end: IntArray
    start_other: IntArray
    end_other: IntArray
    opposite: IntArray
    opposite_other: IntArray
    faces: IntArray
    smooth: npt.NDArray[np.bool_]
    uniform: npt.NDArray[np.bool_]
    first_face: IntArray
    last_face: IntArray
    surface: IntArray
    skipped_edges: int
    skipped_faces: int

    def __len__(self) -> int:
        return len(self.start)


def weld_vertices(positions: npt.NDArray[np.floating], tolerance: float = WELD_TOLERANCE) -> IntArray:
    """Give vertices at the same position the same label.

    Args:
        positions: (V, 3), world units.
        tolerance: largest distance of two identified vertices, relative to the largest coordinate.

    Returns:
        (V,) labels: the smallest index of the vertices at that position.
    """
    if len(positions) == 0:
        return np.zeros(0, dtype=np.int64)
    points = np.asarray(positions, dtype=np.float64)
    cell = max(float(np.abs(points).max()) * tolerance, np.finfo(np.float64).tiny)
    # Two points within half a cell of each other along each axis share a cell of the grid or of the shifted grid,
    # except across a corner of both; exact duplicates always do.
    labels = _first_of_group(np.floor(points / cell).astype(np.int64))
    shifted = _first_of_group(np.floor(points / cell + 0.5).astype(np.int64))
    while True:
        merged = labels.copy()
        np.minimum.at(merged, shifted, labels)  # the smallest label within each cell of the shifted grid ...
        merged = merged[shifted]
        smallest = merged.copy()
        np.minimum.at(smallest, labels, merged)  # ... handed to all vertices that carry the old label
        merged = smallest[labels]
        if np.array_equal(merged, labels):
            return labels
        labels = merged


def _first_of_group(keys: IntArray) -> IntArray:
    """For each row of `keys`, the index of the first row equal to it."""
    order = np.lexsort((keys[:, 2], keys[:, 1], keys[:, 0]))
    ranked = keys[order]
    new = np.empty(len(keys), dtype=bool)
    new[0] = True
    np.any(ranked[1:] != ranked[:-1], axis=1, out=new[1:])
    group = np.cumsum(new) - 1
    result = np.empty(len(keys), dtype=np.int64)
    result[order] = order[new][group]  # lexsort is stable: the first of a group has the smallest index
    return result


def build_edges(
    positions: npt.NDArray[np.floating],
    faces: npt.NDArray[np.integer],
    shape_of_face: npt.NDArray[np.integer] | None = None,
    smooth_shape: npt.NDArray[np.bool_] | None = None,
    tolerance: float = WELD_TOLERANCE,
) -> Edges:
    """List the welded edges of triangle meshes.

    Args:
        positions: (V, 3) vertices of all meshes, one after the other.
        faces: (T, 3) indices into `positions`.
        shape_of_face: (T,) which mesh a face belongs to; one mesh if omitted.
        smooth_shape: (number of meshes,) whether shading is continuous across unsplit edges; all flat if omitted.
        tolerance: see `weld_vertices`.

    Returns:
        The edges, in the order of their welded vertex labels.

    Raises:
        IndexError: a face names a vertex that does not exist.
    """
    faces = np.asarray(faces, dtype=np.int64).reshape(-1, 3)
    count = len(positions)
    if len(faces) and (faces.min() < 0 or faces.max() >= count):
        raise IndexError(f"a face names vertex {int(faces.max())}, but the meshes have {count} vertices")
    shape = np.zeros(len(faces), dtype=np.int64) if shape_of_face is None else np.asarray(shape_of_face, dtype=np.int64)
    smooth_of = np.zeros(int(shape.max(initial=0)) + 1, dtype=bool) if smooth_shape is None else smooth_shape

    welded = weld_vertices(positions, tolerance)[faces] if len(faces) else faces
    points = np.asarray(positions, dtype=np.float64)
    area = np.linalg.norm(
        np.cross(points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]]), axis=1
    )
    solid = area > 0
    # A sliver whose corners weld together has no area as seen by the welded surface, but its long sides are real.
    skipped_faces = int(len(faces) - solid.sum())
    kept = np.flatnonzero(solid)

    corner = np.array([0, 1, 2])
    face = np.repeat(kept, 3)
    here = np.tile(corner, len(kept))
    after, third = (here + 1) % 3, (here + 2) % 3
    from_label, to_label = welded[face, here], welded[face, after]
    real = from_label != to_label
    skipped_edges = int(len(real) - real.sum())
    face, here, after, third = face[real], here[real], after[real], third[real]
    from_label, to_label = from_label[real], to_label[real]

    flipped = from_label > to_label
    low, high = np.where(flipped, to_label, from_label), np.where(flipped, from_label, to_label)
    start = np.where(flipped, faces[face, after], faces[face, here])
    end = np.where(flipped, faces[face, here], faces[face, after])
    opposite = faces[face, third]

    order = np.argsort(low * max(count, 1) + high, kind="stable")
    key = (low * max(count, 1) + high)[order]
    new = np.ones(len(key), dtype=bool)
    new[1:] = key[1:] != key[:-1]
    first_at = np.flatnonzero(new)
    number = np.diff(np.append(first_at, len(key)))
    first, last = order[first_at], order[first_at + number - 1]

    joined = np.stack([face[order[:-1]], face[order[1:]]])[:, ~new[1:]]
    joined = joined[:, shape[joined[0]] == shape[joined[1]]]
    graph = coo_array((np.ones(joined.shape[1], dtype=np.int8), joined), shape=(len(faces), len(faces)))

    same_shape = shape[face[first]] == shape[face[last]]
    unsplit = (start[first] == start[last]) & (end[first] == end[last])
    uniform = same_shape & unsplit & (number == 2)
    return Edges(
        start=start[first],
        end=end[first],
        start_other=start[last],
        end_other=end[last],
        opposite=opposite[first],
        opposite_other=opposite[last],
        faces=number,
        smooth=uniform & smooth_of[shape[face[first]]] if len(first) else uniform,
        uniform=uniform,
        first_face=face[first],
        last_face=face[last],
        surface=np.where(solid, connected_components(graph, directed=False)[1], -1),
        skipped_edges=skipped_edges,
        skipped_faces=skipped_faces,
    )
