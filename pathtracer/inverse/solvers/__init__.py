"""Solvers: generators that move a latent vector and yield what they did; they touch neither files nor the terminal.

A solver is a class with `name`, `steps(objective) -> Iterator[Move]`, and `state() / restore(state)` for checkpoints.
`SOLVERS` is the one table of them; `choose` is what "auto" means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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
    """

    latent: np.ndarray
    estimate: np.ndarray
    evaluation: Evaluation
    taken: bool = True
    stage: str = ""
    rate: float = 1.0
    done: str = ""


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


#: name -> maker.
SOLVERS: dict[str, Callable[..., Solver]] = {"adam": _adam}


def choose(objective: Objective) -> tuple[str, str]:
    """The solver that "auto" takes for a problem, and why in one line."""
    n = objective.start.size
    return "adam", f"adam: the one solver that there is so far, for {n} unknown number{'s' if n != 1 else ''}"


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
    try:
        return SOLVERS[name](**options)
    except TypeError as error:
        raise UsageError(f"{name}: {str(error).split(') ')[-1]}", where="solver") from error


__all__ = ["SOLVERS", "Move", "Solver", "choose", "make_solver"]
