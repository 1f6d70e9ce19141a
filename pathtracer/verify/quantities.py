"""What a check compares: weighted sums of gradient images, of finite differences, and of backward gradients.

slope       ⟨g, w⟩ against ⟨f, w⟩, w a blurred independent pilot of the reference f: one number for the image.
            Weights from other seeds keep noise of the reference out of the product, so the slope is not attenuated.
blocks      sums over a grid of blocks, per channel: errors that cancel over the image do not cancel here.
backward    the gradient for a random adjoint image u against ⟨u, f⟩, and against ⟨u, g⟩ of the forward mode
            (⟨u, J v⟩ = ⟨Jᵀ u, v⟩).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .comparison import Settings
from .estimate import Gradient
from .reference import Reference
from .statistics import Equivalence, equivalences, trimmed_mean


@dataclass(frozen=True)
class Quantities:
    """K numbers of one kind, from two sides that should agree.

    Attributes:
        names: K names.
        sides: which two sides of "forward", "backward", "reference" the numbers come from.
        x, y: (R, K) replicates of the one and of the other.
        ends: two of (R, K) between which the expectation of y lies, or nothing.
        relative, absolute: the margin.
    """

    names: list[str]
    sides: tuple[str, str]
    x: np.ndarray
    y: np.ndarray
    ends: tuple[np.ndarray, ...] = ()
    relative: float = 0.0
    absolute: float = 0.0

    def tests(self, alpha: float) -> list[Equivalence]:
        """The K comparisons, each at level `alpha`; together they weigh one."""
        tests = equivalences(self.x, self.y, self.names, self.relative, self.absolute, self.ends, alpha)
        return [replace(test, weight=1 / len(tests)) for test in tests]

    def variances(self) -> dict[str, np.ndarray]:
        """Of each side, the K variances of its mean."""
        spread = lambda samples: np.var(samples, axis=0, ddof=1) / len(samples)
        noisiest = np.max([spread(end) for end in self.ends or (self.y,)], axis=0)
        return {self.sides[0]: spread(self.x), self.sides[1]: noisiest}


def compared(
    gradient: Gradient, reference: Reference, adjoint: np.ndarray, settings: Settings, scale: float
) -> list[Quantities]:
    """Everything that is compared, from the samples so far.

    Args:
        adjoint: u, (H, W, C).
        scale: a θ that makes a visible but small change.
    """
    g = gradient.images
    # What counts as no derivative at all: a move by one `scale` that changes pixels by less than a thousandth
    floor = 1e-3 * reference.brightness / scale

    def against_reference(
        names: list[str], side: str, x: np.ndarray, reduce: Callable[[np.ndarray], np.ndarray], **margin: float
    ) -> Quantities:
        ends = tuple(reduce(end) for end in reference.ends)
        return Quantities(names, (side, "reference"), x, reduce(reference.images), ends, **margin)

    w = _slope_weights(reference)
    nothing = settings.tolerance * floor
    weighted = lambda weights: lambda images: np.sum(images * weights, (1, 2, 3))[:, None]
    margin = {"relative": settings.tolerance, "absolute": nothing * float(np.sum(np.abs(w)))}
    found = [against_reference(["slope"], "forward", weighted(w)(g), weighted(w), **margin)]
    backward = gradient.backward.values
    if backward is not None:
        size = float(np.sum(np.abs(adjoint)))
        margin = {"relative": settings.tolerance, "absolute": nothing * size}
        found.append(against_reference(["backward"], "backward", backward[:, None], weighted(adjoint), **margin))
        absolute = settings.tolerance * (abs(float(trimmed_mean(found[-1].y)[0])) + floor * size)
        forward = weighted(adjoint)(g)
        found.append(Quantities(["adjoint"], ("backward", "forward"), backward[:, None], forward, absolute=absolute))
    sums = lambda images: _blocks(images, settings.blocks)
    pixels = g.shape[1] * g.shape[2] / (settings.blocks**2)
    strongest = max(float(np.max(np.abs(trimmed_mean(sums(reference.images))))), floor * pixels)
    names = _block_names(g, settings.blocks)
    return [
        *found,
        against_reference(names, "forward", sums(g), sums, absolute=settings.block_tolerance * strongest),
    ]


def adjoint_image(pilot: np.ndarray, seed: int) -> np.ndarray:
    """A random u that the derivative does not average away: the pilot under random gains, plus white noise."""
    rng = np.random.default_rng(seed + 17)
    size = float(np.sqrt(np.mean(pilot**2))) or 1.0
    rough = pilot / size * rng.uniform(0.5, 1.5, pilot.shape) + 0.2 * rng.standard_normal(pilot.shape)
    return _smooth(rough)


def _smooth(image: np.ndarray) -> np.ndarray:
    """Blur by 1.5 pixels.

    A pixel's value has a kink in θ whenever an edge crosses its border, where no extrapolation in ε helps; sums with
    smooth weights have none but at the border of the frame. With weights as sharp as the image the slope came out up to
    12 % too large.
    """
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(image, sigma=(1.5, 1.5, 0)))


def _slope_weights(reference: Reference) -> np.ndarray:
    """The blurred pilot; ones where nothing changed, so that a derivative of zero is compared with zero."""
    weights = _smooth(reference.pilot)
    return weights if np.any(weights) else np.ones_like(weights)


def _grid(height: int, width: int, count: int) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
    """Row and column of each block, with its rows and columns of pixels."""
    return [
        (i, j, rows, columns)
        for i, rows in enumerate(np.array_split(np.arange(height), min(count, height)))
        for j, columns in enumerate(np.array_split(np.arange(width), min(count, width)))
    ]


def _block_names(images: np.ndarray, count: int) -> list[str]:
    height, width, channels = images.shape[1:]
    return [f"block {i},{j} c{c}" for i, j, _, _ in _grid(height, width, count) for c in range(channels)]


def _blocks(images: np.ndarray, count: int) -> np.ndarray:
    """(R, blocks × channels): sums over a grid of blocks with blurred borders."""
    height, width, _ = images.shape[1:]
    weights = []
    for _, _, rows, columns in _grid(height, width, count):
        weight = np.zeros((height, width, 1))
        weight[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 1
        weights.append(_smooth(weight)[..., 0])
    sums = np.einsum("nhwc,bhw->nbc", images, np.stack(weights))
    return np.asarray(sums.reshape(images.shape[0], -1))
