"""Smoothing of gradients by a change of variables: coarse shape first, detail later.

Instead of x the solver moves v = (I + λL) x, where L is the combinatorial Laplacian of the grid of texels or of the
mesh's vertices. A gradient by x becomes (I + λL)⁻¹ times it, and so does the step: an isolated spike in the gradient,
or a texel or vertex that no view shows, moves with its neighbourhood of about sqrt(λ) elements. x can still be
anything: no detail is lost, it only takes longer (Nicolet, Jacobson and Jakob 2021, "Large Steps in Inverse Rendering
of Geometry", section 3).

Everything here is small linear algebra in double precision on the host, where it can neither disturb a recorded step
nor lose digits; `mi.ad.LargeSteps` solves the same system in single precision and needs another package.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np


class Filter(ABC):
    """A symmetric positive definite map from smooth variables v to values x = (I + λL)⁻¹ v."""

    @abstractmethod
    def apply(self, v: np.ndarray) -> np.ndarray:
        """x of v, and gradients by v of gradients by x: the same map, as it is symmetric."""

    @abstractmethod
    def inverse(self, x: np.ndarray) -> np.ndarray:
        """v of x."""


class GridFilter(Filter):
    """Texels (H, W, C), flattened; free borders, or wrapped around horizontally.

    The Laplacian of a grid is diagonal in the cosine transform (free) and the Fourier transform (wrapped).
    """

    def __init__(self, shape: tuple[int, int, int], strength: float, wrap: bool = False) -> None:
        self._shape, self._wrap = shape, wrap
        height, width, _ = shape
        rows = 2 - 2 * np.cos(np.pi * np.arange(height) / height)
        columns = 2 - 2 * np.cos((2 if wrap else 1) * np.pi * np.arange(width) / width)
        self._gain = 1 + strength * (rows[:, None, None] + columns[None, :, None])

    def apply(self, v: np.ndarray) -> np.ndarray:
        return self._scale(v, 1 / self._gain)

    def inverse(self, x: np.ndarray) -> np.ndarray:
        return self._scale(x, self._gain)

    def _scale(self, flat: np.ndarray, gain: np.ndarray) -> np.ndarray:
        from scipy import fft

        grid = fft.dct(np.asarray(flat, np.float64).reshape(self._shape), axis=0, norm="ortho")
        if self._wrap:
            grid = fft.ifft(fft.fft(grid, axis=1) * gain, axis=1).real
        else:
            grid = fft.idct(fft.dct(grid, axis=1, norm="ortho") * gain, axis=1, norm="ortho")
        return np.asarray(fft.idct(grid, axis=0, norm="ortho")).ravel()


class MeshFilter(Filter):
    """Points (V, 3) of a welded mesh, flattened."""

    def __init__(self, faces: np.ndarray, count: int, strength: float) -> None:
        """Factorise I + λL.

        Args:
            faces: (F, 3) indices of welded vertices.
            count: V.
            strength: λ.
        """
        from scipy.sparse.linalg import splu

        self._matrix = laplacian(faces, count) * strength + _identity(count)
        self._solve = splu(self._matrix.tocsc()).solve

    def apply(self, v: np.ndarray) -> np.ndarray:
        return np.asarray(self._solve(np.asarray(v, np.float64).reshape(-1, 3))).ravel()

    def inverse(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self._matrix @ np.asarray(x, np.float64).reshape(-1, 3)).ravel()


def laplacian(faces: np.ndarray, count: int) -> Any:
    """The combinatorial Laplacian (V, V) of a mesh: degree minus adjacency, as a sparse matrix."""
    from scipy.sparse import coo_matrix, diags

    i, j = faces[:, [0, 1, 2]].ravel(), faces[:, [1, 2, 0]].ravel()
    kept = i != j  # a welded triangle may have lost its area
    i, j = i[kept], j[kept]
    links = coo_matrix((np.ones(2 * i.size), (np.r_[i, j], np.r_[j, i])), shape=(count, count)).tocsr()
    links.data[:] = 1.0  # an edge counts once, however many triangles it has
    return diags(np.asarray(links.sum(axis=1)).ravel()) - links


def _identity(count: int) -> Any:
    from scipy.sparse import identity

    return identity(count, format="csr")


def weld(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices at the same place as one.

    Args:
        points: (N, 3).
    Returns:
        points (V, 3) that differ, and for each of the N the index of its place (N,).
    """
    places, index = np.unique(points, axis=0, return_inverse=True)
    return places, index.reshape(-1)
