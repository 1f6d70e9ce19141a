"""Finding an LLVM that Dr.Jit works on.

Dr.Jit itself takes the last `libLLVM*.so.*` of the system's folder, whatever its version, and dies of LLVM 15. The
order here: `DRJIT_LIBLLVM_PATH` if the user set it, and then nothing else; the library that came with the installation
(a wheel puts it into the `lib` folder of the environment); the highest system version from 17 on. Each is probed before
it is used.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from pathtracer.errors import EnvironmentFault

from . import probe
from .versions import LLVM_WHEEL, OLDEST_LLVM

#: Where distributions put the library, beside the folder of the architecture.
SYSTEM_FOLDERS = (
    "/usr/lib/{machine}-linux-gnu",
    "/usr/lib/llvm-*/lib",
    "/usr/lib64",
    "/usr/lib64/llvm*/lib",
    "/usr/lib",
    "/usr/local/lib",
)
#: The C++ runtime of the wheel, in the order in which its parts need each other.
_WHEEL_RUNTIME = ("libunwind.so.1.0", "libc++abi.so.1.0", "libc++.so.1.0")


@dataclass(frozen=True)
class Library:
    """An LLVM library on this machine.

    Attributes:
        path: file, or the bare name that the user gave.
        source: "DRJIT_LIBLLVM_PATH", "environment" or "system".
        major: major version according to the file's name, None when it does not say.
    """

    path: str
    source: str
    major: int | None

    def preload(self) -> list[str]:
        """Libraries that have to be loaded first, because the short names that this one asks for do not exist.

        The wheel makes these links when its environment starts for the first time, which a read-only one forbids.
        """
        folder = Path(self.path).parent
        for runtime in (folder / f"{platform.machine()}-unknown-linux-gnu", folder):
            files = [runtime / name for name in _WHEEL_RUNTIME]
            if all(f.exists() for f in files) and not all(f.with_suffix("").exists() for f in files):
                return [str(f) for f in files]
        return []


def major_version(path: Path) -> int | None:
    """Major version in the name of the file or of what it links to: libLLVM-15.so.1, libLLVM.so.22.1, ..."""
    for name in (os.path.basename(os.path.realpath(path)), path.name):
        found = re.fullmatch(r"libLLVM(?:-(\d+)(?:\.[\d.]+)?\.so(?:\.[\d.]+)?|\.so\.(\d+)(?:\.[\d.]+)?)", name)
        if found:
            return int(found[1] or found[2])
    return None


def _libraries_in(folder: Path, source: str) -> list[Library]:
    files: dict[str, Library] = {}
    for file in sorted(folder.glob("libLLVM[-.]*so*")):
        if file.exists():
            files.setdefault(os.path.realpath(file), Library(str(file), source, major_version(file)))
    return sorted(files.values(), key=lambda lib: lib.major or 0, reverse=True)


def candidates() -> list[Library]:
    """Every LLVM library found, in the order in which it would be taken; too old ones included."""
    explicit = os.environ.get("DRJIT_LIBLLVM_PATH")
    if explicit:
        return [Library(explicit, "DRJIT_LIBLLVM_PATH", major_version(Path(explicit)))]
    found: list[Library] = []
    for prefix in _prefixes():
        found += _libraries_in(prefix / "lib", "environment")
    system: list[Library] = []
    for pattern in SYSTEM_FOLDERS:
        pattern = pattern.format(machine=platform.machine())
        for folder in sorted(Path("/").glob(pattern.lstrip("/"))):
            system += _libraries_in(folder, "system")
    found += sorted(system, key=lambda lib: lib.major or 0, reverse=True)
    first: dict[str, Library] = {}
    for library in found:
        first.setdefault(os.path.realpath(library.path), library)
    return list(first.values())


def _prefixes() -> list[Path]:
    """Folders under which pip puts the data files of a wheel: the environment, the user's base, conda."""
    import site
    import sysconfig

    names = [sys.prefix, sysconfig.get_path("data"), site.getuserbase() if site.ENABLE_USER_SITE else None]
    return [Path(name) for name in dict.fromkeys(names) if name]


def visible_version() -> tuple[int, ...] | None:
    """Version of an LLVM whose symbols are already visible in this process: Dr.Jit takes that one before all others.

    Returns:
        None when there is none, () when it is older than 16 and cannot say.
    """
    everything = ctypes.CDLL(None)
    if not hasattr(everything, "LLVMDisposeMessage"):
        return None
    if not hasattr(everything, "LLVMGetVersion"):
        return ()
    numbers = [ctypes.c_uint(), ctypes.c_uint(), ctypes.c_uint()]
    everything.LLVMGetVersion(*(ctypes.byref(n) for n in numbers))
    return tuple(n.value for n in numbers)


def loaded() -> Library | None:
    """The LLVM library that this process has loaded already, as when `import drjit` came first (Linux only)."""
    try:
        with open("/proc/self/maps") as maps:
            names = {line.split(maxsplit=5)[5].strip() for line in maps if "libLLVM" in line}
    except OSError:
        return None
    for name in sorted(names):
        return Library(name, "loaded", major_version(Path(name)))
    return None


def install_command() -> str:
    """The one command that brings a working LLVM to this machine."""
    if sys.platform == "linux" and platform.machine() == "x86_64":
        return f"run: pip install {LLVM_WHEEL}"
    if sys.platform == "darwin":
        return "run: brew install llvm, and set DRJIT_LIBLLVM_PATH to its libLLVM.dylib"
    return "run: apt-get install libllvm19"


def choose(fresh: bool = False) -> Library | None:
    """The first library that works.

    Args:
        fresh: probe again whatever is remembered.

    Returns:
        None on systems other than Linux when the user names no library: Dr.Jit's own search is left in charge there.

    Raises:
        EnvironmentFault: none works, with what was tried and the command that mends it.
    """
    visible = visible_version() if sys.platform == "linux" else None
    if visible is not None and (not visible or visible[0] < OLDEST_LLVM):
        raise EnvironmentFault(
            "another module of this process has loaded "
            f"LLVM {visible[0] if visible else '15 or older'}, which hides every other",
            where="LLVM",
            remedy="import pathtracer and call pathtracer.runtime.activate() before that module",
        )
    libraries = candidates()
    if not libraries and sys.platform != "linux":
        return None
    tried: list[str] = []
    for library in libraries:
        if library.source != "DRJIT_LIBLLVM_PATH" and (library.major or 0) < OLDEST_LLVM:
            tried.append(f"{library.path} (version {library.major or 'unknown'}, {OLDEST_LLVM} or newer is needed)")
            continue
        verdict = probe.probe_llvm(library.path, library.preload(), fresh)
        if verdict.ok:
            return library
        tried.append(f"{library.path} ({verdict.detail})")
    raise EnvironmentFault(
        "no LLVM library works: " + ("tried " + ", ".join(tried) if tried else "none was found"),
        where="LLVM",
        remedy=_remedy(libraries, tried),
    )


def _remedy(libraries: list[Library], tried: list[str]) -> str:
    if any("libatomic" in text for text in tried):
        return "run: apt-get install libatomic1"
    if any("do not belong together" in text for text in tried):
        from .versions import PINS

        return "run: pip install " + " ".join(f"{package}=={version}" for package, version in PINS.items())
    if any("SIGILL" in text for text in tried):
        return "this processor lacks instructions (AVX, FMA) that the renderer is compiled for; use another machine"
    if libraries and libraries[0].source == "DRJIT_LIBLLVM_PATH":
        return "run: unset DRJIT_LIBLLVM_PATH"
    return install_command()


def check_loaded() -> None:
    """Raise EnvironmentFault when Dr.Jit was imported before us and found by itself an LLVM that would kill it."""
    library = loaded()
    if library is None:
        raise EnvironmentFault("Dr.Jit was imported before and found no LLVM library", where="LLVM", remedy=_FIRST)
    verdict = probe.probe_llvm(library.path, library.preload())
    if not verdict.ok:
        raise EnvironmentFault(
            f"Dr.Jit was imported before and loaded {library.path} ({verdict.detail})", where="LLVM", remedy=_FIRST
        )


_FIRST = "call pathtracer.runtime.activate() before anything imports drjit or mitsuba"


def prepare(fresh: bool = False) -> Library | None:
    """Choose a library and point Dr.Jit to it; has to run before Dr.Jit is imported."""
    library = choose(fresh)
    if library is not None:
        for name in library.preload():
            ctypes.CDLL(name)
        os.environ["DRJIT_LIBLLVM_PATH"] = library.path
    return library
