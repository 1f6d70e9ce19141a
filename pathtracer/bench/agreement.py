"""Do two estimators agree, within what the noise of both explains?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Agreement:
    """One comparison of two estimates of the same number.

    Attributes:
        slope: mean of the first over mean of the second.
        error: one standard error of it, √(sₐ² + s_b²) over the mean of the second.
        limit: how many standard errors count as chance, all comparisons of the family together.
    """

    slope: float
    error: float
    limit: float

    @property
    def distance(self) -> float:
        """How many standard errors the two lie apart."""
        return abs(self.slope - 1) / self.error if self.error > 0 else float(np.inf if self.slope != 1 else 0)

    @property
    def agrees(self) -> bool:
        """|a − b| ≤ z √(sₐ² + s_b²)."""
        return self.distance <= self.limit


def agreement(a: np.ndarray, b: np.ndarray, comparisons: int = 1, confidence: float = 0.95) -> Agreement:
    """Compare replicates of two estimates by Welch's test, with Bonferroni's correction.

    Args:
        a, b: (n,) and (m,) independent replicates of either.
        comparisons: how many comparisons are made in all.
        confidence: that none of them rejects estimates whose expectations agree.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    parts = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    total = float(parts.sum())
    freedom = total**2 / float(np.sum(parts**2 / [len(a) - 1, len(b) - 1])) if total > 0 else np.inf
    limit = float(stats.t.ppf(1 - (1 - confidence) / (2 * comparisons), freedom))
    return Agreement(float(a.mean() / b.mean()), float(np.sqrt(total) / abs(b.mean())), limit)


def slopes(images: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n,) products of gradient images (n, H, W, C) with weights (H, W, C), blurred by 1.5 pixels.

    The weights must come from other samples than the images.
    """
    from scipy.ndimage import gaussian_filter

    return np.asarray(np.sum(images * gaussian_filter(weights, (1.5, 1.5, 0)), axis=(1, 2, 3)))
