"""What a report shows, independent of where it comes from.

`ReportData` is filled from a run folder (`pathtracer.report.sources`) or by hand; the page and the figures read nothing
else, so that they can be tested without rendering.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass
class ViewReport:
    """Pictures of one view; every array is (H, W, 3), linear, at the exposure of the target.

    Attributes:
        name: as in the job.
        target: what was observed.
        start: the render before the first step, None when it was not kept.
        result: the newest render.
        mask: (H, W) weights, None for 1 everywhere.
        holdout: not used to fit.
        lit: ids of the emitters that were on, None for all.
    """

    name: str
    target: Array
    start: Array | None = None
    result: Array | None = None
    mask: Array | None = None
    holdout: bool = False
    lit: list[str] | None = None

    def error(self, which: str = "result") -> float | None:
        """Root mean square difference to the target over the weighted pixels."""
        image = getattr(self, which)
        if image is None:
            return None
        square = ((np.asarray(image, np.float64) - self.target) ** 2).mean(axis=-1)
        weight = np.ones(square.shape) if self.mask is None else self.mask
        return float(np.sqrt((square * weight).sum() / weight.sum()))

    def psnr(self, white: float = 1.0) -> float | None:
        """Peak signal-to-noise ratio of the result in dB; the peak is the value that the picture shows as white.

        Not the largest value: one lamp in view would flatter every picture of a dim room.
        """
        error = self.error()
        return 20 * float(np.log10(white / error)) if error is not None and error > 0 else None


@dataclass
class ParameterReport:
    """One parameter: where it started, where it is, what is known of its error and of the truth.

    Attributes:
        key: Mitsuba's key.
        start, value, standard_error, truth: arrays of one shape, or None when unknown.
        steps: (T,) steps at which `course` was recorded.
        course: (T, size) values over the run; empty for parameters too large to log.
        kind: "color", "texture", "envmap", ... as the scene names it.
        space: the space in which it was optimised.
    """

    key: str
    value: Array
    start: Array | None = None
    standard_error: Array | None = None
    truth: Array | None = None
    steps: Array | None = None
    course: Array | None = None
    kind: str = ""
    space: str = ""

    @property
    def is_image(self) -> bool:
        """Whether it is shown as a picture and not as numbers: (H, W, C) with more than 16 texels."""
        return self.value.ndim == 3 and self.value.shape[-1] in (1, 3) and self.value.size > 48


@dataclass
class WarningReport:
    """A warning with its code, how often it came up and what to do about it."""

    message: str
    code: str = ""
    remedy: str = ""
    count: int = 1


@dataclass
class ReportData:
    """Everything on the page.

    Attributes:
        title: name of the job or scene.
        status: "running", "converged", "stopped", "failed", ... in the words of the run.
        steps, loss, loss_error, wall: (T,) per step: index, loss, its standard error (NaN when unknown), seconds.
        unpictured: how many further views are fitted and held out that have no pictures yet.
        timings: seconds by name ("load", "compile", "run", ...).
        facts: versions, seeds, estimator, solver, samples: rows of a table.
        notes: sentences that are no warnings (assumed colour, fixed gauge).
        job: the resolved job file as text.
    """

    title: str
    status: str = ""
    steps: Array = field(default_factory=lambda: np.zeros(0))
    loss: Array = field(default_factory=lambda: np.zeros(0))
    loss_error: Array = field(default_factory=lambda: np.zeros(0))
    wall: Array = field(default_factory=lambda: np.zeros(0))
    views: list[ViewReport] = field(default_factory=list)
    unpictured: tuple[int, int] = (0, 0)
    parameters: list[ParameterReport] = field(default_factory=list)
    warnings: list[WarningReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    job: str = ""
