"""Lines on a mesh across which a texture jumps: texels without interpolation, checkerboards, cut-outs.

A texture that jumps makes the film integrand jump wherever the camera sees the line, so the line is a curve of the
primary boundary term like any edge. (At later path vertices it is not: there surfaces keep their own coordinates, in
which the line stands still.) Texture space is cut along every grid line; a line segment lies within one face, between
two points given by their barycentric coordinates, and follows the face.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
import numpy.typing as npt

from .device import upload

Floats = npt.NDArray[np.float64]

#: More line segments than this are refused (a fine texture over a fine mesh).
MOST = 4_000_000
#: Where a texel is looked up to see whether it is one value, from its centre, in texels.
_BESIDE = ((-0.37, -0.31), (0.41, 0.33))


@dataclass(frozen=True)
class Grid:
    """A grid of jumps in texture space: lines s = i / cells[0] and t = j / cells[1] after the transform.

    Attributes:
        transform: (3, 3) from surface coordinates to texture coordinates.
        cells: number of cells per unit.
    """

    transform: Floats
    cells: tuple[int, int]


def jumping_textures(owner: Any) -> list[Grid]:
    """The textures below a BSDF or emitter that jump along a grid."""
    found = []
    parameters = mi.traverse(owner)
    for key in parameters.keys():
        prefix, _, name = key.rpartition(".")
        if name != "to_uv":
            continue
        texture = parameters.properties[key][2]
        transform = np.array(parameters[key].matrix, dtype=np.float64)
        if texture.class_name() == "Checkerboard":
            found.append(Grid(transform, (2, 2)))
        elif texture.class_name().startswith("Bitmap"):
            data = parameters[f"{prefix}.data" if prefix else "data"]
            if _steps(texture, transform):
                found.append(Grid(transform, (data.shape[1], data.shape[0])))
    return found


def _steps(texture: mi.Texture, transform: Floats) -> bool:
    """Whether a bitmap is constant within texels; found out by looking, since the filter is not a parameter.

    Looks at a checkerboard of texels in the place of its own, which may be all alike until they are optimised.
    """
    parameters = mi.traverse(texture)
    with dr.resume_grad():  # whoever makes tables suspends derivatives: a copy would lose those of an unknown texture
        data = type(parameters["data"])(parameters["data"])
    height, width, channels = data.shape
    if width * height == 1:
        return False
    if min(width, height) == 1:  # Mitsuba renders strips of texels, but lets nobody change them
        return _alike(texture, transform)
    try:
        column, row = np.meshgrid(np.arange(width), np.arange(height))
        board = np.repeat(((column + row) % 2)[:, :, None], channels, axis=2)
        kind = np.array(data).dtype  # texels of 8 bits stand for values up to 255
        parameters["data"] = type(data)((board * (255 if kind.kind == "u" else 1)).astype(kind))
        parameters.update()
        return _alike(texture, transform)
    finally:
        with dr.resume_grad():
            parameters["data"] = data
            parameters.update()


def _alike(texture: mi.Texture, transform: Floats) -> bool:
    before, behind = (_look(texture, transform, shift) for shift in _BESIDE)
    return np.array_equal(before, behind)


def _look(texture: mi.Texture, transform: Floats, shift: tuple[float, float]) -> Floats:
    """The values of a few texels, looked up beside their centres by a shift in texels."""
    height, width = mi.traverse(texture)["data"].shape[:2]
    few = np.arange(min(width * height, 16))
    texel = np.stack([few % width, few // width], axis=1) + 0.5
    st = np.concatenate([(texel + shift) / (width, height), np.ones((len(texel), 1))], axis=1)
    uv = st @ np.linalg.inv(transform).T
    si = dr.zeros(mi.SurfaceInteraction3f, len(texel))
    si.uv = mi.Point2f(*(uv[:, i].astype(np.float32) for i in (0, 1)))
    return np.array(texture.eval(si))


def cut(uv: Floats, grid: Grid) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Where the grid's lines cross triangles.

    Args:
        uv: (T, 3, 2) surface coordinates of the corners.

    Returns:
        (n,) triangle; (n, 3) barycentric coordinates of the two ends of each segment.

    Raises:
        ValueError: more than `MOST` segments.
    """
    st = np.concatenate([uv, np.ones((*uv.shape[:2], 1))], axis=2) @ grid.transform.T
    parts = [_cut_axis(st[..., axis] * grid.cells[axis]) for axis in (0, 1)]
    return tuple(np.concatenate(pair) for pair in zip(*parts, strict=True))  # type: ignore[return-value]


def _cut_axis(s: Floats) -> tuple[npt.NDArray[np.int64], Floats, Floats]:
    """Segments of the lines s = integer in triangles with corner values (T, 3)."""
    low, high = np.ceil(s.min(axis=1) - 1e-9), np.floor(s.max(axis=1) + 1e-9)
    count = np.maximum(high - low + 1, 0).astype(np.int64)
    if count.sum() > MOST:
        raise ValueError(f"{count.sum()} segments")
    triangle = np.repeat(np.arange(len(s)), count)
    line = low[triangle] + (np.arange(len(triangle)) - np.repeat(np.cumsum(count) - count, count))
    points = np.zeros((len(triangle), 3, 3))
    valid = np.zeros((len(triangle), 3), dtype=bool)
    for k in range(3):
        a, b = s[triangle, k], s[triangle, (k + 1) % 3]
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (line - a) / (b - a)
        valid[:, k] = (t >= 0) & (t <= 1)
        t = np.where(valid[:, k], t, 0)
        points[:, k, k], points[:, k, (k + 1) % 3] = 1 - t, t
    # Two of the three edges are crossed; a line through a corner crosses three: take the two points farthest apart
    best, ends = np.full(len(triangle), -1.0), np.zeros((2, len(triangle), 3))
    for i, j in ((0, 1), (1, 2), (2, 0)):
        apart = np.where(valid[:, i] & valid[:, j], np.abs(points[:, i] - points[:, j]).sum(axis=1), -1)
        better = apart > best
        best = np.where(better, apart, best)
        ends[0][better], ends[1][better] = points[better, i], points[better, j]
    kept = best > 1e-7
    return triangle[kept], ends[0][kept], ends[1][kept]


def merge(
    triangle: npt.NDArray[np.int64], start: Floats, end: Floats
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Which segments to keep so that each line counts once, and which sides of triangles are lines themselves.

    Returns:
        (n,) mask of the segments to keep; (m,) 3 · triangle + corner opposite to the side.
    """
    key = np.rint(np.concatenate([start, end], axis=1) * 1e5).astype(np.int64)
    swap = key[:, 0] * 3 + key[:, 1] > key[:, 3] * 3 + key[:, 4]
    key[swap] = key[swap][:, [3, 4, 5, 0, 1, 2]]
    _, first = np.unique(np.concatenate([triangle[:, None], key], axis=1), axis=0, return_index=True)
    keep = np.zeros(len(triangle), dtype=bool)
    keep[first] = True
    along = (np.abs(start) < 1e-6) & (np.abs(end) < 1e-6)
    on_side = along.any(axis=1)
    return keep & ~on_side, np.unique(3 * triangle[on_side] + along[on_side].argmax(axis=1))


class TextureLines:
    """The lines of jump on all meshes of a scene, on the device.

    Attributes:
        size: number of segments.
        sides: (n,) 3 · face + corner for each side of a face that is itself such a line: left to the mesh edges.
        skipped: ids of the meshes whose lines are too many.
    """

    def __init__(self, meshes: list[mi.Mesh], first_vertex: list[int], first_face: list[int]) -> None:
        corners, starts, ends = [np.zeros((0, 3), np.int64)], [np.zeros((0, 3))], [np.zeros((0, 3))]
        sides = [np.zeros(0, np.int64)]
        self.skipped: list[str] = []
        for mesh, vertex, face in zip(meshes, first_vertex, first_face, strict=True):
            owners = [owner for owner in (mesh.bsdf(), mesh.emitter()) if owner is not None]
            grids = [grid for owner in owners for grid in jumping_textures(owner)]
            if not grids:
                continue
            faces = np.array(mesh.faces_buffer(), dtype=np.int64).reshape(-1, 3)
            if mesh.has_vertex_texcoords():
                uv = np.array(mesh.vertex_texcoords_buffer(), dtype=np.float64).reshape(-1, 2)[faces]
            else:
                uv = np.broadcast_to(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), (len(faces), 3, 2))
            try:
                pieces = [cut(uv, grid) for grid in grids]
            except ValueError:
                self.skipped.append(mesh.id())
                continue
            triangle, start, end = (np.concatenate(piece) for piece in zip(*pieces, strict=True))
            keep, on_side = merge(triangle, start, end)
            corners.append(faces[triangle[keep]] + vertex)
            starts.append(start[keep])
            ends.append(end[keep])
            sides.append(on_side + 3 * face)
        self.sides = np.concatenate(sides)
        corner, start, end = np.concatenate(corners), np.concatenate(starts), np.concatenate(ends)
        self.size = len(corner)
        columns = lambda kind, array: [upload(kind, array[:, i]) for i in range(3)] if self.size else []
        self.corners, self.start, self.end = (
            columns(mi.UInt32, corner),
            columns(mi.Float, start),
            columns(mi.Float, end),
        )

    def ends(self, positions: mi.Float, index: mi.UInt32, active: mi.Bool) -> tuple[mi.Point3f, mi.Point3f]:
        """The attached ends of segments.

        Args:
            positions: flat vertex positions of all meshes, attached.
        """
        at = lambda array: dr.gather(mi.UInt32, array, index, active)
        v = [dr.gather(mi.Point3f, positions, at(corner), active) for corner in self.corners]

        def weigh(weights: list[mi.Float]) -> mi.Point3f:
            b = [dr.gather(mi.Float, weight, index, active) for weight in weights]
            return mi.Point3f(v[0] * b[0] + v[1] * b[1] + v[2] * b[2])

        return weigh(self.start), weigh(self.end)
