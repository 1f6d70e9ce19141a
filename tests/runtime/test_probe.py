"""Verdicts about backends, and how long they are remembered."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path

import pytest

from pathtracer.runtime import folders, gpu, probe, versions
from pathtracer.runtime.probe import Verdict


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str | None]:
    """An empty verdict cache, and probes that always say yes; lists what was asked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    questions: list[str | None] = []

    def yes(code: str, path: str | None, preload: list[str], timeout: float | None = None) -> Verdict:
        questions.append(path)
        return Verdict("ok", seconds=0.5)

    monkeypatch.setattr(probe, "run_probe", yes)
    return questions


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A file that stands for a library."""
    path = tmp_path / "libLLVM.so.19.1"
    path.write_bytes(b"x" * 100)
    return path


@pytest.mark.parametrize(
    ("code", "kind", "detail"),
    [
        ("raise SystemExit(0)", "ok", ""),
        ("import os; os.abort()", "crashed", "crashed (SIGABRT)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed", "crashed (SIGSEGV)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "crashed", "crashed (SIGILL)"),
        ("raise SystemExit(3)", "refused", "ended with exit code 3"),
        ("import sys; sys.exit('no such symbol')", "refused", "no such symbol"),
        (
            "import os; os.write(2, b'LLVM ERROR: Cannot select: f32 = fminimum'); os.abort()",
            "crashed",
            "crashed (SIGABRT, cannot compile fminimum)",
        ),
        (
            "import sys; sys.exit('ImportError: libatomic.so.1: cannot open shared object file')",
            "refused",
            "the system library libatomic.so.1 is missing",
        ),
    ],
)
def test_the_end_of_the_child_is_judged(code: str, kind: str, detail: str) -> None:
    verdict = probe.run_probe(code, None, [])
    assert (verdict.kind, verdict.detail) == (kind, detail)


def test_a_child_that_hangs_is_given_up() -> None:
    assert probe.run_probe("import time; time.sleep(60)", None, [], timeout=0.3).kind == "hung"


def test_the_probe_has_an_empty_kernel_cache_of_its_own_and_the_library_under_test() -> None:
    code = """
import json, os, sys
folder = os.environ["DRJIT_CACHE_DIR"]
sys.exit(json.dumps([folder, os.path.exists(folder), os.environ["DRJIT_LIBLLVM_PATH"]]))
"""
    verdict = probe.run_probe(code, "/some/libLLVM.so", [])
    folder, exists, path = json.loads(verdict.detail)
    assert folder != os.environ.get("DRJIT_CACHE_DIR") and not exists and path == "/some/libLLVM.so"
    assert not os.path.exists(os.path.dirname(folder)), "the probe leaves no files"


def test_a_file_that_is_no_library_is_refused_with_the_loaders_reason(library: Path) -> None:
    verdict = probe.run_probe(probe._LLVM_PROBE, str(library), [])
    assert verdict.kind == "refused"
    assert str(library) in verdict.detail and ("ELF" in verdict.detail or "too short" in verdict.detail)


def test_a_verdict_is_asked_for_once(asked: list[str | None], library: Path) -> None:
    for _ in range(3):
        assert probe.probe_llvm(str(library), []).ok
    assert asked == [str(library)]


def test_a_remembered_verdict_costs_milliseconds(asked: list[str | None], library: Path) -> None:
    probe.probe_llvm(str(library), [])
    times = []
    for _ in range(20):
        started = time.perf_counter()
        probe.probe_llvm(str(library), [])
        times.append(time.perf_counter() - started)
    assert statistics.median(times) < 0.01


def test_another_file_date_version_or_processor_is_asked_again(
    asked: list[str | None], library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe.probe_llvm(str(library), [])
    os.utime(library, ns=(1, 1))
    probe.probe_llvm(str(library), [])
    assert len(asked) == 2
    monkeypatch.setattr(probe, "processor", lambda: "another processor")
    probe.probe_llvm(str(library), [])
    assert len(asked) == 3
    monkeypatch.setattr(versions, "installed_version", lambda _package: "9.9.9")
    probe.probe_llvm(str(library), [])
    assert len(asked) == 4


def test_a_failure_is_forgotten_because_what_is_missing_may_be_installed(
    asked: list[str | None], library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "run_probe", lambda *_: Verdict("refused", "missing"))
    assert not probe.probe_llvm(str(library), []).ok
    monkeypatch.setattr(probe, "run_probe", lambda *_: Verdict("ok"))
    assert not probe.probe_llvm(str(library), []).ok, "remembered for a short while"
    later = time.time() + probe.FAILURE_LIFETIME + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert probe.probe_llvm(str(library), []).ok


def test_fresh_asks_again(asked: list[str | None], library: Path) -> None:
    probe.probe_llvm(str(library), [])
    probe.probe_llvm(str(library), [], fresh=True)
    assert len(asked) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 3}', '{"key": {"kind": "ok"}}', "\x00"])
def test_a_damaged_cache_file_is_as_good_as_none(asked: list[str | None], library: Path, content: str) -> None:
    (folders.cache_folder() / "probes.json").write_text(content)
    assert probe.probe_llvm(str(library), []).ok
    assert probe.probe_llvm(str(library), []).ok
    assert len(asked) == 1


def test_an_unwritable_cache_folder_only_costs_the_memory(
    asked: list[str | None], library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "cache_folder", lambda: Path("/proc/nowhere"))
    assert probe.probe_llvm(str(library), []).ok
    assert probe.probe_llvm(str(library), []).ok
    assert len(asked) == 2


def test_the_cache_file_is_replaced_and_leaves_no_fragments(asked: list[str | None], library: Path) -> None:
    probe.probe_llvm(str(library), [])
    assert [file.name for file in folders.cache_folder().iterdir()] == ["probes.json"]


def test_no_gpu_is_looked_for_where_no_driver_is_loaded(
    asked: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "_DEVICE_FILES", ("/dev/nonexistent",))
    assert gpu.driver() is None and not gpu.answers()
    assert asked == []


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_the_user_hides_is_not_asked(
    asked: list[str | None], monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    monkeypatch.setattr(gpu, "_DEVICE_FILES", (sys.executable,))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert not gpu.answers() and asked == []


def test_a_driver_that_answers_is_taken_and_one_that_crashes_is_not(
    asked: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "_DEVICE_FILES", (sys.executable,))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu.answers()
    monkeypatch.setattr(probe, "run_probe", lambda *_: Verdict("crashed", "crashed (SIGSEGV)"))
    assert not gpu.answers(fresh=True)
