"""Another minimum across a weak direction: shapes that look alike when they are tilted to either side.

Where the images respond little to a direction v, the residual is no longer linear in it: a card seen face-on shows the
same outline tilted left or right. Renders at u ± h v give the residual as a parabola, the other numbers follow,

    r(s) = r₀ + s j + s² q ,    ‖P r(s)‖² a quartic in s,     P: what is left by the best step of the other numbers,

and its least value over |s| ≤ 5/4 h, if it is far below that of s = 0, is a place from which to start again. All
products are of independent renders, so noise biases none of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from . import normal
from .normal import Array, Layout, Normal

if TYPE_CHECKING:
    from ..linearize import Pair

#: Where a direction is looked at, in units of the numbers' reach, and how far beyond the parabola is trusted.
FAR, BEYOND = (2.0, 5.0), 1.25
#: How many of the weakest directions are looked at.
DIRECTIONS = 2
#: Another place is worth going to if the loss is expected to fall to this share there, by so many standard errors.
WORTH, NOISE = 0.5, 4.0


def elsewhere(
    equations: Normal,
    J: Array,
    render: Callable[[Array], Pair],
    target: Array,
    weight: Array,
    geometry: Array,
    layout: Layout,
    low: Array,
    high: Array,
) -> Array | None:
    """The step to the most promising place across the weak directions, if there is one.

    Args:
        equations: at the present point.
        J: (n, P, C) its derivative images, of little noise.
        render: renders after a step (n,).
        target, weight: (P, C).
        geometry: (n,) whether a number moves something.
        layout: of the pixels.
        low, high: (n,) bounds of a step; directions that leave them are not looked at.
    """
    here = render(np.zeros(len(J)))
    now, error = normal.loss(here.a, here.b, target, weight, layout)
    best, least = None, min(WORTH * now, now - NOISE * error)
    for direction, far in itertools.product(weak_directions(equations, geometry), FAR):
        reach = far * np.abs(equations.vectors[:, direction]) * equations.reach
        if np.any(reach > np.minimum(high, -low)):
            continue
        step, expected = twin(equations, J, here, render, target, weight, direction, far)
        if abs(expected) < least:  # far below zero is noise
            best, least = step, abs(expected)
    return best


def weak_directions(equations: Normal, geometry: Array) -> list[int]:
    """Eigenvectors that the images respond least to, of those that they determine and that mostly move things."""
    known = np.flatnonzero(equations.known)
    moving = (equations.vectors[geometry] ** 2).sum(axis=0) > 0.5
    return [int(e) for e in known if moving[e]][:DIRECTIONS]


def twin(
    equations: Normal,
    J: Array,
    here: Pair,
    render: Callable[[Array], Pair],
    target: Array,
    weight: Array,
    direction: int,
    far: float,
) -> tuple[Array, float]:
    """The step to the least value of the quartic along one direction, and the loss expected there.

    Args:
        here: renders at the present point.
        direction: which eigenvector of the equations.
        far: where it is looked at, in units of the numbers' reach.
    """
    root = np.sqrt(weight)
    axes = equations.vectors * equations.reach[:, None]
    along, others = axes[:, direction], np.delete(axes, direction, axis=1)
    B = others.T @ (J * root).reshape(len(J), -1)
    M = others.T @ equations.A @ others
    ahead, behind = render(far * along), render(-far * along)
    rows = []
    for half in ("a", "b"):
        at, plus, minus = (((getattr(pair, half) - target) * root).ravel() for pair in (here, ahead, behind))
        rows.append(np.stack([at, (plus - minus) / (2 * far), (plus + minus - 2 * at) / (2 * far**2)]))
    inverse = np.linalg.pinv(M, rcond=1e-9, hermitian=True)
    G = rows[0] @ rows[1].T - (rows[0] @ B.T) @ inverse @ (rows[1] @ B.T).T
    G = 0.5 * (G + G.T)
    quartic = np.polynomial.Polynomial([G[0, 0], 2 * G[0, 1], G[1, 1] + 2 * G[0, 2], 2 * G[1, 2], G[2, 2]])
    s = np.linspace(-BEYOND * far, BEYOND * far, 201)
    best = float(s[np.argmin(quartic(s))])
    residual = np.array([1, best, best**2]) @ (0.5 * (rows[0] + rows[1]))
    return best * along - others @ inverse @ (B @ residual), float(quartic(best))
