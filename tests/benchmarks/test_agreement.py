"""Agreement of two estimators: right when they agree, and not blind."""

from __future__ import annotations

import numpy as np

from pathtracer.bench.agreement import agreement, slopes


def _rejected(bias: float, comparisons: int, error: float = 0.01, runs: int = 400) -> float:
    rng = np.random.default_rng(0)
    draw = lambda mean, size, n: rng.normal(mean, size * np.sqrt(n), n)
    found = [agreement(draw(1 + bias, error, 16), draw(1, error / 3, 12), comparisons) for _ in range(runs)]
    return float(np.mean([not f.agrees for f in found]))


def test_equal_expectations_are_rejected_as_often_as_the_confidence_says() -> None:
    assert 0.02 < _rejected(0.0, 1) < 0.09
    assert _rejected(0.0, 20) < 0.02


def test_a_bias_of_five_percent_is_seen_when_errors_are_one_percent() -> None:
    assert _rejected(0.05, 1) > 0.95
    assert _rejected(0.05, 50) > 0.6


def test_the_error_is_that_of_the_ratio() -> None:
    rng = np.random.default_rng(1)
    found = [agreement(rng.normal(2, 0.1, 16), rng.normal(4, 0.1, 16)) for _ in range(300)]
    spread = np.std([f.slope for f in found])
    assert abs(np.mean([f.error for f in found]) / spread - 1) < 0.25  # the denominator's noise enters the slope less


def test_slopes_are_products_with_blurred_weights() -> None:
    images = np.arange(2 * 8 * 8 * 3, dtype=float).reshape(2, 8, 8, 3)
    np.testing.assert_allclose(slopes(images, np.ones((8, 8, 3))), images.sum((1, 2, 3)))
