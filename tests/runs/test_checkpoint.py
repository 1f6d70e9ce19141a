"""Checkpoints and atomic files: whole or not there, older ones as a reserve, damage noticed."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from pathtracer.errors import StorageFault, UsageError
from pathtracer.runs import atomic
from pathtracer.runs.checkpoint import clean_leftovers, newest_checkpoint, write_checkpoint

STATE = {"u": np.linspace(0, 1, 7), "counters": np.array([1, 2, 3])}


def write(folder: Path, step: int, keep: int = 2) -> Path:
    return write_checkpoint(folder, step, {**STATE, "step": np.array([step])}, {"job": "abc"}, keep)


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    write(tmp_path, 10)
    found, notes = newest_checkpoint(tmp_path)
    assert found is not None and found.step == 10 and notes == []
    for name, array in STATE.items():
        np.testing.assert_array_equal(found.state[name], array)
        assert found.state[name].dtype == array.dtype


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (10, 20, 1_000_000, 30):
        write(tmp_path, step, keep=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000020", "step-000030", "step-1000000"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: (p / "state.safetensors").write_bytes((p / "state.safetensors").read_bytes()[:-3]),
        lambda p: (p / "state.safetensors").write_bytes(b"\x00" + (p / "state.safetensors").read_bytes()[1:]),
        lambda p: (p / "state.safetensors").unlink(),
        lambda p: (p / "manifest.json").write_text("{"),
        lambda p: (p / "manifest.json").write_text('{"schema": 2}'),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_sentence(tmp_path: Path, damage) -> None:
    write(tmp_path, 10)
    damage(write(tmp_path, 20))
    found, notes = newest_checkpoint(tmp_path)
    assert found is not None and found.step == 10
    assert len(notes) == 1 and "step-000020" in notes[0]


def test_a_checkpoint_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, 10) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    with pytest.raises(UsageError, match="schema 99"):
        newest_checkpoint(tmp_path)


def test_leftovers_of_an_interrupted_write_are_no_checkpoints_and_are_cleaned(tmp_path: Path) -> None:
    write(tmp_path, 10)
    (tmp_path / "step-000020.tmp-77").mkdir()
    assert newest_checkpoint(tmp_path)[0].step == 10  # type: ignore[union-attr]
    clean_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000010"]


def test_a_full_disk_leaves_the_old_checkpoint_and_file_intact(tmp_path: Path, monkeypatch) -> None:
    write(tmp_path, 10)
    atomic.write_text(tmp_path / "job.toml", "old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFault, match="No space left") as caught:
        write(tmp_path, 20)
    assert caught.value.exit_code == 7
    with pytest.raises(StorageFault):
        atomic.write_text(tmp_path / "job.toml", "new")
    monkeypatch.undo()
    assert (tmp_path / "job.toml").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["job.toml", "step-000010"]
