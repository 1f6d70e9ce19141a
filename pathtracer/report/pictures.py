"""Pictures for people: signed colours with a scale bar, previews with a common scale.

Signed pictures use ColorBrewer's RdBu (blue negative, white zero, red positive), which stays readable with every common
form of colour blindness; pixels that are not finite are green, which occurs nowhere else in the picture.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pathtracer.capture.images import atomic_path, to_8bit

Pixels = npt.NDArray[np.uint8]

_INVALID = (0, 170, 60)
_LEGEND_HEIGHT = 34
_MIN_WIDTH = 256


def signed_scale(array: npt.ArrayLike, percentile: float = 99.5) -> float:
    """A value that most of |array| stays below: a percentile of what is neither zero nor non-finite.

    Zeros are left out because a derivative of a silhouette is zero nearly everywhere.
    """
    a = np.abs(np.asarray(array, np.float64))
    a = a[np.isfinite(a) & (a > 0)]
    return float(np.percentile(a, percentile)) if a.size else 1.0


def diverging_pixels(array: npt.ArrayLike, scale: float) -> Pixels:
    """(H, W) or (H, W, C) signed values (the mean over C) as (H, W, 3) colours; -scale is blue, 0 white, +scale red."""
    from matplotlib import colormaps

    a = np.asarray(array, np.float64)
    if a.ndim == 3:
        a = a.mean(axis=-1)
    finite = np.isfinite(a)
    t = np.clip(0.5 + 0.5 * np.where(finite, a, 0) / (scale or 1.0), 0, 1)
    table = colormaps["RdBu_r"]
    # the map's own middle is a very light grey; lifted as a whole, lest exact zeros look like holes in small values
    lift = (1 - np.asarray(table(0.5))[:3]) * (1 - np.abs(2 * t - 1))[..., None]
    colors = (np.clip(np.asarray(table(t))[..., :3] + lift, 0, 1) * 255 + 0.5).astype(np.uint8)
    colors[~finite] = _INVALID
    return colors


def diverging_picture(array: npt.ArrayLike, scale: float | None = None, label: str = "") -> Pixels:
    """`diverging_pixels`, enlarged by a whole factor to at least 256 columns, above a scale bar with its values."""
    from PIL import Image, ImageDraw, ImageFont

    a = np.asarray(array)
    scale = signed_scale(a if a.ndim == 2 else a.mean(axis=-1)) if scale is None else float(scale)
    body = diverging_pixels(a, scale)
    factor = max(1, -(-_MIN_WIDTH // body.shape[1]))
    body = body.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = body.shape[:2]
    canvas = np.full((height + _LEGEND_HEIGHT, width, 3), 255, np.uint8)
    canvas[:height] = body
    canvas[height + 3 : height + 13, 8 : width - 8] = diverging_pixels(np.linspace(-1, 1, width - 16)[None], 1.0)
    picture = Image.fromarray(canvas)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    draw.rectangle((7, height + 2, width - 8, height + 13), outline=(120, 120, 120))
    bad = int((~np.isfinite(a if a.ndim == 2 else a.mean(axis=-1))).sum())
    middle = "0" + (f" {label}" if label else "") + (f"   green: {bad} not finite" if bad else "")
    y = height + 16
    draw.text((8, y), f"-{scale:.3g}", fill=(0, 0, 0), font=font)
    draw.text((width // 2, y), middle, fill=(0, 0, 0), font=font, anchor="ma")
    draw.text((width - 8, y), f"+{scale:.3g}", fill=(0, 0, 0), font=font, anchor="ra")
    return np.asarray(picture)


def diverging_png(array: npt.ArrayLike, path: str | Path, scale: float | None = None, label: str = "") -> float:
    """Write a signed-colour PNG with a scale bar and return the value at its ends.

    Args:
        array: (H, W) or (H, W, C); the mean over C is shown.
        path: file to write, replaced atomically.
        scale: value at the ends of the scale bar; None takes `signed_scale`.
        label: a few words for the middle of the scale bar.
    Raises:
        StorageFault: the file cannot be written.
    """
    a = np.asarray(array)
    scale = signed_scale(a if a.ndim == 2 else a.mean(axis=-1)) if scale is None else float(scale)
    write_png(diverging_picture(a, scale, label), path)
    return scale


def preview_png(array: npt.ArrayLike, path: str | Path, scale: float = 1.0) -> None:
    """Write linear (H, W, 3) values times `scale` as an sRGB PNG, atomically."""
    write_png(to_8bit(np.asarray(array, np.float32) * np.float32(scale)), path)


def display_scale(target: npt.ArrayLike) -> float:
    """A factor that shows `target` well: 1, unless the 95th percentile of its lit pixels is above 1.5 or below 0.15.

    Not the maximum: a lamp in view may be a hundred times brighter than everything that it lights.
    """
    a = np.asarray(target)
    a = a[np.isfinite(a) & (a > 0)]
    bright = float(np.percentile(a, 95)) if a.size else 1.0
    return 1.0 if 0.15 <= bright <= 1.5 else 1.0 / bright


def png_bytes(pixels: Pixels) -> bytes:
    """(H, W, 3) or (H, W) 8-bit samples as a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def write_png(pixels: Pixels, path: str | Path) -> None:
    """Write 8-bit samples as a PNG that appears whole or not at all."""
    with atomic_path(Path(path)) as temporary:
        temporary.write_bytes(png_bytes(pixels))


def data_uri(pixels: Pixels) -> str:
    """8-bit samples as a `data:` address, for pages that need no other file."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(pixels)).decode("ascii")
