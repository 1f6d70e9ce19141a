"""What doctor finds on machines that lack something."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pathtracer.runtime import checks, folders, gpu, probe, versions
from pathtracer.runtime.probe import Verdict


def test_a_python_that_is_too_old_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.check_python().status == "ok"
    monkeypatch.setattr(sys, "version_info", (3, 9, 0))
    assert checks.check_python().status == "FAIL"


def test_a_mismatched_pair_fails_with_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "PINS", {"mitsuba": "3.9.1", "drjit": "9.9.9"})
    check = checks.check_pins()
    assert check.status == "FAIL" and check.remedy == "run: pip install mitsuba==3.9.1 drjit==9.9.9"


def test_a_processor_without_fma_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(Path, "exists", lambda _self: True)
    monkeypatch.setattr(Path, "read_text", lambda _self: "model name : Old\nflags\t\t: fpu sse sse2 avx\n")
    check = checks.check_processor()
    assert check.status == "FAIL" and "lacks FMA" in check.detail


@pytest.mark.skipif(sys.platform != "linux", reason="a library of Linux")
def test_a_missing_libatomic_fails_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    check = checks.check_libatomic()
    assert check.status == "FAIL" and check.remedy == "run: apt-get install libatomic1"


def test_a_missing_llvm_only_warns_where_a_gpu_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRJIT_LIBLLVM_PATH", "/nowhere/libLLVM.so.19")
    assert checks.check_llvm(required=True).status == "FAIL"
    check = checks.check_llvm(required=False)
    assert check.status == "warn" and check.remedy == "run: unset DRJIT_LIBLLVM_PATH"


def test_a_gpu_that_cannot_trace_rays_warns_with_the_reason() -> None:
    check = checks.check_gpu(Verdict("refused", "could not find libnvoptix.so.1"))
    assert check.status == "warn" and "libnvoptix.so.1" in check.detail and check.remedy


def test_a_cpu_quota_below_the_processors_warns_with_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "usable_processors", lambda: (16, 2.0))
    check = checks.check_threads()
    assert check.status == "warn" and check.remedy == "use -t 2"


def test_little_memory_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "available_memory", lambda: checks.GIB // 2)
    assert checks.check_memory().status == "warn"
    monkeypatch.setattr(checks, "available_memory", lambda: None)
    assert checks.check_memory().status == "ok"


def test_an_unwritable_kernel_cache_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRJIT_CACHE_DIR", "/proc/nowhere")
    assert folders.kernel_cache_folder() is None
    check = checks.check_cache()
    assert check.status == "warn" and "/proc/nowhere" in check.detail and "DRJIT_CACHE_DIR" in (check.remedy or "")


def test_a_full_disk_under_the_kernel_cache_warns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DRJIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: SimpleNamespace(free=1))
    assert checks.check_cache().status == "warn"


def test_a_child_that_dies_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRJIT_LIBLLVM_PATH", "/nowhere/libLLVM.so.19")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = list(checks.check_rendering(usable=True))
    assert [check.name for check in found] == ["EXR", "render", "gradient"]
    assert all(check.status == "FAIL" and "the process ended with" in check.detail for check in found)


def test_nothing_is_rendered_where_nothing_can_render(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_a, **_k: pytest.fail("started a process"))
    assert {check.status for check in checks.check_rendering(usable=False)} == {"warn"}


def test_this_machine_passes_every_check() -> None:
    found = list(checks.run_checks())
    assert [check.name for check in found] == [
        *("Python", "Mitsuba", "processor", "libatomic", "LLVM", "GPU", "threads", "memory", "cache"),
        *("EXR", "render", "gradient"),
    ]
    assert not [check for check in found if check.status == "FAIL"]
    assert all(check.remedy for check in found if check.status != "ok")


def test_probes_of_doctor_are_made_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    fresh: list[bool] = []

    def answer(path: str, preload: list[str], fresh_: bool = False) -> Verdict:
        fresh.append(fresh_)
        return Verdict("ok")

    monkeypatch.setattr(probe, "probe_llvm", answer)
    monkeypatch.setattr(gpu, "_DEVICE_FILES", ())
    checks.check_llvm()
    assert fresh == [True]
