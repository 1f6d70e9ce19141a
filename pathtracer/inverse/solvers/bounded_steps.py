"""Steps of latent numbers within their bounds; strengths of lights step in the light itself, not in its logarithm.

An image is linear in a light's strength: a step s of it multiplies the strength by 1 + s, so it moves the latent
number by log(1 + s).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .normal import Array

#: A light's strength grows by at most this factor and falls by at most the other in one step.
_BRIGHTER, _DARKER = 20.0, 0.9


@dataclass(frozen=True)
class Steps:
    """Where steps may lead.

    Attributes:
        lower, upper: (n,) latent bounds.
        linear: (n,) whether a number is the logarithm of a light's strength.
        reach: (n,) latent change that counts as large.
    """

    lower: Array
    upper: Array
    linear: Array
    reach: Array

    def room(self, u: Array, cap: float) -> tuple[Array, Array]:
        """Bounds (n,), (n,) of a step from u (n,): the numbers' own, and `cap` times their reach."""
        low, high = self.lower - u, self.upper - u
        with np.errstate(over="ignore"):
            low = np.where(self.linear, np.maximum(np.expm1(low), -_DARKER), np.maximum(low, -cap * self.reach))
            high = np.where(
                self.linear, np.minimum(np.expm1(np.minimum(high, 50)), _BRIGHTER), np.minimum(high, cap * self.reach)
            )
        return np.minimum(low, 0), np.maximum(high, 0)

    def after(self, u: Array, step: Array) -> Array:
        """Where a step (n,) from u (n,) leads; strengths of lights are multiplied."""
        moved = np.where(self.linear, u + np.log1p(np.where(self.linear, step, 0)), u + step)
        return np.clip(moved, self.lower, self.upper)

    def pinned(self, u: Array) -> Array:
        """Which numbers of u (n,) are on their bounds."""
        return (u <= self.lower + 1e-9) | (u >= self.upper - 1e-9)
