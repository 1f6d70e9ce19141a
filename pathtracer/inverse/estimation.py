"""The step loop: owns seeds, the history, skipped steps, divergence and stopping; yields one `Step` at a time.

    run = Estimation(problem)
    for step in run:
        print(step.loss, step.estimate)
        if step.seconds > 60:
            run.stop("enough")
    result = run.result()

`estimate(problem)` is that loop without the body.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import Diverged, PathtracerError, UsageError
from .arrays import to_device
from .objective import Objective, derive_seed
from .problem import Problem
from .remarks import remarks
from .result import FEW, Recovered, Result, Step
from .sights import mean_loss
from .solvers import Move, Solver, choose, make_solver
from .stopping import exploded
from .uncertainty import Uncertainty, explain

#: So many skipped steps in a row, or a quarter of all after the first forty, end a run.
SKIP_LIMIT = 10
#: So many exploded losses in a row end a run: one may be a firefly.
EXPLODE_LIMIT = 5
#: Samples per pixel of the pictures in the result.
PICTURE_SPP = 64
_PICTURES = 0x7069


class Estimation:
    """An estimation that can be stepped, stopped and continued.

    Args:
        problem: what is to be found.
        solver: "auto", a name of `solvers.SOLVERS`, or a solver object.
        seed: decides all random numbers of the run.
        batch: views per step; 0 takes all.
        freeze: record the step program instead of tracing it at every step.
        state: checkpoint to go on from (`checkpoint()`).
        history: the steps before that checkpoint, so that the result tells of all of them.
        options: for the solver, e.g. `iterations=200`.
    Attributes:
        choice: which solver was taken and why, in one line.
        history: the steps so far.
        warnings: sentences so far.
        felt: (n,) whether the gradient was ever other than zero.
        samples: camera paths so far.
    """

    def __init__(
        self,
        problem: Problem,
        solver: str | Solver = "auto",
        *,
        seed: int = 0,
        batch: int = 0,
        freeze: bool = True,
        state: Mapping[str, np.ndarray] | None = None,
        history: Sequence[Step] = (),
        **options: Any,
    ) -> None:
        self.problem = problem
        self.objective = Objective(problem, seed=seed, batch=batch, freeze=freeze)
        if isinstance(solver, str):
            name, why = choose(self.objective, options) if solver == "auto" else (solver, f"{solver}, as asked")
            self.choice = why
            self.solver = make_solver(name, **options)
        else:
            self.choice = f"{solver.name}, as given"
            self.solver = solver
        if self.solver.name in ("least-squares", "linear-lighting") and problem.first_order:
            raise UsageError(
                f"{self.solver.name} does not know {problem.first_order}", where="solver", remedy='use "adam" or "auto"'
            )
        getattr(self.solver, "check", lambda objective: None)(self.objective)
        self.history: list[Step] = []
        self.warnings: list[str] = list(problem.scene.warnings)
        self.stopped = ""
        self._best: tuple[float, np.ndarray] | None = None
        self._estimate = self.objective.start.copy()
        self.felt = np.zeros(self._estimate.shape, dtype=bool)
        self._skipped = self._skipped_in_row = self._exploded = self.samples = 0
        self._first_gradient: float | None = None
        self._began: float | None = None
        self._cpu = 0.0
        self._before = 0.0
        self._first_loss = np.nan
        self._moves: Iterator[Move] | None = None
        if state is not None:
            self._restore(state, history)

    # -- stepping ---------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Step]:
        while not self.stopped:
            step = self.step()
            if step is None:
                return
            yield step

    def step(self) -> Step | None:
        """Take one step; None when the run is over.

        Raises:
            Diverged: too many steps without a finite gradient, or the loss exploded; `error.result` is a function that
            gives
                the best state.
        """
        if self._began is None:
            self._began, self._cpu = time.perf_counter(), time.process_time()
        if self._moves is None:
            self._moves = self.solver.steps(self.objective)
        if self.stopped:
            return None
        caught: list[warnings.WarningMessage] = []
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                move = next(self._moves, None)
        finally:
            self._note(caught)  # also when the step failed: then they are needed most
        if move is None:
            self.stopped = self.stopped or "done"
            return None
        return self._account(move)

    def stop(self, reason: str = "stopped") -> None:
        """End the run after the current step."""
        self.stopped = self.stopped or reason

    def _account(self, move: Move) -> Step:
        e = move.evaluation
        self.felt |= np.asarray(e.gradient) != 0  # NaN counts: it is reported as a skipped step
        self.samples += e.samples
        if self._first_gradient is None:
            self._first_gradient = self.seconds
        step = Step(
            index=len(self.history) + self._offset,
            seconds=self.seconds,
            loss=e.loss if e.finite else np.nan,
            loss_error=e.loss_error,
            stage=move.stage,
            rate=move.rate,
            samples=self.samples,
            left_out=e.left_out,
            skipped=list(e.faults),
            prior=e.prior,
            values=self._few(move.latent),
            gradients=self._few_latent(e.gradient),
            estimate=self._few(move.estimate),
            per_view=dict(e.per_view),
            done=move.done,
        )
        self.history.append(step)
        self._estimate = move.estimate
        self._judge(move, step)
        if move.done:
            self.stopped = move.done
        return step

    def _judge(self, move: Move, step: Step) -> None:
        if not move.taken:
            self._skipped += 1
            self._skipped_in_row += 1
            view, seed = step.skipped[0]
            if self._skipped == 1:
                self.warnings.append(
                    f"step {step.index} was skipped: the gradient of view {view!r} with seed {seed} is not finite"
                )
            steps = len(self.history) + self._offset  # `_skipped` counts earlier sessions too
            if self._skipped_in_row >= SKIP_LIMIT or (steps >= 40 and self._skipped > 0.25 * steps):
                self._diverge(
                    f"{self._skipped} of {steps} steps had gradients that are not finite, "
                    f"the last in view {view!r} with seed {seed}",
                    "look for NaN in the scene with `pathtracer validate`, or take another estimator",
                )
            return
        self._skipped_in_row = 0
        if move.rescaled:
            self._first_loss, self._best, self._exploded = np.nan, None, 0
        if np.isnan(self._first_loss):
            self._first_loss = step.loss
        best = self._best[0] if self._best is not None else step.loss
        self._exploded = self._exploded + 1 if exploded(step.loss, self._first_loss, best) else 0
        if self._exploded >= EXPLODE_LIMIT:
            self._diverge(
                f"the loss exploded from {self._first_loss:.3g} to {step.loss:.3g}", "take a smaller rate, or bounds"
            )
        # the loss at which noise would not make the state look better than it is
        score = abs(step.loss) + step.loss_error
        if self._best is None or score < self._best[0]:
            self._best = (score, move.latent.copy())

    def _diverge(self, what: str, remedy: str) -> None:
        self.stopped = "diverged"
        if self._best is not None:
            self._estimate = self._best[1]
        error = Diverged(what, remedy=remedy)
        error.result = self.result  # type: ignore[attr-defined]
        raise error

    # -- what is known so far ---------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """Wall time of the run so far, earlier sessions included."""
        return self._before + (0.0 if self._began is None else time.perf_counter() - self._began)

    @property
    def latent(self) -> np.ndarray:
        """The answer so far (n,)."""
        return self._estimate

    @property
    def values(self) -> dict[str, np.ndarray]:
        """The answer so far by scene key."""
        return self.problem.values(self._estimate)

    def result(self, pictures: bool = True, spp: int = PICTURE_SPP) -> Result:
        """The answer; writes it into the scene and renders every view before and after.

        Args:
            pictures: whether to render.
            spp: samples per pixel of the pictures.
        """
        problem = self.problem
        images: dict[str, dict[str, np.ndarray]] = {}
        losses: dict[str, float] = {}
        if pictures:
            for number, view in enumerate([*problem.fitted, *problem.heldout]):
                seeds = [derive_seed(self.objective.seed, number, k, _PICTURES) for k in range(3)]
                a = problem.render(view, self._estimate, spp // 2, seeds[0])
                b = problem.render(view, self._estimate, spp // 2, seeds[1])
                start = problem.render(view, self.objective.start, spp, seeds[2])
                t, w = view.view.image, np.asarray(view.view.weight)
                images[view.view.name] = {"target": t, "start": start, "result": 0.5 * (a + b), "weight": w}
                losses[view.view.name] = mean_loss(problem.loss, a, b, t, w)
        problem.settle(self._estimate)
        return self._assemble(images, losses, self._uncertainty())

    def snapshot(self) -> Result:
        """The answer so far, without rendering anything or touching the scene."""
        return self._assemble({}, {}, None)

    def _assemble(
        self, images: dict[str, dict[str, np.ndarray]], losses: dict[str, float], known: Uncertainty | None
    ) -> Result:
        problem = self.problem
        rows = [
            Recovered(u.name, u.keys, u.space, u.display(s), u.display(x), u.truth, measure=u.measure)
            for u, s, x in zip(
                problem.unknowns, problem.split(self.objective.start), problem.split(self._estimate), strict=True
            )
        ]
        for row, error in zip(rows, known.errors if known is not None else [], strict=False):
            row.standard_error = error
        return Result(
            values=problem.values(self._estimate),
            recovered=rows,
            history=self.history,
            warnings=list(dict.fromkeys(self.warnings + remarks(self, images) + (known.notes if known else []))),
            images=images,
            losses=losses,
            heldout=[v.view.name for v in problem.heldout],
            info={
                "solver": self.choice,
                "estimator": problem.estimator["type"],
                "loss_kind": problem.loss.name,
                "stopped": self.stopped or "not finished",
                "seconds": self.seconds,
                "processor_seconds": 0.0 if self._began is None else time.process_time() - self._cpu,
                "first_gradient": self._first_gradient,
                "recordings": self.objective.recordings,
                "split": self.objective.shares,
                "samples": self.samples,
                "views": {k: v.tolist() for k, v in problem.view_values(self._estimate).items()},
                "skipped": self._skipped,
            },
            scene=problem.scene,
        )

    def _uncertainty(self) -> Uncertainty | None:
        """Standard errors and what the images leave open, where the solver knows."""
        known = getattr(self.solver, "uncertainty", lambda: None)()
        if known is None:
            return None
        covariance, unseen, *reach = known
        large = reach[0] if reach else self.objective.linearizer.reach
        return explain(self.problem, self._estimate, covariance, unseen, large)

    def _few(self, latent: np.ndarray) -> dict[str, list[float]]:
        pairs = zip(self.problem.unknowns, self.problem.split(latent), strict=True)
        return {u.name: u.display(x).ravel().tolist() for u, x in pairs if x.size <= FEW}

    def _few_latent(self, gradient: np.ndarray) -> dict[str, list[float]]:
        pairs = zip(self.problem.unknowns, self.problem.split(gradient), strict=True)
        return {u.name: g.tolist() for u, g in pairs if g.size <= FEW}

    def _note(self, caught: list[warnings.WarningMessage]) -> None:
        for entry in caught:
            text = str(entry.message)
            if text not in self.warnings:
                self.warnings.append(text)
                warnings.warn_explicit(entry.message, entry.category, entry.filename, entry.lineno)

    # -- checkpoints ------------------------------------------------------------------------------------------------

    _offset = 0

    def checkpoint(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on, as arrays (to be written without pickle)."""
        state = {f"solver.{k}": v for k, v in self.solver.state().items()}
        state |= {f"weights.{name}": np.array(w) for name, w in self.objective.weights.items()}
        state |= {f"noise.{name}": a for name, noise in self.objective.noise.items() for a in [noise.state()]}
        state |= {f"estimator.{k}": v for k, v in self.objective.memory().items()}
        counters = [
            len(self.history) + self._offset,
            self._skipped,
            self._skipped_in_row,
            self._exploded,
            self.samples,
        ]
        state["loop.counters"] = np.array(counters, np.int64)
        best = self._best or (np.nan, self._estimate)
        state["loop.times"] = np.array([self.seconds, self._first_gradient or 0.0, self._first_loss, best[0]])
        state["loop.best"], state["loop.estimate"], state["loop.felt"] = best[1], self._estimate, self.felt
        state["loop.warnings"] = np.frombuffer(json.dumps(self.warnings).encode(), np.uint8)
        return state

    def _restore(self, state: Mapping[str, np.ndarray], history: Sequence[Step]) -> None:
        import mitsuba as mi

        try:
            self.solver.restore({k[7:]: v for k, v in state.items() if k.startswith("solver.")})
            for name in self.objective.weights:
                self.objective.weights[name] = to_device(state[f"weights.{name}"], mi.TensorXf)
                self.objective.noise[name].restore(state[f"noise.{name}"])
            self.objective.remember({k[10:]: v for k, v in state.items() if k.startswith("estimator.")})
            counters = [int(c) for c in state["loop.counters"]]
            done, self._skipped, self._skipped_in_row, self._exploded, self.samples = counters
            self.history = [step for step in history if step.index < done]
            self._offset = done - len(self.history)
            self._before, first, self._first_loss, score = (float(x) for x in state["loop.times"])
            self._first_gradient = first
            self._best = None if np.isnan(score) else (score, state["loop.best"])
            self._estimate = state["loop.estimate"]
            self.felt = np.asarray(state["loop.felt"], dtype=bool)
            told = json.loads(bytes(state["loop.warnings"]).decode())
            self.warnings = list(dict.fromkeys([*self.warnings, *told]))
        except KeyError as error:
            raise PathtracerError(f"the checkpoint lacks {error}") from error


def estimate(
    problem: Problem,
    solver: str | Solver = "auto",
    *,
    on_step: Callable[[Step], Any] | None = None,
    pictures: bool = True,
    **options: Any,
) -> Result:
    """Solve a problem.

    Args:
        problem: what is to be found.
        solver: "auto" or a name of `solvers.SOLVERS`.
        on_step: called after every step; returning False ends the run.
        pictures: whether to render the views before and after.
        options: of `Estimation` and of the solver, e.g. `seed=1, iterations=200`.
    Raises:
        Diverged: see `Estimation.step`.
    """
    run = Estimation(problem, solver, **options)
    for step in run:
        if on_step is not None and on_step(step) is False:
            run.stop("stopped by the caller")
    return run.result(pictures=pictures)
