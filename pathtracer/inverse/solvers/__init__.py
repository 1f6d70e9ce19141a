"""Solvers: generators that move a latent vector and yield what they did; they touch neither files nor the terminal.

A solver is a class with `name`, `steps(objective) -> Iterator[Move]`, and `state() / restore(state)` for checkpoints.
`SOLVERS` is the one table of them; `choose` is what "auto" means.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...errors import UsageError, nearest_names

if TYPE_CHECKING:
    from ..objective import Evaluation, Objective


@dataclass
class Move:
    """One step of a solver.

    Attributes:
        latent: where loss and gradient were evaluated (n,).
        estimate: the solver's answer so far (n,): an average when iterates are noisy.
        evaluation: loss and gradient there.
        taken: False when the step was skipped.
        stage: what the solver is doing, in a word or two.
        rate: factor on the latent step sizes.
        done: why the solver stops after this step, "" while it goes on.
        rescaled: the loss does not compare with those of earlier steps: pixels weigh anew, or the solver starts again.
    """

    latent: np.ndarray
    estimate: np.ndarray
    evaluation: Evaluation
    taken: bool = True
    stage: str = ""
    rate: float = 1.0
    done: str = ""
    rescaled: bool = False


class Solver(Protocol):
    """What every solver offers."""

    name: str

    def steps(self, objective: Objective) -> Iterator[Move]:
        """Go on until the answer is found or the caller stops."""

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on, as arrays."""

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a `state()`; before `steps`."""


def _adam(**options: Any) -> Solver:
    from .adam import Adam

    return Adam(**options)


def _large_steps(**options: Any) -> Solver:
    from .adam import LargeSteps

    return LargeSteps(**options)


def _least_squares(**options: Any) -> Solver:
    from .least_squares import LeastSquares

    return LeastSquares(**options)


def _linear_lighting(**options: Any) -> Solver:
    from .linear_lighting import LinearLighting

    return LinearLighting(**options)


#: Losses that least-squares minimises: squares, and what becomes squares by reweighting.
SQUARES = ("l2", "relative_l2", "noise_weighted", "huber", "l1")
#: name -> maker.
SOLVERS: dict[str, Callable[..., Solver]] = {
    "adam": _adam,
    "large-steps": _large_steps,
    "least-squares": _least_squares,
    "linear-lighting": _linear_lighting,
}


def choose(objective: Objective, options: Collection[str] = ()) -> tuple[str, str]:
    """The solver that "auto" takes for a problem, and why in one line.

    Args:
        objective: the problem.
        options: names of the options that were set: a solver that does not know one is not taken.
    """
    from .least_squares import MOST
    from .linear_lighting import suits

    if objective.problem.first_order:
        return "adam", f"adam: {objective.problem.first_order} are for first-order solvers"
    n = objective.start.size
    numbers = f"{n} unknown number{'s' if n != 1 else ''}"
    loss = objective.problem.loss.name
    if not objective.batch and not set(options) - _options("linear-lighting") and not suits(objective):
        return (
            "linear-lighting",
            f"linear-lighting: {numbers}, all of them strengths of lights: the image is linear in them",
        )
    if n > MOST:
        return "adam", f"adam: {numbers} are more than the {MOST} up to which derivative images pay"
    if loss not in SQUARES:
        return "adam", f"adam: the loss {loss} is none that least-squares minimises ({', '.join(SQUARES)})"
    if objective.batch:
        return "adam", f"adam: {numbers}, but only some of the views in a step"
    foreign = sorted(set(options) - _options("least-squares"))
    if foreign:
        return "adam", f"adam: the option{'s' if len(foreign) > 1 else ''} {', '.join(foreign)} is one of its own"
    return "least-squares", f"least-squares: {numbers}, at most {MOST}, and a loss that sums squares"


def _options(name: str) -> set[str]:
    return {f.name for f in fields(SOLVERS[name]()) if f.init}  # type: ignore[arg-type]


def make_solver(name: str, **options: Any) -> Solver:
    """The solver called `name`.

    Raises:
        UsageError: unknown name or option.
    """
    if name not in SOLVERS:
        raise UsageError(
            f"unknown solver {name!r}, one of auto, {', '.join(SOLVERS)}",
            where="solver",
            nearest=nearest_names(name, ["auto", *SOLVERS]),
        )
    known = _options(name)
    for option in options:
        if option not in known:
            others = [other for other in SOLVERS if option in _options(other)]
            raise UsageError(
                f"{name} has no option {option!r}, it has {', '.join(sorted(known))}",
                where="solver",
                nearest=nearest_names(option, known),
                remedy=f"{option} is for {' and '.join(others)}" if others else None,
            )
    return SOLVERS[name](**options)


__all__ = ["SOLVERS", "SQUARES", "Move", "Solver", "choose", "make_solver"]
