"""The example scenes, in a checkout (`scenes/`) or in an installed wheel (`pathtracer/_scenes/`).

A bundled scene is a folder NAME with `scene.xml`, optionally a job file `job.toml` and a `README.md` whose first
sentence (else the first comment of the XML) says what it shows.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from pathtracer.errors import InputError, StorageFault, UsageError, nearest_names

_PACKAGE = Path(__file__).resolve().parents[1]
_SCENE, _JOB = "scene.xml", "job.toml"


@dataclass(frozen=True)
class Bundled:
    """One example scene.

    Attributes:
        name: name of its folder.
        folder: where it lies.
    """

    name: str
    folder: Path

    @property
    def scene(self) -> Path:
        """The scene file."""
        return self.folder / _SCENE

    @property
    def job(self) -> Path | None:
        """The job file, when it has one."""
        job = self.folder / _JOB
        return job if job.is_file() else None

    @property
    def description(self) -> str:
        """One line: what it shows."""
        readme = self.folder / "README.md"
        if readme.is_file():
            for paragraph in readme.read_text(encoding="utf-8").split("\n\n"):
                lines = [line for line in paragraph.strip().splitlines() if not line.startswith("#")]
                if lines:
                    return _first_sentence(" ".join(lines))
        if self.scene.is_file():
            comment = re.search(r"<!--(.*?)-->", self.scene.read_text(encoding="utf-8"), re.DOTALL)
            if comment:
                return _first_sentence(comment[1])
        return ""

    def files(self) -> list[Path]:
        """Every file of the example, relative to its folder."""
        return sorted(p.relative_to(self.folder) for p in self.folder.rglob("*") if p.is_file() and not _generated(p))


def _generated(path: Path) -> bool:
    return "__pycache__" in path.parts or path.name.startswith(".")


def _first_sentence(text: str) -> str:
    text = " ".join(text.split())
    return re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0].rstrip(".")


def root() -> Path:
    """The folder that holds the bundled scenes.

    Raises:
        InputError: the installation has none.
    """
    for folder in (_PACKAGE / "_scenes", _PACKAGE.parent / "scenes"):
        if folder.is_dir() and (folder.parent == _PACKAGE or (_PACKAGE.parent / "pyproject.toml").is_file()):
            return folder
    raise InputError("this installation holds no example scenes", where=_PACKAGE, remedy="reinstall pathtracer")


def bundled() -> list[Bundled]:
    """All example scenes, by name."""
    return [Bundled(f.name, f) for f in sorted(root().iterdir()) if (f / _SCENE).is_file() or (f / _JOB).is_file()]


def find(name: str) -> Bundled:
    """The example called `name`.

    Raises:
        UsageError: there is none, with the nearest names.
    """
    scenes = {b.name: b for b in bundled()}
    if name not in scenes:
        raise UsageError(
            f"there is no bundled scene '{name}'",
            nearest=nearest_names(name, scenes),
            remedy="list them with: pathtracer scenes list",
        )
    return scenes[name]


def resolve_scene(text: str) -> Path:
    """The scene file of the example called `text`, unless something lies at that path or it looks like a path.

    Raises:
        InputError: neither a path nor the name of an example, with the nearest names.
    """
    path = Path(text)
    if path.exists() or path.suffix or len(path.parts) != 1:
        return path
    scenes = {example.name: example.scene for example in bundled() if example.scene.is_file()}
    if text not in scenes:
        raise InputError(
            "there is no such scene file, and no bundled scene of that name",
            where=text,
            nearest=nearest_names(text, scenes),
        )
    return scenes[text]


def copy(name: str, destination: Path, force: bool = False) -> list[Path]:
    """Copy an example to `destination` (created when absent).

    Args:
        name: the example.
        destination: the folder that will hold its files.
        force: replace files that are there already.

    Returns:
        The files written.

    Raises:
        UsageError: unknown name, or files would be overwritten.
        StorageFault: the folder cannot be written.
    """
    example = find(name)
    files = example.files()
    present = [destination / f for f in files if (destination / f).exists()]
    if present and not force:
        raise UsageError(
            f"'{present[0].relative_to(destination)}' exists already"
            + (f" and {len(present) - 1} more" if present[1:] else ""),
            where=destination,
            remedy="choose another folder, or overwrite with --force",
        )
    written = []
    try:
        for file in files:
            target = destination / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(example.folder / file, target)
            written.append(target)
    except OSError as error:
        raise StorageFault(f"cannot be written ({error.strerror})", where=error.filename or destination) from error
    return written
