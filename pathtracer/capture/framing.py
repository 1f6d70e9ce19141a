"""Pictures and their cameras cut and resampled together.

Cropping moves the principal point, resampling scales the focal lengths, and a camera with oblong pixels gets square
ones, because Mitsuba's perspective sensor has no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pathtracer.capture.cameras import Camera
from pathtracer.capture.images import FloatArray
from pathtracer.errors import InputError, UsageError


def frame(
    image: FloatArray,
    weight: FloatArray | None,
    camera: Camera | None,
    where: Path,
    crop: Sequence[int] | None = None,
    downscale: int = 1,
    resize: tuple[int, int] | None = None,
) -> tuple[FloatArray, FloatArray | None, Camera | None, list[str]]:
    """Crop, then downscale, then resize a picture with its weights and its camera.

    Args:
        image: (H, W, 3).
        weight: (H, W) or None.
        camera: of the picture, or None when the scene has it.
        where: the file, for messages.
        crop: x, y of the upper left pixel, width, height.
        downscale: average squares of so many pixels; a remainder at the right and lower edge is cut off.
        resize: (width, height).
    Returns:
        The same, and sentences about what was done.
    """
    notes: list[str] = []
    if camera is not None:
        camera, note = _fit(camera, image, where)
        notes += note
    if crop is not None:
        x, y, width, height = _window(crop, image, where)
        image = image[y : y + height, x : x + width]
        weight = None if weight is None else weight[y : y + height, x : x + width]
        camera = None if camera is None else camera.crop(x, y, width, height)
    if downscale > 1:
        height, width = image.shape[0] // downscale, image.shape[1] // downscale
        if min(width, height) < 1:
            raise UsageError(f"downscale = {downscale} leaves nothing of {_size(image)} pixels", where)
        rest = image.shape[1] % downscale, image.shape[0] % downscale
        if any(rest):
            notes.append(f"{rest[0]} columns and {rest[1]} rows that {downscale} does not divide were cut off")
        image = _average(image[: height * downscale, : width * downscale], downscale)
        if weight is not None:
            weight = _average(weight[: height * downscale, : width * downscale], downscale)
        if camera is not None:
            camera = camera.crop(0, 0, width * downscale, height * downscale).resized(width, height)
    if resize is not None and (image.shape[1], image.shape[0]) != tuple(resize):
        notes.append(f"images were resampled to {resize[0]} x {resize[1]}, as asked")
        image, weight = resample(image, resize), None if weight is None else resample(weight, resize)
        camera = None if camera is None else camera.resized(*resize)
    if camera is not None and not camera.square:
        image, weight, camera = _square(image, weight, camera)
        notes.append("pictures with oblong pixels were resampled to square ones")
    return image, weight, camera, notes


def resample(image: FloatArray, size: tuple[int, int]) -> FloatArray:
    """Resample an (H, W) or (H, W, 3) array to (width, height): box average down, Lanczos up, no overshoot below 0."""
    width, height = size
    if width < 1 or height < 1:
        raise UsageError(f"cannot resize to {width} x {height} pixels")
    return _resample(image, size, (0, 0, image.shape[1], image.shape[0]))


def _resample(image: FloatArray, size: tuple[int, int], box: tuple[float, float, float, float]) -> FloatArray:
    from PIL import Image

    planes = image[..., None] if image.ndim == 2 else image
    shrink = size[0] <= planes.shape[1] and size[1] <= planes.shape[0]
    kernel = Image.Resampling.BOX if shrink else Image.Resampling.LANCZOS
    if shrink and (box != (0, 0, planes.shape[1], planes.shape[0])):
        kernel = Image.Resampling.BILINEAR  # a box filter of fractional width is as good as none
    channels = [Image.fromarray(np.ascontiguousarray(planes[..., c])) for c in range(planes.shape[-1])]
    out = np.stack([np.asarray(c.resize(size, kernel, box)) for c in channels], axis=-1)
    out = np.maximum(out, 0).astype(np.float32)
    return out[..., 0] if image.ndim == 2 else out


def _square(
    image: FloatArray, weight: FloatArray | None, camera: Camera
) -> tuple[FloatArray, FloatArray | None, Camera]:
    """Resample along one axis so that fx = fy, the shorter of both: pixels only become fewer."""
    focal = min(camera.fx, camera.fy)
    a, b = focal / camera.fx, focal / camera.fy
    width, height = max(1, int(camera.width * a)), max(1, int(camera.height * b))
    box = (0.0, 0.0, min(width / a, camera.width), min(height / b, camera.height))
    out = Camera(width, height, focal, focal, camera.cx * a, camera.cy * b, camera.to_world)
    image = _resample(image, (width, height), box)
    return image, None if weight is None else np.clip(_resample(weight, (width, height), box), 0, 1), out


def _average(image: FloatArray, n: int) -> FloatArray:
    """Mean over squares of n x n pixels of an array whose sides n divides."""
    shape = (image.shape[0] // n, n, image.shape[1] // n, n, *image.shape[2:])
    return np.asarray(image.reshape(shape).mean(axis=(1, 3), dtype=np.float64), np.float32)


def _fit(camera: Camera, image: FloatArray, where: Path) -> tuple[Camera, list[str]]:
    """The camera of the picture as it is: photographs are often stored smaller than their cameras say."""
    height, width = image.shape[:2]
    if (width, height) == (camera.width, camera.height):
        return camera, []
    ratio = width / camera.width
    if abs(camera.height * ratio - height) > 1:
        raise InputError(
            f"the image is {width} x {height} pixels, its camera {camera.width} x {camera.height}",
            where,
            remedy="use the pictures that the cameras were made from, or the same uniformly scaled",
        )
    return camera.resized(width, height), [
        f"pictures of {width} x {height} pixels take the cameras of {camera.width} x {camera.height}, scaled"
    ]


def _window(crop: Sequence[int], image: FloatArray, where: Path) -> tuple[int, int, int, int]:
    numbers: list[Any] = list(crop)
    if len(numbers) != 4 or any(isinstance(n, bool) or not isinstance(n, int) for n in numbers):
        raise UsageError(f"crop is {crop}, [x, y, width, height] in pixels was expected", where)
    x, y, width, height = numbers
    if min(x, y) < 0 or min(width, height) < 1 or x + width > image.shape[1] or y + height > image.shape[0]:
        raise UsageError(f"crop = {numbers} leaves the image, which is {_size(image)} pixels", where)
    return x, y, width, height


def _size(array: FloatArray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
