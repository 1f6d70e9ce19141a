"""Where a least-squares run stands: all that its next round depends on, and the arrays of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .normal import Array


@dataclass
class State:
    """All that the next round depends on, besides the problem.

    Attributes:
        u: the last point of the approach that was taken (n,).
        trial: where its next renders are made (n,).
        answer: the estimate (n,).
        J1, J2: (n, P, C) derivative images of independent seeds.
        a, b: (P, C) independent renders at `u`; empty before the first.
        sum_a, sum_b, sum_u, sum_w: of the renders of refinement and of their points, by their number of launches.
        robust: (P, C) factors on the weights from the size of the residual; empty where there are none.
        whole, whole_at: variances (n,) of the answer at an earlier round, and `sum_w` there.
        step: rounds in all.
        round: rounds of refinement since the averages began.
        rejected: steps that were taken back in a row.
        copies: launches of a render.
        refining: rounds of refinement; 0 while the approach lasts.
        level: index of the blur.
        tried: other minima so far.
        damping: of Levenberg and Marquardt.
        elapsed: seconds.
        columns: rounds that the derivative images are averaged over.
        expected: fall of the loss that the model predicts for the step to `trial`.
        inflation: by how much noise in the derivative images adds to their squares.
    """

    u: Array
    trial: Array
    answer: Array
    J1: Array
    J2: Array
    a: Array
    b: Array
    sum_a: Array
    sum_b: Array
    sum_u: Array
    robust: Array
    whole: Array
    step: int = 0
    round: int = 0
    rejected: int = 0
    copies: int = 1
    refining: int = 0
    level: int = 0
    tried: int = 0
    damping: float = 1e-3
    elapsed: float = 0.0
    columns: float = 0.0
    sum_w: float = 0.0
    whole_at: float = 0.0
    expected: float = 0.0
    inflation: float = np.inf

    @classmethod
    def at(cls, start: Array) -> State:
        """The beginning of a run at `start` (n,)."""
        n = start.size
        J, image, total = np.zeros((n, 0, 0), np.float32), np.zeros((0, 0)), np.zeros(0)
        return cls(
            u=start.copy(),
            trial=start.copy(),
            answer=start.copy(),
            J1=J,
            J2=J,
            a=image,
            b=image,
            sum_a=total,
            sum_b=total,
            sum_u=np.zeros(n),
            robust=np.zeros(0),
            whole=np.full(n, np.inf),
        )

    def forget(self) -> None:
        """Begin the averages of refinement anew."""
        self.sum_a, self.sum_b = np.zeros(0), np.zeros(0)
        self.sum_u, self.sum_w = np.zeros_like(self.u), 0.0
        self.whole, self.whole_at = np.full(self.u.size, np.inf), 0.0
        self.round = 0

    def copy(self) -> State:
        """A state of its own arrays."""
        return State.unpack(self.pack())

    def pack(self) -> dict[str, np.ndarray]:
        """As arrays: copies of those that there are, and all whole and all real numbers as one each."""
        state: dict[str, Any] = {k: np.array(getattr(self, k)) for k in _names("Array")}
        state["counters"] = np.array([getattr(self, k) for k in _names("int")], np.int64)
        state["numbers"] = np.array([getattr(self, k) for k in _names("float")], np.float64)
        return state

    @classmethod
    def unpack(cls, state: Mapping[str, np.ndarray]) -> State:
        """From what `pack` returned."""
        values: dict[str, Any] = {k: np.array(state[k]) for k in _names("Array")}
        values |= {k: int(v) for k, v in zip(_names("int"), state["counters"], strict=True)}
        values |= {k: float(v) for k, v in zip(_names("float"), state["numbers"], strict=True)}
        return cls(**values)


def _names(kind: str) -> list[str]:
    """The attributes of one type (annotations are strings), in their order, which is that of checkpoints."""
    return [f.name for f in fields(State) if f.type == kind]


@dataclass
class Minimum:
    """A minimum that was reached, kept while another one is tried.

    Attributes:
        state: of the run there.
        compare: (P, C) weights by which the losses of the two are compared.
        weights: of the objective there, by view (H, W, C).
    """

    state: State
    compare: Array
    weights: dict[str, Array]

    def pack(self) -> dict[str, np.ndarray]:
        """As arrays."""
        return self.state.pack() | {"compare": self.compare} | {f"weights.{k}": w for k, w in self.weights.items()}

    @classmethod
    def unpack(cls, state: Mapping[str, np.ndarray]) -> Minimum:
        """From what `pack` returned."""
        weights = {k.removeprefix("weights."): w for k, w in state.items() if k.startswith("weights.")}
        return cls(State.unpack(state), state["compare"], weights)
