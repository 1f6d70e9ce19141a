"""Curves as inline SVG that follows the page's colours (light or dark) and scales with its width."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from pathtracer.report.data import Array, ParameterReport, ReportData

#: Stands for the page's text colour until the SVG is written; no data is drawn in it.
_INK = "#010203"
#: Okabe and Ito's colours, told apart with every common form of colour blindness.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_RGB = ("#d55e00", "#009e73", "#0072b2")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)))
#: More lines than this in one diagram cannot be told apart.
_MAX_LINES = 12


@contextmanager
def _style(salt: str) -> Iterator[None]:
    import matplotlib
    from cycler import cycler

    with matplotlib.rc_context(
        {
            "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
            "svg.hashsalt": salt,  # ids differ between the diagrams of one page
            "text.parse_math": False,  # a `$` in a parameter's name is a `$`
            "font.family": "sans-serif",
            "font.size": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": cycler(color=_COLORS),
            **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
            "axes.grid": True,
            "grid.color": "#80808055",
            "legend.frameon": False,
        }
    ):
        yield


def _svg(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace(_INK, "currentColor")


def _figure(height: float = 2.5, rows: int = 1) -> tuple[Any, Any]:
    """A figure and its diagrams, one below the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4, height), layout="constrained")
    return figure, figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]


def wants_log(values: Array) -> bool:
    """Whether a logarithmic axis shows more: all positive and spanning more than a factor of ten."""
    v = values[np.isfinite(values)]
    return bool(v.size and v.min() > 0 and v.max() > 10 * v.min())


def loss_figure(data: ReportData) -> str:
    """Loss over the steps with a band of one standard error; logarithmic where it spans more than a factor of ten."""
    with _style("loss"):
        figure, (axes,) = _figure()
        axes.plot(data.steps, data.loss, lw=1.6, marker="o" if len(data.steps) < 25 else None, ms=3.5)
        log = wants_log(data.loss)
        if log:
            _log_axis(axes)
        if data.loss_error.size and np.isfinite(data.loss_error).any():
            error = np.nan_to_num(data.loss_error)
            low, high = data.loss - error, data.loss + error
            if log:  # a band that reaches zero would run off a logarithmic axis
                low = np.maximum(low, np.nanmin(data.loss) * 0.3)
            axes.fill_between(data.steps, low, high, alpha=0.25, lw=0)
        text = "loss (logarithmic)" if log else "loss"
        floor = _noise_floor(data)
        if not log and floor:
            # an unbiased loss scatters about zero in the end: logarithmic above its noise, linear within
            axes.set_yscale("symlog", linthresh=floor, linscale=0.5)
            _plain_numbers(axes)
            text = "loss (symmetric log)"
        _whole_steps(axes)
        axes.set_xlabel("step")
        axes.set_ylabel(text)
        return _svg(figure)


def _noise_floor(data: ReportData) -> float:
    """Twice the median standard error of a loss that began far above it, to one digit; else 0."""
    loss, error = data.loss[np.isfinite(data.loss)], data.loss_error[np.isfinite(data.loss_error)]
    if not loss.size or not error.size:
        return 0.0
    floor = 2 * float(np.median(error))
    return float(f"{floor:.0e}") if 0 < 10 * floor < float(loss.max()) else 0.0


def parameter_figure(parameter: ParameterReport) -> str | None:
    """The course of one parameter's components, dashed lines at the truth; None when no course was recorded."""
    if parameter.steps is None or parameter.course is None or not parameter.course.size:
        return None
    course = np.asarray(parameter.course, np.float64).reshape(len(parameter.steps), -1)
    count = min(course.shape[1], _MAX_LINES)
    names = component_names(parameter)
    pose = parameter.space == "pose" and count == 6
    # degrees and lengths have nothing to do in one diagram
    parts = [("rotation [°]", range(3)), ("translation", range(3, 6))] if pose else [("", range(count))]
    with _style(parameter.key):
        figure, panels = _figure(3.4 if pose else 2.2, len(parts))
        colors = _RGB if names == ["R", "G", "B"] else _COLORS
        for axes, (title, numbers) in zip(panels, parts, strict=True):
            for k, i in enumerate(numbers):
                color = colors[k % len(colors)]
                dash = _DASHES[k % len(_DASHES)] if count > 1 else "-"
                label = "xyz"[k] if pose else names[i] or None
                axes.plot(parameter.steps, course[:, i], lw=1.6, color=color, ls=dash, label=label)
                if parameter.truth is not None:
                    axes.axhline(float(parameter.truth.ravel()[i]), color=color, lw=0.9, ls=(0, (1, 2)))
            axes.set_ylabel(title)
            _whole_steps(axes)
        if wants_log(course) and course.max() > 100 * course.min():
            _log_axis(panels[0])
        if count > 1:
            columns = 3 if pose else min(count, 6)
            panels[0].legend(ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=9)
        panels[-1].set_xlabel("step")
        return _svg(figure)


def component_names(parameter: ParameterReport) -> list[str]:
    """R, G, B for colours, x, y, z for directions and places, numbers for longer arrays, nothing for scalars."""
    size = parameter.value.size
    if size == 1:
        return [""]
    if size == 3:
        vector = parameter.kind in ("vector", "direction", "positions", "point") or parameter.space == "direction"
        return ["x", "y", "z"] if vector else ["R", "G", "B"]
    if parameter.space == "pose" and size == 6:
        return ["rotation x [°]", "rotation y [°]", "rotation z [°]", "translation x", "translation y", "translation z"]
    return [str(i) for i in range(size)]


def _log_axis(axes: Any) -> None:
    """A logarithmic axis with plain numbers: Matplotlib's own labels need its mathematics parser, which is off."""
    axes.set_yscale("log")
    _plain_numbers(axes)


def _plain_numbers(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _whole_steps(axes: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
