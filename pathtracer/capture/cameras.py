"""Pinhole cameras and the conventions in which files store them.

A camera is an image size, focal lengths and a principal point in pixels (the centre of the first pixel is (0.5, 0.5)),
and a camera-to-world matrix. Programs disagree about the camera's own axes:

    convention   x      y      z          written by
    mitsuba      left   up     forward    Mitsuba scenes, views files of this program
    opengl       right  up     backward   NeRF, Blender, nerfstudio, instant-ngp (transforms.json)
    opencv       right  down   forward    COLMAP, OpenCV

Here every pose is converted to Mitsuba's axes when it is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pathtracer.errors import InputError, UsageError, nearest_names

Matrix = npt.NDArray[np.float64]

#: Signs of the camera axes (x, y, z) of each convention, seen from Mitsuba's.
AXES: dict[str, tuple[int, int, int]] = {"mitsuba": (1, 1, 1), "opengl": (-1, 1, -1), "opencv": (-1, -1, 1)}
MATRICES = ("camera-to-world", "world-to-camera")
#: Pixels count as square when their aspect moves no point of the picture by more than this, in pixels.
_SQUARE = 0.02


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        width, height: of its picture, in pixels.
        fx, fy: focal lengths in pixels.
        cx, cy: principal point in pixels from the upper left corner.
        to_world: (4, 4) camera-to-world, a rotation and a translation, in Mitsuba's axes.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    to_world: Matrix = field(repr=False, compare=False)

    @property
    def position(self) -> Matrix:
        """(3,) where it stands."""
        return self.to_world[:3, 3]

    @property
    def forward(self) -> Matrix:
        """(3,) unit vector of its optical axis."""
        return self.to_world[:3, 2]

    @property
    def up(self) -> Matrix:
        """(3,) unit vector from the lower to the upper edge of its picture."""
        return self.to_world[:3, 1]

    @property
    def square(self) -> bool:
        """Whether its pixels are square, as Mitsuba's perspective sensor needs."""
        return abs(self.fy / self.fx - 1) * max(self.cy, self.height - self.cy) <= _SQUARE

    def crop(self, x: int, y: int, width: int, height: int) -> Camera:
        """The camera of a part of the picture, whose upper left pixel is (x, y)."""
        return replace(self, width=width, height=height, cx=self.cx - x, cy=self.cy - y)

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the picture resampled to another size."""
        a, b = width / self.width, height / self.height
        return replace(self, width=width, height=height, fx=self.fx * a, fy=self.fy * b, cx=self.cx * a, cy=self.cy * b)

    def project(self, points: npt.ArrayLike) -> tuple[Matrix, Matrix]:
        """Pixel coordinates (N, 2) and depths (N,) of world points (N, 3); depths are negative behind the camera."""
        local = (np.asarray(points, np.float64) - self.position) @ self.to_world[:3, :3]
        depth = local[:, 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            x = self.cx - self.fx * local[:, 0] / depth  # Mitsuba's x points left, its y up
            y = self.cy - self.fy * local[:, 1] / depth
        return np.stack([x, y], axis=-1), depth

    def sensor(self, near: float = 1e-2, far: float = 1e4) -> dict[str, Any]:
        """The Mitsuba dictionary of the camera, without a film.

        Args:
            near, far: distances of the clipping planes.
        Raises:
            InputError: the pixels are not square.
        """
        if not self.square:
            raise InputError(
                f"pixels are {self.fy / self.fx:.4f} times as wide as high, Mitsuba's are square",
                remedy="resample the pictures",
            )
        return {
            "type": "perspective",
            "fov": math.degrees(2 * math.atan(self.width / (2 * self.fx))),
            "fov_axis": "x",
            "principal_point_offset_x": (self.width / 2 - self.cx) / self.width,
            "principal_point_offset_y": (self.height / 2 - self.cy) / self.height,
            "near_clip": near,
            "far_clip": far,
            "to_world": self.to_world.tolist(),
        }


def check_convention(convention: str) -> str:
    """`convention`, when it is one of `AXES`.

    Raises:
        UsageError: it is not.
    """
    if convention not in AXES:
        raise UsageError(
            f"unknown convention {convention!r}, one of {', '.join(AXES)}", nearest=nearest_names(convention, AXES)
        )
    return convention


def camera_to_world(
    matrix: Any, where: object, convention: str = "mitsuba", matrices: str = "camera-to-world"
) -> tuple[Matrix, float]:
    """A stored pose as a (4, 4) rotation and translation in Mitsuba's axes.

    Args:
        matrix: 4x4 or 3x4 numbers.
        where: file and frame, for messages.
        convention: of the camera's axes, see `AXES`.
        matrices: "camera-to-world" or "world-to-camera".
    Returns:
        The matrix, and the uniform scale that was taken out of its rotation (1 in most files).
    Raises:
        InputError: not a matrix, not finite, not a rotation, or mirrored.
    """
    try:
        array = np.array(matrix, np.float64)
    except (ValueError, TypeError):
        raise InputError("the camera matrix is not a table of 4 x 4 numbers", where) from None
    if array.shape == (3, 4):
        array = np.vstack([array, (0, 0, 0, 1)])
    if array.shape != (4, 4):
        raise InputError(f"the camera matrix has the shape {array.shape}, 4 x 4 was expected", where)
    if not np.isfinite(array).all():
        raise InputError("the camera matrix has values that are not finite", where)
    if not np.allclose(array[3], (0, 0, 0, 1), atol=1e-6):
        hint = "it looks transposed" if np.allclose(array[:, 3], (0, 0, 0, 1), atol=1e-6) else None
        raise InputError(f"the last row of the camera matrix is {_numbers(array[3])}, not 0 0 0 1", where, remedy=hint)
    turn = array[:3, :3]
    lengths = np.linalg.norm(turn, axis=0)
    scale = float(lengths.mean())
    if not scale > 0 or not np.allclose(turn.T @ turn, scale**2 * np.eye(3), atol=2e-3 * scale**2):
        raise InputError(
            f"the camera matrix is not a rotation: its columns have the lengths {_numbers(lengths)}, "
            f"or are not perpendicular",
            where,
        )
    if np.linalg.det(turn) < 0:
        raise InputError(
            "the camera matrix mirrors: its determinant is negative, so one axis has the wrong sign",
            where,
            remedy=f"check how the file was written: three axes of {convention} are right-handed",
        )
    u, _, vt = np.linalg.svd(turn)  # the nearest rotation: files round their numbers
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = u @ vt, array[:3, 3]
    if matrices == "world-to-camera":
        pose[:3, 3] /= scale
        pose = inverse(pose)
    pose[:3, :3] *= AXES[check_convention(convention)]
    return pose, scale


def stored(to_world: Matrix, convention: str) -> Matrix:
    """A pose in Mitsuba's axes as another convention stores it (camera-to-world)."""
    pose = np.array(to_world, np.float64)
    pose[:3, :3] *= AXES[check_convention(convention)]
    return pose


def inverse(pose: Matrix) -> Matrix:
    """The inverse of a rotation and translation (4, 4)."""
    out = np.eye(4)
    out[:3, :3] = pose[:3, :3].T
    out[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return out


def _numbers(values: Any) -> str:
    return " ".join(f"{v:.4g}" for v in values)
