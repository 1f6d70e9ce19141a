"""Priors: what is known of a parameter besides the images, as a penalty that is added to the loss.

    total variation    w mean_p  sqrt(|∇x_p|² + e²) - e      few edges, flat between them (Rudin, Osher, Fatemi 1992)
    smoothness         w mean_p  |∇x_p|²                     no edges at all
    normal             w mean_i  ((x_i - m) / s)²            near a value that is known roughly

∇ are forward differences between neighbouring texels, |.| goes over both directions and all channels, x are physical
values. Environment maps wrap around horizontally. A weight is in units of the loss: with `l2`, 1e-3 makes a gradient of
0.1 per texel as bad as an RMS error of 0.003 in the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..errors import UsageError, nearest_names

KINDS = ("tv", "smooth", "normal")


@dataclass(frozen=True)
class Prior:
    """One penalty.

    Attributes:
        kind: "tv", "smooth" or "normal".
        weight: factor, in units of the loss.
        edge: differences well below this count as squares in "tv"; in units of the parameter.
        mean, sigma: of "normal".
    """

    kind: str
    weight: float
    edge: float = 0.01
    mean: float = 0.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(
                f"unknown prior {self.kind!r}, one of {', '.join(KINDS)}", nearest=nearest_names(self.kind, KINDS)
            )
        for name in ("weight", "edge", "sigma"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise UsageError(f"{name} of the prior is {value}, a positive number was expected")

    @property
    def of_images(self) -> bool:
        """Whether it is about neighbouring texels."""
        return self.kind in ("tv", "smooth")

    def __call__(self, x: np.ndarray, wrap: bool = False) -> tuple[float, np.ndarray]:
        """The penalty and its gradient.

        Args:
            x: physical values; (H, W, C) for the priors of images.
            wrap: whether the last column is a neighbour of the first.
        """
        if self.kind == "normal":
            off = (x - self.mean) / self.sigma
            return self.weight * float(np.mean(off**2)), 2 * self.weight * off / (self.sigma * x.size)
        down, right = np.zeros_like(x), np.zeros_like(x)
        down[:-1] = x[1:] - x[:-1]
        right[:, :-1] = x[:, 1:] - x[:, :-1]
        if wrap:
            right[:, -1] = x[:, 0] - x[:, -1]
        square = (down**2 + right**2).sum(axis=-1, keepdims=True)
        count = square.size
        if self.kind == "smooth":
            value, slope = square, np.full_like(square, 2.0)
        else:
            length = np.sqrt(square + self.edge**2)
            value, slope = length - self.edge, 1 / length
        down, right = slope * down, slope * right
        gradient = -down - right
        gradient[1:] += down[:-1]
        gradient[:, 1:] += right[:, :-1]
        if wrap:
            gradient[:, 0] += right[:, -1]
        return self.weight * float(value.mean()), self.weight / count * gradient


def make_priors(given: Any, where: str) -> tuple[Prior, ...]:
    """The priors that a user gave: None, a `Prior`, a dictionary of its fields, or several of them.

    Raises:
        UsageError: unknown kind or field, impossible number.
    """
    if given is None:
        return ()
    entries = [given] if isinstance(given, Prior | Mapping) else given
    if isinstance(entries, str) or not isinstance(entries, Sequence):
        raise UsageError(
            f"prior is {given!r}, a table was expected", where=where, remedy='for example {kind = "tv", weight = 1e-3}'
        )
    made = []
    for entry in entries:
        try:
            made.append(entry if isinstance(entry, Prior) else _from_table(entry))
        except UsageError as error:
            raise UsageError(error.message, where=where, nearest=error.nearest, remedy=error.remedy) from error
    return tuple(made)


def _from_table(table: Mapping[str, Any]) -> Prior:
    known = [f.name for f in fields(Prior)]
    for name in table:
        if name not in known:
            raise UsageError(f"unknown key {name!r} of a prior", nearest=nearest_names(name, known))
    for name in ("kind", "weight"):
        if name not in table:
            raise UsageError(f"a prior needs its {name}")
    return Prior(**table)
