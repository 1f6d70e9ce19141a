"""The staged Adam on noisy functions whose answer is known, without a renderer."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pathtracer.errors import UsageError
from pathtracer.inverse.objective import Evaluation, Objective
from pathtracer.inverse.solvers import make_solver
from pathtracer.inverse.solvers.adam import Adam


class NoisyBowl:
    """½ Σ c (u - answer)² with noise on value and gradient that is drawn from the step's number."""

    def __init__(self, answer: np.ndarray, curvature: np.ndarray, noise: float, faults: frozenset[int] = frozenset()):
        self.answer, self.curvature, self.noise, self.faults = answer, curvature, noise, faults
        n = answer.size
        self.start, self.rates = np.zeros(n), np.full(n, 0.1)
        self.lower, self.upper = np.full(n, -np.inf), np.full(n, np.inf)
        self.weighed = self.waits = 0
        self.widths: tuple[float, ...] = ()
        self.seen: list[float] = []
        self.tiles = None

    def weigh(self, latent: np.ndarray, step: int) -> None:
        self.weighed += 1

    def scales(self, square: np.ndarray, variant: str = "auto") -> np.ndarray:
        return np.sqrt(square)

    def blurs(self, coarse: str) -> tuple[float, ...]:
        return () if coarse == "never" else self.widths

    def blur(self, share: float) -> None:
        self.seen.append(share)

    def evaluate(self, latent: np.ndarray, step: int, spp: int | None = None) -> Evaluation:
        rng = np.random.default_rng(step)
        r = latent - self.answer
        gradient = self.curvature * r + self.noise * rng.normal(size=r.size) * np.sqrt(self.curvature)
        e = Evaluation(0.5 * float(self.curvature @ r**2) + self.noise * rng.normal(), self.noise, gradient)
        if step in self.faults:
            e.faults.append(("view", 17))
            e.gradient = np.full_like(gradient, np.nan)
        return e


def last(solver: Adam, objective: NoisyBowl):
    moves = list(solver.steps(objective))  # type: ignore[arg-type]
    return moves[-1], moves


def test_average_is_far_more_precise_than_the_iterates_that_it_averages() -> None:
    rng = np.random.default_rng(1)
    errors, spread = [], []
    for _ in range(8):
        bowl = NoisyBowl(rng.uniform(-2, 2, 10), 10 ** rng.uniform(-1, 2, 10), noise=0.05)
        move, moves = last(Adam(iterations=600), bowl)
        errors.append(np.abs(move.estimate - bowl.answer) * np.sqrt(bowl.curvature))
        early = [m for m in moves if m.stage.startswith("stage 1")][-20:]
        spread.append(np.std([m.latent for m in early], axis=0) * np.sqrt(bowl.curvature))
    # noise 0.05 per step; 100 averaged steps would leave 0.005 in the best case
    assert np.median(errors) < 0.02
    assert np.median(errors) < 0.3 * np.median(spread)


def test_it_stops_by_itself_when_nothing_moves_any_more() -> None:
    move, moves = last(Adam(iterations=2000), NoisyBowl(np.ones(6), np.ones(6), noise=0.05))
    assert move.done == "settled" and len(moves) < 600


def test_without_statistics_it_spends_the_whole_budget() -> None:
    move, moves = last(Adam(iterations=150, stop="never"), NoisyBowl(np.ones(6), np.ones(6), noise=0.05))
    assert move.done == "budget" and len(moves) == 150


def test_bounds_hold_at_every_step() -> None:
    bowl = NoisyBowl(np.full(4, 3.0), np.ones(4), noise=0.3)
    bowl.lower, bowl.upper = np.full(4, -0.5), np.full(4, 1.0)
    move, moves = last(Adam(iterations=200), bowl)
    assert all(np.all(m.latent <= 1.0) and np.all(m.latent >= -0.5) for m in moves)
    np.testing.assert_allclose(move.estimate, 1.0, atol=0.02)


def test_a_step_without_a_finite_gradient_moves_nothing() -> None:
    bowl = NoisyBowl(np.ones(3), np.ones(3), noise=0.01, faults=frozenset({5}))
    _, moves = last(Adam(iterations=60), bowl)
    assert not moves[5].taken
    np.testing.assert_array_equal(moves[5].latent, moves[6].latent)


def test_a_number_without_gradient_stays_where_it_is() -> None:
    bowl = NoisyBowl(np.ones(3), np.array([1.0, 0.0, 1.0]), noise=0.01)
    move, _ = last(Adam(iterations=60), bowl)
    assert move.estimate[1] == 0.0


def test_going_on_from_a_state_gives_the_same_bits() -> None:
    def bowl() -> NoisyBowl:
        return NoisyBowl(np.linspace(-1, 1, 5), np.geomspace(0.1, 10, 5), noise=0.05)

    whole = list(Adam(iterations=120).steps(bowl()))  # type: ignore[arg-type]
    for cut in (1, 40, 77):
        first = Adam(iterations=120)
        steps = first.steps(bowl())  # type: ignore[arg-type]
        for _ in range(cut):
            next(steps)
        state = {k: np.array(v) for k, v in first.state().items()}
        second = Adam(iterations=120)
        second.restore(state)
        rest = list(second.steps(bowl()))  # type: ignore[arg-type]
        assert len(rest) == len(whole) - cut
        np.testing.assert_array_equal(rest[-1].estimate, whole[-1].estimate)


def test_every_stage_weighs_its_pixels_anew() -> None:
    bowl = NoisyBowl(np.ones(3), np.ones(3), noise=0.05)
    last(Adam(iterations=100), bowl)
    assert bowl.weighed == 3


class Points(NoisyBowl):
    """Two points in space on a bowl whose axes are turned by `turn` (3, 3); second moments as problems have them."""

    scales = Objective.scales

    def __init__(self, turn: np.ndarray, shared: bool = False, measure: str = "points") -> None:
        super().__init__(np.zeros(6), np.ones(6), noise=0.0)
        self.turn = turn
        self.start = (np.array([[1.0, 2.0, -1.0], [0.5, -3.0, 2.0]]) @ turn.T).ravel()
        unknown = SimpleNamespace(shared=shared, measure=measure, vectors=3, space="large-steps")
        self.problem, self._pieces = SimpleNamespace(unknowns=[unknown]), [slice(0, 6)]

    def evaluate(self, latent: np.ndarray, step: int, spp: int | None = None) -> Evaluation:
        x = latent.reshape(2, 3) @ self.turn
        curvature = np.array([1.0, 10.0, 100.0])
        gradient = (x * curvature) @ self.turn.T
        return Evaluation(0.5 * float((curvature * x**2).sum()), 0.0, gradient.ravel())


def path(objective: NoisyBowl, variant: str) -> np.ndarray:
    solver = Adam(iterations=30, variant=variant, stop="never")
    return np.array([m.latent for m in solver.steps(objective)])  # type: ignore[arg-type]


def test_vector_adam_turns_with_the_axes_and_adam_does_not() -> None:
    turn = Rotation.from_rotvec([0.3, -0.8, 0.5]).as_matrix()
    gaps = {}
    for variant in ("adam", "vector"):
        straight, turned = path(Points(np.eye(3)), variant), path(Points(turn), variant)
        back = turned.reshape(-1, 2, 3) @ turn
        gaps[variant] = float(np.abs(back.reshape(straight.shape) - straight).max())
    assert gaps["vector"] < 1e-12 < 0.1 < gaps["adam"]


def test_uniform_divides_by_the_largest_second_moment_as_published() -> None:
    objective, beta1, beta2, rate = Points(np.eye(3)), 0.9, 0.9, 0.1
    u, m, v = objective.start.copy(), np.zeros(6), np.zeros(6)
    expected = []
    for step in range(1, 13):  # AdamUniform of Nicolet et al. 2021, line by line
        expected.append(u.copy())
        g = objective.evaluate(u, 0).gradient
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        u = u - rate * (m / (1 - beta1**step)) / np.sqrt((v / (1 - beta2**step)).max())
    np.testing.assert_allclose(path(objective, "uniform")[:12], expected, atol=1e-12)


def test_auto_is_uniform_for_smoothed_gradients_and_vector_for_vertices_without() -> None:
    turn = np.eye(3)
    np.testing.assert_array_equal(path(Points(turn, shared=True), "auto"), path(Points(turn), "uniform"))
    np.testing.assert_array_equal(path(Points(turn), "auto"), path(Points(turn), "vector"))
    np.testing.assert_array_equal(path(Points(turn, measure=""), "auto"), path(Points(turn), "adam"))


def test_blurred_rounds_come_first_and_take_their_share_of_the_budget_at_most() -> None:
    bowl = NoisyBowl(np.full(3, 500.0), np.ones(3), noise=0.01)  # too far off to arrive
    bowl.widths = (0.1, 0.05)
    _, moves = last(Adam(iterations=100), bowl)
    stages = [m.stage for m in moves]
    assert [stages.count(s) for s in ("blur 10 %", "blur 5 %")] == [15, 15]
    assert list(dict.fromkeys(stages))[2:] == ["stage 1/3", "stage 2/3", "stage 3/3"]
    assert bowl.seen[:2] == [0.1, 0.05] and not any(bowl.seen[2:])
    assert [k for k, m in enumerate(moves) if m.rescaled] == [15, 30]
    # a round that did not settle goes on from where it is, and its rate is the first stage's
    assert np.all(moves[15].latent > moves[14].latent) and moves[29].rate == moves[30].rate == 1.0


def test_unknown_solvers_and_options_are_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'adam'"):
        make_solver("adamm")
    with pytest.raises(UsageError, match="adam has no option 'pace', it has beta1,"):
        make_solver("adam", pace=3)
    with pytest.raises(UsageError, match="precision is for least-squares and linear-lighting"):
        make_solver("adam", precision=0.1)
    with pytest.raises(UsageError, match="did you mean 'uniform'"):
        make_solver("adam", variant="unifrom")
    with pytest.raises(UsageError, match="at least 1"):
        make_solver("adam", iterations=0)
