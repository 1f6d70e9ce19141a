"""Choosing the backend: LLVM on the processor or CUDA on a GPU."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_active: str | None = None


def activate(variant: str = "auto", threads: int | None = None) -> str:
    """Make a Mitsuba variant ready for use and register the estimators; returns its name."""
    global _active
    library = Path(sys.prefix) / "lib" / "libLLVM.so"
    if library.exists():
        os.environ.setdefault("DRJIT_LIBLLVM_PATH", str(library))
    import mitsuba as mi

    name = "llvm_ad_rgb" if variant == "auto" else variant
    if mi.variant() != name:
        mi.set_variant(name)
    import integrators

    integrators.register()
    _active = name
    return name
