"""How smooth the texels of an environment map shall be that a picture hardly shows: λ |∇x|², and which λ.

The best λ is the one whose answer from all rounds so far predicts the next, independent renders best.
"""

from __future__ import annotations

import numpy as np

from .light_columns import Columns
from .normal import Array
from .quadratic import solver, sphere_smoothness

#: Candidates for λ, relative to the size of A.
STRENGTHS = 10.0 ** np.arange(-5, 0.5, 0.5)
#: The one to start with: rather too smooth than too noisy.
FIRST = STRENGTHS[8]


def roughness(columns: Columns) -> Array | None:
    """L (m, m) of the differences between neighbouring texels; None without texels."""
    if not columns.mapped:
        return None
    L = np.zeros((columns.count, columns.count))
    for part, own in zip(columns.parts, columns.slices(), strict=True):
        if part.shape is not None:
            L[own, own] = sphere_smoothness(part.shape)
    return L


def scale(A: Array, L: Array) -> float:
    """The size of A in units of L: λ for a relative strength of 1."""
    return max(float(np.trace(A)), 1e-30) / max(float(np.trace(L)), 1e-30)


def best_strength(A: Array, g: Array, L: Array, target: Array, weight: Array, rest: Array, fresh: Array) -> float:
    """The strength whose answer predicts renders that had no part in the equations best; of one colour channel.

    Args:
        A, g: normal equations (m, m), (m,) of the rounds so far.
        L: from `roughness`.
        target, weight: (P,).
        rest, fresh: two estimates of this round of what known lights add (2, P), and of the basis images (2, m, P).
    """
    used = max(int(np.count_nonzero(weight)), 1)
    probes = np.sign(np.random.default_rng(0).normal(size=(len(L), 8)))
    terms = []
    for strength in scale(A, L) * STRENGTHS:
        solve = solver(A + strength * L)
        x = np.clip(solve(g), 0, None)
        # degrees of freedom from random signs (Hutchinson 1990)
        freedom = float(np.mean((probes * (A @ solve(probes))).sum(axis=0))) / used
        ra, rb = (target - rest[k] - fresh[k].T @ x for k in (0, 1))
        terms.append(weight * ra * rb / (1 - min(max(freedom, 0), 0.9)) ** 2)
    best = int(np.argmin([t.sum() for t in terms]))
    # the smoothest answer that predicts as well as the best, as far as the noise tells
    worse = [float((t - terms[best]).sum()) - float(np.linalg.norm(t - terms[best])) for t in terms]
    return float(STRENGTHS[max(k for k, w in enumerate(worse) if w <= 0)])
