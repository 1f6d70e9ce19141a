"""Checkpoints: all arrays that the next step depends on, in one safetensors file with a manifest of hashes.

A checkpoint is a folder that is written beside its place, synced and renamed, so it is there whole or not at all.
Nothing in it is executed when it is read. The newest one whose hashes fit is taken; older ones remain as a reserve.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, UsageError
from .atomic import storage, sync_folder

SCHEMA = 2
_NAME = re.compile(r"step-(\d{6,})$")
_STATE, _MANIFEST = "state.safetensors", "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and found whole.

    Attributes:
        step: steps done when it was written.
        state: arrays by name.
        manifest: schema, job hash, history lines, sizes and hashes.
    """

    step: int
    state: dict[str, np.ndarray]
    manifest: dict[str, Any]


def write_checkpoint(
    folder: Path, step: int, state: Mapping[str, np.ndarray], facts: Mapping[str, Any], keep: int
) -> Path:
    """Write `folder/step-NNNNNN` atomically and remove all but the newest `keep`.

    Raises:
        StorageFault: it cannot be written; earlier checkpoints are intact.
    """
    from safetensors.numpy import save

    data = save({name: np.ascontiguousarray(array) for name, array in state.items()})
    digest = hashlib.sha256(data).hexdigest()
    manifest = {"schema": SCHEMA, "step": step, "files": {_STATE: {"bytes": len(data), "sha256": digest}}, **facts}
    final = folder / f"step-{step:06d}"
    temporary = folder / f"step-{step:06d}.tmp-{os.getpid()}"
    with storage(final):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            temporary.mkdir(exist_ok=True)
            for name, content in ((_STATE, data), (_MANIFEST, json.dumps(manifest, indent=1).encode())):
                with open(temporary / name, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            sync_folder(temporary)
            if final.exists():
                shutil.rmtree(final)
            os.replace(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync_folder(folder)
        for old in _folders(folder)[:-keep]:
            shutil.rmtree(old)
    return final


def newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint (None when there is none) and a sentence about each one that was passed over.

    Raises:
        UsageError: the newest was written by another version.
    """
    notes: list[str] = []
    for path in reversed(_folders(folder)):
        try:
            return _read(path), notes
        except InputError as error:
            notes.append(f"{error}; an older checkpoint is used")
    return None, notes


def clean_leftovers(folder: Path) -> None:
    """Remove what interrupted writes left behind."""
    if folder.is_dir():
        for path in folder.glob("step-*.tmp-*"):
            shutil.rmtree(path, ignore_errors=True)


def _folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if _NAME.match(p.name)), key=lambda p: int(p.name[5:]))


def _read(path: Path) -> Checkpoint:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        manifest = json.loads((path / _MANIFEST).read_text())
        entry = manifest["files"][_STATE]
        schema = int(manifest["schema"])
        if schema != SCHEMA:
            older = "start the run again in another folder, or finish it with the version that began it"
            raise UsageError(
                f"the checkpoint has schema {schema}, this version reads schema {SCHEMA}",
                where=path,
                remedy="update pathtracer" if schema > SCHEMA else older,
            )
        data = (path / _STATE).read_bytes()
        if len(data) != entry["bytes"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise InputError("the checkpoint is damaged: its hash does not fit", where=path)
        return Checkpoint(int(manifest["step"]), load(data), manifest)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"the checkpoint cannot be read ({error})", where=path) from error
