"""What a result is told with besides its numbers: sentences with a code, what was seen, and a remedy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .estimation import Estimation

#: More than this share of samples that are not finite is a fault.
MANY_LEFT_OUT = 0.01
#: Gradients of so many first steps are compared with their scatter.
FIRST_STEPS = 12
#: Squared errors of held-out views may be so many times those of the fitted ones, ...
WORSE = 4.0
#: ... or this share of the photograph's own square.
VISIBLE = 1e-3
Images = Mapping[str, Mapping[str, np.ndarray]]


def remarks(run: Estimation, images: Images) -> list[str]:
    """All that is to be said of a run.

    Args:
        images: of each view, as in `Result.images`; empty where nothing was rendered.
    """
    found = [*_zero_gradients(run), *_bounds(run)]
    if run.history and run.stopped == "budget" and getattr(run.solver, "stop", "auto") == "auto":
        found.append(
            "[budget] the budget ended before the loss and the gradients were at rest; raise `iterations` or "
            "`seconds` in [solver] if the result matters to its last digits"
        )
    return [*found, *_drowned(run), *_left_out(run), *_held_out(run, images)]


def _zero_gradients(run: Estimation) -> list[str]:
    return [
        f"[zero-gradient] {unknown.name}: its gradient was zero in every step: the value is where it "
        f"started; no view shows what it changes, or the estimator cannot see it (`pathtracer check`)"
        for unknown, felt in zip(run.problem.unknowns, run.problem.split(run.felt), strict=True)
        if run.history and not np.any(felt)
    ]


def _bounds(run: Estimation) -> list[str]:
    found = []
    for unknown, piece in zip(run.problem.unknowns, run.problem.split(run.latent), strict=True):
        tight = np.isclose(piece, unknown.lower, atol=1e-6) | np.isclose(piece, unknown.upper, atol=1e-6)
        if np.any(tight):
            found.append(
                f"[bound] {unknown.name}: {int(tight.sum())} of {tight.size} numbers ended on a bound; widen "
                f"`bounds` if values beyond it are possible, else take it that the images ask for more than the "
                f"scene can give"
            )
    return found


def _drowned(run: Estimation) -> list[str]:
    """Unknowns whose gradient was smaller than its noise from the first steps on.

    Noise is what differs from one step to the next (von Neumann's estimate of a variance), and the square of the
    gradient itself the mean product of two that follow each other, whose noises are independent. Over all steps, a
    gradient that changes sign because the unknown passes its goal would look like noise.
    """
    first = [step for step in run.history if step.index < FIRST_STEPS and not step.skipped]
    if run.solver.name not in ("adam", "large-steps") or len(first) < FIRST_STEPS // 2:
        return []
    names = []
    for unknown in run.problem.unknowns:
        g = np.array([step.gradients.get(unknown.name, []) for step in first])
        if g.size and np.any(g):
            noise, square = np.mean(np.diff(g, axis=0) ** 2, axis=0) / 2, np.mean(g[1:] * g[:-1], axis=0)
            if np.all(square < noise):
                names.append(unknown.name)
    if not names:
        return []
    return [
        f"[gradient-noise] {', '.join(names)}: the gradient was smaller than its noise from the start; unless it "
        f"started at the answer, raise `spp` in [estimator], or take an estimator with less noise there"
    ]


def _left_out(run: Estimation) -> list[str]:
    total = sum(step.left_out for step in run.history)
    share = total / max(run.samples, 1)
    if share > MANY_LEFT_OUT:
        return [
            f"[non-finite] {share:.1%} of all samples were not finite and left out: what they would have shown is "
            f"missing from the result; look for NaN in the scene with `pathtracer validate`, or take another "
            f"estimator"
        ]
    if total:
        return [
            f"[left-out] {total} non-finite pixels and samples were left out in {len(run.history)} steps; a few "
            f"are harmless, many point to a degenerate scene (`pathtracer validate`)"
        ]
    return []


def _held_out(run: Estimation, images: Images) -> list[str]:
    """Whether views that were not fitted look much worse than those that were."""
    errors = {name: _error(image) for name, image in images.items()}
    fitted = [errors[v.view.name] for v in run.problem.fitted if v.view.name in errors]
    others = [errors[v.view.name] for v in run.problem.heldout if v.view.name in errors]
    if not fitted or not others or np.mean(others) < max(WORSE * float(np.mean(fitted)), VISIBLE):
        return []
    return [
        f"[held-out] held-out views are off by {np.sqrt(np.mean(others)):.1%} of their brightness, fitted ones by "
        f"{np.sqrt(np.mean(fitted)):.1%}: the answer explains its pictures better than the scene; add views or a "
        f"prior, or take out unknowns"
    ]


def _error(image: Mapping[str, np.ndarray]) -> float:
    """Mean square of a picture's error over that of the photograph."""
    weight = image["weight"][..., None]
    target = image["target"]
    return float((weight * (image["result"] - target) ** 2).sum() / max((weight * target**2).sum(), 1e-30))
