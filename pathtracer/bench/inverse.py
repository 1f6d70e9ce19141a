"""Inverse problems with a known answer: time to reach it, from random starts, by solver."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

#: The albedos and the light of the bundled Cornell box: twelve numbers that trade off against each other.
_SCENE = "cornell-box"
_KEYS = (
    "red.reflectance.value",
    "green.reflectance.value",
    "white.reflectance.value",
    "light.emitter.radiance.value",
)
#: What the bundled job says where the default would be another.
_OPTIONS: dict[str, dict[str, Any]] = {"adam": {"iterations": 400}}
#: Errors whose first crossing is timed.
LEVELS = (0.05, 0.01)


def solver_runs(solver: str, starts: int, seconds: float, seed: int) -> dict[str, Any]:
    """Recover the box from each of several random starts: albedos in 0.1 to 0.9, radiances up to a factor 4 off.

    Args:
        seconds: processor seconds of each start.

    Returns:
        times, errors (starts, points): processor seconds since the start (resampled), and the largest relative error of
            any of the twelve numbers in the solver's answer so far.
    """
    import pathtracer as pt
    from pathtracer.scenes.bundled import root

    warnings.simplefilter("ignore")
    rng = np.random.default_rng(seed)
    grid = np.linspace(0, seconds, 61)
    curves = []
    for number in range(starts):
        scene = pt.load_scene(root() / _SCENE / "scene.xml")
        truth = {key: np.asarray(scene.params[key], dtype=float).ravel() for key in _KEYS}
        parameters = []
        for key in _KEYS:
            light = "radiance" in key
            start = truth[key] * 4 ** rng.uniform(-1, 1, 3) if light else rng.uniform(0.1, 0.9, 3)
            parameters.append(pt.Parameter(key, init=start))
        views = pt.load_views(root() / _SCENE / "reference.exr")
        problem = pt.Problem(scene, views, parameters, loss="noise_weighted", spp=4)
        begun = time.process_time()
        when, far = [0.0], [_distance({p.key: np.asarray(p.init) for p in parameters}, truth)]
        for step in pt.Estimation(problem, solver, seed=seed + number, **_OPTIONS.get(solver, {})):
            when.append(time.process_time() - begun)
            far.append(_distance({k: np.asarray(v) for k, v in step.estimate.items()}, truth))
            if when[-1] > seconds:
                break
        # what held at each time of the grid
        curves.append(np.asarray(far)[np.searchsorted(when, grid, side="right") - 1])
    return {"times": grid, "errors": np.array(curves)}


def _distance(values: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> float:
    errors = [np.abs(np.broadcast_to(values[k].ravel(), 3) / truth[k] - 1).max() for k in truth if k in values]
    return float(max(errors))


def summary(answer: dict[str, Any]) -> dict[str, Any]:
    """Times to each level (median over the starts that reach it for good), success rates, curves with quartiles."""
    times, errors = np.asarray(answer["times"]), np.asarray(answer["errors"])
    result: dict[str, Any] = {"starts": len(errors), "times": [float(t) for t in times]}
    for level in LEVELS:
        reached = [times[1 + np.flatnonzero(e > level).max(initial=-1)] for e in errors if e[-1] <= level]
        name = f"{100 * level:g}"
        result[f"reached_{name}"] = len(reached)
        result[f"seconds_{name}"] = float(np.median(reached)) if reached else float("nan")
    result["solved"] = result["reached_5"]
    result["final"] = float(np.median(errors[:, -1]))
    for key, q in (("curve_low", 0.25), ("curve", 0.5), ("curve_high", 0.75)):
        result[key] = [float(v) for v in np.quantile(errors, q, axis=0)]
    return result
