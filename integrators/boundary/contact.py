"""Which surfaces may pass through each other, or stand on each other: those whose bounding boxes meet.

A mesh is often several surfaces, as a head and its eyes, that share no edge; see `topology.Edges.surface`.
"""

from __future__ import annotations

import drjit as dr
import mitsuba as mi
import numpy as np

from .tables import Parts

#: Bounding boxes that are closer than this fraction of their size touch.
TOUCHING = 1e-4


def touching(scene: mi.Scene, all_pairs: bool, parts: Parts) -> bool:
    """Whether surfaces may pass through each other: two shapes, or parts of one mesh that no edge joins.

    Args:
        all_pairs: whether pairs count of which neither moves, as where the camera does.
        parts: the meshes that are several surfaces.
    """
    shapes = scene.shapes()
    boxes = [shape.bbox() for shape in shapes]
    low = np.array([box.min for box in boxes], dtype=np.float64)
    high = np.array([box.max for box in boxes], dtype=np.float64)
    with dr.resume_grad():
        moves = np.array([all_pairs or shape.parameters_grad_enabled() for shape in shapes], dtype=bool)
        parts = [part for part in parts if all_pairs or part[0].parameters_grad_enabled()]
    return boxes_meet(low, high, moves) or any(boxes_meet(*_boxes(mesh, surface)) for mesh, surface in parts)


def boxes_meet(low: np.ndarray, high: np.ndarray, moves: np.ndarray | None = None) -> bool:
    """Whether two of some boxes meet of which one moves.

    Args:
        low, high: (N, 3) corners.
        moves: (N,); all if omitted.
    """
    slack = TOUCHING * np.linalg.norm(high - low, axis=1)
    low, high = low - slack[:, None], high + slack[:, None]
    moves = np.ones(len(low), dtype=bool) if moves is None else moves
    order = np.argsort(low[:, 0])
    low, high, moves = low[order], high[order], moves[order]
    ends = np.searchsorted(low[:, 0], high[:, 0], side="right")  # beyond them boxes begin farther along x
    for i, end in enumerate(ends):
        later = slice(i + 1, end)
        meet = np.all((low[later] <= high[i]) & (high[later] >= low[i]), axis=1)
        if np.any(meet & (moves[i] | moves[later])):
            return True
    return False


def _boxes(mesh: mi.Mesh, surface: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounding boxes of the surfaces of a mesh as it stands now."""
    positions = np.array(mesh.vertex_positions_buffer(), dtype=np.float64).reshape(-1, 3)
    corners = positions[np.array(mesh.faces_buffer()).reshape(-1, 3)]
    order = np.argsort(surface, kind="stable")
    starts = np.flatnonzero(np.diff(surface[order], prepend=-1))
    low = np.minimum.reduceat(corners.min(axis=1)[order], starts)
    return low, np.maximum.reduceat(corners.max(axis=1)[order], starts)
