"""Errors that a user can act on: what, where, the nearest valid name, the mend; each knows its exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PathtracerError(Exception):
    """Base of every error that the command line turns into one sentence and an exit code.

    Args:
        message: what is wrong, without a trailing full stop.
        where: the file, node, line or key concerned.
        nearest: valid names close to what was given.
        remedy: what to do about it.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        where: object | None = None,
        nearest: Iterable[str] | None = None,
        remedy: str | None = None,
    ) -> None:
        self.message = message
        self.where = None if where is None else str(where)
        self.nearest = tuple(nearest or ())
        self.remedy = remedy
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """The whole error in one line."""
        text = f"{self.where}: {self.message}" if self.where else self.message
        if self.nearest:
            text += "; did you mean " + " or ".join(repr(n) for n in self.nearest) + "?"
        if self.remedy:
            text += ("" if text.endswith("?") else ";") + f" {self.remedy}"
        return text


class UsageError(PathtracerError):
    """A wrong command, option, job file, parameter key or estimator name."""

    exit_code = 2


class InputError(PathtracerError):
    """A scene, image, mesh or camera file that cannot be used."""

    exit_code = 3


class EnvironmentFault(PathtracerError):
    """The machine cannot run the renderer: LLVM, driver, versions."""

    exit_code = 4


class Diverged(PathtracerError):
    """The optimisation went to infinity or lost too many steps; the best state was kept."""

    exit_code = 5


class Inconclusive(PathtracerError):
    """The sample budget ended before a verdict was possible."""

    exit_code = 6


class StorageFault(PathtracerError):
    """Disk full, folder not writable."""

    exit_code = 7


class WorkerLost(PathtracerError):
    """A worker process failed beyond its retries."""

    exit_code = 8


def nearest_names(name: str, candidates: Iterable[str], count: int = 2) -> list[str]:
    """The `count` candidates that look most like `name` (none when nothing comes close)."""
    return difflib.get_close_matches(name, list(candidates), n=count, cutoff=0.5)
