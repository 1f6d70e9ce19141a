"""Plots for people: labelled axes, units, colours that colour-blind readers tell apart, markers besides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .record import read_result
from .tables import label

#: Okabe and Ito's palette, one colour and one marker for each estimator wherever it appears.
_STYLE = {
    "edge_sampling": ("#0072B2", "o"),
    "path_replay": ("#56B4E9", "s"),
    "warped_area": ("#009E73", "^"),
    "finite_difference": ("#000000", "x"),
    "prb": ("#E69F00", "D"),
    "prb_projective": ("#D55E00", "v"),
    "direct_projective": ("#CC79A7", "P"),
    "soft_rasterizer": ("#999999", "*"),
    "opendr": ("#B8A000", "X"),
}


def style(estimator: str) -> dict[str, Any]:
    """Colour and marker; variants of one plugin share the colour and differ in filling."""
    plugin = estimator.split(":")[0]
    color, marker = _STYLE.get(plugin, ("#000000", "."))
    hollow = "guiding=octree" in estimator or "guiding=false" in estimator
    return {"color": color, "marker": marker, "markerfacecolor": "white" if hollow else color}


def _figure(*arguments: Any, **keywords: Any) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=keywords.pop("figsize", (8, 5)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(*arguments, **keywords)


def error_over_time(path: Path) -> Any:
    """Error against time of one gradient image, a panel for each subject; lines of equal efficiency."""
    record = read_result(path)
    rows = [r for r in record["rows"] if r.get("mse") and "failure" not in r]
    subjects = list(dict.fromkeys(r["subject"] for r in rows))
    columns = min(3, len(subjects))
    lines = -(-len(subjects) // columns)
    figure, axes = _figure(lines, columns, squeeze=False, figsize=(4.0 * columns, 3.4 * lines), sharex=True)
    seen: dict[str, Any] = {}
    for axis, subject in zip(axes.flat, subjects, strict=False):
        here = [r for r in rows if r["subject"] == subject]
        for r in here:
            drawn = axis.errorbar(
                r["time_cpu"],
                r["mse"],
                yerr=r["mse_error"],
                linestyle="",
                markersize=8,
                capsize=2,
                **style(r["estimator"]),
            )
            seen.setdefault(label(r["estimator"]), drawn)
        axis.set(xscale="log", yscale="log", title=subject)
        axis.title.set_fontsize(9)
        times = np.array([min(r["time_cpu"] for r in here) / 2, max(r["time_cpu"] for r in here) * 2])
        best = min(r["mse"] * r["time_cpu"] for r in here)
        for factor in (1, 10, 100, 1000):
            axis.plot(times, factor * best / times, color="#cccccc", linewidth=0.8, zorder=0)
        axis.grid(alpha=0.25)
    for axis in list(axes.flat)[len(subjects) :]:
        axis.set_visible(False)
    for axis in list(axes.flat)[max(len(subjects) - columns, 0) : len(subjects)]:  # nothing below
        axis.set_xlabel("CPU seconds per gradient image")
        axis.tick_params(labelbottom=True)
    for axis in axes[:, 0]:
        axis.set_ylabel("relative squared error")
    figure.legend(seen.values(), seen.keys(), loc="outside lower center", ncols=min(4, len(seen)), fontsize=8)
    figure.suptitle("Lower left is better; grey lines: equal efficiency, a factor 10 apart", fontsize=10)
    return figure


def pictures(path: Path, images: Path) -> Any:
    """Gradient images at about equal time, on one scale for each subject."""
    record = read_result(path)
    with np.load(images) as data:
        arrays = {k: np.asarray(data[k], dtype=np.float64) for k in data.files}
    subjects = list(dict.fromkeys(r["subject"] for r in record["rows"]))
    names = list(dict.fromkeys(r["estimator"] for r in record["rows"]))
    figure, axes = _figure(
        len(subjects), len(names) + 1, squeeze=False, figsize=(1.45 * (len(names) + 1), 1.75 * len(subjects) + 0.6)
    )
    for number, (line, subject) in enumerate(zip(axes, subjects, strict=True)):
        truth = arrays[f"{subject}|reference"].mean(-1)
        scale = float(np.percentile(np.abs(truth[truth != 0]), 99)) if np.any(truth) else 1.0
        for axis, name in zip(line, ["reference", *names], strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            image = arrays.get(f"{subject}|{name}")
            row = next((r for r in record["rows"] if r["subject"] == subject and r["estimator"] == name), None)
            if image is not None:
                axis.imshow(image.mean(-1), cmap="RdBu_r", vmin=-scale, vmax=scale, interpolation="nearest")
            else:
                axis.set_facecolor("#eeeeee")
                word = "not run" if row is None else "refuses" if row.get("refused") else "fails"
                axis.text(0.5, 0.5, word, ha="center", va="center", transform=axis.transAxes, fontsize=8)
            if row is not None and row.get("mse"):
                axis.set_xlabel(f"error {row['mse']:.2g}\n{row['time']:.2f} s", fontsize=7)
            if number == 0:
                axis.set_title(label(name).replace(", ", ",\n"), fontsize=7)
        line[0].set_ylabel(subject.replace("-", "-\n", 1), fontsize=7)
    figure.suptitle(
        "Derivative images at about equal time (blue negative, red positive; one scale for each row)", fontsize=9
    )
    return figure


def efficiency(path: Path) -> Any:
    """edge_sampling over the best projective integrator: efficiency, and time to the first gradient."""
    from .tables import projective_pairs

    pairs = projective_pairs(read_result(path))
    figure, axes = _figure(1, 2, figsize=(9, 0.45 * len(pairs) + 1.8), sharey=True)
    places = np.arange(len(pairs))[::-1]
    panels = (
        ("efficiency_cpu", "efficiency", "default_efficiency", "efficiency 1/(error × time), ours over theirs", 10),
        ("first_cpu", "first", "default", "time to first gradient, theirs over ours", 5),
    )
    for axis, (cpu, wall, default, title, goal) in zip(axes, panels, strict=True):
        values = np.array([p[cpu] for p in pairs])
        errors = np.array([p["error"] if axis is axes[0] else 0.0 for p in pairs])
        bars = np.stack([values * errors / (1 + errors), values * errors])
        axis.errorbar(
            values, places, xerr=bars, fmt="o", color="#0072B2", capsize=2, label="best of theirs, CPU seconds"
        )
        axis.plot(
            [p[wall] for p in pairs],
            places,
            "D",
            color="#E69F00",
            markerfacecolor="none",
            label="best of theirs, wall seconds",
        )
        stock = [(p[default], y) for p, y in zip(pairs, places, strict=True) if p[default]]
        if stock:
            axis.plot(*zip(*stock, strict=True), "^", color="#D55E00", label="their default (octree), CPU seconds")
        axis.axvline(1, color="black", linewidth=1)
        axis.axvline(goal, color="#666666", linewidth=1, linestyle="--", label="goal")
        axis.set(xscale="log", xlabel=title, yticks=places, yticklabels=[p["subject"] for p in pairs])
        axis.set_ylim(-0.6, len(pairs) - 0.4)
        low, high = axis.get_xlim()
        axis.set_xlim(min(low, 0.3), max(high, 3 * goal))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("")
        axis.grid(alpha=0.25)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def control_curves(path: Path) -> Any:
    """Distance from the true pose over steps, medians with quartiles, a panel for each kind of evidence."""
    record = read_result(path)
    tasks = list(dict.fromkeys(r["subject"] for r in record["rows"]))
    figure, axes = _figure(1, len(tasks), squeeze=False, figsize=(3.6 * len(tasks), 3.6), sharey=True)
    seen: dict[str, Any] = {}
    for axis, task in zip(axes[0], tasks, strict=True):
        for k, r in enumerate(r for r in record["rows"] if r["subject"] == task and "curve" in r):
            steps = np.arange(len(r["curve"]))
            look = style(r["estimator"])
            line = ("-", "--", ":", "-.")[k % 4]  # curves may lie on each other
            (drawn,) = axis.plot(steps, r["curve"], line, markersize=5, markevery=(k % 3, 3), **look)
            axis.fill_between(steps, r["curve_low"], r["curve_high"], color=look["color"], alpha=0.2, linewidth=0)
            seen.setdefault(label(r["estimator"]), drawn)
        axis.set(yscale="log", title=f"from its {task}", xlabel="Gauss-Newton step")
        axis.axhline(0.2, color="#999999", linestyle="--", linewidth=1)
        axis.grid(alpha=0.25)
    axes[0][0].set_ylabel("share of the offset that is left")
    figure.legend(seen.values(), seen.keys(), loc="outside lower center", ncols=len(seen), fontsize=8)
    figure.suptitle("Recovering a pose (median and quartiles over starts; dashed: counted as solved)", fontsize=10)
    return figure


def solver_curves(path: Path) -> Any:
    """Largest error over processor time, medians with quartiles."""
    figure, axis = _figure(figsize=(6, 4))
    looks = {"least-squares": ("#0072B2", "-"), "adam": ("#D55E00", "--")}
    for r in (r for r in read_result(path)["rows"] if "curve" in r):
        color, line = looks.get(r["estimator"], ("#000000", ":"))
        axis.plot(r["times"], np.array(r["curve"]) * 100, line, color=color, label=r["estimator"])
        low, high = (np.array(r[k]) * 100 for k in ("curve_low", "curve_high"))
        axis.fill_between(r["times"], low, high, color=color, alpha=0.2, linewidth=0)
    axis.axhline(1, color="#999999", linewidth=1)
    axis.set(yscale="log", xlabel="CPU seconds", ylabel="largest error of any of 12 numbers, %")
    axis.set_title("Albedos and light of the Cornell box (median and quartiles over starts)", fontsize=10)
    axis.grid(alpha=0.25)
    axis.legend()
    return figure


def inverse_curves(path: Path) -> Any:
    """Largest error over processor time of every inverse problem: ours with quartiles, and a plain script."""
    rows = [r for r in read_result(path)["rows"] if "curve" in r]
    columns = min(2, len(rows))
    figure, axes = _figure(
        -(-len(rows) // columns), columns, squeeze=False, figsize=(4.4 * columns, 3.1 * -(-len(rows) // columns) + 0.5)
    )
    for axis in axes.flat[len(rows) :]:
        axis.set_axis_off()
    for axis, r in zip(axes.flat, rows, strict=False):
        times = np.array(r["times"], float)
        low, middle, high, plain = (
            100 * np.array(r[k], float) for k in ("curve_low", "curve", "curve_high", "plain_curve")
        )
        axis.fill_between(times, low, high, color="#0072B2", alpha=0.2, linewidth=0)
        axis.plot(times, middle, color="#0072B2", label=f"ours, {int(r['starts'])} starts")
        axis.plot(times, plain, color="#D55E00", linestyle="--", label="plain script, best rate")
        for level in r["levels"]:
            axis.axhline(100 * level["level"], color="#999999", linewidth=1)
        axis.set(xscale="log", yscale="log", xlabel="CPU seconds", ylabel="largest error, %")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set_title(r["what"], fontsize=9)
        axis.grid(alpha=0.25)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def scaling_curves(path: Path) -> Any:
    """Time and memory over size, a column for each axis."""
    rows = [r for r in read_result(path)["rows"] if "failure" not in r]
    figure, axes = _figure(2, len(rows), squeeze=False, figsize=(2.6 * len(rows), 5), sharey="row")
    for number, (column, r) in enumerate(zip(axes.T, rows, strict=True)):
        sizes = np.array(r["sizes"], dtype=float)
        for axis, key, unit in (
            (column[0], "cpu", "CPU seconds per gradient"),
            (column[1], "memory", "peak memory, MiB"),
        ):
            values = np.array(r[key], dtype=float)
            axis.plot(sizes, values, **style(r["estimator"]))
            linear = values[-1] * sizes / sizes[-1]
            axis.plot(sizes, linear, color="#999999", linestyle=":", linewidth=1)
            axis.set(xscale="log", yscale="log")
            axis.set_xticks(sizes, [f"{int(size):,}".replace(",", " ") for size in sizes], fontsize=8)
            axis.set_xticks([], minor=True)
            axis.text(0.05, 0.93, f"power {r[f'exponent_{key}']:.2f}", transform=axis.transAxes, fontsize=8, va="top")
            axis.grid(alpha=0.25)
            if number == 0:
                axis.set_ylabel(unit)
        column[0].set_title(f"{r['subject']}\n({r['estimator']})", fontsize=9)
        column[1].set_xlabel(r["subject"])
    figure.suptitle("Dotted: proportional to the size; power: between the two largest sizes", fontsize=10)
    return figure


#: name of the picture in docs/figures -> (result files, what draws it)
PLOTS: dict[str, tuple[tuple[str, ...], Callable[..., Any]]] = {
    "estimators": (("estimators.json",), error_over_time),
    "pictures": (("estimators.json", "estimators.npz"), pictures),
    "projective": (("projective.json",), efficiency),
    "control": (("control.json",), control_curves),
    "solvers": (("solvers.json",), solver_curves),
    "inverse-problems": (("inverse-problems.json",), inverse_curves),
    "scaling": (("scaling.json",), scaling_curves),
}
