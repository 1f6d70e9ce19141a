"""One measurement in a process of its own: `python -m pathtracer.bench.worker REQUEST ANSWER`.

The request names a function of this package and its arguments; the answer holds what it returned. Kernels are compiled
into an empty cache, so that a first call is a first call; memory is that of one measurement; and an integrator that
aborts the process ends its own row only.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from .record import REPOSITORY


def call(
    function: str,
    arguments: dict[str, Any],
    timeout: float,
    *,
    variant: str = "auto",
    threads: int | None = None,
    fresh: bool = True,
) -> dict[str, Any]:
    """Run a function of this package in a new process.

    Args:
        function: "module:name", inside `pathtracer.bench`; it takes keywords and returns a dictionary whose values are
            plain or arrays.
        timeout: seconds after which the process is ended.
        variant, threads: of `pathtracer.runtime.activate`.
        fresh: with an empty kernel cache.

    Returns:
        What the function returned; or {"failure": sentence, "refused": whether the estimator said it cannot}.
    """
    with tempfile.TemporaryDirectory() as folder:
        request, answer = Path(folder) / "request.json", Path(folder) / "answer.npz"
        asked = {"function": function, "arguments": arguments, "variant": variant, "threads": threads}
        request.write_text(json.dumps(asked))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])}
        if fresh:
            environment["DRJIT_CACHE_DIR"] = str(Path(folder) / "kernels")
            Path(environment["DRJIT_CACHE_DIR"]).mkdir()
        command = [sys.executable, "-m", "pathtracer.bench.worker", str(request), str(answer)]
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, errors="replace", timeout=timeout
            )
        except subprocess.TimeoutExpired:
            return {"failure": f"took longer than {timeout:.0f} s", "refused": False}
        if done.returncode != 0 or not answer.is_file():
            return {"failure": _last_words(done), "refused": False}
        with np.load(answer, allow_pickle=False) as data:
            result: dict[str, Any] = json.loads(str(data["plain"]))
            result.update({k: data[k] for k in data.files if k != "plain"})
        return result


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    cause = (errors or lines or ["no message"])[-1][:200]
    if done.returncode < 0:
        return f"ended by {signal.Signals(-done.returncode).name}: {cause}"
    return cause


def peak_memory() -> float:
    """Largest resident memory of this process so far, MiB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


class Clock:
    """Wall and processor seconds of a block; processor time of all threads hardly depends on what else runs.

    On a GPU, where the processor mostly waits, `cpu` is not less than the wall's seconds.
    """

    def __enter__(self) -> Clock:
        import drjit as dr

        dr.sync_thread()
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        import drjit as dr
        import mitsuba as mi

        dr.sync_thread()
        self.wall = time.perf_counter() - self._start[0]
        self.cpu = time.process_time() - self._start[1]
        if (mi.variant() or "").startswith("cuda"):
            self.cpu = max(self.cpu, self.wall)


def main(request_path: str, answer_path: str) -> None:
    """Answer one request."""
    from integrators.errors import UnsupportedGradient
    from pathtracer.runtime import activate

    request = json.loads(Path(request_path).read_text())
    module, _, name = request["function"].partition(":")
    activate(request["variant"], request["threads"])
    function = getattr(importlib.import_module(f"pathtracer.bench.{module}"), name)
    try:
        result = function(**request["arguments"])
    except (UnsupportedGradient, NotImplementedError) as error:
        result = {"failure": str(error), "refused": True}
    except Exception as error:
        if request["arguments"].get("strict"):
            raise
        from pathtracer.verify.check import first_cause

        result = {"failure": first_cause(error), "refused": False}
    arrays = {k: v for k, v in result.items() if isinstance(v, np.ndarray)}
    plain = {k: v for k, v in result.items() if k not in arrays}
    np.savez(answer_path, plain=json.dumps(plain, default=float), **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
