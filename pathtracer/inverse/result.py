"""What came out of an estimation: values, how they were reached, pictures before and after."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class Step:
    """One step of the loop, as it goes into the history.

    Attributes:
        index: number of the step, from 0.
        seconds: wall time since the start of the run.
        loss, loss_error: of this step's render and its Monte Carlo standard error.
        stage, rate: what the solver is doing.
        samples: camera paths so far.
        left_out: non-finite pixels and samples left out of this step.
        skipped: (view, seed) of each view whose gradient was not finite; then the step was not taken.
        values: name -> current value of each unknown of at most `FEW` numbers.
        gradients: name -> gradient by the latent numbers, likewise.
        estimate: name -> the solver's answer so far (an average of iterates), likewise.
        per_view: loss of each view.
        done: why the solver stops after this step.
        prior: part of the loss that priors add.
    """

    index: int
    seconds: float
    loss: float
    loss_error: float
    stage: str = ""
    rate: float = 1.0
    samples: int = 0
    left_out: int = 0
    skipped: list[tuple[str, int]] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)
    gradients: dict[str, list[float]] = field(default_factory=dict)
    estimate: dict[str, list[float]] = field(default_factory=dict)
    per_view: dict[str, float] = field(default_factory=dict)
    done: str = ""
    prior: float = 0.0

    def record(self) -> dict[str, Any]:
        """A dictionary for JSON; numbers that are not finite become None."""
        return _finite(asdict(self))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Step:
        """The step that wrote `record`."""
        known = {f.name: record[f.name] for f in fields(cls) if f.name in record}
        step = cls(**known)
        for name in ("loss", "loss_error"):
            if getattr(step, name) is None:
                setattr(step, name, float("nan"))
        step.skipped = [(view, int(seed)) for view, seed in step.skipped]
        return step


#: Unknowns with more numbers than this are left out of the history and of tables.
FEW = 16


@dataclass
class Recovered:
    """One row of the table of results.

    Attributes:
        name, keys, space: of the unknown.
        start, value: at the beginning and in the end (a pose: rotation vector in degrees, translation).
        truth: the known answer, or None.
        standard_error: of each number, None until a solver estimates it.
        measure: how far it is from the truth: see `unknowns.Unknown`.
    """

    name: str
    keys: tuple[str, ...]
    space: str
    start: np.ndarray
    value: np.ndarray
    truth: np.ndarray | None = None
    standard_error: np.ndarray | None = None
    measure: str = ""

    def errors(self, value: np.ndarray | None = None) -> dict[str, float]:
        """How far the result (or another `value`) is from the truth, by unit; empty when the truth is not known.

        Of a direction, `degrees`. Of a position, `distance` in scene units (of many, the
        largest). Of a pose both: the angle of the rotation
        that is left, and how far the object's centre is off. Of other numbers, `relative`: the largest difference
        over the true value (over 1 where that is zero).
        """
        if self.truth is None:
            return {}
        value = self.value if value is None else value
        if self.measure == "direction":
            a, b = value / np.linalg.norm(value), self.truth / np.linalg.norm(self.truth)
            return {"degrees": float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))}
        if self.measure in ("position", "points"):
            return {"distance": float(np.linalg.norm(value - self.truth, axis=-1).max())}
        if self.measure == "pose":
            from scipy.spatial.transform import Rotation

            a, b = (Rotation.from_rotvec(x[:3], degrees=True) for x in (value, self.truth))
            left = float(np.degrees((a * b.inv()).magnitude()))
            return {"degrees": left, "distance": float(np.linalg.norm(value[3:] - self.truth[3:]))}
        size = np.where(self.truth == 0, 1.0, np.abs(self.truth))
        return {"relative": float((np.abs(value - self.truth) / size).max())}

    @property
    def error(self) -> float | None:
        """The error as one number: the first of `errors`."""
        return next(iter(self.errors().values()), None)

    def error_text(self, value: np.ndarray | None = None) -> str:
        """The error of the result (or of another `value`) with its unit, "" when the truth is not known."""
        forms = {
            "degrees": lambda e: f"{e:.2g} deg",
            "distance": lambda e: f"{e:.2g} units",
            "relative": lambda e: f"{100 * e:.2f} %",
        }
        return ", ".join(forms[unit](e) for unit, e in self.errors(value).items())


@dataclass
class Result:
    """The outcome of `estimate`.

    Attributes:
        values: scene key -> recovered array, in the scene's own shape.
        standard_errors: name -> standard error, None where the solver gives none.
        recovered: one row per unknown.
        history: the steps.
        warnings: sentences.
        images: view name -> {"target", "start", "result", "weight"} as (H, W, 3) or (H, W) arrays, linear, exposed.
        losses: view name -> loss of the final render.
        heldout: names of views that were not fitted.
        info: solver and why, why it stopped, seconds to the first gradient and in all, recordings, samples, skipped
        steps.
    """

    values: dict[str, np.ndarray]
    recovered: list[Recovered]
    history: list[Step]
    warnings: list[str] = field(default_factory=list)
    images: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    heldout: list[str] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    scene: Any = None

    @property
    def standard_errors(self) -> dict[str, np.ndarray | None]:
        """Standard error of each unknown."""
        return {r.name: r.standard_error for r in self.recovered}

    def table(self) -> list[dict[str, Any]]:
        """The rows of the table of results, ready for JSON; arrays of more than 16 numbers as their mean and range."""
        return [
            {
                "name": r.name,
                "space": r.space,
                "start": _summary(r.start),
                "value": _summary(r.value),
                "truth": None if r.truth is None else _summary(r.truth),
                "error": r.error,
                "errors": r.errors(),
                "start_errors": r.errors(r.start),
                "standard_error": None if r.standard_error is None else _summary(r.standard_error),
            }
            for r in self.recovered
        ]

    def summary(self) -> dict[str, Any]:
        """All but arrays and history, ready for JSON."""
        last = self.history[-1] if self.history else None
        return _finite(
            {
                "parameters": self.table(),
                "loss": None if last is None else last.loss,
                "loss_error": None if last is None else last.loss_error,
                "losses": self.losses,
                "steps": len(self.history),
                "heldout": self.heldout,
                "warnings": self.warnings,
                **self.info,
            }
        )

    def save(self, folder: str | Path) -> Path:
        """Write `values.safetensors`, `values.json` and `history.jsonl`; returns the folder.

        Raises:
            StorageFault: it cannot be written.
        """
        from ..runs.atomic import write_bytes, write_text

        folder = Path(folder)
        write_bytes(folder / "values.safetensors", tensors(self.values))
        write_text(folder / "values.json", json.dumps(self.summary(), indent=1) + "\n")
        write_text(folder / "history.jsonl", "".join(json.dumps(s.record()) + "\n" for s in self.history))
        return folder

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><code>{html.escape(r.name)}</code></td><td>{show(r.start)}</td><td>{show(r.value)}</td>"
            f"<td>{'' if r.standard_error is None else show(r.standard_error)}</td>"
            f"<td>{'' if r.truth is None else show(r.truth)}</td><td>{r.error_text()}</td></tr>"
            for r in self.recovered
        )
        steps = len(self.history)
        return (
            "<table><thead><tr><th>parameter</th><th>start</th><th>recovered</th><th>±</th><th>truth</th><th>error</th></tr></thead>"
            f"<tbody>{rows}</tbody></table><p>{steps} steps, {self.info.get('seconds', 0):.1f} s, "
            f"{html.escape(str(self.info.get('stopped', '')))}</p>"
            + "".join(f"<p>{html.escape(w)}</p>" for w in self.warnings)
        )

    def __repr__(self) -> str:
        lines = []
        for r in self.recovered:
            error = "" if r.standard_error is None else f"± {show(r.standard_error)} "
            lines.append(f"{r.name}: {show(r.start)} -> {show(r.value)} {error}{r.error_text()}".rstrip())
        return "\n".join(lines)


def tensors(values: dict[str, np.ndarray]) -> bytes:
    """Arrays by name in the safetensors format."""
    from safetensors.numpy import save

    return bytes(save({key: np.ascontiguousarray(value) for key, value in values.items()}))


def show(array: np.ndarray) -> str:
    """A few numbers in four digits, or the size and range of many."""
    flat = np.asarray(array).ravel()
    if flat.size <= FEW:
        return " ".join(f"{x:.4g}" for x in flat)
    size = " x ".join(str(n) for n in np.shape(array))
    return f"{size}, {flat.min():.4g} to {flat.max():.4g}"


def _summary(array: np.ndarray) -> Any:
    array = np.asarray(array, np.float64)
    if array.size <= FEW:
        return array.tolist()
    return {"shape": list(array.shape), "mean": array.mean(), "min": array.min(), "max": array.max()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
