"""How noisy each pixel of a render is, and the weights that follow from it.

Every step renders a view twice with independent seeds; the squared half difference is an unbiased estimate of the
variance of their mean. It is averaged over the steps, and a floor keeps pixels that happened to look clean from ruling
the rest: 5 % of the image's median variance, and (1 % of the target)² because no model is better than that.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .arrays import to_device
from .rendering import Target

#: Pairs of renders before the first weights: a variance from 8 pairs is good to about 50 %.
PILOT = 8
_MEDIAN_SHARE = 0.05
_RELATIVE = 0.01


class NoiseMap:
    """Running mean of the variance of each value of a view's render.

    Attributes:
        count: pairs of renders so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum: Any = None

    def add(self, noise: Any) -> None:
        """Take in one pair's estimate, a (H, W, C) tensor."""
        import drjit as dr

        self._sum = noise if self._sum is None else self._sum + noise
        self.count += 1
        dr.eval(self._sum)

    def clear(self) -> None:
        """Forget everything."""
        self.count, self._sum = 0, None

    def state(self) -> np.ndarray:
        """Count and sum and shape in one float32 array (1 + n + 3,), for checkpoints."""
        body = np.zeros(0) if self._sum is None else np.array(self._sum).ravel()
        return np.concatenate([[self.count], body, self._shape]).astype(np.float32)

    def restore(self, state: np.ndarray) -> None:
        """Go on from `state`."""
        import mitsuba as mi

        self.count = int(state[0])
        shape = tuple(int(n) for n in state[-3:])
        self._sum = to_device(state[1:-3].reshape(shape), mi.TensorXf) if self.count else None

    @property
    def _shape(self) -> tuple[int, ...]:
        return (0, 0, 0) if self._sum is None else tuple(self._sum.shape)

    @property
    def mean(self) -> np.ndarray:
        """(H, W, C) variance of each value."""
        return np.array(self._sum, np.float64) / self.count

    def weight(self, target: Target) -> Any:
        """(H, W, C) weights: the target's own (mask over pixel count) over the variance."""
        return weights_of(self.mean, target)


def weights_of(variance: np.ndarray, target: Target) -> Any:
    """(H, W, C) weights, a tensor: the target's own (mask over pixel count) over a variance with a floor."""
    import mitsuba as mi

    image, base = np.array(target.image, np.float64), np.array(target.weight, np.float64)
    return to_device(base / (variance + floor_of(variance, image, base)), mi.TensorXf)


def floor_of(variance: np.ndarray, image: np.ndarray, base: np.ndarray) -> np.ndarray:
    """What is added to a measured variance (H, W, C), given the target's values and weights."""
    counted = variance[(variance > 0) & (base > 0)]
    floor = _MEDIAN_SHARE * float(np.median(counted)) if counted.size else 0.0
    brightness = max(float(image.mean()), 1e-6)
    return floor + _RELATIVE**2 * (image**2 + (0.01 * brightness) ** 2)
