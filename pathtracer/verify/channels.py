"""The channels of an image that a check looks at: colours and further variables (AOVs), but no coverage."""

from __future__ import annotations

from typing import Any

import numpy as np


def aov_count(integrator: Any) -> int:
    """How many channels an integrator renders behind the film's own."""
    names = list(integrator.aov_names())
    return len(names) - 4 if integrator.class_name() == "AOVIntegrator" else len(names)  # four of the image within


def checked(channels: int, aovs: int) -> list[int]:
    """Indices of the checked channels among all of an image."""
    own = channels - aovs
    return [*range(3 if own >= 3 else 1), *range(own, channels)]


def pick(image: np.ndarray, integrator: Any) -> np.ndarray:
    """The checked channels of an image, (H, W, C)."""
    return image[..., checked(image.shape[-1], aov_count(integrator))]


def place(adjoint: np.ndarray, sensor: Any, integrator: Any) -> np.ndarray:
    """An adjoint image of the checked channels with all that the integrator renders; zero for coverage."""
    aovs = aov_count(integrator)
    channels = int(sensor.film().base_channels_count()) + aovs
    wide = np.zeros((*adjoint.shape[:2], channels), dtype=np.float32)
    wide[..., checked(channels, aovs)] = adjoint
    return wide
