"""A capture: photographs with their cameras, as a file describes them, before a pixel is read.

`find_image`, `finite_number` and the like are what all readers of such files share, so that they complain alike.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pathtracer.capture.cameras import Camera, Matrix
from pathtracer.capture.headers import SUFFIXES
from pathtracer.errors import InputError, nearest_names

#: Larger text files are no list of cameras.
MAX_BYTES = 1 << 28


@dataclass
class Shot:
    """One photograph.

    Attributes:
        file: the picture.
        name: what reports and messages call it.
        camera: that took it.
        mask: picture of its weights, or None.
        holdout: not to be fitted.
    """

    file: Path
    name: str
    camera: Camera
    mask: Path | None = None
    holdout: bool = False


@dataclass
class Capture:
    """Photographs with their cameras.

    Attributes:
        shots: in the order of the file.
        source: the file or folder that was read.
        points: (N, 3) points of the scene, when the file knows some (COLMAP's sparse reconstruction).
        notes: what was assumed, one sentence each.
    """

    shots: list[Shot]
    source: Path
    points: Matrix | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def cameras(self) -> list[Camera]:
        """The camera of each shot."""
        return [shot.camera for shot in self.shots]

    def entries(self) -> list[dict[str, Any]]:
        """The shots as `load_views` takes them."""
        return [
            {"file": s.file, "name": s.name, "camera": s.camera}
            | ({"mask": s.mask} if s.mask else {})
            | ({"holdout": True} if s.holdout else {})
            for s in self.shots
        ]


def read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file.

    Raises:
        InputError: absent, unreadable, too large, malformed (with line and column), or no object.
    """
    text = read_text(path)
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"is not valid JSON: {error.msg}", f"{path}:{error.lineno}:{error.colno}") from None
    except RecursionError:
        raise InputError("is nested too deeply", path) from None
    if not isinstance(data, dict):
        raise InputError(f"holds a {type(data).__name__}, an object with frames was expected", path)
    return data


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        InputError: absent (with the nearest names), unreadable, too large, or not UTF-8.
    """
    require_file(path)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError("is not text in UTF-8", path) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path) from None


def require_file(path: Path) -> None:
    """Refuse what is absent, a folder, or too large."""
    if not path.exists():
        folder = path.parent
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        raise InputError("no such file", path, nearest=nearest_names(path.name, names))
    if path.is_dir():
        raise InputError("is a folder, a file was expected", path)
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"has {path.stat().st_size} bytes, more than the limit of {MAX_BYTES}", path)


def find_image(folder: Path, name: Any, where: object) -> Path:
    """The picture that a file calls `name`, which may lack its suffix.

    Raises:
        InputError: there is none, with the nearest names of its folder.
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"names the picture {name!r}, a file name was expected", where)
    path = folder / PurePosixPath(name.replace("\\", "/"))
    if path.is_file():
        return path
    if path.suffix.lower() not in SUFFIXES:
        found = [p for suffix in SUFFIXES for p in [path.with_name(path.name + suffix)] if p.is_file()]
        if found:
            return found[0]
    names = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    what = f"there is no picture {path}" + ("" if names else f", nor is there a folder {path.parent}")
    raise InputError(what, where, nearest=nearest_names(path.name, names))


def find_mask(folder: Path, picture: Path, where: object, relative: str | None = None) -> Path:
    """The mask of a picture in a folder of masks: the same name, the same stem, or COLMAP's NAME.png.

    Raises:
        InputError: there is none.
    """
    base = folder / Path(relative).parent if relative else folder
    candidates = [base / picture.name, base / (picture.name + ".png")]
    candidates += [base / (picture.stem + suffix) for suffix in SUFFIXES]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if not folder.is_dir():
        raise InputError("is no folder of masks", folder)
    raise InputError(
        f"there is no mask for {picture.name} in {base}",
        where,
        remedy=f"name it {candidates[1].name} or like the picture",
    )


def number(table: Mapping[str, Any], key: str, where: object, positive: bool = False) -> float | None:
    """The finite number that a table has under `key`, None when it has none.

    Raises:
        InputError: something else is there.
    """
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise InputError(f"{key} is {value!r}, a finite number was expected", where)
    if positive and value <= 0:
        raise InputError(f"{key} is {value!r}, a positive number was expected", where)
    return float(value)


def unique_names(shots: Iterable[Shot]) -> None:
    """Give shots of one name the names of their folders, and numbers when that is not enough."""
    listed = list(shots)
    for attempt in range(2):
        seen: dict[str, list[Shot]] = {}
        for shot in listed:
            seen.setdefault(shot.name, []).append(shot)
        for name, same in seen.items():
            if len(same) > 1:
                for k, shot in enumerate(same):
                    shot.name = f"{shot.file.parent.name}-{name}" if attempt == 0 else f"{name} ({k + 1})"
