"""Files that appear whole or not at all, even when the power goes: write beside, fsync, rename, fsync the folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import StorageFault


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn failures of the file system inside the block into `StorageFault`s that name `path`."""
    try:
        yield
    except OSError as error:
        raise StorageFault(
            f"cannot be written: {error.strerror or error}", where=path, remedy="free space or choose another -o folder"
        ) from error


def write_bytes(path: str | Path, data: bytes) -> Path:
    """Write a file atomically; its folder is made when absent.

    Raises:
        StorageFault: disk full, folder not writable. A file that was there before is intact then.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Like `write_bytes`, in UTF-8."""
    return write_bytes(path, text.encode())


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable (a no-op where folders cannot be opened)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
