"""The vertices of a mesh as unknowns: every place moves on its own, gradients are smoothed over the surface.

Vertices at one place (meshes with seams in their normals or texture coordinates store them several times) are one
unknown, so that seams do not open. Normals follow: Mitsuba recomputes them from the positions, with derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from .arrays import as_numpy, from_flat
from .filters import MeshFilter, weld
from .unknowns import Unknown

if TYPE_CHECKING:
    from ..scenes import Scene
    from .parameters import Parameter

#: λ of Nicolet et al.: gradients spread over about four edges.
SMOOTH = 19.0
#: For what the smoothed vertices cannot have.
EVERY_NUMBER = 'leave it out, or move every coordinate on its own with space = "identity"'
#: Latent steps of a first-order solver, in sizes of the mesh.
RATE = 0.02


class VerticesUnknown(Unknown):
    """Vertex positions of one mesh, in units of its size: the smoothed variables of `filters.MeshFilter`, or with
    `smooth = 0` the positions themselves."""

    def __init__(self, scene: Scene, keys: Sequence[str], like: Any, request: Parameter) -> None:
        from ..scenes.meshes import mesh_array

        if len(keys) > 1:
            raise UsageError(
                "vertices of several meshes cannot share a value", where=f"group {request.group}", remedy=EVERY_NUMBER
            )
        if request.bounds is not None:
            raise UsageError("vertices take no bounds", where=keys[0], remedy=EVERY_NUMBER)
        shape = keys[0].rsplit(".", 1)[0]
        faces = mesh_array(scene.params, shape, "faces")
        if faces is None:
            raise UsageError("has no triangles, so its points cannot be smoothed", where=keys[0], remedy="use a mesh")
        self.keys, self.name, self.space, self.measure = tuple(keys), keys[0], "large-steps", "points"
        self._kind = type(like)
        own = as_numpy(like).astype(np.float64)
        self._shape = own.shape
        own = own.reshape(-1, 3)
        given = own if request.init is None else _points(request.init, own, keys[0], "init")
        # two vertices may lie at one place in the scene and at two in `init`: the scene's own topology counts
        places, self._index = weld(own)
        first = np.unique(self._index, return_index=True)[1]
        self.size = 0.5 * float(np.linalg.norm(np.ptp(given, axis=0))) or 1.0
        smooth = SMOOTH if request.smooth is None else request.smooth
        self.start = given[first].ravel() / self.size
        if smooth > 0:
            self.filter, self.shared = MeshFilter(self._index[faces], len(places), smooth), True
            self.start = self.filter.inverse(self.start)
        self.lower, self.upper = np.full(self.start.size, -np.inf), np.full(self.start.size, np.inf)
        self.rate = request.lr or RATE
        self.vectors, self.freeze_until = 3, request.freeze_until
        truth = request.truth
        self.truth = (
            None if truth is None else (own if isinstance(truth, str) else _points(truth, own, keys[0], "truth"))
        )
        # the leaf holds one number per coordinate of a place; the scene wants every vertex
        self._gather = (3 * self._index[:, None] + np.arange(3)).ravel().astype(np.uint32)

    def attach(self, leaf: Any) -> dict[str, Any]:
        import drjit as dr
        import mitsuba as mi

        flat = self.size * dr.gather(mi.Float, leaf, mi.UInt32(self._gather))
        return {self.keys[0]: from_flat(flat, self._kind, self._shape)}

    def display(self, latent: np.ndarray) -> np.ndarray:
        return self.size * self.prepare(latent).reshape(-1, 3)[self._index]

    def values(self, latent: np.ndarray) -> dict[str, np.ndarray]:
        return {self.keys[0]: self.display(latent).reshape(self._shape).astype(np.float32)}


def _points(value: Any, like: np.ndarray, key: str, what: str) -> np.ndarray:
    array = np.asarray(value, np.float64)
    if array.size != like.size:
        raise UsageError(f"{what} has {array.size} numbers, the mesh {like.size}", where=key)
    return array.reshape(-1, 3)
