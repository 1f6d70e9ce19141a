"""Running a job from beginning to end: problem, step loop, run folder, pictures, export, report.

Prints nothing: an `Observer` is told what happens.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import Diverged, PathtracerError, UsageError
from ..inverse.result import Result, Step, tensors
from ..report.tensorboard import TensorBoard
from .atomic import write_bytes, write_text
from .folder import RunFolder
from .progress import Progress, view_facts

if TYPE_CHECKING:
    from ..inverse import Estimation, Problem
    from ..inverse.job import Job


#: A run that is killed loses at most about this much work (seconds), however slow its steps are.
CHECKPOINT_SECONDS = 120.0


class Observer(Protocol):
    """What a run tells while it goes on."""

    def begin(self, estimation: Estimation, folder: Path) -> None:
        """The first step is about to be taken."""

    def step(self, step: Step) -> None:
        """A step was taken and recorded."""

    def note(self, text: str) -> None:
        """A sentence for the user."""


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        result: what was found.
        folder: the run folder.
        code: exit code: 0, 5 (diverged), 130 or 143 (interrupted).
        report: the HTML page, if one was written.
        export: the recovered scene, if it was written.
        error: what stopped the run or spoilt its export.
    """

    result: Result
    folder: Path
    code: int = 0
    report: Path | None = None
    export: Path | None = None
    error: PathtracerError | None = None
    notes: list[str] = field(default_factory=list)


class Interruption:
    """Turns the first Ctrl-C or SIGTERM into a flag, so that a step can be finished; the second acts at once.

    Attributes:
        signal: number of the signal that came, 0 before.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        # signals reach only the main thread; in others (notebooks, servers) the caller has `Estimation.stop`
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._catch)
        return self

    def _catch(self, number: int, _frame: FrameType | None) -> None:
        if self.signal:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
        self.signal = number

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def execute(job: Job, base: Path, out: Path, observer: Observer, resume: bool = False) -> Outcome:
    """Run a job.

    Args:
        job: what to do.
        base: folder that its relative paths start at.
        out: the run folder.
        observer: is told what happens.
        resume: go on from the newest checkpoint of `out` instead of starting anew.
    Raises:
        PathtracerError: before the first step; later ones are part of the outcome, unless nothing was found.
    """
    from ..inverse.setup import build_estimation, build_problem

    clock = Stopwatch()
    job = job.resolved(base)
    with clock("load scene and pictures"), _heard() as heard:
        problem, notes = build_problem(job, base)
    for text in [*problem.scene.warnings, *notes]:
        observer.note(text)
    with RunFolder(out, fresh=not resume) as folder, Interruption() as interruption:
        state, history = None, []
        if resume:
            found, passed = folder.newest()
            for text in passed:
                observer.note(text)
            if found is None and passed:  # what is left of a damaged run is not thrown away
                raise UsageError("holds no checkpoint to go on from", where=out)
            if found is None:
                observer.note(f"{folder.path} was interrupted before its first checkpoint: it begins anew")
            folder.truncate_history(0 if found is None else found.step)
            state = None if found is None else found.state
            history = [Step.from_record(r) for r in folder.history()]
        else:
            if folder.replaced:
                observer.note(f"the earlier run in {folder.path} was replaced")
            folder.write_job(job.to_toml())
        estimation = build_estimation(job, problem, state, history)
        estimation.warnings = list(dict.fromkeys([*estimation.warnings, *heard]))
        facts = {"notes": notes, "versions": _versions(), "times": clock.times}
        board = TensorBoard(folder.path, len(history)) if job.report.tensorboard else None
        progress = Progress(estimation, folder, facts, job.report.spp > 0, board)
        folder.write_state("running", {"solver": estimation.choice, **facts})
        observer.begin(estimation, folder.path)
        error: PathtracerError | None = None
        try:
            try:
                with board or contextlib.nullcontext():
                    _loop(
                        job,
                        estimation,
                        folder,
                        progress,
                        observer if board is None else Both(observer, board),
                        interruption,
                    )
            except Diverged as fault:
                error = fault
            return _finish(job, problem, estimation, folder, interruption.signal, error, notes, clock, facts)
        except BaseException as fault:
            # the cause matters more than a page that cannot be written
            with contextlib.suppress(Exception):
                interrupted = isinstance(fault, KeyboardInterrupt)
                progress.update("interrupted" if interrupted else "failed", "" if interrupted else _sentence(fault))
            raise


class Both:
    """An observer whose steps go to TensorBoard as well."""

    def __init__(self, observer: Observer, board: TensorBoard) -> None:
        self._observer, self._board = observer, board

    def begin(self, estimation: Estimation, folder: Path) -> None:
        self._observer.begin(estimation, folder)

    def step(self, step: Step) -> None:
        self._board.step(step)
        self._observer.step(step)

    def note(self, text: str) -> None:
        self._observer.note(text)


class Stopwatch:
    """Seconds by what they were spent on.

    Attributes:
        times: name -> seconds.
    """

    def __init__(self) -> None:
        self.times: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the time of the block to `name`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.times[name] = self.times.get(name, 0.0) + time.perf_counter() - began


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """The warnings of the block as sentences; they are issued all the same."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    for entry in caught:
        texts.append(str(entry.message))
        warnings.warn_explicit(entry.message, entry.category, entry.filename, entry.lineno)


def _loop(
    job: Job,
    estimation: Estimation,
    folder: RunFolder,
    progress: Progress,
    observer: Observer,
    interruption: Interruption,
) -> None:
    saved = time.monotonic()
    try:
        for step in estimation:
            folder.append(step.record())
            progress.look()
            observer.step(step)
            if interruption.signal:
                estimation.stop("interrupted")
            now = time.monotonic()
            due = (step.index + 1) % job.run.checkpoint == 0 or now - saved >= CHECKPOINT_SECONDS
            if due or estimation.stopped:
                folder.checkpoint(step.index + 1, estimation.checkpoint(), job.run.keep)
                saved = now
            if progress.due() and not estimation.stopped:
                progress.update()
    except Diverged:
        # the step that it fell over is the one that a reader looks for
        folder.append(estimation.history[-1].record())
        observer.step(estimation.history[-1])
        raise


def _finish(
    job: Job,
    problem: Problem,
    estimation: Estimation,
    folder: RunFolder,
    caught: int,
    error: PathtracerError | None,
    notes: list[str],
    clock: Stopwatch,
    facts: dict[str, Any],
) -> Outcome:
    status = "diverged" if error else "interrupted" if caught else "finished"
    # after an interruption the user waits for the program to end, not for pictures
    pictures = job.report.spp > 0 and not caught
    with clock("pictures"):
        result = estimation.result(pictures=pictures, spp=max(2, job.report.spp))
    result.warnings[:0] = [n for n in notes if n not in result.warnings]
    result.info["notes"] = notes
    outcome = Outcome(result, folder.path, 0, error=error, notes=notes)
    outcome.code = error.exit_code if error else 128 + caught if caught else 0
    write_bytes(folder.result / "values.safetensors", tensors(result.values))
    folder.write_arrays(result)
    if pictures:
        folder.write_views(result.images, view_facts(estimation))
    if job.report.export and not caught:
        try:
            with clock("export and check"):
                outcome.export = _export(problem, result, folder)
        except PathtracerError as fault:
            outcome.error = outcome.error or fault
            outcome.code = outcome.code or fault.exit_code
            result.warnings.append(f"the export failed: {fault}")
    summary = result.summary() | facts
    if error is not None:
        summary["error"] = str(error)
    write_text(folder.result / "values.json", json.dumps(result.summary(), indent=1) + "\n")
    folder.write_state(status, summary)
    if job.report.spp > 0:
        from ..report import write_report

        outcome.report = write_report(folder.path, folder.path / "report.html")
    return outcome


def _export(problem: Problem, result: Result, folder: RunFolder) -> Path:
    from ..scenes.export import export_scene, verify_export

    path = export_scene(problem.scene, result.values, folder.result)
    check = verify_export(problem.scene, path, result.values)
    result.info["export"] = {"file": str(path), "mean_difference": check.mean, "noise": check.noise}
    return path


def _versions() -> dict[str, str]:
    from ..report.sources import versions

    return versions()


def _sentence(fault: BaseException) -> str:
    return str(fault).strip() or type(fault).__name__
