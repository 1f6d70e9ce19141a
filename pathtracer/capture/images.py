"""Reading and writing images as linear arrays.

    array, notes = read_image("photo.png")          # (H, W, 3) float32, linear RGB
    write_image("out.exr", array)                    # linear; PNG, JPEG and TIFF are encoded as sRGB

Colour: renderers and sums of light are linear. `color="auto"` takes integer samples (8 and 16 bit) as sRGB-encoded,
which cameras and most programs write, unless a PNG says gamma 1, and floating-point files as linear; the note that
comes back says what was assumed, because a linear photograph that is decoded as sRGB is wrong without looking so.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pathtracer.capture.headers import SUFFIXES, ImageHeader, read_header
from pathtracer.errors import InputError, StorageFault, UsageError, nearest_names
from pathtracer.runtime.threads import file_threads

FloatArray = npt.NDArray[np.float32]
COLORS = ("auto", "linear", "srgb")


@dataclass
class Picture:
    """A decoded image.

    Attributes:
        rgb: (H, W, 3) linear RGB.
        alpha: (H, W) in [0, 1], or None when the file has no alpha.
        notes: what was assumed or replaced, one sentence each.
        saturated: (H, W) True where a sample had the largest value that the file can hold; None for floating point.
    """

    rgb: FloatArray
    alpha: FloatArray | None
    notes: list[str] = field(default_factory=list)
    saturated: npt.NDArray[np.bool_] | None = None


def srgb_to_linear(value: npt.ArrayLike) -> FloatArray:
    """Decode sRGB (IEC 61966-2-1); negative values are mirrored."""
    v = np.asarray(value, np.float32)
    a = np.abs(v)
    return np.sign(v) * np.where(a <= 0.04045, a / 12.92, ((a + 0.055) / 1.055) ** 2.4).astype(np.float32)


def linear_to_srgb(value: npt.ArrayLike) -> FloatArray:
    """Encode as sRGB (IEC 61966-2-1); negative values are mirrored."""
    v = np.asarray(value, np.float32)
    a = np.abs(v)
    return np.sign(v) * np.where(a <= 0.0031308, a * 12.92, 1.055 * a ** (1 / 2.4) - 0.055).astype(np.float32)


def read_image(path: str | Path, color: str = "auto", sanitize: bool = False) -> tuple[FloatArray, list[str]]:
    """The linear RGB of an image file and what was assumed on the way.

    Args:
        path: PNG, JPEG, TIFF (8 or 16 bit), OpenEXR, Radiance HDR or PFM.
        color: "srgb" decodes the sRGB curve, "linear" takes samples as they are, "auto" decides by kind of file.
        sanitize: replace NaN, infinite and negative texels instead of refusing them.
    Returns:
        (H, W, 3) float32, and sentences for the user.
    Raises:
        InputError: missing, truncated, of unknown kind, too large, or with NaN, infinite or negative texels.
    """
    picture = read_picture(path, color, sanitize)
    return picture.rgb, picture.notes


def read_picture(path: str | Path, color: str = "auto", sanitize: bool = False) -> Picture:
    """Like `read_image`, with alpha and the saturated pixels."""
    if color not in COLORS:
        raise UsageError(f"unknown colour {color!r}, one of {', '.join(COLORS)}", nearest=nearest_names(color, COLORS))
    path = Path(path)
    header = read_header(path)
    samples = _decode(path, header)
    notes: list[str] = []
    saturated = None
    if np.issubdtype(samples.dtype, np.integer):
        top = np.iinfo(samples.dtype).max
        saturated = (samples[..., :3] == top).any(axis=-1)
        samples = samples.astype(np.float32) / top
        if color == "auto":
            linear = header.gamma is not None and abs(header.gamma - 1) < 1e-3
            color = "linear" if linear else "srgb"
            notes.append(
                f"{header.bits}-bit {header.kind.upper()} images were taken as "
                + (
                    "linear, as their gAMA chunk says"
                    if linear
                    else 'sRGB and converted to linear (color = "linear" keeps them)'
                )
            )
    else:
        samples = samples.astype(np.float32)
    if header.orientation != 1:
        notes.append(
            f"{path.name}: the EXIF orientation {header.orientation} was not applied, pixels are used as stored"
        )
    rgb = _three(samples)
    alpha: FloatArray | None = samples[..., -1].astype(np.float32) if samples.shape[-1] in (2, 4) else None
    if color == "srgb":
        rgb = srgb_to_linear(rgb)
    rgb, replaced = check_texels(rgb, path, sanitize)
    notes += replaced
    if alpha is not None:
        checked, replaced = check_texels(alpha[..., None], path, sanitize, what="alpha value")
        alpha = np.clip(checked[..., 0], 0, 1)
        notes += replaced
    return Picture(np.ascontiguousarray(rgb, np.float32), alpha, notes, saturated)


def check_texels(
    array: npt.NDArray[Any], where: object, sanitize: bool = False, what: str = "texel"
) -> tuple[FloatArray, list[str]]:
    """Refuse (or, asked to, replace by 0) NaN, infinite and negative values of an (H, W, C) array.

    Raises:
        InputError: with the count of bad pixels, the first of them and its value.
    """
    bad = ~np.isfinite(array) | (array < 0)
    if not bad.any():
        return np.asarray(array, np.float32), []
    pixels = bad.any(axis=-1)
    y, x = np.argwhere(pixels)[0]
    kinds = [
        name
        for name, hit in (
            ("NaN", np.isnan(array).any()),
            ("infinite", np.isinf(array).any()),
            ("negative", (array < 0).any()),
        )
        if hit
    ]
    values = ", ".join(f"{v:g}" for v in array[y, x])
    count = int(pixels.sum())
    if not sanitize:
        raise InputError(
            f"{count} of {pixels.size} {what}s {'is' if count == 1 else 'are'} {' or '.join(kinds)}, "
            f"the first at column {x}, row {y} ({values})",
            where,
            remedy="repair the image or pass --sanitize (sanitize = true) to replace them by 0",
        )
    note = f"{where}: {count} {' or '.join(kinds)} {what}s were replaced by 0, the first at column {x}, row {y}"
    return np.where(bad, 0, array).astype(np.float32), [note]


def _three(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(H, W, 1..4) to (H, W, 3): grey is repeated, alpha is left out."""
    return np.repeat(samples[..., :1], 3, axis=-1) if samples.shape[-1] < 3 else samples[..., :3]


def _decode(path: Path, header: ImageHeader) -> npt.NDArray[Any]:
    """Samples as stored, (H, W, C) with C = 1 (grey), 2 (grey, alpha), 3 or 4."""
    try:
        if header.kind in ("exr", "hdr", "pfm"):
            samples = _decode_float(path, header)
        elif header.kind == "tiff":
            samples = _decode_tiff(path)
        elif header.kind == "png" and header.bits == 16:
            import mitsuba as mi  # Pillow reduces 16-bit colour to 8 bits

            with file_threads():
                samples = np.array(mi.Bitmap(str(path)))
        else:
            samples = _decode_pillow(path)
    except InputError:
        raise
    except Exception as error:  # every decoder has its own exception types
        raise InputError(f"cannot be decoded, it seems truncated or damaged: {error}", path) from error
    if samples.ndim == 2:
        samples = samples[..., None]
    if samples.ndim != 3 or not 1 <= samples.shape[-1] <= 4:
        raise InputError(f"has the shape {samples.shape}, an image of 1 to 4 channels was expected", path)
    return samples


def _decode_pillow(path: Path) -> npt.NDArray[Any]:
    import imageio.v3 as iio
    from PIL import Image

    with Image.open(path) as image:
        # palettes may hide an alpha channel, and CMYK needs a conversion
        mode = {"P": "RGBA" if "transparency" in image.info else "RGB", "1": "L", "CMYK": "RGB", "PA": "RGBA"}.get(
            image.mode
        )
    return np.asarray(iio.imread(path, plugin="pillow", mode=mode))


def _decode_tiff(path: Path) -> npt.NDArray[Any]:
    import tifffile  # Pillow reduces 16-bit colour to 8 bits

    return np.asarray(tifffile.imread(path))


def _decode_float(path: Path, header: ImageHeader) -> npt.NDArray[Any]:
    import mitsuba as mi

    with file_threads():
        bitmap: Any = mi.Bitmap(str(path))
    samples = np.array(bitmap, dtype=np.float32)
    if samples.ndim == 2:
        samples = samples[..., None]
    if header.kind != "exr":
        return samples
    names = [f.name for f in bitmap.struct_()]
    for wanted in (["R", "G", "B"], ["Y"]):
        if all(n in names for n in wanted):
            wanted = wanted + (["A"] if "A" in names else [])
            return samples[..., [names.index(n) for n in wanted]]
    if samples.shape[-1] == 1:
        return samples
    raise InputError(f"has the channels {', '.join(names)}, R, G and B (or Y) were expected", path)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well.

    Raises:
        StorageFault: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.stem}.tmp-{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise StorageFault(f"cannot be written: {error.strerror or error}", path) from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be what is wrong
            temporary.unlink(missing_ok=True)


def write_image(path: str | Path, array: npt.ArrayLike, color: str = "auto") -> Path:
    """Write linear (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) values; the suffix chooses the kind.

    EXR, HDR and PFM hold the values as they are. PNG, JPEG and TIFF are clipped to [0, 1], encoded as sRGB (or, with
    `color="linear"`, as they are) and rounded to 8 bits. The file appears whole or not at all.

    Raises:
        UsageError: an unknown suffix, or an array of another shape.
        StorageFault: the disk is full or the folder not writable.
    """
    path = Path(path)
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise UsageError(
            f"cannot write images of the kind {path.suffix!r}, one of {', '.join(SUFFIXES)}",
            path,
            nearest=nearest_names(path.suffix, SUFFIXES),
        )
    data = np.asarray(array, np.float32)
    if data.ndim == 2:
        data = data[..., None]
    if data.ndim != 3 or data.shape[-1] not in (1, 3, 4):
        raise UsageError(f"an image has 1, 3 or 4 channels, not the shape {np.shape(array)}", path)
    with atomic_path(path) as temporary:
        if kind in ("exr", "hdr", "pfm"):
            import mitsuba as mi

            if kind == "hdr":
                data = _three(data)
            try:
                with file_threads():
                    mi.Bitmap(np.ascontiguousarray(data)).write(str(temporary))
            except RuntimeError as error:
                raise StorageFault(f"cannot be written: {error}", path) from error
        else:
            import imageio.v3 as iio

            iio.imwrite(temporary, to_8bit(data, color, alpha=kind != "jpeg"))
    return path


def to_8bit(array: npt.ArrayLike, color: str = "auto", alpha: bool = True) -> npt.NDArray[np.uint8]:
    """Linear values as 8-bit samples, sRGB-encoded unless `color="linear"`; grey loses its last axis."""
    data = np.asarray(array, np.float32)
    rgb = data[..., :3]
    encoded = np.clip(rgb if color == "linear" else linear_to_srgb(rgb), 0, 1)
    if data.shape[-1] == 4 and alpha:
        encoded = np.concatenate([encoded, np.clip(data[..., 3:], 0, 1)], axis=-1)
    out = np.nan_to_num(encoded * 255 + 0.5).astype(np.uint8)
    return out[..., 0] if out.shape[-1] == 1 else out


def write_channels(path: str | Path, channels: Mapping[str, npt.ArrayLike]) -> Path:
    """Write named (H, W) float channels into one EXR file, for example R, G, B and `depth.T`.

    Raises:
        UsageError: the suffix is not .exr, or the channels differ in size.
        StorageFault: the disk is full or the folder not writable.
    """
    import mitsuba as mi

    path = Path(path)
    if path.suffix.lower() != ".exr":
        raise UsageError("only EXR files hold named channels", path, remedy="name the file .exr")
    planes = [np.asarray(c, np.float32) for c in channels.values()]
    if len({p.shape for p in planes}) != 1 or planes[0].ndim != 2:
        raise UsageError(f"channels of one size (H, W) were expected, not {[p.shape for p in planes]}", path)
    bitmap = mi.Bitmap(np.ascontiguousarray(np.stack(planes, axis=-1)), channel_names=list(channels))
    with atomic_path(path) as temporary:
        try:
            with file_threads():
                bitmap.write(str(temporary))
        except RuntimeError as error:
            raise StorageFault(f"cannot be written: {error}", path) from error
    return path
