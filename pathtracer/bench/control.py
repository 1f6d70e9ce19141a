"""The control experiment: a pose whose only evidence is a silhouette, a shadow, a reflection.

Physically based gradients recover all three. A rasteriser has neither shadows nor reflections in its image, so on the
last two its gradient is zero and it must stay where it starts: what success there would mean is that the experiment
leaks the answer.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

#: scene -> (motions that are sought, largest offset of a start along each in units of the motion)
TASKS: dict[str, tuple[tuple[str, ...], tuple[float, ...]]] = {
    "silhouette": (
        (
            "object.vertex_positions translate:x",
            "object.vertex_positions translate:y",
            "object.vertex_positions rotate:z",
        ),
        (0.25, 0.25, 0.25),
    ),
    "shadow": (("object.vertex_positions translate:x", "object.vertex_positions translate:z"), (0.15, 0.15)),
    "reflection": (("object.vertex_positions translate:x", "object.vertex_positions translate:y"), (0.25, 0.25)),
}
#: A start counts as solved when this share of its offset is left.
SOLVED = 0.2


def pose_runs(task: str, estimator: str, starts: int, steps: int, spp: int, seed: int) -> dict[str, Any]:
    """Recover the pose from each of several starts by damped Gauss-Newton steps with the estimator's own image.

    The target is path-traced for every estimator. The same random starts are used for all.

    Returns:
        errors (starts, steps + 1): distance from the truth over the distance of the start; seconds of each start.
    """
    import drjit as dr
    import mitsuba as mi

    from integrators import GradientWarning
    from pathtracer.verify import Motion
    from pathtracer.verify.estimate import Gradient
    from pathtracer.verify.subject import load_estimator, subject_of

    from .subjects import SCENES

    warnings.simplefilter("ignore", GradientWarning)
    mi.set_log_level(mi.LogLevel.Error)
    from pathtracer.scenes import Scene

    checked = subject_of(Scene.from_dict(SCENES[task]()))
    scene, params, sensor = checked.scene, checked.params, checked.sensor
    motions, reach = TASKS[task]
    target = np.mean([np.array(checked.base().render(scene, sensor, seed=seed + k, spp=512)) for k in range(4)], axis=0)
    name, integrator = load_estimator(checked, estimator)
    together = Motion.parse(" + ".join(motions))
    key = together.keys[0]
    start_values = type(params[key])(params[key])

    def move(offset: np.ndarray) -> None:
        """Put the object at an offset: one motion after the other, from where it truly is."""
        params[key] = start_values
        params.update()
        for text, amount in zip(motions, offset, strict=True):
            bound = Motion.parse(text).bind(scene, params)
            bound.apply(float(amount))
            params[key] = dr.detach(params[key])
            params.update()

    def image(offset: np.ndarray, number: int) -> np.ndarray:
        move(offset)
        with dr.suspend_grad():
            return np.array(
                integrator.render(scene, sensor, seed=dr.opaque(mi.UInt32, number), spp=spp), dtype=np.float64
            )

    rng = np.random.default_rng(seed)
    scale = np.asarray(reach)
    offsets = []
    for _ in range(starts):
        direction = rng.standard_normal(len(reach))
        direction /= np.linalg.norm(direction)
        offsets.append(direction * rng.uniform(0.5, 1.0))
    curves, seconds = [], []
    for number, start in enumerate(offsets):
        begun = time.perf_counter()
        x, damping = start.copy(), 1e-2
        common = seed + 1000 * number  # one seed for all images of a start: the loss is then a function
        residual = image(x * scale, common) - target
        errors = [1.0]
        for step in range(steps):
            columns = []
            for k, text in enumerate(motions):
                move(x * scale)
                bound = Motion.parse(text).bind(scene, params)
                if name == "finite_difference":
                    integrator.scale = bound.scale
                gradient = Gradient(bound, sensor, integrator, 1, 0)
                columns.append((gradient.gradient_image(spp, common + 7 * step + k + 1) * scale[k]).ravel())
            jacobian = np.stack(columns, axis=1)
            jacobian[~np.isfinite(jacobian)] = 0
            normal = jacobian.T @ jacobian
            floor = 1e-9 + 1e-6 * float(np.trace(normal))
            for _ in range(4):
                matrix = normal + damping * np.diag(np.diag(normal)) + floor * np.eye(len(x))
                change = -np.linalg.solve(matrix, jacobian.T @ residual.ravel())
                length = float(np.linalg.norm(change))
                change *= min(1.0, 0.4 / max(length, 1e-12))
                trial = image((x + change) * scale, common) - target
                if np.sum(trial**2) < np.sum(residual**2):
                    x, residual, damping = x + change, trial, max(0.3 * damping, 1e-3)
                    break
                damping = 5 * damping
            errors.append(float(np.linalg.norm(x) / np.linalg.norm(start)))
        curves.append(errors)
        seconds.append(time.perf_counter() - begun)
    return {"errors": np.array(curves), "seconds": seconds}


def summary(answer: dict[str, Any]) -> dict[str, Any]:
    """What the table shows of `pose_runs`."""
    errors = np.asarray(answer["errors"])
    final = errors[:, -1]
    return {
        "starts": len(final),
        "solved": int(np.sum(final < SOLVED)),
        "final": float(np.median(final)),
        "seconds": float(np.median(answer["seconds"])),
        "curve": [float(v) for v in np.median(errors, axis=0)],
        "curve_low": [float(v) for v in np.quantile(errors, 0.25, axis=0)],
        "curve_high": [float(v) for v in np.quantile(errors, 0.75, axis=0)],
    }
