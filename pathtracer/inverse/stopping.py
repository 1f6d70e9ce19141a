"""When to stop: statistics of noisy losses and gradients, so that noise is neither chased nor mistaken for progress."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

#: Two-sided 95 % of the normal distribution.
Z95 = 1.96
#: A gradient component counts as pointing somewhere when its sum is so many standard errors from zero.
_SIGNIFICANT = 3.0
#: Share of components that may do so by chance or stay behind.
_STRAGGLERS = 0.05


def slope_interval(losses: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of the slope per step of a line through `losses`, noise from its residuals."""
    y = np.asarray(losses, np.float64)
    n = y.size
    if n < 3:
        return -math.inf, math.inf
    x = np.arange(n) - (n - 1) / 2
    spread = float(x @ x)
    slope = float(x @ y) / spread
    residual = y - y.mean() - slope * x
    error = math.sqrt(float(residual @ residual) / (n - 2) / spread)
    return slope - Z95 * error, slope + Z95 * error


def is_flat(losses: Sequence[float]) -> bool:
    """Whether the loss may have stopped falling: the interval of its slope contains zero, or it rises."""
    return slope_interval(losses)[1] >= 0


def gradients_balance(gradients: Sequence[np.ndarray]) -> bool:
    """Whether gradients only scatter around zero: at most 5 % of the components have a mean that is significant.

    Args:
        gradients: one (n,) array per step.
    """
    g = np.asarray(gradients, np.float64)
    scale = np.sqrt(np.sum(g * g, axis=0))
    moving = np.abs(g.sum(axis=0)) > _SIGNIFICANT * scale
    return bool(np.mean(moving) <= _STRAGGLERS)


def exploded(loss: float, first: float, best: float) -> bool:
    """Whether a loss is far above anything that a start could explain: 1000 times the first and the best."""
    return not math.isfinite(loss) or loss > 1e3 * max(abs(first), abs(best), 1e-12)
