"""Time and reliability of the solvers, paired with a plain Mitsuba script in one run.

    python benchmarks/solvers.py [seven room four sky shadow pose joint coverage] [--quick] [--starts 16]

For every problem: from random starts, how often `pathtracer.estimate` without a setting finds the answer, and the
processor time to a *sustained* error (after which the median error of the next 20 steps stays below it; making the
problem, recording and compiling included). Against it a plain script, `prb` and `mi.ad.Adam` at 16 samples per
pixel, logarithms for emission, with the learning rate of the sweep that is best for the error in question. It runs
until it has held the strictest error for 60 steps, or for the multiple of our time that its problem names. Ratios are
of processor times, since machines are shared; one linear-algebra thread for both. `shadow` runs against the same
solver without its blurred pictures. `coverage` draws noise seeds of picture and solver and counts how often the 95 %
intervals hold the truth. `--quick` takes four starts (coverage: twenty seeds), three rates and one start of the script.

Results go to benchmarks/results/inverse-problems.json, one row a problem; rows of other problems are kept, with the
commit that they come from, unless the machine or a version has changed. `pathtracer bench publish` shows them.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import gc
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from solver_problems import Subject, seven, sky_error, subjects, sustained

from pathtracer.bench.record import RESULTS, environment, read_result, write_result

RATES, QUICK_RATES = (0.005, 0.01, 0.02, 0.05, 0.1), (0.02, 0.05, 0.1)
#: The plain script is done when it has held the strictest error for so many steps.
HELD = 60
#: Starts of a control run at most.
CONTROLS = 8
#: Points in time of the curves that are kept.
POINTS = 48
SEED = 7
#: Poses are judged in degrees and tenths of a unit.
POSE_UNITS = np.array([1.0, 1, 1, 10, 10, 10])


def load(subject: Subject) -> Any:
    """A fresh scene of the subject."""
    from pathtracer.scenes import Scene, load_scene

    made = subject.build()
    return load_scene(made) if isinstance(made, Path) else Scene.from_dict(made)


def picture(subject: Subject, spp: int, seed: int = 90210) -> np.ndarray:
    """What the subject looks like."""
    scene = load(subject)
    passes = max(1, spp // 512)
    return np.mean([scene.render(spp=min(spp, 512), seed=seed + k) for k in range(passes)], axis=0)


def truths(subject: Subject) -> list[np.ndarray]:
    """The scene's own values of what is unknown."""
    from pathtracer.inverse.arrays import as_numpy

    scene = load(subject)
    values = [as_numpy(scene.params[key]) for key, _ in subject.unknown]
    return [v[:, 1:-1] if kind == "map" else v for v, (_, kind) in zip(values, subject.unknown, strict=True)]


def worst(values: list[np.ndarray], truth: list[np.ndarray], kinds: list[str]) -> float:
    """The largest error: relative, of a map over its sphere, of poses in degrees and tenths of a unit."""
    errors = []
    for value, known, kind in zip(values, truth, kinds, strict=True):
        if kind == "map":
            errors.append(sky_error(value, known))
        elif kind == "pose":
            errors.append(float(np.abs(value * POSE_UNITS).max()))
        elif kind == "place":
            errors.append(float(np.linalg.norm(value - known) / np.linalg.norm(known)))
        else:
            errors.append(float((np.abs(value - known) / np.abs(known)).max()))
    return max(errors)


def ours(
    subject: Subject, image: np.ndarray, start: list[Any], truth: list[np.ndarray], seed: int, **options: Any
) -> dict[str, Any]:
    """One run of `pathtracer`, without a setting unless `options` has some."""
    from pathtracer.capture import View
    from pathtracer.inverse import Estimation, Parameter, Problem

    kinds = [kind for _, kind in subject.unknown]
    gc.collect()
    began = time.process_time()
    scene = load(subject)
    parameters = [
        Parameter(key, space="pose" if kind == "pose" else None, init=init)
        for (key, kind), init in zip(subject.unknown, start, strict=True)
    ]
    problem = Problem(scene, View("v", image), parameters, subject.loss, subject.estimator, spp=subject.spp)
    run = Estimation(problem, "auto", seed=seed, **options)
    course = []
    for _ in run:
        values = [u.display(x) for u, x in zip(problem.unknowns, problem.split(run.latent), strict=True)]
        course.append((time.process_time() - began, worst(values, truth, kinds)))
    return {"solver": run.choice.split(":")[0], "stopped": run.stopped, "course": course, "steps": len(course)}


def plain(
    subject: Subject, image: np.ndarray, start: list[Any], truth: list[np.ndarray], rate: float, limit: float
) -> dict[str, Any]:
    """The plain Mitsuba script."""
    import drjit as dr
    import mitsuba as mi

    kinds = [kind for _, kind in subject.unknown]
    gc.collect()
    began = time.process_time()
    scene = load(subject)
    params = scene.params
    depth = scene.default_integrator().get("max_depth", 8)
    integrator = mi.load_dict({"type": "prb", "max_depth": depth})
    target = mi.TensorXf(image.astype(np.float32))
    optimiser = mi.ad.Adam(lr=rate)
    for (key, kind), init in zip(subject.unknown, start, strict=True):
        value = np.broadcast_to(np.asarray(init, np.float32), np.array(params[key]).squeeze().shape or ())
        latent = np.log(value) if kind in ("log", "map") else value
        if kind == "map":
            optimiser[key] = mi.TensorXf(latent.astype(np.float32))
        else:
            optimiser[key] = type(params[key])(*latent.tolist()) if latent.ndim else mi.Float(float(latent))
    course: list[tuple[float, float]] = []
    step = 0
    while True:
        values = []
        for key, kind in subject.unknown:
            if kind == "unit":
                optimiser[key] = dr.clip(optimiser[key], 1e-3, 1 - 1e-3)
            params[key] = dr.exp(optimiser[key]) if kind in ("log", "map") else optimiser[key]
        params.update()
        render = mi.render(scene.mi, params, integrator=integrator, spp=16, seed=2 * step, seed_grad=2 * step + 1)
        loss = dr.mean(dr.square(render - target), axis=None)
        dr.backward(loss)
        optimiser.step()
        step += 1
        for key, kind in subject.unknown:
            found = np.array(optimiser[key], np.float64).squeeze()
            found = np.exp(found) if kind in ("log", "map") else found
            values.append(found[:, 1:-1] if kind == "map" else found)
        course.append((time.process_time() - began, worst(values, truth, kinds)))
        held = step > HELD and sustained(course[-HELD:], min(subject.levels)) == course[-HELD][0]
        if held or course[-1][0] > limit:
            return {"rate": rate, "steps": step, "course": course}


def compare(subject: Subject, starts: int, base_starts: int, rates: tuple[float, ...], report: Any) -> dict[str, Any]:
    """The row of a problem: success rate, sustained times, and the plain script's best."""
    truth = truths(subject)
    image = picture(subject, 8192)
    rng = np.random.default_rng(SEED)
    begins = [subject.start(rng, truth) for _ in range(starts)]

    def run_all(what: str, count: int, **options: Any) -> list[dict[str, Any]]:
        runs = []
        for k, begin in enumerate(begins[:count]):
            runs.append(ours(subject, image, begin, truth, seed=k, **options))
            seconds, error = runs[-1]["course"][-1]
            report(f"{subject.name} start {k}{what}: {runs[-1]['steps']} steps, {seconds:.1f} s, error {error:.4f}")
        return runs

    runs = run_all("", starts)
    row: dict[str, Any] = {
        "subject": subject.name,
        "what": subject.what,
        "solver": runs[0]["solver"],
        "starts": starts,
        "success_at": subject.success,
        "unit": subject.unit,
        **outcome(runs, subject.success),
        "levels": [],
    }
    if subject.control:
        count = min(starts, CONTROLS)
        control = outcome(run_all(" control", count, **subject.control), subject.success)
        row["control"] = {"options": subject.control, "starts": count, **control}
    if not subject.baseline:
        return row
    own = {level: [sustained(r["course"], level) for r in runs] for level in subject.levels}
    medians = {level: median(times) for level, times in own.items()}
    strict = medians[min(subject.levels)]
    limit = min(subject.limit, subject.patience * strict)
    sweep: dict[float, list[dict[str, Any]]] = {}
    for rate in rates:
        sweep[rate] = [plain(subject, image, begins[0], truth, rate, limit)]
        reached = {level: sustained(sweep[rate][0]["course"], level) for level in subject.levels}
        last = sweep[rate][0]["course"][-1]
        report(f"{subject.name} plain script at rate {rate}: {reached}, error {last[1]:.4f} after {last[0]:.1f} s")
    best = 0.0
    for level in subject.levels:
        first = {rate: sustained(found[0]["course"], level) for rate, found in sweep.items()}
        known = {rate: t for rate, t in first.items() if t is not None}
        # where no rate got there, the one that came closest
        best = min(known, key=lambda r: known[r]) if known else min(rates, key=lambda r: last_errors(sweep[r][0]))
        while len(sweep[best]) < base_starts and known:
            sweep[best].append(plain(subject, image, begins[len(sweep[best])], truth, best, limit))
        times = [sustained(found["course"], level) for found in sweep[best]]
        theirs = median(times)
        row["levels"].append(
            {
                "level": level,
                "ours": medians[level],
                "ours_reached": sum(t is not None for t in own[level]),
                "plain": theirs,
                "plain_reached": sum(t is not None for t in times),
                "plain_starts": len(times),
                "plain_rate": best,
                "plain_limit": limit,
                # a lower bound where the script was stopped before it got there
                "ratio": min(theirs, limit) / medians[level],
                "at_least": not np.isfinite(theirs),
            }
        )
        report(f"{subject.name}: {row['levels'][-1]}")
    grid = np.geomspace(0.1, limit, POINTS)
    row["times"] = grid.tolist()
    errors = np.array([resampled(r["course"], grid) for r in runs])
    for key, q in (("curve_low", 0.25), ("curve", 0.5), ("curve_high", 0.75)):
        row[key] = np.quantile(errors, q, axis=0).tolist()
    row["plain_curve"] = np.median([resampled(r["course"], grid) for r in sweep[best]], axis=0).tolist()
    return row


def outcome(runs: list[dict[str, Any]], success: float) -> dict[str, Any]:
    """How runs ended."""
    seconds, errors = np.array([r["course"][-1] for r in runs]).T
    return {
        "success": float(np.mean(errors <= success)),
        "final_error_median": float(np.median(errors)),
        "final_error_worst": float(errors.max()),
        "seconds_median": float(np.median(seconds)),
    }


def last_errors(run: dict[str, Any]) -> float:
    """Median error of the last 20 steps."""
    return float(np.median([e for _, e in run["course"][-20:]]))


def median(times: list[float | None]) -> float:
    """Median time, infinite when half of the runs never got there."""
    return float(np.median([np.inf if t is None else t for t in times]))


def resampled(course: list[tuple[float, float]], grid: np.ndarray) -> np.ndarray:
    """Errors at the times of a grid; NaN before the first step."""
    times, errors = np.array(course).T
    place = np.searchsorted(times, grid, side="right") - 1
    return np.where(place < 0, np.nan, errors[place])


def coverage(seeds: int, report: Any) -> dict[str, Any]:
    """The row of the intervals: how often they hold the truth, over noise seeds of picture and solver."""
    from pathtracer.capture import View
    from pathtracer.inverse import Estimation, Parameter, Problem

    subject = subjects()["seven"]
    subject.build = lambda: seven(16)
    known = truths(subject)
    names: list[str] = []
    scores, seconds = [], []
    for seed in range(seeds):
        image = load(subject).render(spp=128, seed=1000 + seed)
        began = time.process_time()
        scene = load(subject)
        parameters = [
            Parameter(key, init=init)
            for (key, _), init in zip(subject.unknown, ([0.5] * 3, 0.5, [10.0] * 3), strict=True)
        ]
        problem = Problem(scene, View("v", image), parameters, "noise_weighted", spp=16)
        run = Estimation(problem, "least-squares", seed=seed)
        for _ in run:
            pass
        z: list[float] = []
        names.clear()
        for row, truth in zip(run.result(pictures=False).recovered, known, strict=True):
            assert row.standard_error is not None
            z += ((row.value - truth) / row.standard_error).ravel().tolist()
            names += [row.name] if np.size(truth) == 1 else [f"{row.name} {c}" for c in "RGB"]
        scores.append(z)
        seconds.append(time.process_time() - began)
        if seed % 10 == 9:
            inside = np.abs(scores) < 1.96
            report(f"coverage after {seed + 1} seeds: {np.mean(inside):.3f}, z spread {np.std(scores):.2f}")
        gc.collect()
    inside = np.abs(scores) < 1.96
    return {
        "subject": "coverage",
        "what": "95 % intervals of seven numbers hold the truth",
        "solver": "least-squares",
        "starts": seeds,
        "coverage": float(inside.mean()),
        "each": dict(zip(names, inside.mean(axis=0).tolist(), strict=True)),
        "z_mean": np.mean(scores, axis=0).tolist(),
        "z_spread": float(np.std(scores)),
        "seconds_median": float(np.median(seconds)),
    }


def kept(path: Path, env: dict[str, Any], report: Any) -> list[dict[str, Any]]:
    """The rows of an earlier run that may stand beside new ones: same machine, same versions."""
    if not path.is_file():
        return []
    record = read_result(path)
    same = ("mitsuba", "drjit", "python", "processor", "cores", "variant")
    changed = [k for k in same if record["environment"].get(k) != env[k]]
    if changed:
        report(f"{path.name} comes from another {', '.join(changed)}: its rows are dropped")
        return []
    if record["environment"]["commit"] != env["commit"]:
        report(f"{path.name} keeps rows of another commit, each says which")
    return list(record["rows"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    known = [*subjects(), "coverage"]
    parser.add_argument("problems", nargs="*", help=f"some of {', '.join(known)}; all by default")
    parser.add_argument("--quick", action="store_true", help="few starts, one start of the plain script")
    parser.add_argument("--starts", type=int, default=16)
    parser.add_argument("--plain-starts", type=int, default=2, help="starts of the plain script at its best rate")
    parser.add_argument("--seeds", type=int, default=50, help="of coverage")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "inverse-problems.json")
    options = parser.parse_args()
    from pathtracer.runtime import activate

    env = environment(activate(), SEED)
    warnings.simplefilter("ignore")
    starts, base, rates = (4, 1, QUICK_RATES) if options.quick else (options.starts, options.plain_starts, RATES)
    began = time.process_time()

    def report(text: str) -> None:
        print(text, flush=True)

    for name in options.problems or known:
        if name not in known:
            parser.error(f"unknown problem {name!r}, one of {', '.join(known)}")
    for name in options.problems or known:
        if name == "coverage":
            row = coverage(20 if options.quick else options.seeds, report)
        else:
            row = compare(subjects()[name], starts, base, rates, report)
        # read again: another process may have measured other problems meanwhile
        rows = {r["subject"]: r for r in kept(options.output, env, report)}
        rows[name] = {**row, "size": "quick" if options.quick else "full", "commit": env["commit"]}
        report(f"{name}: {rows[name]}")
        ordered = [rows[n] for n in known if n in rows]
        size = "full" if all(r["size"] == "full" for r in ordered) else "quick"
        write_result(options.output, "inverse-problems", size, env, ordered, time.process_time() - began)


if __name__ == "__main__":
    main()
