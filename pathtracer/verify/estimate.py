"""The estimator's side of a check: replicates of its gradient image and of its backward gradient."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from .channels import pick, place
from .motion import BoundMotion
from .samples import Replicates


class Gradient:
    """Replicates of an estimator along one motion.

    Attributes:
        forward: gradient images, (R, H, W, C).
        backward: backward gradients for one adjoint image, (R,).
    """

    def __init__(self, bound: BoundMotion, sensor: Any, estimator: Any, replicates: int, seed: int) -> None:
        self.bound = bound
        self.sensor = sensor
        self.estimator = estimator
        self.replicates = replicates
        self.seed = seed
        self.forward = Replicates(seed)
        self.backward = Replicates(seed + 15485863)
        self._shares: dict[str, float] | None = None

    @property
    def images(self) -> np.ndarray:
        """(R, H, W, C) gradient images."""
        if self.forward.values is None:
            raise ValueError("no gradient images yet: call grow first")
        return self.forward.values

    def limit(self, spp: int, seconds: float) -> None:
        """Make do with four replicates where eight in both modes would take longer than `seconds`.

        Times the second pass, since the first one compiles. Four are too few to trim, so only slow estimators get this.
        """
        for seed in (1, 2):
            start = time.monotonic()
            self.gradient_image(spp, seed)
        if 2 * self.replicates * (time.monotonic() - start) > seconds:
            self.replicates = 4

    def balance(self, spp: int) -> None:
        """Let the estimator split its samples among its terms, if it can: the same mean with less noise."""
        split = getattr(self.estimator, "balance", None)
        if split is None:
            return
        self._shares = dict(self.estimator.shares)
        with ExitStack() as attached:

            def attach() -> None:
                attached.close()
                attached.enter_context(self.bound.attached(forward=True))

            split(self.bound.scene, self.bound.params, self.sensor, attach, spp, self.seed)

    def forget_split(self) -> None:
        """Leave the estimator with the split that it came with."""
        if self._shares is not None:
            self.estimator.shares = self._shares

    def grow(self, spp: int) -> None:
        """Add `spp` samples per pixel to every gradient image."""
        draw = lambda seed: _mean_of_passes(self.gradient_image, spp, seed, self._pixels)
        self.forward.add(draw, spp, self.replicates)

    def grow_backward(self, adjoint: np.ndarray, spp: int) -> None:
        """Add `spp` samples per pixel to every backward gradient for the adjoint image, (H, W, C)."""
        backward = lambda share, seed: self.backward_gradient(adjoint, share, seed)
        self.backward.add(lambda seed: _mean_of_passes(backward, spp, seed, self._pixels), spp, self.replicates)

    @property
    def _pixels(self) -> int:
        size = self.sensor.film().crop_size()
        return int(size[0]) * int(size[1])

    def gradient_image(self, spp: int, seed: int) -> np.ndarray:
        """One gradient image, (H, W, C) float64."""
        import drjit as dr
        import mitsuba as mi

        with self.bound.attached(forward=True):
            image = self.estimator.render_forward(
                self.bound.scene, self.bound.params, self.sensor, seed=dr.opaque(mi.UInt32, seed), spp=spp
            )
            return pick(np.asarray(image, dtype=np.float64), self.estimator)

    def backward_gradient(self, adjoint: np.ndarray, spp: int, seed: int) -> np.ndarray:
        """One ⟨Jᵀ u, v⟩, () float64; `adjoint` is u, (H, W, C)."""
        import drjit as dr
        import mitsuba as mi

        with self.bound.attached(forward=False) as theta:
            self.estimator.render_backward(
                self.bound.scene,
                self.bound.params,
                mi.TensorXf(place(adjoint, self.sensor, self.estimator)),
                self.sensor,
                seed=dr.opaque(mi.UInt32, seed),
                spp=spp,
            )
            return np.asarray(float(dr.grad(theta)[0]))


def _mean_of_passes(render: Callable[[int, int], np.ndarray], spp: int, seed: int, pixels: int) -> np.ndarray:
    """Mean over passes small enough for float32 sums and for the memory of a wavefront."""
    from integrators.finite_difference import MAX_PASS_RAYS, MAX_PASS_SPP, pass_seeds

    most = max(1, min(MAX_PASS_SPP, MAX_PASS_RAYS // pixels))
    passes = -(-spp // most)
    total = sum((render(-(-spp // passes), s) for s in pass_seeds(seed, passes)), np.zeros(()))
    return np.asarray(total) / passes
