"""Run folders: one process each, stale locks recovered, other people's files left alone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pathtracer.errors import StorageFault, UsageError
from pathtracer.runs import RunFolder, read_history

HOLDER = """
import sys, time
from pathtracer.runs import RunFolder
with RunFolder(sys.argv[1]) as folder:
    folder.write_job("x = 1")
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that works in the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_and_told_who_works_there(tmp_path: Path, holder) -> None:
    with pytest.raises(UsageError, match=f"another process.*process {holder.pid}"), RunFolder(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path, holder) -> None:
    holder.kill()
    holder.wait()
    with RunFolder(tmp_path, fresh=False) as folder:
        assert (folder.path / "job.toml").exists()


def test_a_folder_with_other_files_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        RunFolder(tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_folder_that_cannot_be_made_is_a_storage_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFault):
        RunFolder(tmp_path / "file" / "run")


def test_a_fresh_run_forgets_the_earlier_one_and_a_resumed_one_does_not(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.write_job("x = 1")
        for index in range(5):
            folder.append({"index": index})
        folder.checkpoint(3, {"u": np.zeros(2)}, keep=2)
    with RunFolder(tmp_path, fresh=False) as folder:
        found, _ = folder.newest()
        assert found is not None and found.step == 3
        folder.truncate_history(found.step)
        folder.append({"index": 3})
        assert [r["index"] for r in folder.history()] == [0, 1, 2, 3]
    with RunFolder(tmp_path) as folder:
        assert folder.history() == [] and folder.newest()[0] is None


def test_a_torn_last_line_of_the_history_is_left_out_and_other_damage_is_not(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text('{"index": 0}\n{"index": 1}\n{"ind')
    assert [r["index"] for r in read_history(tmp_path)] == [0, 1]
    (tmp_path / "history.jsonl").write_text('{"index": 0}\n{"ind\n{"index": 2}\n')
    with pytest.raises(StorageFault, match="line 2 is damaged"):
        read_history(tmp_path)


def test_a_checkpoint_of_another_job_is_refused_with_both_hashes(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.write_job("x = 1")
        folder.checkpoint(3, {"u": np.zeros(2)}, keep=2)
        before = folder.job_hash()[:12]
        folder.write_job("x = 2")
        with pytest.raises(UsageError, match=f"{before}.*{folder.job_hash()[:12]}"):
            folder.newest()


def test_importing_the_package_is_quick_and_loads_no_renderer() -> None:
    code = "import sys, pathtracer; print(sorted(m for m in ('mitsuba', 'drjit', 'numpy') if m in sys.modules))"
    began = time.perf_counter()
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]" and time.perf_counter() - began < 10
