"""Host data on the device, in ways that a recorded step can repeat.

`dr.freeze` records kernels and replays them; inside a recording nothing may be copied from the host and nothing read
back. Few numbers become literals of a kernel; many are uploaded once, outside, and belong to the tables that the
estimator shows to the recording as its inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np


def recording() -> bool:
    """Whether `dr.freeze` is recording the code that runs."""
    return bool(dr.flag(dr.JitFlag.FreezingScope))


def upload(kind: Any, values: Any) -> Any:
    """A flat Dr.Jit array of type `kind` in memory of its own (not NumPy's, whose alignment would vary)."""
    if len(values) == 0:
        return kind()
    value = kind(np.ascontiguousarray(values)) + dr.opaque(kind, 0)
    dr.eval(value)
    return value


def bits(values: Sequence[bool]) -> mi.Bool:
    """(n,) flags as literals, 32 in each."""
    words = [sum(int(v) << k for k, v in enumerate(values[i : i + 32])) for i in range(0, len(values), 32)]
    lane = dr.arange(mi.UInt32, len(values))
    word = mi.UInt32(words[0] if words else 0)
    for i, bits in enumerate(words[1:], 1):
        word = dr.select((lane >> 5) == i, bits, word)
    return ((word >> (lane & 31)) & 1) == 1


def arrays(value: Any) -> list[Any]:
    """Every Dr.Jit array that an object of tables holds, for `dr.freeze` to see."""
    if dr.is_jit_v(value):
        return [value] if dr.width(value) else []
    if isinstance(value, list | tuple):
        return [a for item in value for a in arrays(item)]
    if type(value).__module__.startswith(__name__.rpartition(".")[0]) and hasattr(value, "__dict__"):
        return [a for name, item in vars(value).items() if name != "alive" for a in arrays(item)]
    return []
