"""Stopping: intervals that cover, flatness that is not fooled by noise, explosions."""

from __future__ import annotations

import numpy as np

from pathtracer.inverse.stopping import exploded, gradients_balance, is_flat, slope_interval


def test_slope_interval_covers_the_true_slope_in_about_95_percent_of_runs() -> None:
    rng = np.random.default_rng(5)
    runs, n, slope = 2000, 40, -0.01
    covered = 0
    for _ in range(runs):
        low, high = slope_interval(slope * np.arange(n) + rng.normal(scale=0.3, size=n))
        covered += low <= slope <= high
    # 40 points: the normal quantile covers 94.3 % of t(38); binomial spread of 2000 runs is 0.5 %
    assert 0.925 < covered / runs < 0.96


def test_a_falling_loss_is_not_flat_and_noise_around_a_constant_is() -> None:
    rng = np.random.default_rng(6)
    noise = rng.normal(scale=0.1, size=60)
    assert not is_flat(1.0 - 0.01 * np.arange(60) + noise)
    assert is_flat(0.2 + noise)


def test_gradients_that_agree_are_movement_and_those_that_scatter_are_not() -> None:
    rng = np.random.default_rng(7)
    scatter = rng.normal(size=(100, 12))
    assert gradients_balance(list(scatter))
    drifting = scatter.copy()
    drifting[:, 3] += 0.6
    assert not gradients_balance(list(drifting))


def test_explosion_is_a_thousandfold_or_not_finite() -> None:
    assert exploded(np.nan, 1.0, 0.1) and exploded(2000.0, 1.0, 0.1)
    assert not exploded(100.0, 1.0, 0.001)
