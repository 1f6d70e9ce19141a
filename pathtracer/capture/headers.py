"""What an image file says about itself, read before a single pixel is decoded.

A truncated, mislabelled or boastful header must cost a sentence and not the machine's memory, so size and kind are
taken from the first bytes: PNG, JPEG and TIFF through Pillow (which opens lazily), OpenEXR, Radiance HDR and PFM here.
"""

from __future__ import annotations

import struct
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from pathtracer.errors import InputError

#: Refuse images with more pixels than this (16384 x 16384): 3 GiB as float32 RGB.
MAX_PIXELS = 2**28

_EXR_MAGIC = 20000630
_EXR_HEADER_LIMIT = 1 << 20
_EXR_TILED, _EXR_DEEP, _EXR_MULTIPART = 0x200, 0x800, 0x1000

SUFFIXES = {
    ".exr": "exr",
    ".hdr": "hdr",
    ".rgbe": "hdr",
    ".pfm": "pfm",
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".tif": "tiff",
    ".tiff": "tiff",
}


@dataclass(frozen=True)
class ImageHeader:
    """Kind and size of an image file.

    Attributes:
        kind: "png", "jpeg", "tiff", "exr", "hdr" or "pfm".
        width, height: in pixels.
        bits: bits per sample; 16 and 32 are floating point in exr, hdr and pfm.
        mode: Pillow's mode string for png, jpeg and tiff, else "".
        channels: names of the channels of an EXR file.
        gamma: the exponent that a PNG `gAMA` chunk records (1 = linear), None when absent.
        orientation: EXIF orientation, 1 when upright.
    """

    kind: str
    width: int
    height: int
    bits: int
    mode: str = ""
    channels: tuple[str, ...] = field(default=())
    gamma: float | None = None
    orientation: int = 1


def read_header(path: str | Path) -> ImageHeader:
    """Kind and size of the image at `path`, decided by content, not by suffix.

    Raises:
        InputError: the file is missing, a folder, empty, unreadable, no image that is known here, or larger than
            `MAX_PIXELS`.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(_EXR_HEADER_LIMIT)
    except FileNotFoundError:
        raise _missing(path) from None
    except IsADirectoryError:
        raise InputError("is a folder, an image file was expected", path) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path) from None
    if not start:
        raise InputError("is empty, an image was expected", path)
    if start[:4] == struct.pack("<I", _EXR_MAGIC):
        header = _exr(start, path)
    elif start[:2] == b"#?":
        header = _hdr(start, path)
    elif start[:3] in (b"PF\n", b"Pf\n"):
        header = _pfm(start, path)
    else:
        header = _pillow(path)
    if header.width < 1 or header.height < 1:
        raise InputError(f"its header claims {header.width} x {header.height} pixels", path)
    if header.width * header.height > MAX_PIXELS:
        raise InputError(
            f"its header claims {header.width} x {header.height} pixels, more than the limit of {MAX_PIXELS}",
            path,
            remedy="downscale or crop the image",
        )
    return header


def _missing(path: Path) -> InputError:
    from pathtracer.errors import nearest_names

    folder = path.parent
    if not folder.is_dir():
        return InputError(f"no such file, nor is there a folder {folder}", path)
    return InputError("no such file", path, nearest=nearest_names(path.name, [p.name for p in folder.iterdir()]))


def _exr(data: bytes, path: Path) -> ImageHeader:
    """Walk the attributes of an OpenEXR header: name, type, size, value; a zero byte ends them."""

    def text(at: int) -> tuple[str, int]:
        end = data.index(b"\0", at)
        return data[at:end].decode("latin-1"), end + 1

    try:
        (version,) = struct.unpack_from("<I", data, 4)
        if version & (_EXR_DEEP | _EXR_MULTIPART):
            raise InputError(
                "is a deep or multi-part EXR, which is not read here", path, remedy="save it as one flat part"
            )
        window, channels, bits, at = None, [], 0, 8
        while data[at]:
            name, at = text(at)
            _, at = text(at)
            (size,) = struct.unpack_from("<i", data, at)
            at += 4
            if name == "dataWindow":
                window = struct.unpack_from("<4i", data, at)
            elif name == "channels":
                c = at
                while data[c]:
                    channel, c = text(c)
                    (pixel_type,) = struct.unpack_from("<i", data, c)
                    bits = max(bits, 16 if pixel_type == 1 else 32)
                    channels.append(channel)
                    c += 16
            if size < 0:
                raise ValueError("negative attribute size")
            at += size
    except (struct.error, ValueError, IndexError):
        raise InputError("has a truncated or damaged EXR header", path) from None
    if window is None or not channels:
        raise InputError("has an EXR header without data window or channels", path)
    x0, y0, x1, y1 = window
    return ImageHeader("exr", x1 - x0 + 1, y1 - y0 + 1, bits, channels=tuple(channels))


def _hdr(data: bytes, path: Path) -> ImageHeader:
    """Radiance: comment lines, an empty line, then `-Y height +X width`."""
    head, _, rest = data.partition(b"\n\n")
    fields = rest.split(b"\n", 1)[0].split()
    if b"FORMAT=32-bit_rle_rgbe" not in head or len(fields) != 4 or not (fields[1].isdigit() and fields[3].isdigit()):
        raise InputError("has a truncated or damaged Radiance HDR header", path)
    if fields[0] != b"-Y" or fields[2] != b"+X":
        raise InputError(
            f"stores its rows as {rest.split(bytes([10]), 1)[0].decode('latin-1')!r}, only '-Y H +X W' is read", path
        )
    return ImageHeader("hdr", int(fields[3]), int(fields[1]), 32)


def _pfm(data: bytes, path: Path) -> ImageHeader:
    fields = data[:256].split()
    if len(fields) < 4 or not (fields[1].isdigit() and fields[2].isdigit()):
        raise InputError("has a truncated or damaged PFM header", path)
    return ImageHeader("pfm", int(fields[1]), int(fields[2]), 32)


def _pillow(path: Path) -> ImageHeader:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own limit on pixels is checked by the caller
            with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as image:
                kind = (image.format or "").lower()
                bits = 8
                if kind == "tiff":
                    tag = image.tag_v2.get(258, (8,))  # type: ignore[attr-defined]
                    bits = max(tag) if isinstance(tag, tuple) else int(tag)
                elif kind == "png":
                    bits = _png_bits(path)
                return ImageHeader(
                    kind,
                    image.width,
                    image.height,
                    bits,
                    mode=image.mode,
                    gamma=image.info.get("gamma"),
                    orientation=image.getexif().get(274, 1) if kind != "png" else 1,
                )
    except Image.DecompressionBombError as error:
        raise InputError(f"its header claims too many pixels ({error})", path) from None
    except UnidentifiedImageError:
        known = ", ".join(sorted(SUFFIXES))
        raise InputError(f"is not an image of a kind that is read here ({known})", path) from None
    except (OSError, SyntaxError, ValueError, KeyError, struct.error) as error:
        raise InputError(f"has a truncated or damaged header: {error}", path) from None


def _png_bits(path: Path) -> int:
    """Bit depth of a PNG: byte 24 of the file, in the IHDR chunk."""
    with path.open("rb") as file:
        return file.read(25)[24]
