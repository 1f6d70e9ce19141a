"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from pathtracer.runtime import activate

#: Set before any test module imports Mitsuba: the GPU when one answers, else LLVM.
VARIANT = activate()

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def variant() -> str:
    """The variant that the tests run on; a test that set another one leaves it behind for nobody."""
    return activate(VARIANT)


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
