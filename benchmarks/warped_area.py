"""warped_area: its kernel swept, its bias against the width, and both visibility estimators case by case.

    python benchmarks/warped_area.py [kernel] [width] [pairs] [--full] [-o warped-area.json]

kernel   warp_rays x warp_width on what the camera sees, warp_share on shadows, warp_pairs on both, warp_ridge: slope,
         variance x time
width    slope against the width of the kernel, extrapolated (warp_debias) and not, with the power of the bias
pairs    edge_sampling and warped_area on cases that both handle, at about equal time: slopes, agreement, efficiency

Slopes of `kernel` and `width` are against the mean of edge_sampling, which is unbiased and has far less noise than
finite differences; those of `pairs` are against finite differences. Without --full a few cases: about five minutes on
two idle cores. `pathtracer bench publish` makes tables of the result.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pathtracer.bench.agreement import agreement, slopes
from pathtracer.bench.measure import gradients, reference, score
from pathtracer.bench.record import RESULTS, environment, read_result, write_result

SEED = 0
#: Samples per pixel and replicates of a row of the sweeps.
SWEEP = {"spp": 32, "replicates": 12}
#: Processor seconds of one image of `pairs`.
EQUAL_TIME = 0.25

FILM = ("mesh-closed-turns", "sphere-moves", "cylinder-moves", "perspective-gaussian")
SHADOWS = ("shadow-area-occluder", "shadow-environment-occluder", "self-shadow-turns")
#: A box that stands on a floor: many corners, and a bias that grows with the width of the kernel.
CORNERS = "fold-box-moves"
CURVED = ("sphere-moves", "mesh-closed-turns", "disk-turns")
PAIRS = (
    "mesh-closed-turns", "sphere-moves", "disk-turns", "perspective-moves", "gaussian-filter",
    "shadow-area-occluder", "shadow-environment-occluder", "indirect-occluder",
)  # fmt: skip

Say = Callable[[str], None]
Row = dict[str, Any]


def images(subject: str, estimator: str, **options: Any) -> dict[str, Any]:
    """Gradient images of one estimator on one subject; see `measure.gradients`."""
    gc.collect()  # virtual calls look at every object of the process
    return gradients(subject, estimator, **{"seconds": EQUAL_TIME, "seed": SEED + 17, **options})


class Truth:
    """edge_sampling's answer: weights, and replicates of the number that they make of an image."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.weights = images(subject, "edge_sampling", spp=128, replicates=4, seed=SEED + 900)["images"].mean(0)
        found = images(subject, "edge_sampling", spp=256, replicates=12, seed=SEED + 500)["images"]
        self.numbers = slopes(found, self.weights)
        self.size = float(np.mean(found.mean(0) ** 2))

    def row(self, tag: str, properties: dict[str, Any], **options: Any) -> Row:
        """warped_area with some properties: slope with its error, relative variance of an image, processor seconds."""
        text = ",".join(f"{k}={str(v).lower()}" for k, v in properties.items())
        answer = images(self.subject, f"warped_area:{text}", **{**SWEEP, **options})
        found = agreement(slopes(answer["images"], self.weights), self.numbers)
        variance, seconds = float(answer["images"].var(0, ddof=1).mean()) / self.size, float(np.median(answer["cpu"]))
        return {
            "tag": tag,
            "subject": self.subject,
            "estimator": f"warped_area:{text}",
            **properties,
            "slope": found.slope,
            "error": found.error,
            "spp": answer["spp"],
            "variance": variance,
            "time_cpu": seconds,
            "cost": variance * seconds,
        }


def kernel(full: bool, say: Say) -> list[Row]:
    """Variance x time and slope over the parameters of the kernel."""
    rows = []
    for subject in FILM if full else FILM[:2]:
        truth = Truth(subject)
        for rays in (3, 4, 6, 9, 12) if full else (4, 6, 9):
            for width in (0.0625, 0.125, 0.25, 0.5, 1.0) if full else (0.0625, 0.125, 0.25):
                rows.append(truth.row("kernel", {"warp_rays": rays, "warp_width": width}))
                say(line(rows[-1]))
        rows += rings(truth, say)
        for ridge in (1e-4, 1e-3, 1e-2, 1e-1):
            rows.append(truth.row("ridge", {"warp_ridge": ridge}))
            say(line(rows[-1]))
    truth = Truth(CORNERS)
    for width in (0.125, 0.25):
        rows.append(truth.row("kernel", {"warp_rays": 6, "warp_width": width}, spp=128, replicates=24))
        say(line(rows[-1]))
    for subject in SHADOWS if full else SHADOWS[:2]:
        truth = Truth(subject)
        key = "warp_angle" if "environment" in subject else "warp_share"
        for value in (0.01, 0.02, 0.04, 0.1) if key == "warp_angle" else (0.0375, 0.075, 0.15, 0.3):
            for rays in (4, 6, 9) if full else (6,):
                rows.append(truth.row("shadows", {key: value, "warp_rays": rays}, spp=64))
                say(line(rows[-1]))
        rows += rings(truth, say, spp=64)
    return rows


def rings(truth: Truth, say: Say, **options: Any) -> list[Row]:
    """Variance x time over the number of pairs of rings."""
    rows = []
    for pairs in (1, 2, 3):
        rows.append(truth.row("rings", {"warp_pairs": pairs}, **options))
        say(line(rows[-1]))
    return rows


def width(full: bool, say: Say) -> list[Row]:
    """Bias against the width of the kernel, extrapolated and not."""
    rows = []
    for subject in CURVED if full else CURVED[:2]:
        truth = Truth(subject)
        for debias in (False, True):
            group = []
            for radius in (0.5, 1.0, 2.0, 4.0):
                # the bias that is looked for is small at small widths, where the noise is largest
                spp = (256 if full else 64) * (4 if debias and full else 1)
                options = {"spp": spp, "replicates": 16 if full else 8}
                group.append(truth.row("width", {"warp_width": radius, "warp_debias": debias}, **options))
                say(line(group[-1]))
            power, error = growth(group)
            rows += [{**row, "power": power, "power_error": error} for row in group]
            say(f"  bias grows with power {power:.2f} ± {error:.2f} of the width")
    return rows


def growth(rows: list[Row]) -> tuple[float, float]:
    """Power of the bias over widths and its standard error; NaN where fewer than two biases are beyond 3 errors."""
    seen = [r for r in rows if abs(r["slope"] - 1) > 3 * r["error"]]
    if len(seen) < 2:
        return float("nan"), float("nan")
    x = np.log([r["warp_width"] for r in seen])
    bias = np.array([r["slope"] - 1 for r in seen])
    y, σ = np.log(np.abs(bias)), np.array([r["error"] for r in seen]) / np.abs(bias)
    w = σ**-2.0
    centred = x - np.sum(w * x) / np.sum(w)
    return float(np.sum(w * centred * y) / np.sum(w * centred**2)), float(np.sum(w * centred**2) ** -0.5)


def shared_cases() -> list[str]:
    """Cases whose derivative has a visibility part that both estimators handle."""
    from integrators import ESTIMATORS
    from pathtracer.verify.catalogue import CASES, EXCEPTIONS

    both = ESTIMATORS["edge_sampling"].handles & ESTIMATORS["warped_area"].handles
    cases = [case for case in CASES if case.needs <= both and case.needs - {"interior"}]
    return [case.id for case in cases if ("warped_area", case.id) not in EXCEPTIONS]


def pairs(full: bool, say: Say, subjects: list[str] | None = None) -> list[Row]:
    """Both estimators at about equal time; `subjects` instead of those of the size."""
    rows = []
    shared = shared_cases()
    for subject in subjects or (shared if full else PAIRS):
        gc.collect()
        truth = reference(subject, spp=1024 if full else 512, seed=SEED)
        answers = {}
        for name in ("edge_sampling", "warped_area"):
            answers[name] = images(subject, name, seconds=EQUAL_TIME * (4 if full else 1), replicates=16)
            found = score(answers[name], truth)
            rows.append({"tag": "pairs", "subject": subject, "estimator": name, **found, "spp": answers[name]["spp"]})
        a, b = (slopes(answers[name]["images"], truth["pilot"]) for name in ("warped_area", "edge_sampling"))
        found = agreement(a, b, comparisons=len(shared))
        rows[-1].update(
            ratio=found.slope,
            ratio_error=found.error,
            limit=found.limit,
            agrees=found.agrees,
            comparisons=len(shared),
        )
        edges, warp = rows[-2:]
        say(
            f"{subject}: edge_sampling {edges['slope']:.3f}, warped_area {warp['slope']:.3f}, "
            f"ratio {found.slope:.3f} ± {found.error:.3f} ({found.distance:.1f} of {found.limit:.1f} errors), "
            f"efficiency {edges['efficiency_cpu'] / warp['efficiency_cpu']:.3g} times"
        )
    agreed = sum(bool(r.get("agrees")) for r in rows)
    say(f"{agreed} of {len(rows) // 2} cases agree, at 95 % confidence for all {len(shared)} that both handle together")
    return rows


def line(row: Row) -> str:
    """A row in words."""
    return (
        f"{row['subject']} {row['estimator']}: slope {row['slope']:.3f} ± {row['error']:.3f}, "
        f"variance x time {row['cost']:.3g} ({row['time_cpu']:.2f} s)"
    )


PARTS = {"kernel": kernel, "width": width, "pairs": pairs}
TAGS = {"kernel": ("kernel", "rings", "ridge", "shadows"), "width": ("width",), "pairs": ("pairs",)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all by default")
    parser.add_argument("--cases", nargs="*", help="of `pairs`: these instead; others keep their rows")
    parser.add_argument("--full", action="store_true", help="more cases and samples: about an hour")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "warped-area.json")
    options = parser.parse_args()
    from pathtracer.runtime import activate

    env = environment(activate(), SEED)
    began = time.perf_counter()
    rows: list[Row] = []
    asked = options.parts or list(PARTS)
    if options.output.is_file():  # parts that are not asked for keep their rows, each with its commit
        others = [tag for part in PARTS if part not in asked for tag in TAGS[part]]
        rows = [
            row
            for row in read_result(options.output)["rows"]
            if row["tag"] in others or (row["tag"] == "pairs" and options.cases and row["subject"] not in options.cases)
        ]
    more = {"pairs": {"subjects": options.cases}}
    for part in asked:
        found = PARTS[part](options.full, lambda text: print(text, flush=True), **more.get(part, {}))
        rows += [{**row, "commit": env["commit"], "size": "full" if options.full else "quick"} for row in found]
        size = "full" if all(row["size"] == "full" for row in rows) else "quick"
        write_result(options.output, "warped-area", size, env, rows, time.perf_counter() - began)


if __name__ == "__main__":
    main()
