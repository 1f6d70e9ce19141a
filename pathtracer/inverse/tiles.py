"""Batches of pixels: a step renders some tiles of the pictures instead of all, and stays unbiased.

The loss is a sum over tiles, L = Σ L_T. A step draws n of them, tile T with an expected count of n q_T, and takes

    L ≈ Σ over the drawn  L_T / (n q_T)

for the loss, and the same for its gradient. The draw is systematic (Madow 1949): one random number for all n, which
spreads them evenly. With `focus`, q follows the size that a tile's gradient had when it was drawn, which makes the sum
scatter least (Zhao and Zhang 2015): samples go where the picture is off and responds to what is unknown. The adjoint
|dL/dpixel| alone would go wherever the picture is noisy as well. The rest, 1 - focus, is spread evenly, so that no tile
has a small q and none is forgotten. q comes from earlier steps only, so it cannot bias this one.

A tile is rendered by a camera of its own: the view's camera with a narrower angle and its principal point moved. All
tiles of a size replay one recording, and every estimator takes part as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from .arrays import to_device
from .rendering import Target

if TYPE_CHECKING:
    from .prepared_views import PreparedView
    from .problem import Problem

Array = np.ndarray
#: The running mean of a tile's squared gradient takes in so much of each new one.
_NEW = 0.5


@dataclass(frozen=True)
class Window:
    """The part of a view that a tile shows.

    Attributes:
        base: the whole view.
        left, top: first column and row in the whole picture.
        width, height: pixels.
    """

    base: PreparedView
    left: int
    top: int
    width: int
    height: int

    def aim(self, sensor: Any) -> None:
        """Let `sensor` see what the base's camera sees in this window; derivatives of that camera are passed on."""
        import drjit as dr
        import mitsuba as mi

        film = self.base.sensor.film()
        whole, offset = film.size(), film.crop_offset()
        zero = dr.opaque(mi.Float, 0)
        base, own = mi.traverse(self.base.sensor), mi.traverse(sensor)
        across, down = self.width / int(whole[0]), self.height / int(whole[1])
        half = dr.tan(base["x_fov"] * (math.pi / 360)) * dr.opaque(mi.Float, across)
        own["x_fov"] = dr.atan(half) * (360 / math.pi)
        pose = base["to_world"]
        if not dr.grad_enabled(pose):
            # variables of its own: a recording tells inputs that are one from inputs that are two
            matrix = mi.Matrix4f(pose.matrix) * dr.opaque(mi.Float, 1)
            dr.eval(matrix)
            pose = mi.Transform4f(matrix)
        own["to_world"] = pose
        for axis, share, first, count in (("x", across, self.left, self.width), ("y", down, self.top, self.height)):
            size = int(whole[0] if axis == "x" else whole[1])
            start = int(offset[0] if axis == "x" else offset[1])
            key = f"principal_point_offset_{axis}"
            middle = dr.opaque(mi.Float, (start + first + 0.5 * count) / size - 0.5)
            own[key] = (base[key] + middle) / share + zero
        dr.eval(own["x_fov"], own["principal_point_offset_x"], own["principal_point_offset_y"])
        own.update()


@dataclass
class _Cut:
    """A view cut into tiles.

    Attributes:
        view: the whole view.
        sensor: the camera of its tiles.
        corners: (k, 2) top and left of each tile.
        size: (height, width) of all of them.
        image, weight: (H, W, C).
        counts: (k,) whether anything counts in a tile.
        canvas: (H, W, C) the latest picture, tile by tile.
    """

    view: PreparedView
    sensor: Any
    corners: Array
    size: tuple[int, int]
    image: Array
    weight: Array
    counts: Array = field(init=False)
    canvas: Array = field(init=False)

    def __post_init__(self) -> None:
        self.canvas = np.zeros_like(self.image)
        self.counts = np.array([bool(np.any(self.parts(k)[1] > 0)) for k in range(len(self.corners))])

    def slices(self, k: int) -> tuple[slice, slice]:
        """Rows and columns of a tile."""
        top, left = (int(n) for n in self.corners[k])
        return slice(top, top + self.size[0]), slice(left, left + self.size[1])

    def parts(self, k: int) -> tuple[Array, Array]:
        """Target and weights of a tile; pixels that an earlier tile has as well have no weight here."""
        rows, columns = self.slices(k)
        weight = self.weight[rows, columns].copy()
        height, width = self.size
        weight[: -rows.start % height] = 0
        weight[:, : -columns.start % width] = 0
        return self.image[rows, columns], weight


class Tiles:
    """The tiles of all fitted views, and how they are drawn.

    Args:
        problem: whose views are cut.
        count: tiles per step.
        size: side of a tile in pixels.
        focus: share of the draws that follow the size of the tiles' gradients.
    Attributes:
        scores: (T,) running mean of each tile's squared gradient, NaN before it was drawn.
        owner: (T, 2) view and number within it.
    Raises:
        UsageError: a loss or a camera that cannot be cut.
    """

    def __init__(self, problem: Problem, count: int, size: int, focus: float) -> None:
        _require(problem)
        self.count, self.focus = count, focus
        sensors: dict[tuple[Any, ...], Any] = {}
        self._cuts = [_cut(view, size, sensors) for view in problem.fitted]
        self.owner = np.array([(v, k) for v, cut in enumerate(self._cuts) for k in range(len(cut.corners))])
        self._counts = np.concatenate([cut.counts for cut in self._cuts])
        self.scores = np.full(len(self.owner), np.nan)

    def probabilities(self, views: list[int]) -> Array:
        """q (T,) over the tiles of some views."""
        open_ = self._counts & np.isin(self.owner[:, 0], views)
        even = open_ / open_.sum()
        known = open_ & np.isfinite(self.scores)
        if not np.any(self.scores[known] > 0):
            return even
        # what was never drawn counts as the average of what was
        scores = np.sqrt(np.where(known, self.scores, self.scores[known].mean())) * open_
        return (1 - self.focus) * even + self.focus * scores / scores.sum()

    def draw(self, views: list[int], number: float) -> list[tuple[int, float]]:
        """Tiles of a step and the factor 1 / (n q) of each.

        Args:
            views: whose tiles.
            number: random, in [0, 1).
        """
        q = self.probabilities(views)
        ends = np.cumsum(q) / q.sum()
        found = np.searchsorted(ends, (np.arange(self.count) + number) / self.count, side="right")
        last = int(np.flatnonzero(q)[-1])
        return [(k, 1 / (self.count * float(q[k]))) for k in np.minimum(found, last).tolist()]

    def view(self, tile: int) -> PreparedView:
        """A tile, ready to be rendered."""
        import mitsuba as mi

        index, k = (int(n) for n in self.owner[tile])
        cut = self._cuts[index]
        image, weight = (to_device(part, mi.TensorXf) for part in cut.parts(k))
        (height, width), (top, left) = cut.size, (int(n) for n in cut.corners[k])
        base = cut.view
        window = Window(base, left, top, width, height)
        shape = f"tiles of {height} x {width} x {image.shape[-1]}"
        target = Target(image, weight, base.target.exposure)
        return replace(base, sensor=cut.sensor, shape=shape, target=target, window=window)

    def learn(self, tile: int, picture: Any, steps: Array) -> Array:
        """Take in what came of a tile.

        Args:
            picture: what it looked like, times exposure (h, w, C).
            steps: gradient of its loss times the step sizes of the numbers (n,).
        Returns:
            The whole picture so far (H, W, C).
        """
        index, k = (int(n) for n in self.owner[tile])
        cut = self._cuts[index]
        size, old = cut.view.weight**2 * float(steps @ steps), self.scores[tile]
        self.scores[tile] = size if np.isnan(old) else old + _NEW * (size - old)
        rows, columns = cut.slices(k)
        cut.canvas[rows, columns] = np.array(picture, np.float32)
        return cut.canvas


def _cut(view: PreparedView, size: int, sensors: dict[tuple[Any, ...], Any]) -> _Cut:
    """Cut a view; `sensors` holds the cameras that tiles of one size share."""
    import mitsuba as mi

    image, weight = np.array(view.target.image), np.array(view.target.weight)
    height, width = min(size, image.shape[0]), min(size, image.shape[1])
    # the last tiles of a row or column begin earlier, so that all have one size
    tops = np.minimum(np.arange(0, image.shape[0], height), image.shape[0] - height)
    lefts = np.minimum(np.arange(0, image.shape[1], width), image.shape[1] - width)
    corners = np.stack(np.meshgrid(tops, lefts, indexing="ij"), axis=-1).reshape(-1, 2)
    formats = {1: "luminance", 3: "rgb", 4: "rgba"}
    film = {"type": "hdrfilm", "width": width, "height": height, "pixel_format": formats[image.shape[-1]]}
    params = mi.traverse(view.sensor)
    clips = {name: float(params[name]) for name in ("near_clip", "far_clip")}
    key = (height, width, film["pixel_format"], *clips.values())
    if key not in sensors:
        film |= {"component_format": "float32", "rfilter": {"type": "box"}}
        sensors[key] = mi.load_dict({"type": "perspective", **clips, "film": film, "sampler": {"type": "independent"}})
    return _Cut(view, sensors[key], corners, (height, width), image, weight)


def _require(problem: Problem) -> None:
    if problem.loss.by_noise or problem.loss.levels != 1:
        raise UsageError(
            f"the loss {problem.loss.name!r} looks at whole pictures, which tiles do not show",
            where="solver",
            remedy='use l2, relative_l2, huber, ..., or leave "tiles" out',
        )
    for view in problem.fitted:
        kind, film = view.sensor.class_name(), view.sensor.film()
        if kind != "PerspectiveCamera":
            raise UsageError(f"tiles are for perspective cameras, not {kind}", where=view.view.name)
        if not film.rfilter().is_box_filter():
            raise UsageError(
                "tiles are for films with a box filter: other filters let pixels of one tile reach the next",
                where=view.view.name,
                remedy='<rfilter type="box"/> in the film',
            )
