"""Running a job from beginning to end: problem, step loop, run folder, pictures, export, report.

Prints nothing: an `Observer` is told what happens.
"""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import Diverged, PathtracerError, UsageError
from ..inverse.result import Result, Step, tensors
from .atomic import write_bytes, write_text
from .folder import RunFolder

if TYPE_CHECKING:
    from ..inverse import Estimation, Problem
    from ..inverse.job import Job


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

    job = job.resolved(base)
    problem, notes = build_problem(job, base)
    for text in [*problem.scene.warnings, *notes]:
        observer.note(text)
    with RunFolder(out, fresh=not resume) as folder, Interruption() as interruption:
        state = None
        if resume:
            found, passed = folder.newest()
            for text in passed:
                observer.note(text)
            if found is None:
                raise UsageError("holds no checkpoint to go on from", where=out)
            folder.truncate_history(found.step)
            state = found.state
        else:
            if folder.replaced:
                observer.note(f"the earlier run in {folder.path} was replaced")
            folder.write_job(job.to_toml())
        estimation = build_estimation(job, problem, state)
        folder.write_state("running", {"solver": estimation.choice})
        observer.begin(estimation, folder.path)
        error: PathtracerError | None = None
        try:
            _loop(job, estimation, folder, observer, interruption)
        except Diverged as fault:
            error = fault
        return _finish(job, problem, estimation, folder, interruption.signal, error, notes)


def _loop(job: Job, estimation: Estimation, folder: RunFolder, observer: Observer, interruption: Interruption) -> None:
    for step in estimation:
        folder.append(step.record())
        observer.step(step)
        if interruption.signal:
            estimation.stop("interrupted")
        if (step.index + 1) % job.run.checkpoint == 0 or estimation.stopped:
            folder.checkpoint(step.index + 1, estimation.checkpoint(), job.run.keep)
            _preview(estimation, folder)


def _preview(estimation: Estimation, folder: RunFolder) -> None:
    import numpy as np

    from ..report import preview_png
    from ..report.pictures import display_scale

    rows = []
    for view in estimation.problem.fitted[:4]:
        if view.view.name in estimation.objective.images:
            image = np.array(estimation.objective.images[view.view.name])[..., :3]
            image = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
            rows.append(np.concatenate([view.view.image, image], axis=1))
    width = min((r.shape[1] for r in rows), default=0)
    if width:
        picture = np.concatenate([r[:, :width] for r in rows])
        preview_png(picture, folder.path / "preview.png", display_scale(picture))


def _finish(
    job: Job,
    problem: Problem,
    estimation: Estimation,
    folder: RunFolder,
    caught: int,
    error: PathtracerError | None,
    notes: list[str],
) -> Outcome:
    status = "diverged" if error else "interrupted" if caught else "finished"
    # after an interruption the user waits for the program to end, not for pictures
    pictures = job.report.spp > 0 and not caught
    result = estimation.result(pictures=pictures, spp=max(2, job.report.spp))
    result.warnings[:0] = [n for n in notes if n not in result.warnings]
    result.info["notes"] = notes
    outcome = Outcome(result, folder.path, 0, error=error, notes=notes)
    outcome.code = error.exit_code if error else 128 + caught if caught else 0
    write_bytes(folder.result / "values.safetensors", tensors(result.values))
    if pictures:
        facts = {
            v.view.name: {"holdout": v.view.holdout, "lit": v.view.lit, "exposure": v.view.exposure}
            for v in (*problem.fitted, *problem.heldout)
        }
        folder.write_views(result.images, facts)
    if job.report.export and not caught:
        try:
            outcome.export = _export(problem, result, folder)
        except PathtracerError as fault:
            outcome.error = outcome.error or fault
            outcome.code = outcome.code or fault.exit_code
            result.warnings.append(f"the export failed: {fault}")
    import json

    write_text(folder.result / "values.json", json.dumps(result.summary(), indent=1) + "\n")
    folder.write_state(status, result.summary())
    if pictures:
        outcome.report = _report(folder)
    return outcome


def _export(problem: Problem, result: Result, folder: RunFolder) -> Path:
    from ..scenes.export import export_scene, verify_export

    path = export_scene(problem.scene, result.values, folder.result)
    check = verify_export(problem.scene, path, result.values)
    result.info["export"] = {"file": str(path), "mean_difference": check.mean, "noise": check.noise}
    return path


def _report(folder: RunFolder) -> Path | None:
    from .. import report

    if not hasattr(report, "write_report"):
        return None
    return Path(report.write_report(folder.path, folder.path / "report.html"))
