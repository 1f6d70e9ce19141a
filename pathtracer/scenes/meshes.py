"""The one adapter for the arrays of a mesh: what they are called, how they look, how they are written.

Mitsuba 3.10 renames `vertex_positions` to `positions`; whoever reads or sets vertices goes through here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class MeshFaults:
    """Counts of what is unusual in a mesh; none of it stops a render.

    Attributes:
        degenerate: triangles without area.
        duplicate: triangles that repeat another one (in any order of corners).
        non_manifold: edges with more than two triangles.
        open: edges with one triangle.
    """

    degenerate: int
    duplicate: int
    non_manifold: int
    open: int

    def sentence(self) -> str:
        """ "2 triangles without area, 1 duplicate triangle"; open edges are normal and left out."""
        parts = []
        for count, one, many in (
            (self.degenerate, "triangle without area", "triangles without area"),
            (self.duplicate, "duplicate triangle", "duplicate triangles"),
            (self.non_manifold, "edge with more than two triangles", "edges with more than two triangles"),
        ):
            if count:
                parts.append(f"{count} {one if count == 1 else many}")
        return ", ".join(parts)


def inspect_mesh(vertices: npt.NDArray[Any], faces: npt.NDArray[Any]) -> MeshFaults:
    """Count degenerate, duplicate and non-manifold parts of a mesh.

    Vertices at the same place are one vertex here: meshes with UV or normal seams store them several times.

    Args:
        vertices: (V, 3).
        faces: (F, 3) indices.
    """
    if not len(faces):
        return MeshFaults(0, 0, 0, 0)
    _, weld = np.unique(np.asarray(vertices, dtype=np.float64), axis=0, return_inverse=True)
    corners = weld.reshape(-1)[np.asarray(faces, dtype=np.int64)]
    a, b, c = (np.asarray(vertices, dtype=np.float64)[faces[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    longest = np.maximum(np.linalg.norm(b - a, axis=1), np.linalg.norm(c - a, axis=1))
    degenerate = area <= 1e-12 * longest**2
    ordered = np.sort(corners, axis=1)
    duplicate = len(ordered) - len(np.unique(ordered, axis=0))
    kept = corners[~degenerate]
    edges = np.sort(np.concatenate([kept[:, [0, 1]], kept[:, [1, 2]], kept[:, [2, 0]]]), axis=1)
    counts = np.unique(edges, axis=0, return_counts=True)[1] if len(edges) else np.zeros(0, int)
    return MeshFaults(int(degenerate.sum()), duplicate, int((counts > 2).sum()), int((counts == 1).sum()))


# -- the adapter -----------------------------------------------------------------------------------

_POSITION_NAMES = ("vertex_positions", "positions")
_NORMAL_NAMES = ("vertex_normals", "normals")
_TEXCOORD_NAMES = ("vertex_texcoords", "texcoords")
_FACE_NAMES = ("faces", "indices")


def mesh_key(params: Any, shape: str, what: str) -> str | None:
    """The key of an array of a mesh, whatever this Mitsuba calls it.

    Args:
        params: `mi.SceneParameters`.
        shape: the shape's key prefix, e.g. "bunny".
        what: "positions", "normals", "texcoords" or "faces".
    """
    names = {
        "positions": _POSITION_NAMES,
        "normals": _NORMAL_NAMES,
        "texcoords": _TEXCOORD_NAMES,
        "faces": _FACE_NAMES,
    }[what]
    for name in names:
        if f"{shape}.{name}" in params:
            return f"{shape}.{name}"
    return None


def mesh_array(params: Any, shape: str, what: str) -> npt.NDArray[Any] | None:
    """Positions (V, 3), normals (V, 3), texcoords (V, 2) or faces (F, 3) of a mesh, None where it has none."""
    key = mesh_key(params, shape, what)
    if key is None:
        return None
    array = np.array(params[key])
    return None if array.size == 0 else array.reshape(-1, 2 if what == "texcoords" else 3)


def set_mesh_array(params: Any, shape: str, what: str, array: npt.NDArray[Any]) -> None:
    """Assign an array of `mesh_array`'s shape; the caller calls `params.update()`."""
    key = mesh_key(params, shape, what)
    if key is None:
        raise KeyError(f"{shape} has no {what}")
    params[key] = type(params[key])(np.ascontiguousarray(array).ravel())


def write_mesh(path: Path, params: Any, shape: str, arrays: dict[str, npt.NDArray[Any]], face_normals: bool) -> None:
    """Write a mesh of the scene as PLY in world space.

    Args:
        path: the file.
        params: `mi.SceneParameters` of the scene.
        shape: the mesh's key prefix.
        arrays: arrays to use instead of the scene's, by the last part of their key.
        face_normals: leave the vertex normals out (the mesh is shaded with face normals).
    """
    import mitsuba as mi

    def get(what: str) -> npt.NDArray[Any] | None:
        key = mesh_key(params, shape, what)
        if key is None:
            return None
        name = key.rsplit(".", 1)[1]
        return np.asarray(arrays[name] if name in arrays else np.array(params[key])).ravel()

    positions, faces, normals, texcoords = (get(w) for w in ("positions", "faces", "normals", "texcoords"))
    assert positions is not None and faces is not None
    has_normals = normals is not None and normals.size > 0 and not face_normals
    has_texcoords = texcoords is not None and texcoords.size > 0
    mesh = mi.Mesh(
        shape,
        vertex_count=positions.size // 3,
        face_count=faces.size // 3,
        has_vertex_normals=has_normals,
        has_vertex_texcoords=has_texcoords,
    )
    target = mi.traverse(mesh)
    target["vertex_positions"] = mi.Float(positions.astype(np.float32))
    target["faces"] = mi.UInt32(faces.astype(np.uint32))
    if has_texcoords:
        assert texcoords is not None
        target["vertex_texcoords"] = mi.Float(texcoords.astype(np.float32))
    moved = any(name in arrays for name in _POSITION_NAMES)
    given = any(name in arrays for name in _NORMAL_NAMES)
    if has_normals and (given or not moved):  # otherwise Mitsuba recomputes them, as it does in the scene
        assert normals is not None
        target["vertex_normals"] = mi.Float(normals.astype(np.float32))
    target.update()
    prefix = f"{shape}."
    known = {*_POSITION_NAMES, *_NORMAL_NAMES, *_TEXCOORD_NAMES, *_FACE_NAMES}
    for key in params.keys():  # noqa: SIM118
        name = key[len(prefix) :]
        if key.startswith(prefix) and name.startswith(("vertex_", "face_")) and name not in known and "." not in name:
            values = np.asarray(arrays[name] if name in arrays else np.array(params[key])).ravel()
            count = positions.size // 3 if name.startswith("vertex_") else faces.size // 3
            mesh.add_attribute(name, values.size // count, values.astype(np.float32).tolist())
    mesh.write_ply(str(path))
