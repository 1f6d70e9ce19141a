"""Where further samples go: against a search over all splits, and no side shrinks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pathtracer.verify.samples import Side, further_samples


def left_over(sides, totals):
    return sum(s.noise * s.spp / totals[name] for name, s in sides.items())


@pytest.mark.parametrize(
    "sides",
    [
        {"forward": Side(100, 0.01, 1.0), "backward": Side(100, 0.02, 0.3), "reference": Side(200, 0.005, 4.0)},
        {"forward": Side(100, 0.05, 0.01), "backward": Side(100, 0.02, 0.0), "reference": Side(100, 0.01, 2.0)},
        {"forward": Side(64, 0.02, 3.0), "backward": Side(64, 0.02, 3.0), "reference": Side(512, 0.01, 0.1)},
    ],
)
def test_no_other_split_of_the_time_leaves_less_noise(sides):
    seconds = 40.0
    more = further_samples(sides, seconds)
    cost = sum(s.rate * more[name] for name, s in sides.items())
    assert 0.5 * seconds < cost <= seconds  # multiples and quarters are rounded down
    ours = left_over(sides, {name: s.spp + more[name] for name, s in sides.items()})
    # no other split of the time that was used is better by more than the rounding
    for shares in itertools.product(np.linspace(0, 1, 21), repeat=2):
        if sum(shares) <= 1:
            parts = (*shares, 1 - sum(shares))
            totals = {n: s.spp + p * cost / s.rate for (n, s), p in zip(sides.items(), parts, strict=True)}
            assert ours <= 1.1 * left_over(sides, totals)


def test_a_side_without_noise_gets_nothing():
    sides = {"forward": Side(128, 0.01, 0.0), "backward": Side(0, 0.0, 0.0), "reference": Side(256, 0.01, 1.0)}
    assert further_samples(sides, 2.56) == {"forward": 0, "backward": 0, "reference": 256}


def test_less_than_a_doubling_is_used_where_that_is_what_is_left():
    sides = {"forward": Side(128, 0.01, 0.0), "backward": Side(0, 0.0, 0.0), "reference": Side(256, 0.01, 1.0)}
    assert further_samples(sides, 0.6 * 2.56)["reference"] == 128
