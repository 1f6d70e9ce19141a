"""A run folder: everything that one estimation leaves behind, owned by one process at a time.

job.toml            the resolved job
state.json          status, and the summary so far
history.jsonl       one line a step
checkpoints/        step-000120/{state.safetensors, manifest.json}
views/NAME/         target.exr, start.exr, result.exr, mask.exr; views/views.json lists them
arrays.safetensors  start, value and truth of the unknowns that are too large for tables, as the report shows them
preview.png, report.html
result/             values.safetensors, values.json, and the exported scene
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import filelock
import numpy as np

from ..errors import InputError, PathtracerError, StorageFault, UsageError
from .atomic import storage, write_bytes, write_text
from .checkpoint import Checkpoint, clean_leftovers, newest_checkpoint, write_checkpoint

if TYPE_CHECKING:
    from ..inverse.result import Result

HISTORY, STATE, JOB, LOCK, ARRAYS = "history.jsonl", "state.json", "job.toml", "run.lock", "arrays.safetensors"


class RunFolder:
    """A locked run folder; use it as a context manager.

    Args:
        path: the folder; made when absent.
        fresh: whether the run starts from nothing: earlier history, checkpoints and results are then removed.
    Attributes:
        replaced: whether an earlier run was in it and had to go.
    Raises:
        UsageError: another process works in it, or it holds files that are not those of a run.
        StorageFault: it cannot be made or written.
    """

    def __init__(self, path: str | Path, fresh: bool = True) -> None:
        self.path = Path(path)
        self._fresh = fresh
        self._history: IO[str] | None = None
        self.replaced = fresh and (self.path / JOB).exists()
        with storage(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        if fresh and not (self.path / JOB).exists():
            strangers = [p.name for p in self.path.iterdir() if p.name not in (LOCK, "cache")]
            if strangers:
                raise UsageError(
                    f"is not a run folder: it holds other files, such as {strangers[0]}",
                    where=self.path,
                    remedy="choose an empty or new folder with -o",
                )
        # The operating system drops the lock when its process dies, so a lock left by a crash is simply taken over.
        self._lock = filelock.FileLock(str(self.path / LOCK), timeout=0)

    def __enter__(self) -> RunFolder:
        with storage(self.path):
            try:
                self._lock.acquire()
            except filelock.Timeout as error:
                raise UsageError(
                    f"another process works in this run folder ({self._owner()})",
                    where=self.path,
                    remedy="wait for it, or choose another folder with -o",
                ) from error
        try:
            with storage(self.path):
                (self.path / "run.pid").write_text(f"{os.getpid()}\n")
                clean_leftovers(self.checkpoints)
                if self._fresh:
                    self._clear()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._history is not None:
            self._history.close()
            self._history = None
        with contextlib.suppress(OSError):
            (self.path / "run.pid").unlink(missing_ok=True)
        self._lock.release()

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def result(self) -> Path:
        """Folder of the export."""
        return self.path / "result"

    def _owner(self) -> str:
        try:
            return f"process {int((self.path / 'run.pid').read_text())}"
        except (OSError, ValueError):
            return "process unknown"

    def _clear(self) -> None:
        import shutil

        for name in (HISTORY, STATE, ARRAYS, "preview.png", "report.html"):
            (self.path / name).unlink(missing_ok=True)
        for name in ("checkpoints", "views", "result", "tensorboard"):
            if (self.path / name).is_dir():
                shutil.rmtree(self.path / name)

    # -- writing ----------------------------------------------------------------------------------------------------

    def write_job(self, text: str) -> None:
        """The resolved job."""
        write_text(self.path / JOB, text)

    def write_state(self, status: str, summary: Mapping[str, Any]) -> None:
        """Where the run is: "running", "finished", "interrupted", "diverged", "failed"."""
        write_text(self.path / STATE, json.dumps({"status": status, **summary}, indent=1) + "\n")

    def append(self, record: Mapping[str, Any]) -> None:
        """One line of the history, handed to the operating system at once."""
        with storage(self.path / HISTORY):
            if self._history is None:
                self._history = open(self.path / HISTORY, "a", encoding="utf-8")  # noqa: SIM115
            self._history.write(json.dumps(record, allow_nan=False) + "\n")
            self._history.flush()

    def checkpoint(self, step: int, state: Mapping[str, np.ndarray], keep: int) -> Path:
        """A checkpoint after `step` steps; the history is synced first, so that it covers it."""
        if self._history is not None:
            with storage(self.path / HISTORY):
                os.fsync(self._history.fileno())
        return write_checkpoint(
            self.checkpoints, step, state, {"job": self.job_hash(), "scene": self.problem_hash()}, keep
        )

    def write_views(
        self, images: Mapping[str, Mapping[str, np.ndarray]], facts: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Pictures of some views as EXR, with a list of all.

        Args:
            images: "target", "start", "result" and "weight" by view; the second and third may be missing.
            facts: entries of the list by view, of every view and in their order.
        """
        from ..capture import write_image

        listing = []
        for number, name in enumerate(facts):  # a view keeps its folder while others come
            folder, pictures = _view_folder(number, name), images.get(name)
            listing.append({"name": name, "folder": folder, **facts[name]})
            if pictures is None:
                continue
            for kind in ("target", "start", "result"):
                if kind in pictures:
                    write_image(self.path / "views" / folder / f"{kind}.exr", pictures[kind])
            if np.any(pictures["weight"] != 1):
                write_image(self.path / "views" / folder / "mask.exr", pictures["weight"])
        write_text(self.path / "views" / "views.json", json.dumps(listing, indent=1) + "\n")

    def write_arrays(self, result: Result) -> None:
        """Start, value, standard error and truth of the unknowns that tables only summarise."""
        from ..inverse.result import FEW, tensors

        arrays: dict[str, np.ndarray] = {}
        for row in result.recovered:
            if np.size(row.value) > FEW:
                parts = {"start": row.start, "value": row.value, "truth": row.truth, "error": row.standard_error}
                arrays |= {f"{what}:{row.name}": a.astype(np.float32) for what, a in parts.items() if a is not None}
        if arrays:
            write_bytes(self.path / ARRAYS, tensors(arrays))

    # -- reading ----------------------------------------------------------------------------------------------------

    def problem_hash(self) -> str:
        """SHA-256 of the scene's XML file, "" when it cannot be read: a job names its scene, which may change."""
        from ..inverse.job import read_job

        try:
            return hashlib.sha256((self.path / read_job(self.path / JOB).scene.file).read_bytes()).hexdigest()
        except (OSError, PathtracerError):
            return ""

    def job_hash(self) -> str:
        """SHA-256 of the job, to tell a checkpoint of another problem."""
        try:
            return hashlib.sha256((self.path / JOB).read_bytes()).hexdigest()
        except OSError as error:
            raise StorageFault(f"cannot be read: {error.strerror}", where=self.path / JOB) from error

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole checkpoint of this job; see `newest_checkpoint`.

        Raises:
            UsageError: it belongs to another job.
        """
        found, notes = newest_checkpoint(self.checkpoints)
        if found is not None and found.manifest.get("job") != self.job_hash():
            raise UsageError(
                f"the checkpoint belongs to a job with hash {str(found.manifest.get('job'))[:12]}, "
                f"the folder's job has {self.job_hash()[:12]}",
                where=self.path,
                remedy="restore job.toml, or start anew with `pathtracer estimate`",
            )
        known, now = ("" if found is None else str(found.manifest.get("scene") or "")), self.problem_hash()
        if known and now and known != now:
            raise UsageError(
                f"the checkpoint belongs to a scene file with hash {known[:12]}, the file now has {now[:12]}",
                where=self.path,
                remedy="restore the scene, or start anew with `pathtracer estimate`",
            )
        return found, notes

    def stored_starts(self) -> dict[str, np.ndarray]:
        """The first pictures of views that an earlier session kept."""
        from ..capture import read_image

        listing = self.path / "views" / "views.json"
        if not listing.is_file():
            return {}
        found = {}
        for entry in json.loads(listing.read_text(encoding="utf-8")):
            path = self.path / "views" / str(entry.get("folder", "")) / "start.exr"
            if path.is_file():
                found[str(entry["name"])] = read_image(path, sanitize=True)[0]
        return found

    def history(self) -> list[dict[str, Any]]:
        """The lines of the history; a torn last line is left out."""
        return read_history(self.path)

    def truncate_history(self, steps: int) -> None:
        """Forget what was done after a checkpoint."""
        lines = [json.dumps(r) + "\n" for r in self.history() if r["index"] < steps]
        write_text(self.path / HISTORY, "".join(lines))


def _view_folder(number: int, name: str) -> str:
    return f"{number:03d}-{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:60]}"


def is_running(folder: Path) -> bool:
    """Whether a process works in a run folder now (a killed one has lost its lock)."""
    lock = filelock.FileLock(str(folder / LOCK), timeout=0)
    if not (folder / LOCK).exists():
        return False
    try:
        with lock:
            return False
    except filelock.Timeout:
        return True
    except OSError:  # a folder that cannot be written is no place of work
        return False


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """What `write_arrays` wrote; empty when nothing was.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / ARRAYS
    if not path.is_file():
        return {}
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(path.read_bytes()))
    except SafetensorError as error:
        raise InputError(f"cannot be read: {error}", path) from error


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The steps of a run folder, as dictionaries; a torn last line is left out."""
    path = folder / HISTORY
    if not path.exists():
        return []
    records = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            if number == len(lines) - 1:
                break
            raise StorageFault(f"line {number + 1} is damaged", where=path) from None
    return records
