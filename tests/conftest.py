"""Fixtures shared by all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pathtracer.runtime import activate

#: Set before any test module imports Mitsuba: the GPU when one answers, else LLVM.
VARIANT = activate()

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def variant() -> str:
    """The variant that the tests run on."""
    return activate(VARIANT)


@pytest.fixture(autouse=True)
def variant_stays() -> Iterator[None]:
    """A test that set another variant (by a deterministic job on a machine with a GPU) leaves it behind for nobody."""
    yield
    activate(VARIANT)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of photographs and scenes that others made; tests that need it skip without it."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the data folder {folder}, which is not part of the project")
    return folder
