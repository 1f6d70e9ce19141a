"""Making a variant ready, and what is refused with which sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pathtracer import runtime
from pathtracer.errors import EnvironmentFault, UsageError
from pathtracer.runtime import folders, versions

RENDER = """
from pathtracer.runtime import activate
name = activate("llvm_ad_rgb")
import drjit as dr, mitsuba as mi, os
assert dr.all(dr.arange(mi.Float, 4) + 1 == mi.Float(1, 2, 3, 4))
print(name, os.environ["DRJIT_LIBLLVM_PATH"], os.environ.get("DRJIT_CACHE_DIR"))
"""


def run(code: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter that has not loaded Dr.Jit."""
    full = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={k: v for k, v in full.items() if v is not None},
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).resolve().parents[2],
    )


def test_importing_the_packages_loads_no_renderer() -> None:
    done = run(
        "import sys, pathtracer, pathtracer.runtime, integrators, pathtracer.runtime.llvm, pathtracer.runtime.gpu\n"
        "print([m for m in ('mitsuba', 'drjit', 'numpy') if m in sys.modules])"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_auto_names_a_differentiable_variant_and_registers_the_estimators(variant: str) -> None:
    import mitsuba as mi

    assert variant in ("llvm_ad_rgb", "cuda_ad_rgb")
    assert runtime.activate() == variant == runtime.active_variant()
    assert mi.load_dict({"type": "path_replay"}) is not None


def test_the_library_is_found_in_a_fresh_process_without_any_variable() -> None:
    done = run(RENDER, DRJIT_LIBLLVM_PATH=None)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("llvm_ad_rgb /")


def test_a_home_that_cannot_be_written_moves_the_kernel_cache(tmp_path: Path) -> None:
    done = run(
        RENDER + "print(os.listdir(os.environ['DRJIT_CACHE_DIR']) != [])",
        HOME="/proc/nowhere",
        XDG_CACHE_HOME=None,
        DRJIT_CACHE_DIR=None,
        TMPDIR=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout and done.stdout.strip().endswith("True")
    assert "disk cache is disabled" not in done.stderr + done.stdout


def test_the_kernel_cache_moves_into_the_folder_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/nowhere")
    monkeypatch.setenv("DRJIT_CACHE_DIR", "/proc/nowhere/kernels")
    assert folders.move_kernel_cache(tmp_path / "run" / "kernels") == tmp_path / "run" / "kernels"
    assert os.environ["DRJIT_CACHE_DIR"] == str(tmp_path / "run" / "kernels")
    assert folders.move_kernel_cache(tmp_path / "other") is None, "it works now, so nothing moves again"


def test_a_temporary_folder_that_someone_prepared_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    usual = folders.private_temporary_folder()
    usual.chmod(0o777)
    assert folders.private_temporary_folder() != usual


def test_no_working_library_is_a_sentence_and_not_a_crash() -> None:
    done = run(
        "from pathtracer.runtime import activate\n"
        "from pathtracer.errors import EnvironmentFault\n"
        "try:\n    activate('llvm_ad_rgb')\nexcept EnvironmentFault as fault:\n    print(fault.exit_code, fault)",
        DRJIT_LIBLLVM_PATH="/nowhere/libLLVM.so.19",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (
        "4 LLVM: no LLVM library works: tried /nowhere/libLLVM.so.19 (does not exist); run: unset DRJIT_LIBLLVM_PATH"
    )


def test_a_bad_library_that_drjit_loaded_before_us_is_a_sentence_and_not_a_crash() -> None:
    old = Path("/usr/lib/x86_64-linux-gnu/libLLVM-15.so.1")
    if not old.exists():
        pytest.skip("this machine has no LLVM 15")
    done = run(
        "import drjit\nfrom pathtracer.runtime import activate\nfrom pathtracer.errors import EnvironmentFault\n"
        "try:\n    activate('llvm_ad_rgb')\nexcept EnvironmentFault as fault:\n    print(fault)",
        DRJIT_LIBLLVM_PATH=str(old),
    )
    assert done.returncode == 0, done.stderr
    assert "Dr.Jit was imported before and loaded" in done.stdout and "crashed (SIGABRT" in done.stdout
    assert done.stdout.strip().endswith("before anything imports drjit or mitsuba")


@pytest.mark.parametrize("variant", ["llvm_ad_spectral_polarized", "cuda_ad_mono_polarized"])
def test_polarised_variants_are_refused_with_the_plain_one(variant: str) -> None:
    with pytest.raises(UsageError, match="polarised light is not supported") as error:
        runtime.activate(variant)
    assert error.value.remedy == f"use {variant.removesuffix('_polarized')}"


def test_a_variant_without_derivatives_is_refused() -> None:
    with pytest.raises(UsageError, match="no derivatives"):
        runtime.activate("scalar_rgb")


def test_an_unknown_variant_is_refused_with_the_nearest(variant: str) -> None:
    with pytest.raises(UsageError) as error:
        runtime.activate("llvm_ad_rbg")
    assert "llvm_ad_rgb" in error.value.nearest
    assert runtime.active_variant() == variant, "the variant in use stays"


def test_other_differentiable_variants_work() -> None:
    done = run(
        "from pathtracer.runtime import activate\nactivate('llvm_ad_mono')\nimport mitsuba as mi\n"
        "print(mi.variant(), mi.load_dict({'type': 'path_replay'}) is not None)"
    )
    assert done.stdout.strip() == "llvm_ad_mono True", done.stderr


def test_versions_that_do_not_belong_together_are_named_with_the_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "PINS", {"mitsuba": "3.9.1", "drjit": "9.9.9"})
    with pytest.raises(EnvironmentFault) as fault:
        versions.check_pins()
    assert fault.value.exit_code == 4
    assert "drjit 1.5.0, but this release needs mitsuba 3.9.1 and drjit 9.9.9" in fault.value.message
    assert fault.value.remedy == "run: pip install mitsuba==3.9.1 drjit==9.9.9"


def test_the_installed_versions_are_those_of_the_metadata() -> None:
    import importlib.metadata

    for package in ("mitsuba", "drjit", "numpy"):
        assert versions.installed_version(package) == importlib.metadata.version(package)
    assert versions.installed_version("no_such_package") is None


def test_the_number_of_threads_holds_until_the_next_activation() -> None:
    import drjit as dr

    before = dr.thread_count()
    runtime.activate(threads=1)
    assert dr.thread_count() == 1
    runtime.activate()
    assert dr.thread_count() == before
