"""Run folders: what an estimation leaves on disk, and how it goes on after an interruption."""

from __future__ import annotations

from .folder import RunFolder, read_history

__all__ = ["RunFolder", "read_history"]
