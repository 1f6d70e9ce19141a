"""Trying a backend in a process of its own, because a bad LLVM or driver kills the process that loads it.

LLVM 15 and 16 abort in code generation, 14 divides by zero: nothing that Python could catch. The probe compiles and
runs a kernel in a child with an empty kernel cache (a warm one hides a broken compiler) and the verdict is kept, so
that a later start costs a file read.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import folders, versions

#: Seconds after which a child counts as hanging. A cold OptiX start takes up to half a minute.
TIMEOUT = 120.0
#: Seconds for which a failure is remembered: what is missing may be installed at any time.
FAILURE_LIFETIME = 60.0

_PRELUDE = """
import ctypes, json, sys
path, preload, sys.path[:] = json.loads(sys.argv[1])
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError, OSError):
    pass
kept = [ctypes.CDLL(name) for name in preload]
if path:
    kept.append(ctypes.CDLL(path))  # says why a library cannot be loaded; Dr.Jit only says that it was not found
"""

_LLVM_PROBE = (
    _PRELUDE
    + """
import drjit as dr
from drjit.llvm.ad import Float
x = dr.linspace(Float, -2, 2, 33)
dr.enable_grad(x)
y = dr.minimum(dr.sin(x) * x, dr.maximum(x, 0.5))
dr.backward(dr.sum(y))
import math
g = list(dr.grad(x))
for i, value in enumerate(y):
    t = -2 + 4 * i / 32
    if not abs(value - min(math.sin(t) * t, max(t, 0.5))) < 1e-5:
        sys.exit("computed a wrong value")
sys.exit(0 if all(map(math.isfinite, g)) else "computed a wrong derivative")
"""
)

_GPU_PROBE = (
    _PRELUDE
    + """
import mitsuba as mi
mi.set_variant("cuda_ad_rgb")
scene = mi.load_dict({"type": "scene", "shape": {"type": "sphere"}})
hit = scene.ray_intersect(mi.Ray3f(mi.Point3f(0, 0, -3), mi.Vector3f(0, 0, 1)))
sys.exit(0 if abs(hit.t[0] - 2) < 1e-3 else "traced a wrong distance")
"""
)


@dataclass(frozen=True)
class Verdict:
    """What a probe found.

    Attributes:
        kind: "ok", "crashed" (killed by a signal), "refused" (an error message), "hung".
        detail: one clause for the user.
        seconds: what the probe took.
    """

    kind: str
    detail: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the backend can be used."""
        return self.kind == "ok"


def run_probe(code: str, path: str | None, preload: list[str], timeout: float | None = None) -> Verdict:
    """Run `code` in a fresh interpreter with an empty kernel cache and judge its end.

    Args:
        code: program, taking one JSON argument [path, preload, sys.path].
        path: LLVM library under test, None for a GPU.
        preload: libraries to load first.
        timeout: seconds, default `TIMEOUT`.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="pathtracer-probe-") as scratch:
        environment = {**os.environ, "DRJIT_CACHE_DIR": os.path.join(scratch, "kernels")}
        if path is not None:
            environment["DRJIT_LIBLLVM_PATH"] = path
        argument = json.dumps([path, preload, [p or os.getcwd() for p in sys.path]])
        try:
            done = subprocess.run(
                [sys.executable, "-c", code, argument],
                cwd=scratch,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT if timeout is None else timeout,
            )
        except subprocess.TimeoutExpired:
            return Verdict("hung", "did not answer", time.perf_counter() - started)
    seconds = time.perf_counter() - started
    if done.returncode == 0:
        return Verdict("ok", seconds=seconds)
    said = (done.stderr + done.stdout).decode("utf-8", "replace")
    return Verdict(*_judge(done.returncode, said), seconds)


def _judge(code: int, said: str) -> tuple[str, str]:
    """Kind and clause for a child that ended with `code` after saying `said`."""
    if "libatomic.so.1" in said:
        return "refused", "the system library libatomic.so.1 is missing"
    for line in said.splitlines():
        if "is too old" in line:
            return "refused", line.split("(): ")[-1].rstrip(". ").partition(". ")[0]
        if "incompatible version of `drjit`" in line:
            return "refused", "Mitsuba and Dr.Jit do not belong together"
    if code < 0:
        reason = next((line for line in said.splitlines() if "Cannot select" in line), "")
        clause = "crashed (" + _signal_name(-code) + (", cannot compile fminimum" if "fminimum" in reason else "") + ")"
        return "crashed", clause
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return "refused", (lines[-1][:200] if lines else f"ended with exit code {code}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def processor() -> str:
    """Name of the processor: generated code differs between models."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith(("model name", "CPU part")):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    import platform

    return platform.processor() or platform.machine()


def probe_llvm(path: str, preload: list[str], fresh: bool = False) -> Verdict:
    """Whether Dr.Jit works on the LLVM library at `path`.

    Args:
        path: the library, or a bare name that the loader resolves (never cached then).
        preload: libraries that it needs and would not find.
        fresh: ask again whatever is remembered.
    """
    try:
        status = os.stat(path)
    except OSError:
        if os.sep in path:
            return Verdict("refused", "does not exist")
        return run_probe(_LLVM_PROBE, path, preload)
    key = ["llvm", os.path.realpath(path), status.st_mtime_ns, status.st_size, versions.installed_version("drjit")]
    return _remembered([*key, processor()], lambda: run_probe(_LLVM_PROBE, path, preload), fresh)


def probe_gpu(driver: str, fresh: bool = False) -> Verdict:
    """Whether Mitsuba can trace a ray on the GPU, with the driver named `driver`."""
    key = ["gpu", driver, os.environ.get("CUDA_VISIBLE_DEVICES"), versions.installed_version("drjit")]
    return _remembered(key, lambda: run_probe(_GPU_PROBE, None, []), fresh)


def _remembered(key: list[Any], ask: Any, fresh: bool) -> Verdict:
    """The verdict kept under `key`, or a new one; failures are remembered for `FAILURE_LIFETIME` only."""
    name, file = json.dumps(key), folders.cache_folder() / "probes.json"
    kept = _read(file)
    entry = kept.get(name)
    if not fresh and entry is not None and (entry["kind"] == "ok" or time.time() - entry["at"] < FAILURE_LIFETIME):
        return Verdict(entry["kind"], entry["detail"], 0.0)
    verdict: Verdict = ask()
    kept = _read(file)  # another process may have added to it meanwhile
    kept[name] = {**asdict(verdict), "at": time.time()}
    _write(file, kept)
    return verdict


def _read(file: Path) -> dict[str, dict[str, Any]]:
    try:
        data = json.loads(file.read_text())
        return {k: v for k, v in data.items() if {"kind", "detail", "at"} <= v.keys()}
    except (OSError, ValueError, AttributeError):
        return {}  # absent, or not ours: every verdict can be found again


def _write(file: Path, data: dict[str, dict[str, Any]]) -> None:
    newest = dict(sorted(data.items(), key=lambda item: item[1]["at"])[-32:])
    try:
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix="probes-")
        with os.fdopen(handle, "w") as out:
            json.dump(newest, out)
        os.replace(temporary, file)
    except OSError:
        pass  # a full disk costs the next start a second; it is no reason to fail here
