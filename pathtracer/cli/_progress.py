"""What `estimate` and `resume` show: a bar on a terminal, a line every ten seconds elsewhere, a table at the end."""

from __future__ import annotations

import io
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathtracer.cli import common
from pathtracer.inverse.result import Step, show

if TYPE_CHECKING:
    from pathtracer.inverse import Estimation
    from pathtracer.inverse.result import Recovered
    from pathtracer.runs.execute import Observer, Outcome

#: Seconds between two lines when nobody watches a bar.
LINE_EVERY = 10.0
_SHOWN = 12


class LineProgress:
    """Plain lines, for logs and pipes."""

    def __init__(self, session: common.Session, every: float = LINE_EVERY) -> None:
        self._session = session
        self._every = every
        self._last = -every
        self._limit = 0
        self._clock = Clock()

    def begin(self, estimation: Estimation, folder: Path) -> None:
        self._session.say(f"solver {estimation.choice}")
        self._session.say(f"run folder {folder}")
        self._limit = getattr(estimation.solver, "iterations", 0)
        self._clock.begin(self._limit)

    def step(self, step: Step) -> None:
        now = time.monotonic()
        self._clock.step(step)
        if now - self._last >= self._every or step.done:
            self._last = now
            self._session.say(describe(step, self._limit, self._clock))

    def note(self, text: str) -> None:
        self._session.say(f"note: {text}")


class BarProgress:
    """A live bar on a terminal."""

    def __init__(self, session: common.Session) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._session = session
        self._progress = Progress(
            BarColumn(bar_width=24), TextColumn("{task.description}"), console=session.console, transient=True
        )
        self._task: Any = None
        self._limit = 0
        self._clock = Clock()

    def begin(self, estimation: Estimation, folder: Path) -> None:
        self._session.say(f"solver {estimation.choice}")
        self._session.say(f"run folder {folder}")
        self._limit = getattr(estimation.solver, "iterations", 0)
        self._clock.begin(self._limit)
        self._progress.start()
        self._task = self._progress.add_task("compiling ...", total=self._limit or None)

    def step(self, step: Step) -> None:
        self._clock.step(step)
        text = describe(step, self._limit, self._clock)
        self._progress.update(self._task, completed=step.index + 1, description=text)

    def note(self, text: str) -> None:
        self._session.say(f"note: {text}")

    def close(self) -> None:
        """Remove the bar."""
        self._progress.stop()


class Clock:
    """Seconds per step, and what remains of the budget; the first step compiles and does not count."""

    def __init__(self) -> None:
        self.per_step = float("nan")
        self._limit = 0
        self._first: tuple[int, float] | None = None
        self._left = float("nan")

    def begin(self, limit: int) -> None:
        """Start with a budget of `limit` steps."""
        self._limit = limit

    def step(self, step: Step) -> None:
        """Take in a step."""
        if self._first is None:
            self._first = (step.index, step.seconds)
            return
        self.per_step = (step.seconds - self._first[1]) / (step.index - self._first[0])
        self._left = self.per_step * max(0, self._limit - step.index - 1)

    def left(self) -> str:
        """Time left as text: an upper bound, as runs stop when they have settled."""
        if not np.isfinite(self._left):
            return ""
        minutes, seconds = divmod(round(self._left), 60)
        return f"<= {minutes}:{seconds:02d} left"


def describe(step: Step, limit: int, clock: Clock) -> str:
    """One line on a step: number, loss with its error, stage, seconds per step, time left, parameters when few."""
    parts = [f"step {step.index + 1}{f'/{limit}' if limit else ''}"]
    parts.append(f"loss {step.loss:.3g} ± {step.loss_error:.1g}" if np.isfinite(step.loss) else "skipped")
    parts.append(step.stage)
    if np.isfinite(clock.per_step):
        parts += [f"{clock.per_step:.3f} s/step", clock.left()]
    if sum(len(v) for v in step.estimate.values()) <= _SHOWN:
        parts += [f"{_short(name)} {' '.join(f'{x:.3g}' for x in v)}" for name, v in step.estimate.items()]
    return "  ".join(p for p in parts if p)


def _short(key: str) -> str:
    for ending in (".value", ".data", ".reflectance", ".radiance", ".emitter"):
        key = key.removesuffix(ending)
    return key


@contextmanager
def make_progress(session: common.Session) -> Iterator[Observer]:
    """The progress display that suits where stderr goes."""
    if session.console.is_terminal and not session.quiet:
        bar = BarProgress(session)
        try:
            yield bar
        finally:
            bar.close()
    else:
        yield LineProgress(session)


def _off(row: Recovered) -> str:
    """The error; of poses and positions, whose numbers do not say it, the error at the start too."""
    text = row.error_text()
    return f"{text} (from {row.error_text(row.start)})" if text and row.measure in ("pose", "position") else text


def result_table(outcome: Outcome) -> str:
    """Parameter, start, recovered and, where known, truth and error; below, where things are.

    As wide as the terminal; in a file or pipe wide enough that no name and no path is broken.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = outcome.result.recovered
    known = any(r.truth is not None for r in rows)
    uncertain = any(r.standard_error is not None for r in rows)
    table = Table(show_edge=False, pad_edge=False)
    extra = (["±"] if uncertain else []) + (["truth", "error"] if known else [])
    for name in ["parameter", "start", "recovered", *extra]:
        table.add_column(name, overflow="fold", no_wrap=name == "parameter")
    for r in rows:
        cells = [r.name, show(r.start), show(r.value)]
        if uncertain:
            cells.append("" if r.standard_error is None else show(r.standard_error))
        if known:
            cells += ["" if r.truth is None else show(r.truth), _off(r)]
        table.add_row(*(Text(c) for c in cells))
    info = outcome.result.info
    steps = len(outcome.result.history)
    last = f"{info['stopped']} after {steps} steps, {info['seconds']:.1f} s"
    if info.get("first_gradient") is not None:
        processor = f"{info['processor_seconds']:.0f} s of processor time"
        last += f" (first gradient after {info['first_gradient']:.1f} s; {processor})"
    lines = [last]
    for what, path in (("report", outcome.report), ("export", outcome.export)):
        if path is not None:
            lines.append(f"{what} {path}")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 200
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join([*(line.rstrip() for line in text.splitlines()), "", *lines])
