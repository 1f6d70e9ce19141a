"""Where this machine lets us keep small files between runs: probe verdicts and compiled kernels."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


def writable(folder: Path) -> bool:
    """Whether `folder` exists, or can be made, and takes new files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def private_temporary_folder() -> Path:
    """A folder of this user under the system's temporary folder, the same one every time.

    What lies in it is loaded as machine code, so a folder that another user could have prepared is not used.
    """
    folder = Path(tempfile.gettempdir()) / f"pathtracer-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        ours = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
        if ours and folder.is_dir() and not folder.is_symlink() and writable(folder):
            return folder
    except OSError:
        pass  # a file of that name, or a folder of someone else: take a fresh one below
    return Path(tempfile.mkdtemp(prefix="pathtracer-"))


def cache_folder() -> Path:
    """The user's cache folder of this program, or a temporary one when home is not writable."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        home = Path(base) if base else Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    except RuntimeError:  # no HOME and no entry in the password file
        return private_temporary_folder()
    folder = home / "pathtracer"
    return folder if writable(folder) else private_temporary_folder()


def kernel_cache_folder() -> Path | None:
    """The folder in which Dr.Jit would keep compiled kernels as things are, or None when it would keep none."""
    explicit = os.environ.get("DRJIT_CACHE_DIR")
    if explicit:
        folder = Path(explicit)
    elif os.environ.get("HOME"):
        folder = Path(os.environ["HOME"]) / ".drjit"
    else:
        return None
    return folder if writable(folder) else None


def move_kernel_cache(fallback: Path | None = None) -> Path | None:
    """Point Dr.Jit to another folder when it could not write its kernel cache; to be called before it is imported.

    Args:
        fallback: the folder to use then, such as one inside the run folder; else a temporary one.

    Returns:
        The new folder, or None when the usual one works.
    """
    if kernel_cache_folder() is not None:
        return None
    folder = fallback if fallback is not None and writable(fallback) else private_temporary_folder() / "drjit"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["DRJIT_CACHE_DIR"] = str(folder)
    return folder
