"""Choosing the backend: LLVM on the processor or CUDA on a GPU.

`activate()` is the one door to Mitsuba: it finds and probes LLVM before Dr.Jit is loaded, takes the GPU when one
answers, sets the variant and registers the estimators. Everything that touches Mitsuba is called after it. `checks`
holds what `pathtracer doctor` reports.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pathtracer.errors import EnvironmentFault, UsageError, nearest_names

__all__ = ["activate", "active_variant"]

_prepared = False
_llvm_fault: EnvironmentFault | None = None
_default_threads: int | None = None


def activate(variant: str = "auto", threads: int | None = None, cache: Path | None = None) -> str:
    """Make a Mitsuba variant ready for use and register the estimators; returns its name.

    Args:
        variant: the name of a variant, or "auto": the differentiable one that this process uses already, else
            cuda_ad_rgb when a GPU answers, else llvm_ad_rgb.
        threads: number of threads on the processor, None for all.
        cache: where compiled kernels go when home is not writable.

    Raises:
        EnvironmentFault: no LLVM works, or the installed versions do not belong together.
        UsageError: the variant does not exist, is polarised, or has no derivatives.
    """
    _refuse(variant)
    name = _resolve(variant)
    _prepare(name, cache)
    mi = _import_mitsuba()
    if name not in mi.variants():
        raise UsageError(
            "this build of Mitsuba has no such variant",
            where=name,
            nearest=nearest_names(name, [v for v in mi.variants() if "_ad_" in v and "polarized" not in v]),
        )
    if mi.variant() != name:
        try:
            mi.set_variant(name)
        except ImportError as error:
            raise EnvironmentFault(
                f"the variant cannot be loaded ({_one_line(error)})", where=name, remedy="run: pathtracer doctor"
            ) from error
    _set_threads(threads)
    import integrators

    integrators.register()
    return name


def active_variant() -> str | None:
    """Name of the variant in use, None before the first `activate`."""
    mitsuba = sys.modules.get("mitsuba")
    return None if mitsuba is None else mitsuba.variant()


def _refuse(variant: str) -> None:
    """What can be said without loading anything."""
    if "polarized" in variant:
        raise UsageError(
            "polarised light is not supported", where=variant, remedy=f"use {variant.replace('_polarized', '')}"
        )
    if variant != "auto" and "_ad_" not in variant and variant.split("_")[0] in ("scalar", "llvm", "cuda"):
        raise UsageError("the variant has no derivatives", where=variant, remedy="use llvm_ad_rgb or cuda_ad_rgb")


def _resolve(variant: str) -> str:
    if variant != "auto":
        return variant
    current = active_variant()
    if current is not None and "_ad_" in current and "polarized" not in current:
        return current  # the choice of this process, made here or by the user's own mi.set_variant
    from . import gpu

    return "cuda_ad_rgb" if gpu.answers() else "llvm_ad_rgb"


def _prepare(variant: str, cache: Path | None) -> None:
    """What has to be settled before Dr.Jit is loaded: versions, the LLVM library, the kernel cache."""
    global _prepared, _llvm_fault
    if not _prepared:
        from . import versions

        versions.check_pins()
        early = "drjit" not in sys.modules
        _llvm_fault = _settle_llvm(early, cache)
        _prepared = _llvm_fault is None or not early  # as long as Dr.Jit is not loaded a later call may do better
    if _llvm_fault is not None and variant.startswith("llvm"):
        raise _llvm_fault


def _settle_llvm(early: bool, cache: Path | None) -> EnvironmentFault | None:
    """Point Dr.Jit to its library and its kernel cache; returns the fault, which does not matter to a GPU."""
    from . import folders, llvm

    try:
        if early:
            folders.move_kernel_cache(cache)
            llvm.prepare()
        else:
            llvm.check_loaded()
    except EnvironmentFault as fault:
        return fault
    return None


def _import_mitsuba():  # type: ignore[no-untyped-def]
    try:
        import mitsuba
    except ImportError as error:
        remedy = "run: apt-get install libatomic1" if "libatomic" in str(error) else "run: pathtracer doctor"
        raise EnvironmentFault(f"cannot be imported ({_one_line(error)})", where="Mitsuba", remedy=remedy) from error
    return mitsuba


def _set_threads(threads: int | None) -> None:
    global _default_threads
    import drjit as dr

    if threads is not None:
        if _default_threads is None:
            _default_threads = dr.thread_count()
        dr.set_thread_count(threads)
    elif _default_threads is not None:  # an earlier activation had asked for fewer
        dr.set_thread_count(_default_threads)
        _default_threads = None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
