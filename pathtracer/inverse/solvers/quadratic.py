"""Quadratic forms: their minimum, also within bounds, and the one that measures how rough a map of the sphere is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .normal import Array


def solver(H: Array) -> Callable[[Array], Array]:
    """H⁻¹ for a symmetric matrix; where noise has made it indefinite, as much of the identity is added as it takes."""
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    size = max(float(np.trace(H)) / len(H), 1e-30)
    ridge = 1e-8 * size
    while True:
        try:
            factor = cho_factor(H + ridge * np.eye(len(H)))
        except LinAlgError:
            ridge *= 20
            continue
        return lambda b: cho_solve(factor, b)


def bounded(H: Array, g: Array, low: Array, high: Array) -> Array:
    """argmin ½ xᵀHx - gᵀx within bounds.

    By block pivoting (Kim and Park 2011), which needs a few solutions where few numbers end on their bounds; where it
    does not end, by SciPy.
    """
    from scipy.linalg import cholesky, solve_triangular
    from scipy.optimize import lsq_linear

    free = np.ones(len(g), bool)
    x = np.zeros(len(g))
    for _ in range(60):
        rhs = g - H[:, ~free] @ x[~free]
        if np.any(free):
            x[free] = solver(H[np.ix_(free, free)])(rhs[free])
        slope = H @ x - g
        margin = 1e-10 * float(np.abs(g).max(initial=1e-30))
        beyond = free & ((x < low) | (x > high))
        inward = ~free & (((x <= low) & (slope < -margin)) | ((x >= high) & (slope > margin)))
        if not np.any(beyond | inward):
            return x
        x[beyond] = np.clip(x, low, high)[beyond]
        free = (free & ~beyond) | inward
    ridge = 1e-9 * float(np.trace(H)) / len(H)
    ridge += max(0.0, -float(np.linalg.eigvalsh(H)[0])) * 1.01
    L = cholesky(H + ridge * np.eye(len(H)), lower=True)
    return np.asarray(lsq_linear(L.T, solve_triangular(L, g, lower=True), bounds=(low, high), method="bvls").x)


def sphere_smoothness(shape: tuple[int, int]) -> Array:
    """The quadratic form of squared gradients on the sphere, for a latitude-longitude grid of (rows, columns) texels.

    Neighbours along a parallel count by 1/sin θ (they are close near the poles), along a meridian by sin θ; the texels
    of a pole, which are one point, are tied together.
    """
    rows, columns = shape
    index = np.arange(rows * columns).reshape(rows, columns)
    theta = np.pi * np.arange(rows) / max(rows - 1, 1)
    ratio = (2 * np.pi / columns) / (np.pi / max(rows - 1, 1))
    L = np.zeros((rows * columns, rows * columns))

    def tie(i: Array, j: Array, w: Array) -> None:
        np.add.at(L, (i, i), w)
        np.add.at(L, (j, j), w)
        np.add.at(L, (i, j), -w)
        np.add.at(L, (j, i), -w)

    along = np.clip(1 / np.maximum(np.sin(theta), 1e-6) / ratio, 0, 20.0)
    tie(index.ravel(), np.roll(index, -1, axis=1).ravel(), np.repeat(along, columns))
    middle = np.sin(0.5 * (theta[1:] + theta[:-1])) * ratio
    tie(index[:-1].ravel(), index[1:].ravel(), np.repeat(middle, columns))
    return L
