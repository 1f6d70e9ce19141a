"""What the images determine: standard errors of every number in its own unit, and in words what they leave open.

A solver hands over the covariance of its latent numbers and the directions that no image responds to. Standard errors
follow by the derivative of what tables show (a value, a unit direction, degrees) by the latent numbers. A direction in
which the answer is uncertain by more than a quarter of the numbers' reach is named: the classic one is a wall's colour
against the light's strength.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .unknowns import ArrayUnknown

if TYPE_CHECKING:
    from .problem import Problem
    from .unknowns import Unknown

#: Of more numbers than this only errors are told, no directions.
_MANY = 128
#: A standard deviation of this share of the reach counts as not determined.
LOOSE = 0.25
#: Numbers take part in a direction from this share of its largest component on.
_TAKES_PART = 0.3
_COLORS = "RGB"


@dataclass
class Uncertainty:
    """How well an answer is known.

    Attributes:
        errors: standard error of each unknown in the form of its `display`, infinite where the images say nothing.
        notes: sentences with codes and remedies about what the images do not determine.
    """

    errors: list[np.ndarray]
    notes: list[str] = field(default_factory=list)


def explain(
    problem: Problem, latent: np.ndarray, covariance: np.ndarray, open_directions: np.ndarray, reach: np.ndarray
) -> Uncertainty:
    """Standard errors and sentences.

    Args:
        latent: the answer (n,).
        covariance: (n, n) of its latent numbers.
        open_directions: (k, n) unit directions, in units of `reach`, that no image responds to.
        reach: (n,) latent change that counts as large.
    """
    loose = covariance.copy()
    for direction in open_directions:
        part = np.where(np.abs(direction) > 0.1 * np.abs(direction).max(), direction * reach, 0)
        # large, and no infinity: the derivative of a display may have zeros
        loose += 1e12 * np.outer(part, part)
    errors = []
    ends = np.cumsum([u.start.size for u in problem.unknowns])
    for unknown, piece, end in zip(problem.unknowns, problem.split(latent), ends, strict=True):
        block = slice(int(end) - piece.size, int(end))
        D = _derivative(unknown, piece)
        variance = np.einsum("ij,jk,ik->i", D, loose[block, block], D)
        size = np.sqrt(np.clip(variance, 0, None))
        shape = np.shape(unknown.display(piece))
        errors.append(np.where(size > 1e3 * np.abs(D).max(axis=1, initial=1e-12), np.inf, size).reshape(shape))
    return Uncertainty(errors, _sentences(problem, covariance, open_directions, reach))


def _derivative(unknown: Unknown, latent: np.ndarray) -> np.ndarray:
    """(numbers shown, latent numbers) by central differences, inside the bounds."""
    if isinstance(unknown, ArrayUnknown):  # every number shown depends on its own latent number alone
        high, low = np.minimum(latent + 1e-4, unknown.upper), np.maximum(latent - 1e-4, unknown.lower)
        slope = (unknown.display(high) - unknown.display(low)).ravel() / np.maximum(high - low, 1e-12)
        return np.diag(slope)
    columns = []
    for k in range(latent.size):
        step = np.zeros(latent.size)
        step[k] = 1e-4
        high = np.minimum(latent + step, unknown.upper)
        low = np.maximum(latent - step, unknown.lower)
        width = high[k] - low[k] or 1.0
        columns.append(((unknown.display(high) - unknown.display(low)) / width).ravel())
    return np.stack(columns, axis=1)


def _sentences(problem: Problem, covariance: np.ndarray, open_directions: np.ndarray, reach: np.ndarray) -> list[str]:
    if len(reach) > _MANY:
        return []
    scaled = covariance / np.outer(reach, reach)
    values, vectors = np.linalg.eigh(scaled)
    weak = [v for w, v in zip(values, vectors.T, strict=True) if w > LOOSE**2]
    # colours are three directions that say the same: one sentence for each set of unknowns
    found: dict[tuple[str, ...], set[str]] = {}
    owners = [u for u in problem.unknowns for _ in range(u.start.size)]
    marks = [m for u in problem.unknowns for m in labels(u)]
    for direction in [*open_directions, *weak]:
        part = np.flatnonzero(np.abs(direction) > _TAKES_PART * np.abs(direction).max())
        names = tuple(dict.fromkeys(owners[i].name for i in part))
        found.setdefault(names, set()).update(marks[i] for i in part if marks[i])
    sentences = []
    for names, labels_ in found.items():
        if any(set(names) < set(others) for others in found):
            continue  # what it trades off with says more
        which = f" ({', '.join(sorted(labels_, key=_order))})" if labels_ else ""
        if len(names) > 1:
            listed = f"{', '.join(names[:-1])} and {names[-1]}"
            sentences.append(
                f"[not-determined] {listed} trade off{which}: the images fix a combination of them, not each; "
                f"fix one of them (leave it out), or add a view or a light that tells them apart"
            )
        else:
            sentences.append(
                f"[not-determined] {names[0]}{which}: the images hardly depend on it; "
                f"add a view that shows it, or leave it out"
            )
    return sentences


def labels(unknown: Unknown) -> Sequence[str]:
    """What to call each latent number of an unknown: R, G, B, a place in an array, an axis, or nothing."""
    n = unknown.start.size
    if unknown.space == "pose":
        return ["rotation x", "rotation y", "rotation z", "translation x", "translation y", "translation z"][:n]
    if unknown.space == "direction":
        return [f"turn {k + 1}" for k in range(n)]
    if getattr(unknown, "colored", False) and n == 3:
        return list(_COLORS)
    return [""] if n == 1 else [f"number {k}" for k in range(n)]


def _order(label: str) -> tuple[int, str]:
    return (_COLORS.index(label) if label in _COLORS else 9, label)
