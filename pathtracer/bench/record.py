"""Results on disk: what was measured, where, with which versions, how busy the machine was."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pathtracer.errors import InputError
from pathtracer.runtime.versions import PINS, installed_version

#: Raise when readers of older files would misread them.
FORMAT = 1
REPOSITORY = Path(__file__).resolve().parents[2]
_CHECKOUT = (REPOSITORY / "pyproject.toml").is_file()
#: Where results lie that the documentation is made from; below the current folder outside of a checkout.
RESULTS = (REPOSITORY if _CHECKOUT else Path()) / "benchmarks" / "results"


def processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit of the checkout, with "+" when files of the program differ from it; "" outside a checkout."""
    run = ["git", "-C", str(REPOSITORY)]
    try:
        head = subprocess.run([*run, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            [*run, "status", "--porcelain", "--", "integrators", "pathtracer"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head + ("+" if changed else "")


def load_average() -> float:
    """Processes that wanted a core, mean of the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def environment(variant: str, seed: int) -> dict[str, Any]:
    """What a reader needs to judge or repeat a measurement."""
    from pathtracer import __version__

    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "pathtracer": __version__,
        **{package: installed_version(package) for package in PINS},
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "variant": variant,
        "seed": seed,
        "load_before": load_average(),
    }


def write_result(
    path: Path, suite: str, size: str, env: dict[str, Any], rows: list[dict[str, Any]], seconds: float
) -> None:
    """Write one suite's result.

    Args:
        size: "quick" or "full".
        rows: plain values; NaN becomes null.
    """
    record = {
        "format": FORMAT,
        "suite": suite,
        "size": size,
        "environment": {**env, "load_after": load_average(), "seconds": round(seconds, 1)},
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(_plain(record), indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_result(path: Path) -> dict[str, Any]:
    """Read one suite's result.

    Raises:
        InputError: no such file, or not one of ours.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("no such result", where=str(path), remedy="run pathtracer bench first") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from None
    if not isinstance(record, dict) or record.get("format") != FORMAT or "suite" not in record:
        raise InputError(f"not a benchmark result of format {FORMAT}", where=str(path))
    return record


def _plain(value: Any) -> Any:
    """JSON has neither NaN nor NumPy; six digits are more than any of it means."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (bool, str)) or value is None:
        return value
    number = float(value)
    if not math.isfinite(number):
        return None
    return (
        int(number)
        if isinstance(value, int) or (number.is_integer() and abs(number) < 2**53)
        else float(f"{number:.6g}")
    )
