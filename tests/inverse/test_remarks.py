"""Sentences about a run: when each is said, and when not."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pathtracer.inverse.remarks import FIRST_STEPS, remarks
from pathtracer.inverse.result import Step


def run(gradients: np.ndarray, left_out: int = 0, solver: str = "adam", held_out: float | None = None):
    """What `remarks` sees of a run with one unknown, and the pictures of its views (1 where photographed)."""
    unknown = SimpleNamespace(name="wall", lower=np.full(2, -9.0), upper=np.full(2, 9.0))
    history = [
        Step(index=k, seconds=0.0, loss=1.0, loss_error=0.1, stage="", rate=1.0, samples=100, left_out=left_out)
        for k in range(len(gradients))
    ]
    for step, g in zip(history, gradients, strict=True):
        step.gradients["wall"] = g.tolist()
    views = {name: SimpleNamespace(view=SimpleNamespace(name=name)) for name in ("a", "b")}
    problem = SimpleNamespace(
        unknowns=[unknown], split=lambda x: [x], fitted=[views["a"]], heldout=[views["b"]] if held_out else []
    )
    found = SimpleNamespace(
        problem=problem,
        history=history,
        felt=np.ones(2, bool),
        latent=np.zeros(2),
        stopped="settled",
        samples=100 * len(history),
        solver=SimpleNamespace(name=solver),
    )
    one = {"target": np.ones((2, 2, 3)), "weight": np.ones((2, 2))}
    images = {"a": {**one, "result": np.full((2, 2, 3), 1.01)}}
    if held_out:
        images["b"] = {**one, "result": np.full((2, 2, 3), 1 + held_out)}
    return remarks(found, images)


NOISE = np.random.default_rng(1).normal(size=(FIRST_STEPS, 2))


@pytest.mark.parametrize(
    "told, code",
    [
        (run(NOISE), "[gradient-noise] wall"),
        (run(NOISE + 5, left_out=3), "[non-finite] 3.0% of all samples"),
        (run(NOISE + 5, held_out=0.3), "[held-out] held-out views are off by 30.0%"),
    ],
)
def test_a_fault_is_named_once_with_a_remedy(told: list[str], code: str) -> None:
    (sentence,) = told
    assert sentence.startswith(code) and ";" in sentence


#: A gradient without a mean that is not noise: its number swings about its goal.
SWING = 20 * np.sin(np.linspace(0, 2 * np.pi, FIRST_STEPS))[:, None]


@pytest.mark.parametrize(
    "told", [run(NOISE + 5), run(NOISE + SWING), run(NOISE, solver="least-squares"), run(NOISE + 5, held_out=0.02)]
)
def test_nothing_is_said_where_nothing_is_wrong(told: list[str]) -> None:
    assert told == []
