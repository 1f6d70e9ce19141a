"""Splitting samples among the terms of a derivative.

Term i, sampled n_i times per pixel, leaves the variance v_i / n_i and costs c_i n_i. At a given total cost the sum of
the variances is least for

    n_i ∝ sqrt(v_i / c_i) .

v_i and c_i come from a pilot: a few derivative images of each term alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import drjit as dr
import numpy as np

#: No term gets less than this share of the samples that it would get in equal parts: a pilot may miss what is rare.
LEAST = 0.125
#: Derivative images of each term that its variance is estimated from; the first call, which compiles, is another.
REPEATS = 2


@dataclass(frozen=True)
class Pilot:
    """What a pilot found of one term.

    Attributes:
        variance: of the image, summed over pixels, of one sample per pixel.
        cost: seconds in kernels of one sample per pixel.
    """

    variance: float
    cost: float


def measure(image: Callable[[int], np.ndarray], spp: int) -> Pilot:
    """Pilot of one term.

    Args:
        image: derivative image of a seed with `spp` samples per pixel.
    """
    image(0)
    images, seconds = [], []
    with dr.scoped_set_flag(dr.JitFlag.KernelHistory, True):
        for seed in range(1, REPEATS + 1):
            dr.kernel_history_clear()
            images.append(image(seed))
            dr.sync_thread()
            # Not the time of the call, most of which is overhead that does not grow with the samples
            seconds.append(1e-3 * sum(kernel["execution_time"] for kernel in dr.kernel_history()))
    return Pilot(float(np.var(images, axis=0, ddof=1).sum()) * spp, max(min(seconds), 1e-9) / spp)


def shares(pilots: Mapping[str, Pilot]) -> dict[str, float]:
    """Samples of each term over those of an equal split of the same cost.

    A term without variance (nothing in it moves) gets the least share.
    """
    wanted = {name: math.sqrt(p.variance / p.cost) for name, p in pilots.items()}
    total = sum(p.cost for p in pilots.values())
    fixed: dict[str, float] = {}
    while True:
        free = {name: w for name, w in wanted.items() if name not in fixed}
        spent = sum(pilots[name].cost * w for name, w in free.items())
        left = total - sum(pilots[name].cost * s for name, s in fixed.items())
        if not free or spent <= 0:
            return {name: fixed.get(name, 1.0 if not fixed else LEAST) for name in wanted}
        split = {name: w * left / spent for name, w in free.items()}
        low = [name for name, s in split.items() if s < LEAST]
        if not low:
            return {**{name: fixed.get(name, 0.0) for name in wanted}, **split}
        fixed.update(dict.fromkeys(low, LEAST))
