"""Texture files checked before Mitsuba decodes them, and the one adapter for texels.

The header is read first (kind, size), then the file is decoded and its texels are looked at: a truncated file, a wrong
type, NaN, infinite or negative texels are refused with count and first pixel. Mitsuba would take them silently, and one
NaN texel in an environment map turns most of the lit image NaN.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pathtracer.capture.headers import MAX_PIXELS, ImageHeader, read_header
from pathtracer.errors import InputError
from pathtracer.runtime.threads import file_threads

#: Kinds that Mitsuba's bitmap loader reads and Pillow can check.
_PILLOW_KINDS = ("PNG", "JPEG", "BMP", "TGA", "PPM")
#: Kinds with floating-point samples.
_FLOAT_KINDS = ("exr", "hdr", "pfm")


@dataclass
class TextureCheck:
    """What was found in a texture file.

    Attributes:
        header: kind and size.
        notes: sentences for the user.
        replaced: sanitised texels (H, W, C) to use in place of the file, None when the file is fine.
        black: whether every texel is zero.
    """

    header: ImageHeader
    notes: list[str]
    replaced: npt.NDArray[np.float32] | None = None
    black: bool = False


def check_texture(path: Path, where: str, *, sanitize: bool = False, color: bool = True) -> TextureCheck:
    """Check one image file that a scene names.

    Args:
        path: the file.
        where: the node, for the sentence.
        sanitize: replace bad texels by 0.
        color: texels stand for colours and may not be negative (data such as bump maps may).

    Raises:
        InputError: missing, not an image that Mitsuba reads, too large, truncated, or with bad texels.
    """
    try:
        header = texture_header(path)
        samples = _decode(path, header)
    except InputError as error:
        raise _inside(error, where) from error
    if samples is None:
        return TextureCheck(header, [])
    bad = ~np.isfinite(samples) | ((samples < 0) if color else False)
    check = TextureCheck(header, [], black=not np.any(samples))
    if not np.any(bad):
        return check
    sentence = describe_bad_texels(samples, bad)
    if not sanitize:
        raise InputError(
            f"the texture {path.name!r} has {sentence}",
            where=where,
            remedy="repair the image or pass --sanitize to replace such texels by 0",
        )
    check.replaced = np.where(bad, 0, samples).astype(np.float32)
    check.notes.append(f"{where}: the texture {path.name!r} has {sentence}; replaced by 0")
    return check


def describe_bad_texels(samples: npt.NDArray[Any], bad: npt.NDArray[np.bool_]) -> str:
    """ "3 NaN texels, the first at column 2, row 5" for the pixels of (H, W, C) `samples` where `bad`."""
    pixels = np.any(bad, axis=-1)
    kinds = [
        name
        for name, hit in (("NaN", np.isnan(samples)), ("infinite", np.isinf(samples)), ("negative", samples < 0))
        if np.any(hit & bad)
    ]
    y, x = (int(v) for v in np.argwhere(pixels)[0])
    count = int(pixels.sum())
    return f"{count} {' or '.join(kinds)} texel{'s' * (count != 1)}, the first at column {x}, row {y}"


def texture_header(path: Path) -> ImageHeader:
    """Kind and size of an image that Mitsuba can use as a texture.

    Raises:
        InputError: missing, of another type, damaged, or larger than `MAX_PIXELS`.
    """
    if path.is_file() and path.stat().st_size > 0:
        with path.open("rb") as file:
            start = file.read(4)
        if start[:2] in (b"BM", b"P5", b"P6") or path.suffix.lower() == ".tga":
            return _pillow_header(path)
    header = read_header(path)
    if header.kind == "tiff":
        raise InputError("is a TIFF image, which Mitsuba does not read", path, remedy="convert it to PNG or EXR")
    return header


def _pillow_header(path: Path) -> ImageHeader:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit on pixels follows
            with Image.open(path, formats=_PILLOW_KINDS) as image:
                header = ImageHeader((image.format or "").lower(), image.width, image.height, 8, mode=image.mode)
    except Image.DecompressionBombError as error:
        raise InputError(f"its header claims too many pixels ({error})", path) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"has a truncated or damaged header: {error}", path) from None
    if header.width * header.height > MAX_PIXELS:
        raise InputError(
            f"its header claims {header.width} x {header.height} pixels, more than the limit of {MAX_PIXELS}", path
        )
    return header


def _decode(path: Path, header: ImageHeader) -> npt.NDArray[np.float32] | None:
    """Samples of a floating-point image (H, W, C); None for integer files, which only have to decode."""
    if header.kind in _FLOAT_KINDS:
        import mitsuba as mi

        try:
            with file_threads():
                samples = np.array(mi.Bitmap(str(path)), dtype=np.float32)
        except RuntimeError as error:
            raise InputError(f"cannot be decoded, it seems truncated or damaged: {_last_line(error)}", path) from None
        samples = samples[..., None] if samples.ndim == 2 else samples
        # Alpha is dropped by textures and environment maps.
        return samples[..., :3] if samples.shape[-1] == 4 else samples
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_PILLOW_KINDS) as image:
                image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"cannot be decoded, it seems truncated or damaged: {error}", path) from None
    return None


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1].strip()


def _inside(error: InputError, where: str) -> InputError:
    """The same error, naming the node that refers to the file."""
    name = f"{error.where!r}" if error.where else "the image"
    return InputError(
        f"the texture {name} {error.message}", where=where, nearest=error.nearest, remedy=error.remedy or None
    )


def strip_pad_columns(data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The texels of an environment map without Mitsuba's two pad columns (`[last, 0..W-1, first]`)."""
    return data[:, 1:-1]


def add_pad_columns(data: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array that Mitsuba keeps for an environment map of (H, W, C) texels."""
    return np.concatenate([data[:, -1:], data, data[:, :1]], axis=1)


def write_texels(path: Path, data: npt.NDArray[Any]) -> None:
    """Write (H, W, C) linear texels, C = 1 or 3, as a 32-bit EXR."""
    import mitsuba as mi

    array = np.ascontiguousarray(data, dtype=np.float32)
    if array.ndim == 2:
        array = array[..., None]
    with file_threads():
        mi.Bitmap(array).write(str(path))
