"""The suites: which subjects and estimators, quick and full, and how they are run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathtracer.errors import UsageError, nearest_names

from . import control, inverse, scaling
from .measure import score
from .record import RESULTS, environment, write_result
from .subjects import meshes
from .worker import call

#: Processor seconds of one gradient image, about equal for all estimators.
EQUAL_TIME = 0.25
#: Seconds after which one measurement is given up.
TIMEOUT = 240.0
Say = Callable[[str], None]

_STOCK = ("prb", "prb_projective:guiding=none", "direct_projective:guiding=none")
_RASTER = ("soft_rasterizer:sigma=0.001", "opendr")
_OURS = ("path_replay", "edge_sampling", "warped_area")
_GUIDED = ("prb_projective:guiding=octree", "direct_projective:guiding=octree")
_MOVE = "object.vertex_positions translate:1,0.4,0.2"
_TURN = "object.vertex_positions rotate:y"
_TERMS = {
    "interior alone": "edge_sampling:primary=false,shadow=false,indirect=false",
    "primary alone": "edge_sampling:interior=false,shadow=false,indirect=false",
    "further along the path alone": "edge_sampling:interior=false,primary=false",
}


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        tag: which table it belongs to.
        subject: see `subjects`.
        estimator: plugin, or `name:property=value,...`.
        label: what tables call the estimator, when not by its own text.
        quick: whether the quick suite has it.
        patience: processor seconds of one gradient image, and samples of its reference, in units of those that others
            get.
    """

    tag: str
    subject: str
    estimator: str
    label: str = ""
    quick: bool = True
    patience: float = 1.0


def _rows(
    tag: str, subjects: Sequence[str], estimators: Sequence[str], quick: bool = True, patience: float = 1.0
) -> list[Row]:
    return [Row(tag, s, e, "", quick, patience) for s in subjects for e in estimators]


def estimator_rows() -> list[Row]:
    """Scene x parameter x estimator."""
    all_of = ("path_replay", "edge_sampling", *_STOCK, *_RASTER)
    quick = ("mesh-seamed-cube-moves", "shadow-area-receiver", "shadow-point-occluder", "diffuse-reflectance")
    rows = _rows("estimators", quick, all_of)
    slow = ("warped_area", "finite_difference")
    rows += _rows("estimators", quick[:1], slow) + _rows("estimators", quick[1:], slow, quick=False)
    further = ["sphere-moves", "perspective-moves", "shadow-area-light", "shadow-environment-occluder"]
    further += ["shadow-spot-receiver", "indirect-occluder", "rough-mirror", "area-moves"]
    further += ["environment-texels", "roughconductor-alpha", "texture-texels"]
    return rows + _rows("estimators", further, (*_OURS, *_STOCK, *_RASTER, "finite_difference"), quick=False)


def projective_rows() -> list[Row]:
    """edge_sampling against Mitsuba's projective integrators on the cases where those are right."""
    subjects = (
        "sphere-moves",
        "disk-turns",
        "mesh-closed-moves",
        "shadow-area-occluder",
        "shadow-environment-occluder",
    )
    rows = _rows("projective", subjects, ("edge_sampling", "edge_sampling:split=auto", *_STOCK[1:]))
    rows += _rows("projective", subjects, _GUIDED[:1])
    rows += _rows("interior", subjects, _STOCK[:1])  # how soon a gradient without any visibility is there
    return rows + _rows("projective", subjects, _GUIDED[1:], quick=False)


def experiment_rows() -> list[Row]:
    """Experiments 1, 2, 3 and 5 of the field, rebuilt."""
    rows = []
    for motion, quick in ((_MOVE, True), (_TURN, False)):
        subject = f"convex:cube {motion}"
        rows += [Row("experiment-1", subject, e, label, quick) for label, e in _TERMS.items()]
        rows += _rows("experiment-1", [subject], ("edge_sampling", *_STOCK[1:]), quick)
    names = ("cube", "teapot", "suzanne") if meshes() else ("cube",)
    for name in names:
        for motion in (_MOVE, _TURN, "object.vertex_positions scale"):
            # bodies that shade themselves are noisy, and what is claimed is 3 %
            patience = 1.0 if name == "cube" else 8.0
            rows += _rows("experiment-2", [f"convex:{name} {motion}"], ("edge_sampling", _STOCK[1]), patience=patience)
    for light in ("area", "point"):
        for who in ("occluder", "receiver", "light", "camera"):
            rows += _rows("experiment-3", [f"shadow-{light}-{who}"], ("edge_sampling", _STOCK[1]), light == "area")
    guided = ("edge_sampling", "edge_sampling:guiding=false", _STOCK[1], "prb_projective:guiding=grid", _GUIDED[0])
    rows += _rows("experiment-5", ["shadow-area-occluder"], guided)
    return rows + _rows("experiment-5", ["indirect-occluder", "shadow-environment-occluder"], guided, quick=False)


def run_rows(
    rows: Sequence[Row], full: bool, options: dict[str, Any], seed: int, say: Say
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure rows, subject by subject.

    Returns:
        Plain rows, and one image of each measurement for pictures, as "subject|estimator".
    """
    measured: list[dict[str, Any]] = []
    pictures: dict[str, Any] = {}
    done: dict[tuple[str, str], dict[str, Any]] = {}
    wanted = [r for r in rows if r.quick or full]
    for subject in dict.fromkeys(r.subject for r in wanted):
        patience = max(r.patience for r in wanted if r.subject == subject)
        asked = {"subject": subject, "spp": round((2048 if full else 512) * patience), "seed": seed}
        truth = call("measure:reference", asked, 900, **options, fresh=False)
        if "failure" in truth:
            raise UsageError(f"no reference: {truth['failure']}", where=subject)
        pictures[f"{subject}|reference"] = np.mean(truth["images"], axis=0).astype(np.float16)
        for row in (r for r in wanted if r.subject == subject):
            key = (subject, row.estimator)
            if key not in done:
                done[key] = _measure(row, truth, full, options, seed, pictures, say)
            named = {
                "tag": row.tag,
                "subject": subject,
                "estimator": row.label or row.estimator,
                "plugin": row.estimator,
            }
            measured.append({**named, **done[key]})
    return measured, pictures


def _measure(
    row: Row, truth: dict[str, Any], full: bool, options: dict[str, Any], seed: int, pictures: dict[str, Any], say: Say
) -> dict[str, Any]:
    arguments = {
        "subject": row.subject,
        "estimator": row.estimator,
        "seconds": EQUAL_TIME * (4 if full else 1) * row.patience,
        "replicates": 16 if full else 8,
        "seed": seed + 17,
        "backward": full,
    }
    # Differences choose their step with many renders: one look at few samples is what they can show
    if row.estimator == "finite_difference":
        arguments.update(spp=64, replicates=4)
    answer = call("measure:gradients", arguments, TIMEOUT * (4 if full else 1) * row.patience, **options)
    if "failure" in answer:
        say(f"{row.subject}: {row.estimator}: {answer['failure']}")
        return {"failure": answer["failure"], "refused": answer["refused"]}
    pictures[f"{row.subject}|{row.estimator}"] = answer["images"][0].astype(np.float16)
    result = score(answer, truth)
    kept = ("spp", "first", "first_cpu", "memory", "backward_first", "backward")
    result.update({k: answer[k] for k in kept if k in answer})
    words = f"slope {result['slope']:.3f}, error {result['mse']:.3g}, {result['time']:.2f} s"
    say(f"{row.subject}: {row.estimator}: {words}")
    return result


def run_measured(rows: Sequence[Row]) -> Callable[..., list[dict[str, Any]]]:
    """A suite made of `Row`s."""

    def run(full: bool, options: dict[str, Any], seed: int, say: Say, output: Path) -> list[dict[str, Any]]:
        measured, pictures = run_rows(rows, full, options, seed, say)
        np.savez_compressed(output.with_suffix(".npz"), **pictures)
        return measured

    return run


def run_control(full: bool, options: dict[str, Any], seed: int, say: Say, output: Path) -> list[dict[str, Any]]:
    """Poses from a silhouette, a shadow, a reflection."""
    estimators = ["edge_sampling", "soft_rasterizer:sigma=0.001", "opendr"]
    estimators += ["warped_area", "prb_projective:guiding=none"] if full else []
    rows = []
    for task in control.TASKS:
        extra = ["finite_difference"] if task == "reflection" else []
        for estimator in estimators + extra:
            differences = estimator == "finite_difference"
            arguments = {
                "task": task,
                "estimator": estimator,
                "starts": 16 if full else 4,
                "steps": 8,
                "spp": 16 if differences else 64,
                "seed": seed,
            }
            answer = call("control:pose_runs", arguments, 3600 if full else 600, **options)
            if "failure" in answer:
                rows.append({"tag": task, "subject": task, "estimator": estimator, **answer})
                say(f"{task}: {estimator}: {answer['failure']}")
                continue
            found = control.summary(answer)
            rows.append({"tag": task, "subject": task, "estimator": estimator, **found})
            say(f"{task}: {estimator}: {found['solved']} of {found['starts']} solved, {found['seconds']:.1f} s")
    return rows


def run_solvers(full: bool, options: dict[str, Any], seed: int, say: Say, output: Path) -> list[dict[str, Any]]:
    """Experiment 10: least squares against Adam from random starts."""
    rows = []
    for solver in ("least-squares", "adam"):
        arguments = {"solver": solver, "starts": 16 if full else 3, "seconds": 60.0 if full else 16.0, "seed": seed}
        answer = call("inverse:solver_runs", arguments, 7200 if full else 600, **options, fresh=False)
        row = {"tag": "experiment-10", "subject": "cornell-box", "estimator": solver}
        if "failure" in answer:
            rows.append({**row, **answer})
            say(f"{solver}: {answer['failure']}")
            continue
        found = inverse.summary(answer)
        rows.append({**row, **found})
        say(f"{solver}: {found['reached_1']} of {found['starts']} within 1 %, median {found['seconds_1']:.1f} CPU s")
    return rows


def run_scaling(full: bool, options: dict[str, Any], seed: int, say: Say, output: Path) -> list[dict[str, Any]]:
    """Time and memory along each axis."""
    rows = []
    for axis, (quick_sizes, more, estimator, what) in scaling.AXES.items():
        sizes = [*quick_sizes, *(more if full else ())]
        arguments = {"axis": axis, "sizes": sizes, "estimator": estimator, "repeats": 5 if full else 3, "seed": seed}
        answer = call("scaling:run_axis", arguments, 3600 if full else 300, **options)
        row: dict[str, Any] = {"tag": "scaling", "subject": axis, "estimator": estimator, "what": what}
        if "failure" in answer:
            say(f"{axis}: {answer['failure']}")
            rows.append({**row, **answer})
            continue
        powers = {f"exponent_{k}": scaling.exponent(answer["sizes"], answer[k]) for k in ("wall", "cpu", "memory")}
        rows.append({**row, **answer, **powers})
        say(f"{axis}: time grows with power {powers['exponent_cpu']:.2f}")
    return rows


#: name -> (what runs it, what it shows)
SUITES: dict[str, tuple[Callable[..., list[dict[str, Any]]], str]] = {
    "estimators": (run_measured(estimator_rows()), "bias, variance, time and memory of every estimator"),
    "projective": (run_measured(projective_rows()), "edge_sampling against Mitsuba's projective integrators"),
    "experiments": (run_measured(experiment_rows()), "experiments 1, 2, 3 and 5 of the field, rebuilt"),
    "control": (run_control, "poses from a silhouette, a shadow, a reflection; rasterisers must fail on two"),
    "solvers": (run_solvers, "experiment 10 of the field: least squares against Adam"),
    "scaling": (run_scaling, "time and memory against samples, pixels, triangles, parameters, depth, views"),
}


def choose(name: str) -> list[str]:
    """The suites that a name means; "all" is every one.

    Raises:
        UsageError: no such suite.
    """
    if name == "all":
        return list(SUITES)
    if name not in SUITES:
        known = [*SUITES, "all"]
        raise UsageError(f"unknown suite {name!r}, one of {', '.join(known)}", nearest=nearest_names(name, known))
    return [name]


def run_suite(
    name: str,
    full: bool = False,
    options: dict[str, Any] | None = None,
    seed: int = 0,
    folder: Path = RESULTS,
    say: Say = print,
) -> Path:
    """Run one suite and write its result.

    Args:
        full: all rows, more samples and starts: hours; else the quick subset.
        options: variant and threads of every measurement.
        folder: where NAME.json (and pictures, NAME.npz) go.
        say: called with a line for every measurement.

    Returns:
        The JSON file.
    """
    options = options or {}
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f"{name}.json"
    speed = call("measure:calibration", {"seed": seed}, 120, **options)
    if "failure" in speed:
        raise UsageError(f"the benchmarks cannot run here: {speed['failure']}", remedy="pathtracer doctor")
    env = {**environment(speed["variant"], seed), "calibration": speed["cpu"]}
    start = time.perf_counter()
    rows = SUITES[name][0](full, options, seed, say, output)
    write_result(output, name, "full" if full else "quick", env, rows, time.perf_counter() - start)
    return output
