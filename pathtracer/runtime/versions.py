"""The versions that belong together, and what is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pathtracer.errors import EnvironmentFault

#: Point releases of Mitsuba rename parameters and flags, and each is built against exactly one Dr.Jit.
PINS = {"mitsuba": "3.9.1", "drjit": "1.5.0"}
#: The LLVM that comes with the installation where a wheel of it exists.
LLVM_WHEEL = "karellen-llvm-core==22.1.8"
#: Dr.Jit emits llvm.minimum/maximum, which x86 code generation selects from this version on.
OLDEST_LLVM = 17


def installed_version(package: str) -> str | None:
    """Version of an installed package, None when it is absent.

    Reads the name of the metadata folder beside the package, since importing `importlib.metadata` costs as much as all
    else that a start does.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    beside = Path(spec.origin).parent.parent
    found = sorted(beside.glob(f"{package}-*.dist-info"))
    if len(found) == 1:
        return found[0].name[len(package) + 1 : -len(".dist-info")]
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_pins() -> None:
    """Raise EnvironmentFault unless the installed Mitsuba and Dr.Jit are the pair that this release is written for."""
    found = {package: installed_version(package) for package in PINS}
    wrong = [f"{package} {found[package] or 'is not installed'}" for package in PINS if found[package] != PINS[package]]
    if wrong:
        pins = " and ".join(f"{package} {version}" for package, version in PINS.items())
        raise EnvironmentFault(
            f"{' and '.join(wrong)}, but this release needs {pins}",
            where="Mitsuba",
            remedy="run: pip install " + " ".join(f"{package}=={version}" for package, version in PINS.items()),
        )
