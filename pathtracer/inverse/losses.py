"""Losses: what "the render looks like the photograph" means, pixel by pixel.

A render is noisy, and a nonlinear function of a noisy image has another mean than the function of the mean image: the
square, for one, is too large by the variance. So every loss sees two independent renders `a` and `b` of the same view,
and the squared ones multiply their residuals, E[(a - t)(b - t)] = (E a - t)(E b - t). Their slope is linear in the
image and therefore unbiased as it is; it is multiplied with an adjoint pass of a third, independent seed. The other
losses keep a bias that falls as 1/spp.

The formulas take NumPy arrays or Dr.Jit tensors; `lib` is the module that has their functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UsageError, nearest_names


@dataclass(frozen=True)
class Loss:
    """Base: mean of squared differences of linear radiance.

    Attributes:
        name: what job files call it.
        unbiased: whether noise in the render leaves value and slope right on average.
        by_noise: whether pixels are weighted by the inverse of the render's own variance (see `weights.py`).
        levels: resolutions at which pictures are compared, each half the one before; 0 for as many as there are.
    """

    name: str = "l2"
    unbiased: bool = True
    by_noise: bool = False
    levels: int = 1

    def value(self, a: Any, b: Any, target: Any, lib: Any) -> Any:
        """Loss per pixel and channel from two independent renders."""
        return (a - target) * (b - target)

    def slope(self, mean: Any, target: Any, lib: Any) -> Any:
        """Derivative by the rendered image, at the mean of the two renders."""
        return 2 * (mean - target)

    def weight(self, target: np.ndarray) -> np.ndarray | float:
        """Factor on the pixels that depends on the target alone (H, W, 3)."""
        return 1.0


@dataclass(frozen=True)
class RelativeL2(Loss):
    """Squared differences over the target's own square: dark and bright regions count alike.

    The denominator t² + (0.05 mean t)² holds no noise, so the loss stays unbiased.
    """

    name: str = "relative_l2"

    def weight(self, target: np.ndarray) -> np.ndarray | float:
        """1 / (t² + ε²)."""
        return 1 / (target.astype(np.float64) ** 2 + (0.05 * float(target.mean()) + 1e-8) ** 2)


@dataclass(frozen=True)
class NoiseWeighted(Loss):
    """Squared differences over the Monte Carlo variance of the render: a noisy pixel says little, a clean one much.

    These are the weights of the best linear unbiased estimate (Gauss-Markov). The variance comes from earlier renders
    than the one that it weights, so the loss stays unbiased. 1 is the loss of a render that is off by its noise.
    """

    name: str = "noise_weighted"
    by_noise: bool = True


@dataclass(frozen=True)
class MultiResolution(Loss):
    """The mean of l2 over the levels of an image pyramid: of pixels, of means over 2 x 2 of them, 4 x 4, ...

    Coarse levels see what is off by more than a pixel, and noise averages out in them. They are means of squares of
    linear functions of the renders, so the loss stays unbiased (see `sights.py`).
    """

    name: str = "multi_resolution"
    levels: int = 0

    def __post_init__(self) -> None:
        if self.levels < 0:
            raise UsageError(
                f"levels is {self.levels}, at least 1 was expected (0: as many as there are)", where="loss"
            )


@dataclass(frozen=True)
class L1(Loss):
    """Absolute differences: outliers pull with constant force."""

    name: str = "l1"
    unbiased: bool = False

    def value(self, a: Any, b: Any, target: Any, lib: Any) -> Any:
        return lib.abs(0.5 * (a + b) - target)

    def slope(self, mean: Any, target: Any, lib: Any) -> Any:
        return _sign(mean - target, lib)


@dataclass(frozen=True)
class Huber(Loss):
    """Squares up to `delta` (in radiance), then straight lines: photographs with highlights and saturated pixels."""

    name: str = "huber"
    unbiased: bool = False
    delta: float = 0.1

    def value(self, a: Any, b: Any, target: Any, lib: Any) -> Any:
        size = lib.abs(0.5 * (a + b) - target)
        return _where(size < self.delta, size * size, self.delta * (2 * size - self.delta), lib)

    def slope(self, mean: Any, target: Any, lib: Any) -> Any:
        r = mean - target
        return 2 * _where(lib.abs(r) < self.delta, r, self.delta * _sign(r, lib), lib)


@dataclass(frozen=True)
class Log1p(Loss):
    """Squared differences of log(1 + radiance): high dynamic range without the lights drowning the rest."""

    name: str = "log1p"
    unbiased: bool = False

    def value(self, a: Any, b: Any, target: Any, lib: Any) -> Any:
        t = _log1p(target, lib)
        return (_log1p(a, lib) - t) * (_log1p(b, lib) - t)

    def slope(self, mean: Any, target: Any, lib: Any) -> Any:
        return 2 * (_log1p(mean, lib) - _log1p(target, lib)) / (1 + _positive(mean, lib))


@dataclass(frozen=True)
class Smape(Loss):
    """|x - t| / (x + t + 0.01): relative and bounded by 1."""

    name: str = "smape"
    unbiased: bool = False

    def value(self, a: Any, b: Any, target: Any, lib: Any) -> Any:
        mean = _positive(0.5 * (a + b), lib)
        return lib.abs(mean - target) / (mean + target + 0.01)

    def slope(self, mean: Any, target: Any, lib: Any) -> Any:
        mean = _positive(mean, lib)
        total = mean + target + 0.01
        return _sign(mean - target, lib) / total - lib.abs(mean - target) / (total * total)


LOSSES: dict[str, type[Loss]] = {
    "l2": Loss,
    "relative_l2": RelativeL2,
    "noise_weighted": NoiseWeighted,
    "multi_resolution": MultiResolution,
    "l1": L1,
    "huber": Huber,
    "log1p": Log1p,
    "smape": Smape,
}
#: Options of the losses that have some.
_OPTIONS: dict[str, tuple[str, ...]] = {"huber": ("delta",), "multi_resolution": ("levels",)}


def make_loss(kind: str | Loss, **options: Any) -> Loss:
    """The loss called `kind`.

    Raises:
        UsageError: unknown name or option.
    """
    if isinstance(kind, Loss):
        return kind
    if kind not in LOSSES:
        raise UsageError(
            f"unknown loss {kind!r}, one of {', '.join(LOSSES)}", where="loss", nearest=nearest_names(kind, LOSSES)
        )
    taken = _OPTIONS.get(kind, ())
    if foreign := [name for name in options if name not in taken]:
        near = [f"{name} is for {other}" for other, own in _OPTIONS.items() for name in foreign if name in own]
        raise UsageError(
            f"the loss {kind!r} takes no {', '.join(foreign)}", where="loss", remedy="; ".join(near) or None
        )
    return LOSSES[kind](**options)


def _where(condition: Any, yes: Any, no: Any, lib: Any) -> Any:
    return lib.where(condition, yes, no) if lib is np else lib.select(condition, yes, no)


def _sign(x: Any, lib: Any) -> Any:
    # zero where the difference is exactly zero, as in masked pixels
    return _where(x > 0, x * 0 + 1, _where(x < 0, x * 0 - 1, x * 0, lib), lib)


def _positive(x: Any, lib: Any) -> Any:
    return _where(x > 0, x, x * 0, lib)


def _log1p(x: Any, lib: Any) -> Any:
    # wide reconstruction filters can make a pixel slightly negative
    return lib.log(1 + _positive(x, lib))
