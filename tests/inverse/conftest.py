"""Fixtures for the tests of inverse rendering; makes `tiny_scenes` importable."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def lone_scene() -> Iterator[None]:
    """No scene of an earlier test disappears during the test.

    A recorded function sees every live Mitsuba object of the process, whichever scene it belongs to, and is recorded
    again when the garbage collector takes one away.
    """
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in a fixed order."""
    import drjit as dr

    count = dr.thread_count()
    dr.set_thread_count(1)
    yield
    dr.set_thread_count(count)
