"""Whether a GPU answers."""

from __future__ import annotations

import os
from pathlib import Path

from . import probe

#: Present wherever an NVIDIA driver is loaded, on Linux and in the Windows subsystem.
_DEVICE_FILES = ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia/version")


def driver() -> str | None:
    """The loaded NVIDIA driver, None when there is none or the user hides every GPU. Costs microseconds."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1", "NoDevFiles"):
        return None
    if not any(os.path.exists(name) for name in _DEVICE_FILES):
        return None
    try:
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        return "NVIDIA driver"


def answers(fresh: bool = False) -> bool:
    """Whether Mitsuba can trace rays on a GPU here; asked in a process of its own and remembered per driver."""
    name = driver()
    return name is not None and probe.probe_gpu(name, fresh).ok
