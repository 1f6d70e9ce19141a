"""The checks of `pathtracer doctor`: one finding per line, with the command that mends it."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pathtracer.errors import EnvironmentFault

from . import folders, gpu, llvm, probe, versions

GIB = 2**30
#: A Cornell box and its gradients need a few hundred MiB; below this real scenes do not fit.
LITTLE_MEMORY = 2 * GIB
LITTLE_DISK = GIB


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        status: "ok", "warn" (works, but) or "FAIL".
        detail: what was found.
        remedy: the command or act that mends it.
    """

    name: str
    status: str
    detail: str
    remedy: str | None = None


def run_checks() -> Iterator[Check]:
    """Every check, each yielded as soon as it is known; probes are made afresh."""
    yield check_python()
    pins = check_pins()
    yield pins
    yield check_processor()
    yield check_libatomic()
    on_gpu = gpu.driver() is not None and probe.probe_gpu(gpu.driver() or "", fresh=True)
    on_llvm = check_llvm(required=not (on_gpu and on_gpu.ok))
    yield on_llvm
    yield check_gpu(on_gpu or None)
    yield check_threads()
    yield check_memory()
    yield check_cache()
    usable = pins.status == "ok" and (on_llvm.status == "ok" or bool(on_gpu and on_gpu.ok))
    yield from check_rendering(usable)


def check_python() -> Check:
    """Version and word size."""
    version = platform.python_version()
    if sys.version_info < (3, 10) or sys.maxsize < 2**32:
        return Check("Python", "FAIL", f"{version}, 64-bit 3.10 or newer is needed", "install Python 3.10 or newer")
    return Check("Python", "ok", f"{version} at {sys.executable}")


def check_pins() -> Check:
    """Mitsuba and Dr.Jit of the versions that belong together."""
    try:
        versions.check_pins()
    except EnvironmentFault as fault:
        return Check("Mitsuba", "FAIL", fault.message, fault.remedy)
    return Check("Mitsuba", "ok", ", ".join(f"{package} {version}" for package, version in versions.PINS.items()))


def check_processor() -> Check:
    """Instruction sets that the compiled renderer uses (x86 only)."""
    name = probe.processor()
    if platform.machine() != "x86_64" or not Path("/proc/cpuinfo").exists():
        return Check("processor", "ok", f"{name} ({platform.machine()})")
    flags: set[str] = set()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            flags = set(line.partition(":")[2].split())
            break
    missing = [flag.upper() for flag in ("avx", "fma") if flag not in flags]
    if missing:
        return Check("processor", "FAIL", f"{name} lacks {' and '.join(missing)}", "use a processor made after 2013")
    wide = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "AVX"
    return Check("processor", "ok", f"{name} ({wide}, FMA)")


def check_libatomic() -> Check:
    """The one system library that slim images lack."""
    if sys.platform != "linux":
        return Check("libatomic", "ok", "not needed on this system")
    try:
        ctypes.CDLL("libatomic.so.1")
    except OSError:
        return Check("libatomic", "FAIL", "libatomic.so.1 is missing", "run: apt-get install libatomic1")
    return Check("libatomic", "ok", "libatomic.so.1")


def check_llvm(required: bool = True) -> Check:
    """The library that would be taken, compiled with in a process of its own."""
    try:
        library = llvm.choose(fresh=True)
    except EnvironmentFault as fault:
        return Check("LLVM", "FAIL" if required else "warn", fault.message, fault.remedy)
    if library is None:
        return Check("LLVM", "ok", "left to Dr.Jit's own search on this system")
    version = f"version {library.major}" if library.major else "version unknown"
    return Check("LLVM", "ok", f"{version} at {library.path} ({library.source})")


def check_gpu(verdict: probe.Verdict | None) -> Check:
    """What the NVIDIA driver says; None when there is none."""
    if verdict is None:
        return Check("GPU", "ok", "none; the processor is used")
    if verdict.ok:
        return Check("GPU", "ok", f"traces rays ({gpu.driver()})")
    return Check(
        "GPU",
        "warn",
        f"a driver is loaded, but Mitsuba cannot use it: {verdict.detail}; the processor is used",
        "install an NVIDIA driver with OptiX, or in a container set NVIDIA_DRIVER_CAPABILITIES=all",
    )


def usable_processors() -> tuple[int, float]:
    """Processors that this process may run on, and how many the container's quota pays for."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return allowed, allowed if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return allowed, float(allowed)  # no such limit on this system


def check_threads() -> Check:
    """Threads against a container's quota: more threads than quota stall each other."""
    allowed, paid = usable_processors()
    if paid < allowed * 0.9:
        count = max(1, round(paid))
        return Check("threads", "warn", f"{allowed} processors seen, but the quota is {paid:g}", f"use -t {count}")
    return Check("threads", "ok", f"{allowed}")


def available_memory() -> int | None:
    """Bytes that can be had, by the system or by the container's limit; None when the system does not say."""
    found: list[int] = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            found.append(int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        pass  # not Linux, or no limit
    return min(found) if found else None


def check_memory() -> Check:
    """Free memory."""
    free = available_memory()
    if free is None:
        return Check("memory", "ok", "unknown on this system")
    if free < LITTLE_MEMORY:
        return Check("memory", "warn", f"{free / GIB:.1f} GiB free", "lower --spp and the film size, or free memory")
    return Check("memory", "ok", f"{free / GIB:.1f} GiB free")


def check_cache() -> Check:
    """The folder of compiled kernels: without it every start compiles again."""
    folder = folders.kernel_cache_folder()
    if folder is None:
        wanted = os.environ.get("DRJIT_CACHE_DIR") or os.path.join(os.environ.get("HOME", "~"), ".drjit")
        return Check(
            "cache",
            "warn",
            f"{wanted} is not writable; kernels go to a temporary folder or into the run",
            "set DRJIT_CACHE_DIR to a writable folder",
        )
    free = shutil.disk_usage(folder).free
    if free < LITTLE_DISK:
        return Check("cache", "warn", f"{folder}, {free / GIB:.1f} GiB free on its disk", f"run: rm -r {folder}")
    return Check("cache", "ok", f"{folder}, {free / GIB:.0f} GiB free")


def check_rendering(usable: bool) -> Iterator[Check]:
    """EXR, render and gradient with known answers, in a child so that a crash is a finding too."""
    names = ("EXR", "render", "gradient")
    if not usable:
        yield from (
            Check(name, "warn", "not run: nothing to run it on", "mend the lines above first") for name in names
        )
        return
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pathtracer.runtime.selftest"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        said, end = done.stdout, f"the process ended with {done.returncode}: {_last_line(done.stderr)}"
    except subprocess.TimeoutExpired as error:
        said, end = (error.stdout or b"").decode(), "no answer within five minutes"
    found: dict[str, Check] = {}
    for line in said.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            found[row["name"]] = Check(row["name"], "ok" if row["ok"] else "FAIL", row["detail"], _REPORT[row["ok"]])
    for name in names:
        yield found.get(name, Check(name, "FAIL", end, _REPORT[False]))


_REPORT = {True: None, False: "run: pip install --force-reinstall pathtracer, and report it if it stays"}


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:200] if lines else "without a word"
