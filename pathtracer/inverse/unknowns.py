"""What a solver moves: pieces of the latent vector, each of which knows how to write itself into the scene.

`Unknown` is what all have in common; `ArrayUnknown` is plain numbers through a space. Other kinds are rigid motions
(`rigid_unknown.py`) and the vertices of a mesh (`vertices.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from .arrays import as_numpy, from_flat
from .spaces import ELEMENTWISE, Space, make_space

if TYPE_CHECKING:
    from ..scenes import ParameterInfo
    from .filters import Filter
    from .parameters import Parameter
    from .priors import Prior


class Unknown(ABC):
    """One piece of the latent vector.

    Attributes:
        name: the key, or the group's name with its number of keys.
        keys: the scene parameters that it writes.
        space: name of its space.
        measure: how far it is from the truth: "" relative to each number, "position" a distance, "direction" an angle,
            "pose" an angle and a distance, "points" the largest distance.
        filter: smooths gradients, None for no smoothing.
        priors: penalties.
        shared: whether first-order solvers scale all its numbers alike, so that smooth gradients make smooth steps.
        vectors: its numbers are vectors in space of so many components (1: they are not).
        freeze_until: the step before which it stays at its start.
        start: latent start (n,), float64.
        lower, upper: latent bounds (n,).
        rate: latent step size of first-order solvers.
        truth: known answer in the form of `display`, or None.
    """

    name: str
    keys: tuple[str, ...]
    space: str
    measure: str = ""
    start: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    rate: float
    truth: np.ndarray | None
    filter: Filter | None = None
    priors: tuple[Prior, ...] = ()
    shared: bool = False
    vectors: int = 1
    freeze_until: int = 0

    def prepare(self, latent: np.ndarray) -> np.ndarray:
        """What `attach` takes: the latent numbers, after the filter if there is one."""
        return latent if self.filter is None else self.filter.apply(latent)

    def pull(self, gradient: np.ndarray) -> np.ndarray:
        """The gradient by the latent numbers, from the one by what `prepare` returned."""
        return gradient if self.filter is None else self.filter.apply(gradient)

    def penalty(self, latent: np.ndarray) -> tuple[float, np.ndarray]:
        """What the priors add to the loss, and its gradient by the latent numbers."""
        return 0.0, np.zeros_like(latent)

    @abstractmethod
    def attach(self, leaf: Any) -> dict[str, Any]:
        """Scene values, differentiable in the Dr.Jit array `leaf` (n prepared numbers, `mi.Float`)."""

    @abstractmethod
    def values(self, latent: np.ndarray) -> dict[str, np.ndarray]:
        """The value of every key as an array in the scene's own shape."""

    @abstractmethod
    def display(self, latent: np.ndarray) -> np.ndarray:
        """What tables show: the value, a unit direction, or the rotation vector (degrees) and translation of a pose."""


class ArrayUnknown(Unknown):
    """Numbers of any shape through an elementwise space; environment maps without their two pad columns."""

    def __init__(
        self, keys: Sequence[str], like: Any, info: ParameterInfo, request: Parameter, factors: Sequence[float] = ()
    ) -> None:
        self.keys, self.name = tuple(keys), name_of(keys, request)
        self._factors = tuple(factors) or (1.0,) * len(self.keys)
        current = as_numpy(like)
        self._kind = type(like)
        self._shape = current.shape
        #: whether its numbers are triples of red, green and blue
        self.colored = info.kind in ("color", "texture", "envmap") and self._shape[-1:] == (3,)
        self._padded = info.kind == "envmap" and info.key.endswith(".data")
        if info.kind == "vector" and info.discontinuous and self._shape == (3,):
            self.measure, self.vectors = "position", 3
        self._start = _broadcast(current if request.init is None else request.init, current, keys[0], "init")
        natural = tuple(-np.inf if b is None else b for b in info.bounds[:1]) + tuple(
            np.inf if b is None else b for b in info.bounds[1:]
        )
        space = request.space or (info.space if info.space in ELEMENTWISE else "identity")
        bounds = request.bounds or (None if space == "log" and not np.isfinite(natural[1]) else natural)
        if space in ("logit", "box") and bounds is not None and not np.all(np.isfinite(bounds)):
            bounds = None
        try:
            self._space: Space = make_space(space, bounds, self._start)  # type: ignore[arg-type]
            self.start = self._space.inverse(self._strip(self._start)).ravel()
        except UsageError as error:
            raise UsageError(error.message, where=keys[0], remedy=error.remedy) from error
        self.space = self._space.name
        low, high = self._space.latent_bounds()
        self._smooth(request, keys[0])
        if self.filter is not None:
            low, high = -np.inf, np.inf  # of the smoothed variables; what they stand for is clipped
        self.lower, self.upper = np.full(self.start.size, low), np.full(self.start.size, high)
        self.freeze_until = request.freeze_until
        self.rate = request.lr or self._space.rate
        known = current if isinstance(request.truth, str) else request.truth
        self.truth = None if known is None else self._strip(_broadcast(known, current, keys[0], "truth"))

    def attach(self, leaf: Any) -> dict[str, Any]:
        import drjit as dr
        import mitsuba as mi

        flat = self._space.forward_jit(leaf)
        if self._padded:
            flat = dr.gather(mi.Float, flat, mi.UInt32(self._pad_index()))
        return {
            key: from_flat(flat if factor == 1 else factor * flat, self._kind, self._shape)
            for key, factor in zip(self.keys, self._factors, strict=True)
        }

    def values(self, latent: np.ndarray) -> dict[str, np.ndarray]:
        flat = self._space.forward(self.prepare(latent))
        if self._padded:
            flat = flat[self._pad_index()]
        return {
            key: (factor * flat).reshape(self._shape).astype(np.float32)
            for key, factor in zip(self.keys, self._factors, strict=True)
        }

    def to_latent(self, values: np.ndarray) -> np.ndarray:
        """Latent numbers (n,) of values in the order of `display`."""
        return self._space.inverse(np.asarray(values, np.float64)).ravel()

    def display(self, latent: np.ndarray) -> np.ndarray:
        return self._space.forward(self.prepare(latent)).reshape(self._stripped)

    def prepare(self, latent: np.ndarray) -> np.ndarray:
        return latent if self.filter is None else np.clip(self.filter.apply(latent), *self._space.latent_bounds())

    def penalty(self, latent: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = 0.0, np.zeros_like(latent)
        if self.priors:
            inner = self.prepare(latent)
            x = self._space.forward(inner).reshape(self._stripped)
            for prior in self.priors:
                part, slope = prior(x, self._padded)
                value += part
                gradient = gradient + slope.ravel()
            gradient = self.pull(gradient * self._space.slope(inner))
        return value, gradient

    def _smooth(self, request: Parameter, key: str) -> None:
        """Set up the filter and the priors."""
        self._stripped = self._strip(np.empty(self._shape)).shape
        self.priors = request.prior
        image = len(self._stripped) == 3
        if not image and (request.smooth or any(p.of_images for p in self.priors)):
            raise UsageError("smoothing is for textures, environment maps and vertices", where=key)
        if request.smooth:
            from .filters import GridFilter

            self.filter, self.shared = GridFilter(self._stripped, request.smooth, self._padded), True  # type: ignore[arg-type]
            self.start = self.filter.inverse(self.start)

    def _strip(self, array: np.ndarray) -> np.ndarray:
        return array[:, 1:-1] if self._padded else array

    def _pad_index(self) -> np.ndarray:
        """For each entry of the stored (H, W + 2, C) array, which entry of the (H, W, C) unknown it repeats."""
        height, width, channels = self._shape[0], self._shape[1] - 2, self._shape[2]
        index = np.arange(height * width * channels, dtype=np.uint32).reshape(height, width, channels)
        return np.concatenate([index[:, -1:], index, index[:, :1]], axis=1).ravel()


def name_of(keys: Sequence[str], request: Parameter) -> str:
    """The key, or the group's name with its number of keys."""
    return keys[0] if len(keys) == 1 else f"{request.group} ({len(keys)} keys)"


def _broadcast(value: Any, current: np.ndarray, key: str, what: str) -> np.ndarray:
    if isinstance(value, str):
        raise UsageError(f"{what} is {value!r}, numbers were expected", where=key)
    try:
        array = np.asarray(value, np.float64)
        return np.array(np.broadcast_to(array, current.shape), np.float64)
    except ValueError as error:
        raise UsageError(f"{what} has the shape {np.shape(value)}, the parameter {current.shape}", where=key) from error
