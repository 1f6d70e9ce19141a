"""How the cameras of a capture stand: what they look at, how far away it is, and whether their axes can be right.

A wrong convention leaves traces. Cameras that look away from the one point where their axes meet were probably read
with the wrong sign of z; cameras upside down hang below what they look at; and with masks there is a test that needs no
assumption about how people take photographs: the silhouettes of one object, carried into space, have a common part that
fills every one of them again (the visual hull, Laurentini 1994), which wrong poses do not have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pathtracer.capture.cameras import AXES, MATRICES, Camera, Matrix, inverse, stored

#: Side of the grid of points that silhouettes are tested on, and of the pictures of its projections.
_GRID, _COARSE = 40, 24
#: Views that take part in the test of the silhouettes, at most.
_TESTED = 24


@dataclass(frozen=True)
class Layout:
    """Where cameras stand.

    Attributes:
        focus: (3,) the point nearest to all optical axes.
        distance: median distance of the cameras from it.
        radius: of the ball about it that half fills the pictures.
        up: (3,) mean of the cameras' up directions, a unit vector.
        spread: median distance of the axes from the focus over `distance`: small when the cameras look at one thing.
        looking: share of the cameras that have the focus in front of them.
    """

    focus: Matrix
    distance: float
    radius: float
    up: Matrix
    spread: float
    looking: float


def layout(cameras: Sequence[Camera], points: Matrix | None = None) -> Layout:
    """How cameras stand.

    Args:
        cameras: at least one.
        points: (N, 3) points of the scene, used when the optical axes do not meet.
    """
    origins = np.array([c.position for c in cameras])
    axes = np.array([c.forward for c in cameras])
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    normal = across.sum(axis=0)
    meet = len(cameras) > 1 and np.linalg.eigvalsh(normal)[0] > 1e-3 * len(cameras)
    if meet:
        focus = np.linalg.solve(normal, np.einsum("nij,nj->i", across, origins))
    elif points is not None:
        focus = np.median(points, axis=0)
    else:  # parallel axes, or one camera: nothing says how far away the scene is
        extent = float(np.linalg.norm(np.ptp(origins, axis=0)))
        focus = origins.mean(axis=0) + max(1.0, 2 * extent) * axes.mean(axis=0)
    offsets = focus - origins
    distances = np.linalg.norm(offsets, axis=1)
    distance = float(np.median(distances))
    if not distance > 1e-9:
        distance = 1.0
    miss = np.linalg.norm(np.einsum("nij,nj->ni", across, offsets), axis=1)
    half = [0.5 * min(c.width / c.fx, c.height / c.fy) for c in cameras]  # tangent of half the narrower angle
    seen = np.median(np.maximum(distances, 1e-9) * np.array(half) / np.sqrt(1 + np.square(half)))
    up = np.mean([c.up for c in cameras], axis=0)
    length = float(np.linalg.norm(up))
    return Layout(
        focus=focus,
        distance=distance,
        radius=0.5 * float(seen),
        up=up / length if length > 1e-6 else np.array([0.0, 0.0, 1.0]),
        spread=float(np.median(miss)) / distance if meet else math.inf,
        looking=float(np.mean(np.einsum("ni,ni->n", offsets, axes) > 0)),
    )


def clip_range(where: Layout) -> tuple[float, float]:
    """Near and far clipping distances that suit the size of a capture: powers of ten, so that they rarely differ."""
    near = 10.0 ** (math.floor(math.log10(where.distance)) - 3)
    return near, near * 1e8


def doubts(
    cameras: Sequence[Camera],
    weights: Sequence[npt.NDArray[np.float32] | None],
    convention: str | None = None,
    matrices: str = "camera-to-world",
) -> list[str]:
    """What suggests that the poses were read in the wrong convention, one sentence each.

    Args:
        cameras: as they were read.
        weights: (H, W) mask of each camera's picture, or None.
        convention: that they were read with; None when the format fixes it (COLMAP).
        matrices: likewise.
    """
    if len(cameras) < 3:
        return []
    masked = [(c, w) for c, w in zip(cameras, weights, strict=True) if w is not None and np.ptp(w) > 0.5]
    if len(masked) >= 3:
        step = -(-len(masked) // _TESTED)
        found, sure = _by_silhouettes([m for m in masked][::step], convention, matrices)
        if sure:
            return found
    return _by_layout(layout(cameras), cameras, convention)


def _by_layout(where: Layout, cameras: Sequence[Camera], convention: str | None) -> list[str]:
    if where.spread > 0.3:
        return []  # the cameras look at no one thing: nothing to conclude
    if where.looking < 0.2:
        other = {"opengl": "opencv", "opencv": "opengl", "mitsuba": "opengl"}.get(convention or "", "")
        hint = f'; convention = "{other}" turns them round' if other else ""
        return [
            f"the axes of the cameras meet in one point, but {round((1 - where.looking) * len(cameras))} of "
            f"{len(cameras)} cameras look away from it: either they stood inside and looked outwards, or the "
            f"convention is wrong{hint}"
        ]
    height = np.array([(c.position - where.focus) @ where.up for c in cameras]) / where.distance
    if float(np.mean(height < -0.2)) > 0.8:
        other = {"opencv": "mitsuba", "mitsuba": "opencv"}.get(convention or "", "")
        hint = f' (convention = "{other}" would turn the pictures)' if other else ""
        return [
            "nearly all cameras look up at the scene from below, as their pictures have it: they may be upside "
            f"down{hint}"
        ]
    return []


def silhouette_agreement(cameras: Sequence[Camera], masks: Sequence[npt.NDArray[np.bool_]]) -> float:
    """How well silhouettes fit together, in [0, 1]: the share of each that the visual hull of all fills, on average.

    Args:
        cameras: with the sizes of the masks.
        masks: (H, W), True on the object.
    """
    where = layout(cameras)
    line = np.linspace(-1, 1, _GRID)
    grid = np.stack(np.meshgrid(line, line, line), axis=-1).reshape(-1, 3)
    # a cube that reaches as far as the pictures do
    points = where.focus + 2.0 * where.radius * grid
    inside = np.ones(len(points), bool)
    cells = []
    for camera, mask in zip(cameras, masks, strict=True):
        pixels, depth = camera.project(points)
        with np.errstate(invalid="ignore"):
            column, row = (np.nan_to_num(pixels[:, k], nan=-1, posinf=-1, neginf=-1) for k in range(2))
        framed = (depth > 0) & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
        x, y = np.where(framed, column, 0).astype(int), np.where(framed, row, 0).astype(int)
        # what a picture does not show, it does not rule out
        inside &= np.where(framed, mask[y, x], depth > 0)
        scale = _COARSE / max(camera.width, camera.height)
        cells.append((framed, (x * scale).astype(int), (y * scale).astype(int)))
    shares = []
    for (framed, x, y), mask in zip(cells, masks, strict=True):
        rows, columns = np.nonzero(mask)
        scale = _COARSE / max(mask.shape)
        wanted, filled = np.zeros((_COARSE, _COARSE), bool), np.zeros((_COARSE, _COARSE), bool)
        wanted[(rows * scale).astype(int), (columns * scale).astype(int)] = True
        filled[y[framed & inside], x[framed & inside]] = True
        shares.append((wanted & filled).sum() / max(1, wanted.sum()))
    return float(np.mean(shares))


def _by_silhouettes(
    masked: Sequence[tuple[Camera, npt.NDArray[np.float32]]], convention: str | None, matrices: str
) -> tuple[list[str], bool]:
    """Doubts from silhouettes, and whether they settle the matter."""
    cameras, masks = [c for c, _ in masked], [w > 0.5 for _, w in masked]
    now = silhouette_agreement(cameras, masks)
    if now > 0.85:
        return [], True
    tries: list[tuple[float, str]] = []
    if convention is not None:
        for other in AXES:
            for way in MATRICES:
                if (other, way) != (convention, matrices):
                    moved = [_reread(c, convention, matrices, other, way) for c in cameras]
                    tries.append((silhouette_agreement(moved, masks), f'convention = "{other}", matrices = "{way}"'))
    for axis, name in ((1, "mirrored left to right"), (0, "upside down")):
        flipped = [np.flip(m, axis) for m in masks]
        tries.append((silhouette_agreement(cameras, flipped), f"pictures {name}"))
    best, what = max(tries)
    if best > max(0.85, now + 0.15):
        return [
            f"the silhouettes of the {len(cameras)} views tested do not fit together with these cameras "
            f"(agreement {now:.2f} of 1), but do with {what} ({best:.2f})"
        ], True
    return [], False


def _reread(camera: Camera, convention: str, matrices: str, other: str, way: str) -> Camera:
    """The camera that the same numbers mean in another convention."""
    from dataclasses import replace

    raw = stored(camera.to_world, convention)
    if (way == "world-to-camera") != (matrices == "world-to-camera"):
        raw = inverse(raw)
    raw[:3, :3] *= AXES[other]
    return replace(camera, to_world=raw)
