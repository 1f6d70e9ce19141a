"""The views file of this program: one TOML table per picture, written by `pathtracer import`, made to be edited.

convention = "mitsuba"

[[view]]
file = "../photos/0001.png"
size = [640, 480]
focal = [700.0, 700.0]       # pixels
centre = [320.0, 240.0]      # pixels from the upper left corner
to_world = [[...], [...], [...], [...]]
holdout = true               # and, as in a job: name, mask, lit, exposure, white_balance, crop
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from pathtracer.capture.cameras import Camera, camera_to_world, check_convention
from pathtracer.capture.shots import Capture, Shot, find_image, read_text
from pathtracer.errors import InputError, UsageError, nearest_names

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TOP = ("convention", "matrices", "view")
_CAMERA = ("size", "focal", "centre", "to_world")
#: What a table may say besides its camera: keys of `load_views`.
_OPTIONS = ("name", "mask", "holdout", "lit", "exposure", "white_balance", "crop", "color", "sanitize")


def write_views_file(capture: Capture, path: str | Path, header: str = "") -> Path:
    """Write a capture.

    Args:
        capture: what to write.
        path: the file; pictures are named relative to its folder.
        header: comment lines for the top.
    Raises:
        StorageFault: the folder cannot be written.
    """
    from pathtracer.capture.images import atomic_path

    path = Path(path)
    lines = [f"# {line}".rstrip() for line in header.splitlines()]
    lines += ["# convention: to_world is camera-to-world, x left, y up, z forward", 'convention = "mitsuba"', ""]
    for shot in capture.shots:
        c = shot.camera
        table: dict[str, Any] = {"name": shot.name, "file": relative(shot.file, path.parent)}
        if shot.mask:
            table["mask"] = relative(shot.mask, path.parent)
        if shot.holdout:
            table["holdout"] = True
        table |= {"size": [c.width, c.height], "focal": [c.fx, c.fy], "centre": [c.cx, c.cy]}
        lines.append("[[view]]")
        lines.append(
            tomli_w.dumps(table).replace("[\n    ", "[").replace(",\n    ", ", ").replace(",\n]", "]").rstrip()
        )
        rows = [", ".join(repr(float(x)) for x in row) for row in c.to_world]
        lines.append("to_world = [\n" + "".join(f"  [{row}],\n" for row in rows) + "]\n")
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")
    return path


def relative(file: Path, folder: Path) -> str:
    """A path as a file in `folder` names it."""
    return Path(os.path.relpath(file, folder)).as_posix()


def read_views_file(path: str | Path) -> tuple[Capture, list[dict[str, Any]]]:
    """The capture of a views file, and the table of each view as `load_views` takes it.

    Raises:
        InputError: absent or malformed, a camera or picture that cannot be used. UsageError: an unknown key.
    """
    path = Path(path)
    try:
        data = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"is not valid TOML: {error}", path) from None
    _known(data, _TOP, path)
    tables = data.get("view")
    if not isinstance(tables, list) or not tables:
        raise InputError("holds no [[view]]", path)
    convention = check_convention(str(data.get("convention", "mitsuba")))
    capture, entries = Capture([], path), []
    for index, table in enumerate(tables):
        where = f"{path}: view {index + 1}"
        if not isinstance(table, dict):
            raise InputError("is no table", where)
        _known(table, ("file", *_CAMERA, *_OPTIONS), where)
        for key in ("file", *_CAMERA):
            if key not in table:
                raise InputError(f"has no '{key}'", where)
        file = find_image(path.parent, table["file"], where)
        where = f"{where} ({file.name})"
        size, focal, centre = (_pair(table, key, where) for key in ("size", "focal", "centre"))
        if min(*size, *focal) <= 0:
            raise InputError("size and focal are positive numbers", where)
        pose, _ = camera_to_world(table["to_world"], where, convention, str(data.get("matrices", "camera-to-world")))
        camera = Camera(int(size[0]), int(size[1]), *focal, *centre, to_world=pose)
        entry = {k: table[k] for k in _OPTIONS if k in table}
        entry |= {"file": file, "camera": camera}
        if "mask" in entry:
            entry["mask"] = find_image(path.parent, entry["mask"], where)
        entries.append(entry)
        name = str(entry.get("name", file.stem))
        capture.shots.append(Shot(file, name, camera, entry.get("mask"), bool(entry.get("holdout", False))))
    return capture, entries


def _known(table: dict[str, Any], known: tuple[str, ...], where: object) -> None:
    for key in table:
        if key not in known:
            raise UsageError(f"unknown key {key!r}", where, nearest=nearest_names(key, known))


def _pair(table: dict[str, Any], key: str, where: str) -> tuple[float, float]:
    value = table[key]
    numbers = [v for v in value if isinstance(v, int | float) and np.isfinite(v)] if isinstance(value, list) else []
    if len(numbers) != 2 or len(value) != 2:
        raise InputError(f"{key} is {value!r}, two numbers were expected", where)
    return float(numbers[0]), float(numbers[1])
