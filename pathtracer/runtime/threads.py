"""Threads for reading and writing image files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def file_threads() -> Iterator[None]:
    """At least one worker thread while Mitsuba decodes or encodes files.

    With a thread count of 1 (`-t 1`, `--deterministic`) there is none, and Mitsuba 3.9.1 then waits for its OpenEXR
    tasks for ever. Files do not depend on the order in which their blocks are processed: results stay the same bits.
    """
    drjit = sys.modules.get("drjit")
    count = drjit.thread_count() if drjit is not None else 2
    if drjit is None or count > 1:
        yield
        return
    drjit.set_thread_count(2)
    try:
        yield
    finally:
        drjit.set_thread_count(count)
