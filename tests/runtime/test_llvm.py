"""Which LLVM is taken, and what is said when none works."""

from __future__ import annotations

import ctypes.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pathtracer.errors import EnvironmentFault
from pathtracer.runtime import llvm, probe
from pathtracer.runtime.probe import Verdict

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the search is the one of Linux")

OK, CRASHED = Verdict("ok"), Verdict("crashed", "crashed (SIGABRT)")
MakeLibrary = Callable[..., Path]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MakeLibrary:
    """An empty machine: a function that puts library files into its environment ("env") or system ("system")."""
    monkeypatch.delenv("DRJIT_LIBLLVM_PATH", raising=False)
    monkeypatch.setattr(llvm, "SYSTEM_FOLDERS", (str(tmp_path / "system" / "lib"),))
    monkeypatch.setattr(llvm, "_prefixes", lambda: [tmp_path / "env"])

    def put(where: str, *names: str) -> Path:
        folder = tmp_path / where / "lib"
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).write_bytes(b"")
        return folder

    return put


def judge(monkeypatch: pytest.MonkeyPatch, **verdicts: Verdict) -> list[str]:
    """Let probes answer by file name (dots and dashes as underscores); returns the list of files that were probed."""
    asked: list[str] = []

    def answer(path: str, preload: list[str], fresh: bool = False) -> Verdict:
        name = os.path.basename(path)
        asked.append(name)
        return verdicts[name.replace(".", "_").replace("-", "_")]

    monkeypatch.setattr(probe, "probe_llvm", answer)
    return asked


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("libLLVM-14.so.1", 14),
        ("libLLVM-14.0.6.so.1", 14),
        ("libLLVM-15.so", 15),
        ("libLLVM.so.19.1", 19),
        ("libLLVM.so.22.1", 22),
        ("libLLVM-22.so", 22),
        ("libLLVM.so", None),
        ("libLLVMCore.so.19", None),
    ],
)
def test_the_version_is_read_from_the_name(name: str, version: int | None, tmp_path: Path) -> None:
    assert llvm.major_version(tmp_path / name) == version


def test_the_version_is_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "libLLVM.so.18.1").write_bytes(b"")
    (tmp_path / "libLLVM.so").symlink_to("libLLVM.so.18.1")
    assert llvm.major_version(tmp_path / "libLLVM.so") == 18


def test_the_library_of_the_environment_comes_before_a_newer_one_of_the_system(
    machine: MakeLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("env", "libLLVM.so.22.1")
    machine("system", "libLLVM.so.23.1")
    judge(monkeypatch, libLLVM_so_22_1=OK)
    library = llvm.choose()
    assert library is not None and library.source == "environment" and library.major == 22


def test_the_highest_system_version_is_taken_and_old_ones_are_not_even_probed(
    machine: MakeLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("system", "libLLVM-14.so.1", "libLLVM-15.so.1", "libLLVM-16.so.1", "libLLVM.so.18.1", "libLLVM.so.19.1")
    asked = judge(monkeypatch, libLLVM_so_19_1=OK)
    library = llvm.choose()
    assert library is not None and library.major == 19
    assert asked == ["libLLVM.so.19.1"]


def test_a_library_that_crashes_is_passed_over(machine: MakeLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("system", "libLLVM.so.18.1", "libLLVM.so.19.1")
    asked = judge(monkeypatch, libLLVM_so_19_1=CRASHED, libLLVM_so_18_1=OK)
    library = llvm.choose()
    assert library is not None and library.major == 18
    assert asked == ["libLLVM.so.19.1", "libLLVM.so.18.1"]


def test_no_library_is_an_environment_fault_with_the_command_that_installs_one(machine: MakeLibrary) -> None:
    with pytest.raises(EnvironmentFault, match="none was found") as fault:
        llvm.choose()
    assert fault.value.exit_code == 4
    assert fault.value.remedy is not None and fault.value.remedy.startswith("run: ")
    if platform.machine() == "x86_64":
        assert "pip install karellen-llvm-core==" in fault.value.remedy


def test_only_old_libraries_are_named_with_the_version_that_is_needed(machine: MakeLibrary) -> None:
    machine("system", "libLLVM-14.so.1", "libLLVM-15.so.1")
    with pytest.raises(EnvironmentFault) as fault:
        llvm.choose()
    assert "libLLVM-15.so.1 (version 15, 17 or newer is needed)" in fault.value.message
    assert "libLLVM-14.so.1" in fault.value.message


def test_the_users_variable_excludes_every_other_library(
    machine: MakeLibrary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine("env", "libLLVM.so.22.1")
    mine = tmp_path / "libLLVM-15.so.1"
    mine.write_bytes(b"")
    monkeypatch.setenv("DRJIT_LIBLLVM_PATH", str(mine))
    judge(monkeypatch, libLLVM_15_so_1=CRASHED)
    with pytest.raises(EnvironmentFault, match=r"libLLVM-15.so.1 \(crashed \(SIGABRT\)\)") as fault:
        llvm.choose()
    assert fault.value.remedy == "run: unset DRJIT_LIBLLVM_PATH"


def test_a_users_variable_that_names_no_file_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRJIT_LIBLLVM_PATH", "/nowhere/libLLVM.so.19")
    with pytest.raises(EnvironmentFault, match=r"/nowhere/libLLVM\.so\.19 \(does not exist\)"):
        llvm.choose()


def test_a_missing_libatomic_leads_to_the_package_that_holds_it(
    machine: MakeLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine("env", "libLLVM.so.22.1")
    judge(monkeypatch, libLLVM_so_22_1=Verdict("refused", "the system library libatomic.so.1 is missing"))
    with pytest.raises(EnvironmentFault) as fault:
        llvm.choose()
    assert fault.value.remedy == "run: apt-get install libatomic1"


def test_an_illegal_instruction_leads_to_the_processor(machine: MakeLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("env", "libLLVM.so.22.1")
    judge(monkeypatch, libLLVM_so_22_1=Verdict("crashed", "crashed (SIGILL)"))
    with pytest.raises(EnvironmentFault) as fault:
        llvm.choose()
    assert fault.value.remedy is not None and "AVX, FMA" in fault.value.remedy


def system_library(version: int) -> str:
    for name in (f"libLLVM-{version}.so", f"libLLVM-{version}.so.1"):
        path = Path(f"/usr/lib/{platform.machine()}-linux-gnu") / name
        if path.exists():
            return str(path)
    pytest.skip(f"this machine has no LLVM {version}")


def test_llvm_14_is_refused_as_too_old() -> None:
    verdict = probe.probe_llvm(system_library(14), [], fresh=True)
    assert verdict.kind == "refused" and "too old" in verdict.detail


def test_llvm_15_crashes_the_probe_and_not_us() -> None:
    verdict = probe.probe_llvm(system_library(15), [], fresh=True)
    assert verdict == Verdict("crashed", "crashed (SIGABRT, cannot compile fminimum)", verdict.seconds)


def wheel_library() -> Path:
    for prefix in llvm._prefixes():
        for library in llvm._libraries_in(prefix / "lib", "environment"):
            runtime = Path(library.path).parent / f"{platform.machine()}-unknown-linux-gnu"
            if (runtime / "libc++.so.1.0").exists():
                return Path(os.path.realpath(library.path))
    pytest.skip("LLVM does not come from the wheel here")


def test_the_wheel_works_from_a_read_only_prefix_that_lacks_its_links(tmp_path: Path) -> None:
    source = wheel_library()
    runtime = f"{platform.machine()}-unknown-linux-gnu"
    (tmp_path / "lib" / runtime).mkdir(parents=True)
    try:
        os.link(source, tmp_path / "lib" / source.name)
    except OSError:
        shutil.copy(source, tmp_path / "lib")
    for name in llvm._WHEEL_RUNTIME:
        shutil.copy(source.parent / runtime / name, tmp_path / "lib" / runtime)
    (library,) = llvm._libraries_in(tmp_path / "lib", "environment")
    assert [os.path.basename(name) for name in library.preload()] == list(llvm._WHEEL_RUNTIME)
    if ctypes.util.find_library("c++") is None:  # else the loader finds the system's libc++ instead
        without = probe.probe_llvm(library.path, [], fresh=True)
        assert without.kind == "refused" and "libc++.so.1" in without.detail
    assert probe.probe_llvm(library.path, library.preload(), fresh=True).ok
