"""Where a report's contents come from: a result in memory, or a run folder on disk, finished or not."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathtracer.errors import InputError, UsageError
from pathtracer.report.data import ParameterReport, ReportData, ViewReport, WarningReport

if TYPE_CHECKING:
    from pathtracer.inverse import Result

#: What entries of a run's summary are called for people.
_NAMES = {
    "loss_kind": "loss",
    "estimator": "gradient estimator",
    "samples": "camera paths",
    "skipped": "steps skipped because of gradients that are not finite",
    "samples_per_pixel_and_step": "samples per pixel and step",
}
#: Why a run stopped, in words.
_STOPPED = {
    "settled": "nothing moved any more",
    "budget": "all its iterations or seconds were used",
    "interrupted": "Ctrl-C or a signal",
}
#: Entries of a run's summary that are shown elsewhere on the page, or in no table.
_NOT_FACTS = frozenset(
    {"status", "parameters", "loss", "loss_error", "losses", "steps", "heldout", "warnings", "seconds"}
    | {"first_gradient", "export", "recordings", "notes", "times", "versions", "error", "stopped", "processor_seconds"}
)


def gather(source: Result | ReportData | str | Path) -> ReportData:
    """The report's contents from whatever holds them.

    Raises:
        UsageError: a folder that is no run folder.
        InputError: a file of the run folder that cannot be read.
    """
    if isinstance(source, ReportData):
        return source
    if isinstance(source, str | Path):
        return from_run_folder(Path(source))
    return from_result(source)


def from_result(result: Result, title: str = "inverse rendering") -> ReportData:
    """The contents of a result in memory."""
    records = [step.record() for step in result.history]
    data = _with_history(ReportData(title, str(result.info.get("stopped", ""))), records)
    for name, pictures in result.images.items():
        data.views.append(
            ViewReport(
                name,
                pictures["target"],
                pictures.get("start"),
                pictures.get("result"),
                _mask(pictures.get("weight")),
                holdout=name in result.heldout,
            )
        )
    for row in result.recovered:
        steps, course = _course(records, row.name)
        data.parameters.append(
            ParameterReport(
                row.name,
                np.asarray(row.value),
                np.asarray(row.start),
                row.standard_error,
                row.truth,
                steps,
                course,
                _kind(np.asarray(row.value)),
                row.space,
            )
        )
    return _with_facts(data, result.info, result.warnings)


def from_run_folder(folder: Path) -> ReportData:
    """The contents of a run folder, as far as the run has come."""
    from pathtracer.runs.folder import JOB, STATE, is_running, read_arrays, read_history

    if not folder.is_dir():
        raise InputError("there is no such folder", folder, remedy="name a run folder, as in runs/cornell-box")
    if not (folder / STATE).is_file():
        raise UsageError("is not a run folder: it has no state.json", folder, remedy="name the -o folder of a run")
    state = _json(folder / STATE)
    records = read_history(folder)
    job = (folder / JOB).read_text(encoding="utf-8") if (folder / JOB).is_file() else ""
    title, settings = _of_job(job, folder)
    data = _with_history(ReportData(title, str(state.get("status", "")), job=job), records)
    data.views, data.unpictured = _views(folder)
    if data.status == "running" and not is_running(folder):
        data.status = "stopped without an end"
        remedy = f"pathtracer resume {folder} goes on from the newest checkpoint"
        data.warnings.append(WarningReport("the process of this run is gone: it was killed or crashed", "", remedy))
    stored = read_arrays(folder)
    rows = state.get("parameters") or _rows_so_far(records)
    for row in rows:
        steps, course = _course(records, row["name"])
        name = row["name"]
        value = _array(row["value"], stored.get(f"value:{name}"))
        data.parameters.append(
            ParameterReport(
                name,
                value,
                _array(row.get("start"), stored.get(f"start:{name}"), value),
                _optional(row.get("standard_error"), value, stored.get(f"error:{name}")),
                _optional(row.get("truth"), value, stored.get(f"truth:{name}")),
                steps,
                course,
                _kind(value),
                row.get("space", ""),
            )
        )
    if state.get("stopped") not in (None, data.status, "not finished"):
        data.status = f"{data.status}: {_STOPPED.get(state['stopped'], state['stopped'])}"
    if state.get("error"):
        data.warnings.append(_warning(str(state["error"])))
    return _with_facts(data, state | settings, state.get("warnings", []))


def _of_job(text: str, folder: Path) -> tuple[str, dict[str, Any]]:
    """The scene's name with the folder's, and the settings that a reader looks for first."""
    from pathtracer.inverse.job import tomllib

    name = folder.resolve().name
    try:
        job = tomllib.loads(text)
        scene = Path(job["scene"]["file"])
        spp, seed = job["estimator"]["spp"], job["run"]["seed"]
    except (tomllib.TOMLDecodeError, KeyError, TypeError):
        return name, {}  # a job of another version: the page shows it as text all the same
    subject = scene.parent.name if scene.stem == "scene" else scene.stem
    title = name if subject in (name, "") else f"{subject} ({name})"
    return title, {"scene": str(scene), "samples_per_pixel_and_step": spp, "seed": seed}


def _with_history(data: ReportData, records: list[dict[str, Any]]) -> ReportData:
    nan = float("nan")

    def column(name: str) -> np.ndarray:
        return np.array([nan if r.get(name) is None else float(r[name]) for r in records])

    data.steps, data.loss, data.loss_error = column("index") + 1, column("loss"), column("loss_error")
    data.wall = column("seconds")
    return data


def _with_facts(data: ReportData, facts: Mapping[str, Any], warnings: list[str]) -> ReportData:
    data.notes = [str(note) for note in facts.get("notes", [])]
    data.warnings += [_warning(text) for text in warnings if text not in data.notes]
    data.timings |= _timings(data.wall, facts)
    data.facts |= {
        _NAMES.get(k, k.replace("_", " ")): _told(k, v) for k, v in facts.items() if k not in _NOT_FACTS and _says(v)
    }
    export = facts.get("export")
    if isinstance(export, Mapping):
        difference = export.get("mean_difference")
        data.facts["exported scene"] = str(export.get("file", ""))
        if difference is not None:
            data.facts["stock Mitsuba differs by (mean)"] = f"{float(difference):.3g}"
    data.facts |= facts.get("versions") or versions()
    return data


def _says(value: Any) -> bool:
    """Whether a fact is worth a row: not an empty table or list."""
    return value is not None and value not in ({}, [], "")


def _told(name: str, value: Any) -> str:
    if name == "samples":
        return f"{int(value):,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_told('', v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return " ".join(_told("", v) for v in value)
    return str(value)


def _timings(wall: np.ndarray, facts: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each part: what the first step takes longer than the others is compilation."""
    spent = {str(name): float(seconds) for name, seconds in (facts.get("times") or {}).items()}
    load = (
        {"load scene and pictures": spent.pop("load scene and pictures")} if "load scene and pictures" in spent else {}
    )
    steps: dict[str, float] = {}
    if len(wall) > 1:
        each = float(np.median(np.diff(wall)))
        compilation = max(0.0, float(facts.get("first_gradient") or wall[0]) - each)
        steps = {"compile (the first step, less a usual one)": compilation}
        steps |= {f"{len(wall)} steps": float(wall[-1]) - compilation, "a usual step": each}
    elif facts.get("seconds") is not None:
        steps = {"run": float(facts["seconds"])}
    if facts.get("processor_seconds"):
        spent["processor time of the steps, over all cores"] = float(facts["processor_seconds"])
    return load | steps | spent


def versions() -> dict[str, str]:
    """Versions of what made the numbers."""
    from pathtracer import __version__
    from pathtracer.runtime.versions import PINS, installed_version

    found = {"pathtracer": __version__, **{name: installed_version(name) or "absent" for name in PINS}}
    mitsuba = sys.modules.get("mitsuba")
    if mitsuba is not None and mitsuba.variant():
        found["variant"] = str(mitsuba.variant())
    return found | {"Python": platform.python_version(), "machine": platform.machine()}


def _warning(text: str) -> WarningReport:
    """`[code] message; remedy` as its parts; other sentences whole."""
    code = ""
    if text.startswith("[") and "] " in text:
        code, text = text[1:].split("] ", 1)
    message, separator, remedy = text.partition("; ")
    return WarningReport(message, code, remedy) if separator and code else WarningReport(text, code)


def _views(folder: Path) -> tuple[list[ViewReport], tuple[int, int]]:
    """The views with pictures, and the numbers of fitted and held-out ones without."""
    from pathtracer.capture import read_image, read_mask

    listing = folder / "views" / "views.json"
    if not listing.is_file():
        return [], (0, 0)
    views, without = [], [0, 0]
    for entry in _json(listing):
        place = folder / "views" / entry["folder"]
        pictures = {
            kind: read_image(place / f"{kind}.exr", sanitize=True)[0]
            for kind in ("target", "start", "result")
            if (place / f"{kind}.exr").is_file()
        }
        if "target" not in pictures:
            without[bool(entry.get("holdout"))] += 1
            continue
        mask = read_mask(place / "mask.exr") if (place / "mask.exr").is_file() else None
        views.append(
            ViewReport(
                entry["name"],
                pictures["target"],
                pictures.get("start"),
                pictures.get("result"),
                mask,
                bool(entry.get("holdout")),
                entry.get("lit"),
            )
        )
    return views, (without[0], without[1])


def _rows_so_far(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """While a run goes on only the history tells the values."""
    if not records:
        return []
    first, last = records[0], records[-1]
    newest = last.get("estimate") or last.get("values", {})
    return [{"name": n, "start": first.get("values", {}).get(n), "value": v} for n, v in newest.items()]


def _course(records: list[dict[str, Any]], name: str) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Steps and values of one unknown; the solver's running answer where it differs from what it tries."""
    rows = [(r["index"] + 1, (r.get("estimate") or {}).get(name) or r["values"].get(name)) for r in records]
    rows = [(s, v) for s, v in rows if v is not None]
    if not rows:
        return None, None
    return np.array([s for s, _ in rows]), np.array([v for _, v in rows], np.float64).reshape(len(rows), -1)


def _array(summary: Any, stored: np.ndarray | None, like: np.ndarray | None = None) -> np.ndarray:
    """The numbers of a table row; of large arrays the stored ones, else their mean."""
    if isinstance(summary, Mapping):
        if stored is not None:
            return stored
        shape = tuple(summary.get("shape", ())) if like is None else like.shape
        return np.full(shape, float(summary["mean"]))
    if summary is None:
        return np.full(like.shape if like is not None else (1,), np.nan)
    return np.asarray(summary, np.float64)


def _optional(summary: Any, like: np.ndarray, stored: np.ndarray | None) -> np.ndarray | None:
    if summary is None or isinstance(summary, Mapping):
        return stored
    return np.asarray(summary, np.float64).reshape(like.shape)


def _mask(weight: np.ndarray | None) -> np.ndarray | None:
    return None if weight is None or np.all(weight == 1) else weight


def _kind(value: np.ndarray) -> str:
    if value.ndim == 3:
        return "texture"
    return "color" if value.size == 3 else "scalar" if value.size == 1 else ""


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", path) from error
