"""What was observed: pictures with their masks, cameras, exposures and lit emitters.

    views = load_views("photos/")                                     # every image of a folder, sorted by name
    views = load_views(["a.exr", {"file": "b.exr", "sensor": 1, "lit": ["lamp"], "exposure": 2.0}])

A view compares `gain * render(sensor, lit)` with `image`, pixel by pixel, weighted by `mask`; the gain is its exposure
times its white balance.
"""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathtracer.capture.cameras import Camera
from pathtracer.capture.framing import frame, resample
from pathtracer.capture.headers import SUFFIXES
from pathtracer.capture.images import FloatArray, check_texels, read_picture
from pathtracer.capture.layout import clip_range, doubts, layout
from pathtracer.capture.shots import find_mask
from pathtracer.errors import InputError, UsageError, nearest_names

ALPHA = ("mask", "black", "ignore")


@dataclass
class View:
    """One observed picture.

    Attributes:
        name: what reports and messages call it.
        image: (H, W, 3) float32, linear RGB.
        mask: (H, W) weight of each pixel in [0, 1], or None for 1 everywhere.
        sensor: index of the scene's sensor, or a camera of its own (a Mitsuba dictionary).
        lit: ids of the emitters that shine in this picture; None means all.
        exposure: factor on the rendered image before it is compared.
        path: the file it came from.
        holdout: rendered and reported, but not used to fit.
        white_balance: factors on red, green and blue of the rendered image, besides the exposure.
        camera: the camera of its own that `sensor` describes, None for a sensor of the scene.
    """

    name: str
    image: FloatArray
    mask: FloatArray | None = None
    sensor: int | dict[str, Any] = 0
    lit: list[str] | None = None
    exposure: float = 1.0
    path: Path | None = None
    holdout: bool = False
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    camera: Camera | None = None

    def __post_init__(self) -> None:
        self.image = np.asarray(self.image, np.float32)
        if self.image.ndim == 2:
            self.image = np.repeat(self.image[..., None], 3, axis=-1)
        if self.image.ndim != 3 or self.image.shape[-1] != 3:
            raise InputError(f"an image is (H, W, 3), not {self.image.shape}", self.name)
        if self.mask is not None:
            self.mask = np.asarray(self.mask, np.float32)
            if self.mask.shape != self.image.shape[:2]:
                raise InputError(
                    f"the mask is {_size(self.mask)} pixels, the image {_size(self.image)}",
                    self.name,
                    remedy="give a mask of the image's size",
                )
            if not self.mask.any():
                raise InputError("the mask is 0 everywhere, nothing is left to compare", self.name)
        if not (np.isfinite(self.exposure) and self.exposure > 0):
            raise InputError(f"the exposure is {self.exposure}, a positive number was expected", self.name)
        balance = np.asarray(self.white_balance, float)
        if balance.shape != (3,) or not np.isfinite(balance).all() or not (balance > 0).all():
            raise InputError(
                f"the white balance is {self.white_balance}, three positive numbers were expected", self.name
            )

    @property
    def gain(self) -> FloatArray:
        """(3,) factors on the rendered image: exposure times white balance."""
        return np.float32(self.exposure) * np.asarray(self.white_balance, np.float32)

    @property
    def width(self) -> int:
        """Columns of the image."""
        return int(self.image.shape[1])

    @property
    def height(self) -> int:
        """Rows of the image."""
        return int(self.image.shape[0])

    @property
    def weight(self) -> FloatArray:
        """(H, W) weight of each pixel; 1 everywhere without a mask."""
        return np.ones(self.image.shape[:2], np.float32) if self.mask is None else self.mask


class Views(list[View]):
    """A list of views with what was assumed when they were read (`notes`, each sentence once)."""

    def __init__(self, views: Iterable[View] = (), notes: Iterable[str] = ()) -> None:
        super().__init__(views)
        self.notes: list[str] = list(dict.fromkeys(notes))

    @property
    def fitted(self) -> list[View]:
        """The views that are used to fit."""
        return [v for v in self if not v.holdout]

    @property
    def heldout(self) -> list[View]:
        """The views that are only predicted."""
        return [v for v in self if v.holdout]


def load_views(
    images: str | Path | Sequence[str | Path | Mapping[str, Any]],
    *,
    root: str | Path | None = None,
    mask: str | Path | None = None,
    color: str = "auto",
    alpha: str = "mask",
    exposure: float = 1.0,
    sensor: int | dict[str, Any] | Sequence[int] = 0,
    lit: Sequence[str] | None = None,
    holdout: Iterable[str | int] = (),
    saturated: str = "keep",
    resize: tuple[int, int] | None = None,
    sanitize: bool = False,
    masks: str | Path | None = None,
    crop: Sequence[int] | None = None,
    downscale: int = 1,
    white_balance: Sequence[float] = (1.0, 1.0, 1.0),
    holdout_every: int = 0,
    convention: str | None = None,
    matrices: str = "camera-to-world",
) -> Views:
    """Read pictures into views.

    Args:
        images: a folder (its images in the order of their names), a glob, one file, or a list of files and tables
            `{file, name, mask, sensor, camera, lit, exposure, white_balance, color, crop, holdout}`; what a table does
            not say comes from the arguments below. A camera is a `Camera` or a Mitsuba dictionary.
        root: relative paths start here (default: the working folder).
        mask: one mask file for all views; white counts.
        color: "auto", "linear" or "srgb", see `read_image`.
        alpha: what the alpha channel means: "mask" weights pixels, "black" composites over black (so that silhouettes
            count), "ignore".
        exposure: factor on renders.
        sensor: index or camera of all views, or one index per view.
        lit: ids of the emitters lit in all views; None means all emitters of the scene.
        holdout: names (or globs) or indices of views that are predicted but not fitted.
        saturated: "keep", or "mask" to give saturated pixels of integer images no weight.
        resize: (width, height) to resample every image and mask to; never done unasked.
        sanitize: replace NaN, infinite and negative texels.
        masks: folder with a mask for each picture, see `find_mask`.
        crop: x, y, width, height of the part that is used, in pixels of the file.
        downscale: average squares of so many pixels, after the crop.
        white_balance: factors on red, green and blue of renders.
        holdout_every: hold out views 0, n, 2n, ... besides those of `holdout`; 0 holds out none.
        convention, matrices: how the cameras were read, for advice when they look wrong.
    Raises:
        InputError: a file that cannot be used. UsageError: an unknown key or name.
    """
    for value, known, what in ((alpha, ALPHA, "alpha"), (saturated, ("keep", "mask"), "saturated")):
        if value not in known:
            raise UsageError(
                f"unknown {what} {value!r}, one of {', '.join(known)}", nearest=nearest_names(value, known)
            )
    base = Path.cwd() if root is None else Path(root)
    entries = _entries(images, base)
    sensors = [sensor] * len(entries) if isinstance(sensor, int | dict) else list(sensor)
    if len(sensors) != len(entries):
        raise UsageError(f"{len(sensors)} sensors were named for {len(entries)} images")
    if min(downscale, 1) < 1 or holdout_every < 0:
        raise UsageError(f"downscale = {downscale}, holdout_every = {holdout_every}: positive numbers were expected")
    held = list(holdout)
    notes: list[str] = []
    views = Views()
    shapes: list[FloatArray | None] = []  # silhouettes
    for index, (entry, default_sensor) in enumerate(zip(entries, sensors, strict=True)):
        path = base / entry["file"]
        picture = read_picture(path, entry.get("color", color), entry.get("sanitize", sanitize))
        notes += picture.notes
        image, weight = picture.rgb, None
        if picture.alpha is not None and alpha != "ignore":
            if alpha == "black":
                image = image * picture.alpha[..., None]
            else:
                weight = picture.alpha
        mask_file = entry.get("mask", mask)
        if mask_file is None and masks is not None:
            mask_file = find_mask(base / masks, path, path)
        if mask_file is not None:
            weight = _multiply(weight, read_mask(base / mask_file), path, base / mask_file)
        if saturated == "mask" and picture.saturated is not None:
            weight = _multiply(weight, 1 - picture.saturated.astype(np.float32), path, path)
        camera = entry.get("camera")
        own = camera if isinstance(camera, Camera) else None
        image, weight, own, done = frame(image, weight, own, path, entry.get("crop", crop), downscale, resize)
        notes += done
        shape = weight
        if alpha == "black" and picture.alpha is not None:
            alone, _, _, _ = frame(picture.alpha, None, None, path, entry.get("crop", crop), downscale, resize)
            shape = alone if alone.shape == image.shape[:2] else None
        shapes.append(shape)
        name = str(entry.get("name", path.stem))
        views.append(
            View(
                name=name,
                image=image,
                mask=weight,
                sensor=entry.get("sensor", default_sensor) if camera is None or own else camera,
                lit=_ids(entry.get("lit", lit)),
                exposure=float(entry.get("exposure", exposure)),
                path=path,
                holdout=bool(entry.get("holdout", holdout_every and index % holdout_every == 0)),
                white_balance=_triple(entry.get("white_balance", white_balance), name),
                camera=own,
            )
        )
    _unique_names(views)
    _hold_out(views, held)
    notes += _place(views, shapes, convention, matrices)
    views.notes = list(dict.fromkeys(notes))
    return views


def _hold_out(views: Views, held: Sequence[str | int]) -> None:
    """Mark the views that are named, by a glob or by index."""
    names = [v.name for v in views]
    for h in held:
        if isinstance(h, int):
            found = [h] if 0 <= h < len(views) else []
        else:
            found = [k for k, name in enumerate(names) if name == h or fnmatch.fnmatchcase(name, h)]
        if not found:
            raise UsageError(f"there is no view {h!r} to hold out", nearest=nearest_names(str(h), names))
        for k in found:
            views[k].holdout = True


def _place(views: Views, shapes: list[FloatArray | None], convention: str | None, matrices: str) -> list[str]:
    """Give views with cameras their sensors, whose clipping planes suit the size of the whole; returns doubts."""
    cameras = [v.camera for v in views if v.camera is not None]
    if not cameras:
        return []
    near, far = clip_range(layout(cameras))
    for view in views:
        if view.camera is not None:
            view.sensor = view.camera.sensor(near, far)
    silhouettes = [shape for v, shape in zip(views, shapes, strict=True) if v.camera is not None]
    return doubts(cameras, silhouettes, convention, matrices)


def read_mask(path: str | Path) -> FloatArray:
    """(H, W) weights in [0, 1] from an image: its alpha when that varies, else its mean channel, never sRGB-decoded."""
    picture = read_picture(path, "linear")
    if picture.alpha is not None and np.ptp(picture.alpha) > 0:
        return picture.alpha
    return np.clip(picture.rgb.mean(axis=-1), 0, 1)


def check_films(views: Sequence[View], films: Sequence[tuple[int, int]]) -> None:
    """Refuse views whose pictures do not fit the film of their sensor.

    Args:
        films: (width, height) of each sensor of the scene.
    Raises:
        InputError: naming both sides. UsageError: a sensor that the scene does not have.
    """
    for view in views:
        if isinstance(view.sensor, dict):
            continue  # a camera of its own takes the size of its picture
        if not 0 <= view.sensor < len(films):
            raise UsageError(f"sensor {view.sensor} was named, the scene has {len(films)}", view.name)
        width, height = films[view.sensor]
        if (view.width, view.height) != (width, height):
            raise InputError(
                f"the image is {view.width} x {view.height} pixels, "
                f"the film of sensor {view.sensor} is {width} x {height}",
                view.path or view.name,
                remedy=f"set the film to the image's size, or ask for resize = [{width}, {height}] in [views]",
            )


_KEYS = (
    *("file", "name", "mask", "sensor", "camera", "lit", "exposure", "white_balance"),
    *("color", "sanitize", "crop", "holdout"),
)


def _entries(images: str | Path | Sequence[str | Path | Mapping[str, Any]], base: Path) -> list[dict[str, Any]]:
    if isinstance(images, str | Path):
        where = base / images
        if where.is_dir():
            files = sorted(p for p in where.iterdir() if p.suffix.lower() in SUFFIXES)
            if not files:
                raise InputError(f"holds no image ({', '.join(SUFFIXES)})", where)
            return [{"file": f} for f in files]
        if any(c in str(images) for c in "*?[") and not where.exists():
            files = [Path(p) for p in sorted(glob.glob(str(where)))]
            if not files:
                raise InputError("no file matches", where)
            return [{"file": f} for f in files]
        return [{"file": where}]
    entries = []
    for item in images:
        entry = dict(item) if isinstance(item, Mapping) else {"file": item}
        for key in entry:
            if key not in _KEYS:
                raise UsageError(f"a view has no {key!r}", nearest=nearest_names(key, _KEYS))
        if "file" not in entry:
            raise UsageError("a view needs a 'file'", where=entry.get("name"))
        entries.append(entry)
    if not entries:
        raise UsageError("no image was named")
    return entries


def _unique_names(views: Sequence[View]) -> None:
    """Files of one name in several folders: prefix the folder."""
    seen: dict[str, int] = {}
    for view in views:
        count = seen[view.name] = seen.get(view.name, 0) + 1
        if count > 1:
            view.name = f"{view.name} ({count})"


def _triple(value: Any, name: str) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(v) for v in value)
    except (TypeError, ValueError):
        raise UsageError(f"white_balance is {value!r}, three numbers were expected", name) from None
    return red, green, blue


def _ids(lit: Any) -> list[str] | None:
    return None if lit is None else [lit] if isinstance(lit, str) else [str(i) for i in lit]


def _multiply(weight: FloatArray | None, other: FloatArray, image: Path, mask: Path) -> FloatArray:
    if weight is None:
        return other
    if weight.shape != other.shape:
        raise InputError(f"the mask is {_size(other)} pixels, the image {image} is {_size(weight)}", mask)
    return weight * other


def _size(array: FloatArray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"


__all__ = ["View", "Views", "check_films", "check_texels", "load_views", "read_mask", "resample"]
