"""Spaces: smooth maps from the unbounded latent numbers that a solver moves to the physical values that the user sees.

A solver adds steps of similar size to all its numbers, so a space also decides what "similar" means: radiance moves by
ratios (`log`), an albedo by odds (`logit`), a bounded length by fractions of its range (`box`).

Every formula is written once, with `lib` standing for NumPy (values in, values out) or Dr.Jit (differentiable).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UsageError

#: Latent numbers beyond these leave what single precision can express without losing the gradient.
_LOG_LIMIT = math.log(1e12)
_LOGIT_LIMIT = 14.0
#: A start on a bound has no gradient through a logit; it is moved inside by this fraction of the range.
_INSIDE = 1e-3


class Space(ABC):
    """A one-to-one map between latent numbers and physical values of the same shape.

    Attributes:
        name: what job files call it.
        rate: latent step size that suits the space in a first-order solver.
        lower, upper: the physical bounds that every value respects.
    """

    name: str
    rate: float
    lower: float
    upper: float

    @abstractmethod
    def _forward(self, u: Any, lib: Any) -> Any: ...

    @abstractmethod
    def _inverse(self, x: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def slope(self, u: np.ndarray) -> np.ndarray:
        """The derivative of `forward` within the bounds (same shape)."""

    @abstractmethod
    def latent_bounds(self) -> tuple[float, float]:
        """The box that a solver keeps the latent numbers in."""

    def forward(self, u: np.ndarray) -> np.ndarray:
        """Physical values (float64, same shape) of the latent numbers `u`; never outside the bounds."""
        low, high = self.latent_bounds()
        x = self._forward(np.clip(np.asarray(u, np.float64), low, high), np)
        return np.clip(x, self.lower, self.upper)

    def forward_jit(self, u: Any) -> Any:
        """The same map on a Dr.Jit array, differentiable."""
        import drjit as dr

        return self._forward(u, dr)

    def inverse(self, x: np.ndarray) -> np.ndarray:
        """Latent numbers (float64) of physical values; a value on or outside a bound is moved just inside."""
        x = np.asarray(x, np.float64)
        if not np.all(np.isfinite(x)):
            raise UsageError(f"the start value {x.ravel()[~np.isfinite(x.ravel())][0]} is not finite")
        return np.clip(self._inverse(x), *self.latent_bounds())


@dataclass(frozen=True)
class Log(Space):
    """x = exp(u): positive values, steps are ratios. Zero starts at 1/1000 of the largest value of the array."""

    lower: float = 0.0
    upper: float = math.inf
    name = "log"
    rate = 0.1

    def __post_init__(self) -> None:
        if self.lower < 0 or not self.upper > self.lower:
            raise UsageError(f"a log space needs bounds 0 <= lower < upper, not ({self.lower}, {self.upper})")

    def _forward(self, u: Any, lib: Any) -> Any:
        return lib.exp(u)

    def _inverse(self, x: np.ndarray) -> np.ndarray:
        largest = float(np.max(x, initial=0.0))
        if largest <= 0:
            raise UsageError(
                "a log space cannot start from values that are all zero or negative", remedy="give a positive `init`"
            )
        return np.log(np.where(x > 0, x, _INSIDE * largest))

    def slope(self, u: np.ndarray) -> np.ndarray:
        return np.exp(u)

    def latent_bounds(self) -> tuple[float, float]:
        low = math.log(self.lower) if self.lower > 0 else -_LOG_LIMIT
        high = math.log(self.upper) if math.isfinite(self.upper) else _LOG_LIMIT
        return low, high


@dataclass(frozen=True)
class Logit(Space):
    """x = lower + (upper - lower) / (1 + exp(-u)): between two finite bounds, reached only in the limit."""

    lower: float = 0.0
    upper: float = 1.0
    name = "logit"
    rate = 0.1

    def __post_init__(self) -> None:
        _require_finite(self)

    def _forward(self, u: Any, lib: Any) -> Any:
        return self.lower + (self.upper - self.lower) / (1 + lib.exp(-u))

    def _inverse(self, x: np.ndarray) -> np.ndarray:
        fraction = np.clip((x - self.lower) / (self.upper - self.lower), _INSIDE, 1 - _INSIDE)
        return np.log(fraction / (1 - fraction))

    def slope(self, u: np.ndarray) -> np.ndarray:
        y = 1 / (1 + np.exp(-u))
        return (self.upper - self.lower) * y * (1 - y)

    def latent_bounds(self) -> tuple[float, float]:
        return -_LOGIT_LIMIT, _LOGIT_LIMIT


@dataclass(frozen=True)
class Box(Space):
    """x = lower + (upper - lower) u with u kept in [0, 1]: the bounds themselves are ordinary values."""

    lower: float = 0.0
    upper: float = 1.0
    name = "box"
    rate = 0.02

    def __post_init__(self) -> None:
        _require_finite(self)

    def _forward(self, u: Any, lib: Any) -> Any:
        return self.lower + (self.upper - self.lower) * u

    def _inverse(self, x: np.ndarray) -> np.ndarray:
        return (x - self.lower) / (self.upper - self.lower)

    def slope(self, u: np.ndarray) -> np.ndarray:
        return np.full(np.shape(u), self.upper - self.lower)

    def latent_bounds(self) -> tuple[float, float]:
        return 0.0, 1.0


@dataclass(frozen=True)
class Identity(Space):
    """x = scale u, clipped to bounds if there are any."""

    lower: float = -math.inf
    upper: float = math.inf
    scale: float = 1.0
    name = "identity"
    rate = 0.02

    def _forward(self, u: Any, lib: Any) -> Any:
        return self.scale * u

    def _inverse(self, x: np.ndarray) -> np.ndarray:
        return x / self.scale

    def slope(self, u: np.ndarray) -> np.ndarray:
        return np.full(np.shape(u), self.scale)

    def latent_bounds(self) -> tuple[float, float]:
        return self.lower / self.scale, self.upper / self.scale


def _require_finite(space: Logit | Box) -> None:
    if not (math.isfinite(space.lower) and math.isfinite(space.upper) and space.lower < space.upper):
        raise UsageError(
            f"a {space.name} space needs two finite bounds with lower < upper, not ({space.lower}, {space.upper})"
        )


#: Spaces of numbers by name. `direction` and `pose` move objects rigidly (`rigid.py`), `large-steps` moves vertices
#: (`vertices.py`).
ELEMENTWISE: dict[str, type[Space]] = {"log": Log, "logit": Logit, "box": Box, "identity": Identity}
SPACE_NAMES: tuple[str, ...] = (*ELEMENTWISE, "direction", "pose", "large-steps")


def make_space(name: str, bounds: tuple[float, float] | None, start: np.ndarray) -> Space:
    """The elementwise space `name` within `bounds`; an identity space is scaled by the size of its start value."""
    cls: Any = ELEMENTWISE[name]
    if cls is Identity:
        scale = float(np.max(np.abs(start), initial=0.0)) or 1.0
        low, high = bounds or (-math.inf, math.inf)
        if not low < high:
            raise UsageError(f"bounds need lower < upper, not ({low}, {high})")
        return Identity(low, high, scale)
    return cls(*bounds) if bounds else cls()
