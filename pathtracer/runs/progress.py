"""What a run folder shows while the run goes on: newest pictures, values so far and the report, all within a small
share of the run's time.

Nothing is rendered for it. The pictures are the noisy ones that the steps made anyway.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from .folder import RunFolder

if TYPE_CHECKING:
    from ..inverse import Estimation, Result
    from ..report.tensorboard import TensorBoard

#: Share of the run's time that is spent on showing it.
SHARE = 0.02
#: Never more often than this (seconds).
EVERY = 5.0
#: Views with pictures while the run goes on; in the end all have some.
PICTURED = 12
#: Columns of `preview.png`, which shows targets beside renders.
_PREVIEW_VIEWS = 4


class Budget:
    """When something that costs time may be done again: as long as all of it together stays within a share of the time.

    The first time is always allowed. What the next time will cost is taken to be what the last one did.

    Args:
        share: of the time.
        every: shortest pause between two times (seconds).
    Attributes:
        spent: seconds so far.
    """

    def __init__(self, share: float = SHARE, every: float = EVERY) -> None:
        self.share, self.every = share, every
        self.spent = 0.0
        self._cost = self._last = 0.0
        self._times = 0

    def due(self, elapsed: float) -> bool:
        """Whether it may be done, `elapsed` seconds after the beginning."""
        affordable = self.spent + self._cost <= self.share * elapsed
        return self._times == 0 or (affordable and elapsed - self._last >= self.every)

    def pay(self, elapsed: float, cost: float) -> None:
        """It was done, took `cost` seconds and was over at `elapsed`."""
        self.spent += cost
        self._cost, self._last = cost, elapsed
        self._times += 1


class Progress:
    """Keeps the run folder's state, pictures and report up to date.

    Args:
        estimation: what goes on.
        folder: where it is shown.
        facts: entries of `state.json` besides the estimation's own summary.
        report: whether to write the page at all.
        board: is given the pictures as well.
    Attributes:
        budget: when updates are due.
    """

    def __init__(
        self,
        estimation: Estimation,
        folder: RunFolder,
        facts: dict[str, Any],
        report: bool = True,
        board: TensorBoard | None = None,
    ) -> None:
        self._estimation, self._folder, self._facts, self._report = estimation, folder, facts, report
        self._board = board
        fitted = estimation.problem.fitted
        few = np.linspace(0, len(fitted) - 1, min(len(fitted), PICTURED))
        self._pictured = [fitted[round(k)] for k in few]
        # a session that goes on has not seen the start
        fresh = not estimation.history
        self._starts: dict[str, Any] = {} if fresh else folder.stored_starts()
        self._unseen = [v.view.name for v in self._pictured] if fresh else []
        self.budget = Budget()

    def look(self) -> None:
        """Keep the first render of each pictured view; to be called after every step."""
        images = self._estimation.objective.images
        for name in [n for n in self._unseen if n in images]:
            self._starts[name] = images[name]
            self._unseen.remove(name)

    def due(self) -> bool:
        """Whether the next update fits into the share."""
        return self.budget.due(self._estimation.seconds)

    def update(self, status: str = "running", error: str = "") -> None:
        """Write everything anew.

        Raises:
            StorageFault: it cannot be written.
        """
        began = time.perf_counter()
        result = self._estimation.snapshot()
        summary = self.summary(result)
        if error:
            summary["error"] = error
        pictures = self._pictures()
        if self._board is not None:
            self._board.pictures(pictures, len(result.history))
        self._folder.write_arrays(result)
        self._folder.write_views(pictures, view_facts(self._estimation))
        self._folder.write_state(status, summary)
        self._preview(pictures)
        if self._report:
            from ..report import write_report

            write_report(self._folder.path, self._folder.path / "report.html")
        self.budget.pay(self._estimation.seconds, time.perf_counter() - began)

    def summary(self, result: Result) -> dict[str, Any]:
        """`state.json` without its status."""
        return result.summary() | self._facts

    def _pictures(self) -> dict[str, dict[str, np.ndarray]]:
        """Target, first and newest render of the views that steps have seen so far."""
        found = {}
        images = self._estimation.objective.images
        for view in self._pictured:
            name = view.view.name
            if name not in images:
                continue
            found[name] = {"target": view.view.image, "result": _three(images[name])}
            if name in self._starts:
                found[name]["start"] = _three(self._starts[name])
            found[name]["weight"] = np.asarray(view.view.weight)
        return found

    def _preview(self, pictures: dict[str, dict[str, np.ndarray]]) -> None:
        from ..report import preview_png
        from ..report.pictures import display_scale

        rows = [np.concatenate([p["target"], p["result"]], axis=1) for p in list(pictures.values())[:_PREVIEW_VIEWS]]
        width = min((r.shape[1] for r in rows), default=0)
        if width:
            picture = np.concatenate([r[:, :width] for r in rows])
            preview_png(picture, self._folder.path / "preview.png", display_scale(picture))


def view_facts(estimation: Estimation) -> dict[str, dict[str, Any]]:
    """What the report says of each view besides its pictures."""
    problem = estimation.problem
    return {
        v.view.name: {"holdout": v.view.holdout, "lit": v.view.lit, "exposure": v.view.exposure}
        for v in (*problem.fitted, *problem.heldout)
    }


def _three(image: Any) -> np.ndarray:
    """A developed film's colours: grey becomes three equal channels, alpha goes."""
    image = np.array(image)
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]
