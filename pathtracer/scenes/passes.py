"""Many small renders averaged in double precision: images of any sample count, with variance and a limit on time.

A float32 film that sums thousands of samples loses digits (4096 samples bias a small difference by 4 %), and one call
may not use more than 2^32 lanes, so that every larger image is an average of passes. Passes also tell the variance: the
spread of independent pass means, divided by their number, estimates the variance of the final pixel without bias.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: Samples per pixel of one pass.
MAX_SPP = 512
#: Rays of one pass: bounds memory, and is far below the limit of 2^32 lanes.
MAX_RAYS = 2**26
#: Rays of one pass under a time budget: short enough to stop in time.
BUDGET_RAYS = 2**20
#: Passes at least when a variance is wanted: 16 know it to about 37 %.
VARIANCE_PASSES = 16

#: (seed, samples per pixel) to an image (H, W, C).
Render = Callable[[int, int], np.ndarray]


@dataclass
class Passes:
    """The average of several renders.

    Attributes:
        mean: (H, W, C) float64.
        variance: (H, W, C) estimated variance of `mean`; None after a single pass.
        spp: samples per pixel in all.
        count: number of passes.
        first_seconds: time of the first pass, which includes compilation.
        seconds: time of all passes.
    """

    mean: np.ndarray
    variance: np.ndarray | None
    spp: int
    count: int
    first_seconds: float
    seconds: float


def split_passes(spp: int, pixels: int, at_least: int = 1) -> tuple[int, int]:
    """(number of passes, samples per pixel of each) for `spp` samples per pixel, rounded up to equal passes."""
    largest = max(1, min(MAX_SPP, MAX_RAYS // max(1, pixels)))
    count = max(-(-spp // largest), min(at_least, spp))
    return count, -(-spp // count)


def average_passes(
    render: Render,
    spp: int,
    pixels: int,
    seed: int = 0,
    time_budget: float | None = None,
    variance: bool = False,
    progress: Callable[[int, int | None, float], None] | None = None,
) -> Passes:
    """Average renders with independent seeds until `spp` samples per pixel are reached or the time is up.

    Args:
        render: one pass.
        spp: samples per pixel in all; ignored when there is a time budget.
        pixels: of the film, to bound the size of a pass.
        seed: the passes use seeds that follow from it.
        time_budget: seconds after which no further pass is begun (one pass is always made).
        variance: make enough passes to estimate the variance.
        progress: called with (passes done, passes in all or None, seconds) after each pass.
    """
    if time_budget is None:
        total, share = split_passes(spp, pixels, VARIANCE_PASSES if variance else 1)
        count: int | None = total
    else:
        count, share = None, max(1, min(MAX_SPP, BUDGET_RAYS // max(1, pixels)))
    seeds = np.random.SeedSequence(seed)
    start = time.perf_counter()
    mean = square = None
    done, first, last = 0, 0.0, 0.0
    while count is None or done < count:
        before = time.perf_counter()
        # the first pass keeps the user's seed, so that a small render is Mitsuba's own render with that seed
        pass_seed = seed if done == 0 else int(seeds.spawn(1)[0].generate_state(1)[0])
        image = np.asarray(render(pass_seed, share), np.float64)
        done += 1
        if mean is None or square is None:
            mean, square = image, np.zeros_like(image)
        else:  # Welford: no cancellation in the sum of squares
            delta = image - mean
            mean = mean + delta / done
            square = square + delta * (image - mean)
        now = time.perf_counter()
        first, last = (now - before if done == 1 else first), now - before
        if progress is not None:
            progress(done, count, now - start)
        if time_budget is not None and now - start + last > time_budget and (done > 1 or not variance):
            break
    assert mean is not None and square is not None
    spread = square / (done - 1) / done if done > 1 else None
    return Passes(mean, spread, done * share, done, first, time.perf_counter() - start)
