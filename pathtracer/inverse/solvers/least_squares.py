"""Levenberg-Marquardt for few numbers that knows that its images are noisy.

Approach: from renders and derivative images of independent seeds follow the normal equations (`normal.py`); the step
solves them within the bounds. A step is taken unless the loss rose by more than the noise explains; the damping follows
how well the model predicted it. Where things move, the first rounds see the pictures through a Gaussian (wide, then
narrow, then none): what does not overlap has no gradient. Pixels weigh as the loss says, but not yet by their noise:
that of a start far away would silence the pixels that tell most. Strengths of lights step in the light itself, in
which the image is linear, not in its logarithm.

Refinement: as soon as steps drown in noise, the solver stops stepping and averages. With instruments Z = W J̄, an
average of derivative images, the answer solves Zᵀ (Ī - t) = 0, where Ī is the mean of all renders and ū that of their
points:

    u = ū - A⁻¹ Zᵀ (Ī - t)

Noise of J̄ does not bias this, since it is independent of the renders. Renders per round double until the noise that
they leave in every number is below what was asked for, or below half of what the observation itself leaves.

Where things move and the residual is more than noise, the end is looked at twice: across the weakest directions there
may be another minimum (`twin.py`), from which the solver starts again; it keeps the better one.

Sources: Levenberg 1944, Marquardt 1963; instruments: Reiersol 1945; covariance: White 1980 (heteroscedastic).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import UsageError
from ..sights import widths
from . import Move, normal
from .bounded_steps import Steps
from .least_squares_state import Minimum, State
from .normal import Array, Layout, Normal
from .twin import elsewhere

if TYPE_CHECKING:
    from ..linearize import Linearizer, Pair
    from ..objective import Objective

#: More numbers than this make derivative images cost more than adjoints.
MOST = 64
#: Seen through it, directions that the pictures respond to less than by this share of the most are held back: what is
#: far off shall move there, and not turn or come nearer instead because that shifts its shadow a little, too.
_HOLD = 0.1
#: A width of the blur is done with when a step takes away less than this share of the loss.
_CREEP = 0.1
_MOST_COPIES = 16
#: Within this share of the reach one linear model serves all rounds of refinement.
_BENT = 0.01
#: Rounds of refinement that derivative images are averaged over.
_COLUMNS = 6
#: Other minima that are tried at most, launches of a render that looks for one, and the first of its seeds.
_TWINS, _LOOK, _LOOKS = 3, 4, 1 << 20
#: They are good enough when their own noise adds so little to their squares.
_NOISY = 1.3


@dataclass
class LeastSquares:
    """Noise-aware Gauss-Newton for at most about 64 numbers; for squared losses and `huber`, `l1` by reweighting.

    Args:
        iterations: most rounds.
        seconds: most wall time, None for no limit.
        precision: standard error that renders may leave in a number: relative (log), of its odds (logit, times 1.5),
            of a quarter of its range (box), in half radians and half sizes of the scene (motions).
        coarse: "auto" starts with blurred pictures where things move, "never" does not, "always" does.
        stop: "auto" ends by statistics, "never" uses the whole budget, without the look for another minimum at the end.
    """

    iterations: int = 60
    seconds: float | None = None
    precision: float = 1.5e-3
    coarse: str = "auto"
    stop: str = "auto"
    name: str = field(default="least-squares", init=False)

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise UsageError(f"iterations is {self.iterations}, at least 1 was expected", where="solver")
        if not self.precision > 0:
            raise UsageError(f"precision is {self.precision}, a positive number was expected", where="solver")
        for what, value, known in (
            ("stop", self.stop, ("auto", "never")),
            ("coarse", self.coarse, ("auto", "never", "always")),
        ):
            if value not in known:
                raise UsageError(f"{what} is {value!r}, one of {', '.join(known)} was expected", where="solver")
        self._restored: dict[str, np.ndarray] | None = None
        self._state = State.at(np.zeros(0))
        self._kept: Minimum | None = None

    # -- the loop ---------------------------------------------------------------------------------------------------

    def _begin(self, objective: Objective) -> None:
        self._objective = objective
        self._problem = problem = objective.linearizer
        if problem.robust is None:
            raise UsageError(
                f"least-squares does not know the loss {problem.loss_name!r}",
                where="solver",
                remedy="use l2, relative_l2, noise_weighted, huber or l1, or the solver adam",
            )
        self._state, self._kept = State.at(objective.start), None
        self._steps = Steps(objective.lower, objective.upper, problem.linear, problem.reach)
        size = min(min(s) for s in problem.shapes)
        wide = self.coarse == "always" or (self.coarse == "auto" and bool(np.any(problem.geometry)))
        self._levels = [share * size for share in widths(size)] + [0.0] if wide else [0.0]

    def steps(self, objective: Objective) -> Iterator[Move]:
        """See the module's docstring."""
        self._begin(objective)
        if self._restored is not None:
            self._load(self._restored)
        while True:
            began = time.perf_counter()
            move = self._refine(self._problem) if self._state.refining else self._approach(self._problem)
            s = self._state  # another one than before where the kept minimum was returned to
            s.elapsed += time.perf_counter() - began
            s.step += 1
            if not move.done and (
                s.step >= self.iterations or (self.seconds is not None and s.elapsed >= self.seconds)
            ):
                move.done = "budget"
                if self._kept and not self._better(self._kept):  # on the way from one minimum to another
                    self._fall_back(self._kept, move)
            elif self._kept:  # whoever stops here gets the minimum that is known
                move.estimate = self._kept.state.answer.copy()
            yield move
            if move.done:
                return

    def _layout(self) -> Layout:
        return Layout(tuple(self._problem.shapes), self._levels[self._state.level], self._problem.tile)

    def _weight(self) -> Array:
        weight, robust = self._problem.weight, self._state.robust
        return weight * robust if robust.size else weight

    # -- approach ---------------------------------------------------------------------------------------------------

    def _approach(self, p: Linearizer) -> Move:
        s = self._state
        layout = self._layout()
        pair = p.pair(s.trial, s.step, s.copies)
        samples = pair.samples
        first = not s.a.size
        trial, taken = s.trial.copy(), True
        if not first:
            new, new_error = normal.loss(pair.a, pair.b, p.target, self._weight(), layout)
            old, old_error = normal.loss(s.a, s.b, p.target, self._weight(), layout)
            noise = float(np.hypot(new_error, old_error))
            gain, expected = old - new, s.expected
            taken = gain > -2 * noise or not np.isfinite(noise)
            if expected > 2 * noise:
                ratio = gain / expected
                s.damping = float(np.clip(s.damping * (0.2 if ratio > 0.6 else 4.0 if ratio < 0.2 else 1.0), 1e-6, 1e4))
        if taken:
            s.rejected = 0
            s.u, s.a, s.b = trial.copy(), pair.a, pair.b
            if s.step:
                p.forget_noise()  # what is noisy changes with the answer: a highlight sharpens, a lamp comes into view
            self._reweigh(p, pair)
            s.J1, spent1 = p.jacobian(s.u, s.step, 0, s.copies)
            s.J2, spent2 = p.jacobian(s.u, s.step, 1, s.copies)
            samples += spent1 + spent2
        else:
            s.rejected += 1
            s.damping = float(np.clip(s.damping * 10, 1e-2, 1e4))
        equations = self._equations(layout, s.a, s.b)
        cap = 1.5 * 0.5**s.rejected
        step = equations.step(s.damping, *self._steps.room(s.u, cap), hold=_HOLD if layout.blur else 0.0)
        s.expected = -equations.predicted(step)
        s.trial = self._steps.after(s.u, step)
        s.answer = s.u.copy()
        move = self._report(trial, pair, equations.b, samples, "" if taken else ", step taken back")
        # a fresh start elsewhere does not compare with what was before
        move.rescaled = first and self._kept is not None
        if taken or s.rejected > 4:
            self._proceed(p, equations, step)
        return move

    def _proceed(self, p: Linearizer, equations: Normal, step: Array) -> None:
        """Go to the next width, to more samples or to refinement when steps drown in noise or come to rest."""
        s = self._state
        inverse, _ = equations.inverse()
        jitter = float(np.sum(inverse * equations.noise))
        small = float(np.max(np.abs(step) / p.reach, initial=0.0)) < 0.02
        drowned = s.expected < 4 * jitter
        layout = self._layout()
        # what is held back creeps; it is free at the next width
        creeping = layout.blur > 0 and s.expected < _CREEP * normal.loss(s.a, s.b, p.target, self._weight(), layout)[0]
        if not (small or drowned or creeping or s.rejected > 4):
            return
        if s.level < len(self._levels) - 1:
            s.level += 1
            s.damping, s.rejected = min(s.damping, 1e-2), 0
            return
        spread = np.sqrt(np.clip(np.diag(inverse @ equations.noise @ inverse), 0, None)) / p.reach
        if (float(spread.max(initial=0.0)) > 0.3 or equations.inflation > 3) and s.copies < _MOST_COPIES and not small:
            s.copies *= 2
            return
        s.refining = 1
        s.answer = s.u.copy()
        s.forget()

    def _equations(self, layout: Layout, a: Array, b: Array, lean: bool = False) -> Normal:
        s, p = self._state, self._problem
        return normal.build(s.J1, s.J2, a, b, p.target, self._weight(), p.reach, layout, lean=lean)

    def _reweigh(self, p: Linearizer, pair: Pair) -> None:
        factor = p.robust(np.abs(pair.mean - p.target)) if p.robust is not None else 1.0
        self._state.robust = np.zeros(0) if np.ndim(factor) == 0 else np.asarray(factor)

    # -- refinement -------------------------------------------------------------------------------------------------

    def _refine(self, p: Linearizer) -> Move:
        s = self._state
        layout = self._layout()
        u = s.answer.copy()
        copies = min(s.copies * 2 ** (s.round // 2), _MOST_COPIES)
        pair = p.pair(u, s.step, copies)
        samples = pair.samples
        first = s.refining == 1
        if first:
            p.weigh()
            self._reweigh(p, pair)
            s.columns = 1.0
        if s.columns < _COLUMNS and (s.columns < 2 or s.inflation > _NOISY):
            # derivative images of the approach take part in the average: they are as good as new, a step away
            for half in (0, 1):
                J, spent = p.jacobian(u, s.step, half, s.copies)
                samples += spent
                mean = s.J2 if half else s.J1
                mean += (J - mean) / np.float32(s.columns + 1)
            s.columns += 1
        if not s.sum_a.size:
            s.sum_a, s.sum_b = np.zeros_like(pair.a), np.zeros_like(pair.b)
        s.sum_a += copies * pair.a
        s.sum_b += copies * pair.b
        s.sum_u += copies * u
        s.sum_w += copies
        s.refining += 1
        s.round += 1
        equations, centre = self._averaged(layout)
        # noise in the instruments costs precision in proportion; where an eigenvalue is in doubt, it costs the verdict
        s.inflation = max(equations.inflation, 2.0 if not np.all(equations.known) else 1.0)
        step = equations.step(0.0, *self._steps.room(centre, 0.5), wander=3.0)
        s.answer = self._steps.after(centre, step)
        move = self._report(u, pair, equations.b, samples, "")
        move.rescaled = first
        inverse, _ = equations.inverse()
        jitter = np.sqrt(np.clip(np.diag(inverse @ equations.renders @ inverse), 0, None))
        if np.any(np.abs(s.answer - centre) > np.maximum(_BENT * p.reach, 3 * jitter)):
            s.forget()  # farther than noise explains, and than one linear model reaches
            s.columns = 0.0
        elif self.stop == "auto" and self._precise(equations) and not self._again(p, equations, move):
            move.done = "settled"
        return move

    def _again(self, p: Linearizer, equations: Normal, move: Move) -> bool:
        """Start again at another minimum, if there may be one; of those that were reached keep the best."""
        if self._kept and not self._better(self._kept):
            self._fall_back(self._kept, move)
            return False
        self._kept, s = None, self._state
        loss, error = self._settled_loss(s, self._weight())
        if s.tried >= _TWINS or not np.any(p.geometry) or loss < 3 * error:
            return False
        u, seeds = s.answer, itertools.count(_LOOKS + 64 * s.step)
        low, high = self._steps.room(u, np.inf)

        def render(change: Array) -> Pair:
            pair = p.pair(self._steps.after(u, change), next(seeds), _LOOK)
            move.evaluation.samples += pair.samples
            return pair

        shown = dict(self._objective.images)
        J, weight = 0.5 * (s.J1 + s.J2), self._weight()
        weight = weight * normal.trust(s.J1, s.J2, weight)[:, None]
        step = elsewhere(equations, J, render, p.target, weight, p.geometry, self._layout(), low, high)
        self._objective.images.update(shown)
        if step is None:
            return False
        # compared by these weights later: for `huber` and `l1` they bound the loss from above, and meet it here
        weights = {name: np.array(w) for name, w in self._objective.weights.items()}
        self._kept = Minimum(s.copy(), self._weight(), weights)
        s.tried += 1
        s.trial = self._steps.after(u, np.clip(step, low, high))
        s.a = s.b = np.zeros((0, 0))
        s.damping, s.rejected, s.refining = 1e-3, 0, 0
        return True

    def _better(self, kept: Minimum) -> bool:
        """Whether the averages of this minimum, if there are any yet, are better than those of the kept one."""
        s = self._state
        if not (s.refining and s.sum_a.size):
            return False
        return self._settled_loss(s, kept.compare)[0] < self._settled_loss(kept.state, kept.compare)[0]

    def _settled_loss(self, s: State, weight: Array) -> tuple[float, float]:
        """Loss and its error of the averages in a state."""
        return normal.loss(s.sum_a / s.sum_w, s.sum_b / s.sum_w, self._problem.target, weight, self._layout())

    def _fall_back(self, kept: Minimum, move: Move) -> None:
        """Return to the minimum that was kept."""
        now = self._state
        self._go_to(kept)
        self._state.step, self._state.elapsed, self._state.tried = now.step, now.elapsed, _TWINS
        self._kept = None
        move.estimate = self._state.answer.copy()

    def _go_to(self, minimum: Minimum) -> None:
        from ..arrays import to_device

        self._state = minimum.state
        kind = {name: type(w) for name, w in self._objective.weights.items()}
        self._weigh_by({name: to_device(minimum.weights[name], kind[name]) for name in kind})

    def _weigh_by(self, weights: dict[str, Any]) -> None:
        self._objective.weights.update(weights)
        self._problem.forget_weight()

    def _averaged(self, layout: Layout, lean: bool = False) -> tuple[Normal, Array]:
        s = self._state
        centre = s.sum_u / s.sum_w
        return self._equations(layout, s.sum_a / s.sum_w, s.sum_b / s.sum_w, lean), centre

    def _precise(self, equations: Normal) -> bool:
        """Whether more renders would not help: their noise is below what was asked for, or below the observation's."""
        s = self._state
        if s.round < 3:
            return False
        inverse, unknown = equations.inverse(self._steps.pinned(s.answer))
        if len(unknown) and s.columns < _COLUMNS:
            return False
        own = np.clip(np.diag(inverse @ equations.renders @ inverse), 0, None)
        whole = np.clip(np.diag(inverse @ equations.spread @ inverse), 0, None)
        asked = (self.precision * self._problem.unit) ** 2
        # what does not fall with the number of samples is not the renders' noise
        limited = (own <= 0.2 * whole) & (whole > 0.75 * s.whole)
        if s.sum_w >= 2 * s.whole_at:
            s.whole, s.whole_at = whole, s.sum_w
        return bool(np.all((own <= asked) | limited))

    def _report(self, latent: Array, pair: Pair, b: Array, samples: int, remark: str) -> Move:
        from ..objective import Evaluation

        s, p = self._state, self._problem
        plain = Layout(tuple(p.shapes), 0.0, p.tile)
        value, error = normal.loss(pair.a, pair.b, p.target, p.weight, plain)
        per_view = p.per_view(pair)
        evaluation = Evaluation(value, error, 2 * b, per_view, samples, pair.bad)
        blur = self._levels[s.level]
        stage = "refinement" if s.refining > 1 else f"approach, blur {blur:.1f} px" if blur else "approach"
        return Move(latent, s.answer.copy(), evaluation, True, stage + remark, s.damping)

    # -- what is known of the answer --------------------------------------------------------------------------------

    def uncertainty(self) -> tuple[Array, Array] | None:
        """Covariance (n, n) of the answer in latent numbers and the undetermined directions (k, n); None before
        refinement."""
        if self._kept:  # stopped on the way to another minimum: of the one that was kept
            now, kept, weights = self._state, self._kept, dict(self._objective.weights)
            self._go_to(kept)
            self._kept = None
            found = self.uncertainty()
            self._state, self._kept = now, kept
            self._weigh_by(weights)
            return found
        if not self._state.sum_w:
            return None
        equations, _ = self._averaged(self._layout(), lean=True)
        inverse, unknown = equations.inverse(self._steps.pinned(self._state.answer))
        # renders at the mean point: the residual at the answer is a step away
        return equations.covariance(inverse), unknown

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, np.ndarray]:
        """All that the next step depends on."""
        kept = self._kept.pack() if self._kept else {}
        return self._state.pack() | {f"kept.{k}": v for k, v in kept.items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from `state`."""
        self._restored = dict(state)

    def _load(self, state: Mapping[str, np.ndarray]) -> None:
        own = self._state.u
        if state["u"].shape != own.shape:
            raise UsageError(f"the checkpoint holds {state['u'].size} numbers, the problem {own.size}")
        self._state = State.unpack(state)
        kept = {k.removeprefix("kept."): v for k, v in state.items() if k.startswith("kept.")}
        self._kept = Minimum.unpack(kept) if kept else None
