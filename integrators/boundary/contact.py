"""Which surfaces may pass through each other, or stand on each other: those whose bounding boxes meet.

A mesh is often several surfaces that share no edge, as a head and its eyes; see `topology.Edges.surface`.
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np

#: Bounding boxes that are closer than this fraction of their size touch.
TOUCHING = 1e-4


def touching(scene: mi.Scene, all_pairs: bool, parts: list[Parts]) -> bool:
    """Whether surfaces may pass through each other: two shapes, or parts of one mesh that no edge joins.

    Args:
        all_pairs: whether pairs count of which neither moves, as where the camera does.
        parts: the meshes that are several surfaces.
    """
    shapes = scene.shapes()
    boxes = [shape.bbox() for shape in shapes]
    low = np.array([box.min for box in boxes], dtype=np.float64).reshape(-1, 3)
    high = np.array([box.max for box in boxes], dtype=np.float64).reshape(-1, 3)
    with dr.resume_grad():
        moves = np.array([all_pairs or shape.parameters_grad_enabled() for shape in shapes], dtype=bool)
        parts = [part for part in parts if all_pairs or part.mesh.parameters_grad_enabled()]
    return boxes_meet(low, high, moves) or any(part.meet() for part in parts)


def boxes_meet(low: np.ndarray, high: np.ndarray, moves: np.ndarray | None = None) -> bool:
    """Whether two of some boxes meet of which one moves.

    Args:
        low, high: (N, 3) corners; a box with low > high is empty.
        moves: (N,); all if omitted.
    """
    moves = np.ones(len(low), dtype=bool) if moves is None else moves
    full = np.all(low <= high, axis=1)
    low, high, moves = low[full], high[full], moves[full]
    if not np.any(moves):
        return False
    slack = TOUCHING * np.linalg.norm(high - low, axis=1, keepdims=True)
    low, high = low - slack, high + slack
    axis = int(np.argmax(np.ptp(low, axis=0)))
    order = np.argsort(low[:, axis])
    low, high, moves = low[order], high[order], moves[order]
    ends = np.searchsorted(low[:, axis], high[:, axis], side="right")  # boxes from there on begin beyond this one
    for i, end in enumerate(ends):
        later = slice(i + 1, end)
        meet = np.all((low[later] <= high[i]) & (high[later] >= low[i]), axis=1)
        if np.any(meet & (moves[i] | moves[later])):
            return True
    return False


class Parts:
    """A mesh of several surfaces.

    Args:
        surface: which surface each face belongs to; negative for faces that count as none.
    """

    def __init__(self, mesh: mi.Mesh, surface: np.ndarray) -> None:
        self.mesh = mesh
        faces = np.array(mesh.faces_buffer(), dtype=np.int64).reshape(-1, 3)
        kept = surface >= 0
        pairs = np.unique(np.repeat(surface[kept], 3) * mesh.vertex_count() + faces[kept].ravel())
        owner, self._vertices = np.divmod(pairs, mesh.vertex_count())
        self._starts = np.flatnonzero(np.diff(owner, prepend=-1))
        #: the positions that were looked at; `device.arrays` passes over what has this name
        self.alive: Any = None
        self._answer = False

    def meet(self) -> bool:
        """Whether the bounding boxes of its surfaces meet, as it stands now."""
        positions = dr.detach(self.mesh.vertex_positions_buffer())
        if self.alive is None or self.alive.index != positions.index:
            # kept, or its number could come again; one gradient asks for each of its terms
            self.alive = positions
            at = np.array(positions, dtype=np.float64).reshape(-1, 3)[self._vertices]
            self._answer = boxes_meet(
                np.minimum.reduceat(at, self._starts, axis=0), np.maximum.reduceat(at, self._starts, axis=0)
            )
        return self._answer


def meshes_in_parts(meshes: list[mi.Mesh], surface: np.ndarray) -> list[Parts]:
    """The meshes that are several surfaces.

    Args:
        surface: see `topology.Edges`, of the faces of all meshes.
    """
    ends = np.cumsum([mesh.face_count() for mesh in meshes])
    each = zip(meshes, np.split(surface, ends[:-1]), strict=True)
    return [Parts(mesh, own) for mesh, own in each if len(np.unique(own[own >= 0])) > 1]
