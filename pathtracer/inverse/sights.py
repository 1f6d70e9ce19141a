"""Pictures seen coarsely: through cells (an image pyramid) or through a Gaussian, and how a loss compares them.

A sight is a linear map S of a picture x of H x W pixels to h x w values, each a mean over the pixels near it that the
mask m counts:

    S x = (R (m x) Cᵀ) / (R m Cᵀ)            R (h, H), C (w, W): how much of each row and column a value takes in

A loss that sees a picture so compares S a, S b with S t. Renders a and b are independent and S is linear, so what is
unbiased for pictures is unbiased for S of them. The slope by x is Sᵀ of the slope by S x.

Why: what lies beside its target and does not overlap it has no gradient in single pixels, but has one in values that
take in both; and noise of single pixels averages out in coarse ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .arrays import to_device
from .losses import Loss

if TYPE_CHECKING:
    from .prepared_views import PreparedView

Array = np.ndarray
#: Cells of a pyramid end where a side has fewer than this.
FEWEST = 4
#: Widths of the Gaussians through which solvers see pictures at first, in shares of the pictures' smaller side, and the
#: least one in pixels.
BLURS = (0.12, 0.05, 0.02)
NARROWEST = 0.7
#: Values per standard deviation of a Gaussian: closer ones would tell nothing new.
_DENSE = 2.0


class Layer(NamedTuple):
    """A target seen in one way, and the sight itself; of NumPy arrays or Dr.Jit tensors.

    Attributes:
        target: S t (h, w, C).
        weight: of each value (h, w, C).
        rows, columns: R (h, H), C (w, W).
        mask: m (H, W, 1).
        norm: 1 / (R m Cᵀ), 0 where nothing counts (h, w, 1).
    """

    target: Any
    weight: Any
    rows: Any
    columns: Any
    mask: Any
    norm: Any

    def see(self, image: Any, lib: Any) -> Any:
        """S x, of an (H, W, C) picture."""
        return self.norm * _apply(self.rows, self.columns, self.mask * image, lib)

    def back(self, slope: Any, lib: Any) -> Any:
        """Sᵀ y: a slope by the picture (H, W, C) from one by what is seen of it (h, w, C)."""
        return self.mask * _apply(self.rows, self.columns, self.norm * slope, lib, transposed=True)

    def on_device(self) -> tuple[Any, ...]:
        """The same as a plain tuple of Dr.Jit tensors, which a recording takes as an input."""
        import mitsuba as mi

        return tuple(to_device(part, mi.TensorXf) for part in self)


def cells(count: int, factor: int) -> Array:
    """Sums over `factor` neighbours (h, count); the last cell may have fewer."""
    index = np.arange(count) // factor
    return np.asarray(np.arange(index[-1] + 1)[:, None] == index, np.float64)


def gaussians(count: int, sigma: float, step: int) -> Array:
    """Gaussian weights (h, count) of standard deviation `sigma` pixels about the middle of every `step` pixels."""
    centres = np.arange(0, count, step) + 0.5 * (step - 1)
    return np.asarray(np.exp(-0.5 * ((np.arange(count) - centres[:, None]) / sigma) ** 2))


def make_layer(rows: Array, columns: Array, image: Array, mask: Array, loss: Loss, share: float = 1.0) -> Layer:
    """What is seen of a target.

    Args:
        rows, columns: R, C.
        image: (H, W, C); channels beyond the third are not compared.
        mask: (H, W) weights of the pixels, >= 0.
        loss: whose own weights of pixels apply to what is seen.
        share: sum of the weights over all values, before those of the loss.
    """
    whole = np.asarray(mask, np.float64)[..., None]
    whole = whole / (whole.max() or 1.0)
    amount = _apply(rows, columns, whole, np)
    seen = amount > 1e-4 * amount.max(initial=0.0)
    norm = np.where(seen, 1 / np.where(seen, amount, 1), 0.0)
    layer = Layer(0.0, 0.0, rows, columns, whole, norm)
    target = layer.see(np.asarray(image, np.float64), np)
    used = min(target.shape[-1], 3)
    weight = np.zeros_like(target)
    amount = np.where(seen, amount, 0)
    weight[..., :used] = share * amount / (amount.sum() * used) * loss.weight(target[..., :used])
    return layer._replace(target=target, weight=weight)


def pyramid(image: Array, mask: Array, loss: Loss) -> list[Layer]:
    """The coarser levels of a loss that has some: cells of 2 x 2 pixels, 4 x 4, ..., each with an equal share."""
    height, width = image.shape[:2]
    count = level_count(loss, (height, width))
    factors = [2**k for k in range(1, count)]
    return [make_layer(cells(height, f), cells(width, f), image, mask, loss, 1 / count) for f in factors]


def level_count(loss: Loss, shape: tuple[int, ...]) -> int:
    """Resolutions at which a loss compares pictures of (H, W) pixels, the full one included."""
    most = max(1, int(np.log2(max(min(shape[:2]) / FEWEST, 1))) + 1)
    return most if loss.levels == 0 else min(loss.levels, most)


def blurred(image: Array, mask: Array, loss: Loss, sigma: float, finest: float) -> Layer:
    """A target through a Gaussian of `sigma` pixels; `finest` decides how closely it is sampled, for every sigma."""
    step = max(1, int(finest / _DENSE))
    height, width = image.shape[:2]
    return make_layer(gaussians(height, sigma, step), gaussians(width, sigma, step), image, mask, loss)


def widths(size: int) -> tuple[float, ...]:
    """Those of `BLURS` that are wide enough to matter, descending, where the smaller side has `size` pixels."""
    return tuple(share for share in BLURS if share * size >= NARROWEST)


class BlurredTargets:
    """Targets of views, as layers, through a Gaussian of this share of their smaller side; 0: as the loss has them."""

    def __init__(self, loss: Loss, share: float = 0.0) -> None:
        self.loss = loss
        self.share = share
        self._made: dict[str, tuple[Any, ...]] = {}

    def layers(self, view: PreparedView) -> list[Any]:
        """On the device, as a recording takes them; made when a view is first asked for."""
        if not self.share:
            return list(view.target.layers)
        name = view.view.name
        if name not in self._made:
            size = min(view.view.height, view.view.width)
            image = np.array(view.target.image, np.float64)
            finest = max(NARROWEST, BLURS[-1] * size)
            self._made[name] = blurred(image, view.view.weight, self.loss, self.share * size, finest).on_device()
        return [self._made[name]]


def mean_loss(loss: Loss, a: Array, b: Array, target: Array, mask: Array) -> float:
    """The loss of one view from two independent pictures (H, W, C): all resolutions, pixels weighted by `mask`."""
    whole = np.asarray(mask, np.float64)[..., None]
    plain = loss.value(a, b, target, np) * loss.weight(target)
    total = float((plain * whole).sum() / (target.shape[-1] * whole.sum())) / level_count(loss, target.shape)
    for layer in pyramid(target, mask, loss):
        total += float((loss.value(layer.see(a, np), layer.see(b, np), layer.target, np) * layer.weight).sum())
    return total


def _apply(rows: Any, columns: Any, image: Any, lib: Any, transposed: bool = False) -> Any:
    """R x Cᵀ for every channel, or Rᵀ x C."""
    height, width, channels = image.shape
    if lib is np:
        rows, columns = (rows.T, columns.T) if transposed else (rows, columns)
        half = rows @ image.reshape(height, width * channels)
        return columns @ half.reshape(-1, width, channels)
    half = lib.matmul(rows, lib.reshape(image, (height, width * channels)), At=transposed)
    count = int(rows.shape[1] if transposed else rows.shape[0])
    return lib.matmul(columns, lib.reshape(half, (count, width, channels)), At=transposed)
