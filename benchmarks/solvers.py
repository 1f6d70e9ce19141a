"""Time and reliability of the solvers, paired with a plain Mitsuba script in one run.

    python benchmarks/solvers.py [seven room four sky pose joint coverage] [--quick] [--starts 16] [-o solvers.json]

For every problem: from random starts, how often `pathtracer.estimate` without a setting finds the answer, and the
processor time to a *sustained* error (after which the median error of the next 20 steps stays below it; making the
problem, recording and compiling included). Against it a plain script, `prb` and `mi.ad.Adam` at 16 samples per
pixel, logarithms for emission, with the learning rate of the sweep that is best for the error in question. Ratios are
of processor times, since machines are shared; one linear-algebra thread for both. `--quick` takes four starts, three
rates, one start of the plain script and stops it after 25 s.

`coverage` draws noise seeds of picture and solver and counts how often the 95 % intervals hold the truth.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import gc
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from solver_problems import Subject, sky_error, subjects, sustained

RESULTS = Path(__file__).with_name("results")
RATES = (0.005, 0.01, 0.02, 0.05, 0.1)
QUICK_RATES, QUICK_LIMIT = (0.02, 0.05, 0.1), 25.0
#: The plain script gives up after so many times our own time to the strictest error.
PATIENCE = 12.0


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
    from pathtracer.inverse.parameters import as_numpy

    scene = load(subject)
    values = [as_numpy(scene.params[key]) for key, _ in subject.unknown]
    return [v[:, 1:-1] if kind == "map" else v for v, (_, kind) in zip(values, subject.unknown, strict=True)]


def worst(values: list[np.ndarray], truth: list[np.ndarray], kinds: list[str]) -> float:
    """The largest error: relative, of a map over its sphere, of poses in degrees and units."""
    errors = []
    for value, known, kind in zip(values, truth, kinds, strict=True):
        if kind == "map":
            errors.append(sky_error(value, known))
        elif kind == "pose":
            errors.append(float(np.abs(value).max()))
        elif kind == "place":
            errors.append(float(np.linalg.norm(value - known) / np.linalg.norm(known)))
        else:
            errors.append(float((np.abs(value - known) / np.abs(known)).max()))
    return max(errors)


def ours(subject: Subject, image: np.ndarray, start: list[Any], truth: list[np.ndarray], seed: int) -> dict[str, Any]:
    """One run of `pathtracer` without a setting."""
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
    run = Estimation(problem, "auto", seed=seed)
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
        if course[-1][0] > limit:
            return {"rate": rate, "steps": step, "course": course}


def compare(subject: Subject, starts: int, base_starts: int, quick: bool, report: Any) -> dict[str, Any]:
    """Success rate, sustained times, and the plain script's best."""
    truth = truths(subject)
    image = picture(subject, 8192)
    rng = np.random.default_rng(7)
    begins = [subject.start(rng, truth) for _ in range(starts)]
    runs = []
    for k, begin in enumerate(begins):
        runs.append(ours(subject, image, begin, truth, seed=k))
        run = runs[-1]
        seconds, error = run["course"][-1]
        report(f"{subject.name} start {k}: {run['solver']}, {run['steps']} steps, {seconds:.1f} s, error {error:.4f}")
    row: dict[str, Any] = {
        "solver": runs[0]["solver"],
        "starts": starts,
        "success": sum(r["course"][-1][1] <= subject.success for r in runs) / starts,
        "success_at": subject.success,
        "final_error_median": float(np.median([r["course"][-1][1] for r in runs])),
        "final_error_worst": max(r["course"][-1][1] for r in runs),
        "seconds_median": float(np.median([r["course"][-1][0] for r in runs])),
        "levels": {},
    }
    if not subject.baseline:
        return row
    own = {level: [sustained(r["course"], level) for r in runs] for level in subject.levels}
    strict = [t for t in own[min(subject.levels)] if t is not None]
    limit = min(subject.limit, PATIENCE * float(np.median(strict))) if strict else subject.limit
    limit = min(limit, QUICK_LIMIT) if quick else limit
    sweep = {}
    for rate in QUICK_RATES if quick else RATES:
        sweep[rate] = plain(subject, image, begins[0], truth, rate, limit)
        reached = {level: sustained(sweep[rate]["course"], level) for level in subject.levels}
        report(f"{subject.name} plain script at rate {rate}: {reached}, last error {sweep[rate]['course'][-1][1]:.4f}")
    for level in subject.levels:
        times = {rate: sustained(run["course"], level) for rate, run in sweep.items()}
        known = {rate: t for rate, t in times.items() if t is not None}
        ours_time = [t if t is not None else np.inf for t in own[level]]
        entry: dict[str, Any] = {
            "ours": float(np.median(ours_time)),
            "ours_reached": sum(t is not None for t in own[level]),
            "plain_limit": limit,
        }
        if known:
            best = min(known, key=lambda r: known[r])
            others = [plain(subject, image, begins[k], truth, best, limit) for k in range(1, base_starts)]
            all_times = [known[best], *(sustained(o["course"], level) for o in others)]
            entry |= {
                "plain": float(np.median([t if t is not None else np.inf for t in all_times])),
                "plain_rate": best,
                "plain_starts": base_starts,
            }
            entry["ratio"] = entry["plain"] / entry["ours"]
        else:
            entry |= {"plain": None, "ratio_more_than": limit / entry["ours"]}
        row["levels"][str(level)] = entry
        report(f"{subject.name} at {level}: {entry}")
    return row


def coverage(seeds: int, report: Any) -> dict[str, Any]:
    """How often the 95 % intervals hold the truth, over noise seeds of picture and solver."""
    from pathtracer.capture import View
    from pathtracer.inverse import Estimation, Parameter, Problem

    subject = subjects()["seven"]
    from solver_problems import seven

    scene_values = truths(subject)
    hits, sizes = [], []
    for seed in range(seeds):
        subject.build = lambda: seven(16)
        image = load(subject).render(spp=128, seed=1000 + seed)
        scene = load(subject)
        parameters = [
            Parameter(key, init=init)
            for (key, _), init in zip(subject.unknown, ([0.5] * 3, 0.5, [10.0] * 3), strict=True)
        ]
        problem = Problem(scene, View("v", image), parameters, "noise_weighted", spp=16)
        run = Estimation(problem, "least-squares", seed=seed)
        for _ in run:
            pass
        result = run.result(pictures=False)
        inside, z = [], []
        for row, truth in zip(result.recovered, scene_values, strict=True):
            assert row.standard_error is not None
            score = ((row.value - truth) / row.standard_error).ravel()
            inside += (np.abs(score) < 1.96).tolist()
            z += score.tolist()
        hits.append(inside)
        sizes.append(z)
        if seed % 10 == 9:
            report(f"coverage after {seed + 1} seeds: {np.mean(hits):.3f}, z spread {np.std(sizes):.2f}")
        gc.collect()
    return {
        "seeds": seeds,
        "coverage": float(np.mean(hits)),
        "per_number": np.mean(hits, axis=0).tolist(),
        "z_spread": float(np.std(sizes)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    known = [*subjects(), "coverage"]
    parser.add_argument("problems", nargs="*", help=f"some of {', '.join(known)}; all by default")
    parser.add_argument("--quick", action="store_true", help="few starts, one start of the plain script")
    parser.add_argument("--starts", type=int, default=16)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "solvers.json")
    options = parser.parse_args()
    from pathtracer.runtime import activate

    variant = activate()
    chosen = options.problems or known
    starts, base = (4, 1) if options.quick else (options.starts, 3)
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    results["variant"] = variant

    def report(text: str) -> None:
        print(text, flush=True)

    for name in chosen:
        if name not in known:
            parser.error(f"unknown problem {name!r}, one of {', '.join(known)}")
        if name == "coverage":
            results[name] = coverage(20 if options.quick else options.seeds, report)
        else:
            results[name] = compare(subjects()[name], starts, base, options.quick, report)
        report(f"{name}: {json.dumps(results[name])}")
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
