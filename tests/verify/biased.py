"""Copies of `path_replay` that are wrong on purpose: what the checker has to find."""

from __future__ import annotations

from typing import Any

import numpy as np


def register_biased() -> None:
    """Register `biased_scale`, `biased_backward`, `biased_cancelling`, `biased_nan` in the current variant."""
    import mitsuba as mi

    from integrators.path_replay import PathReplay

    class Scaled(PathReplay):
        """5 % too large, forward and backward."""

        def render_forward(self, *args: Any, **kwargs: Any) -> Any:
            return 1.05 * super().render_forward(*args, **kwargs)

        def render_backward(self, scene: Any, params: Any, grad_in: Any, *args: Any, **kwargs: Any) -> None:
            super().render_backward(scene, params, 1.05 * grad_in, *args, **kwargs)

    class Backward(PathReplay):
        """Right forward, 5 % too large backward."""

        def render_backward(self, scene: Any, params: Any, grad_in: Any, *args: Any, **kwargs: Any) -> None:
            super().render_backward(scene, params, 1.05 * grad_in, *args, **kwargs)

    class Cancelling(PathReplay):
        """Too large on the left, too small on the right."""

        def render_forward(self, *args: Any, **kwargs: Any) -> Any:
            image = np.array(super().render_forward(*args, **kwargs))
            half = image.shape[1] // 2
            image[:, :half] *= 1.3
            image[:, half:] *= 0.7
            return mi.TensorXf(image)

    class NotFinite(PathReplay):
        """One bad pixel."""

        def render_forward(self, *args: Any, **kwargs: Any) -> Any:
            image = np.array(super().render_forward(*args, **kwargs))
            image[3, 4] = np.nan
            return mi.TensorXf(image)

    for name, cls in {"scale": Scaled, "backward": Backward, "cancelling": Cancelling, "nan": NotFinite}.items():
        mi.register_integrator(f"biased_{name}", cls)
