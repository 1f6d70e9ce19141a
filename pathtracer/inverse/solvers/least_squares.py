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
#: A light's strength grows by at most this factor and falls by at most the other in one step.
_BRIGHTER, _DARKER = 20.0, 0.9
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
        self._problem: Linearizer | None = None
        self._kept: dict[str, np.ndarray] = {}

    # -- the loop ---------------------------------------------------------------------------------------------------

    def _begin(self, objective: Objective) -> None:
        self._objective = objective
        self._problem = problem = objective.linearizer
        n = objective.start.size
        if problem.robust is None:
            raise UsageError(
                f"least-squares does not know the loss {problem.loss_name!r}",
                where="solver",
                remedy="use l2, relative_l2, noise_weighted, huber or l1, or the solver adam",
            )
        self._u = objective.start.copy()  # where the next renders are made
        self._trial = self._u.copy()
        self._answer = self._u.copy()
        self._step = self._round = self._rejected = 0
        self._damping, self._copies = 1e-3, 1
        self._refining = 0
        self._elapsed = 0.0
        self._J1 = self._J2 = np.zeros((n, 0, 0), np.float32)
        self._columns = 0.0
        size = min(min(s) for s in problem.shapes)
        wide = self.coarse == "always" or (self.coarse == "auto" and bool(np.any(problem.geometry)))
        self._levels = [share * size for share in widths(size)] + [0.0] if wide else [0.0]
        self._level = 0
        self._a = self._b = np.zeros((0, 0))
        self._sum_a, self._sum_b, self._sum_u, self._sum_w = np.zeros(0), np.zeros(0), np.zeros(n), 0.0
        self._robust = np.zeros(0)
        self._whole, self._whole_at = np.full(n, np.inf), 0.0
        self._tried = 0
        self._kept = {}

    def steps(self, objective: Objective) -> Iterator[Move]:
        """See the module's docstring."""
        self._begin(objective)
        assert self._problem is not None
        if self._restored is not None:
            self._load(self._restored)
        while True:
            began = time.perf_counter()
            move = self._refine(self._problem) if self._refining else self._approach(self._problem)
            self._elapsed += time.perf_counter() - began
            self._step += 1
            if not move.done and (
                self._step >= self.iterations or (self.seconds is not None and self._elapsed >= self.seconds)
            ):
                move.done = "budget"
                if self._kept and not self._better():  # on the way from one minimum to another
                    self._fall_back(move)
            elif self._kept:  # whoever stops here gets the minimum that is known
                move.estimate = self._kept["answer"].copy()
            yield move
            if move.done:
                return

    def _layout(self) -> Layout:
        assert self._problem is not None
        return Layout(tuple(self._problem.shapes), self._levels[self._level], self._problem.tile)

    def _weight(self) -> Array:
        assert self._problem is not None
        weight = self._problem.weight
        return weight * self._robust if self._robust.size else weight

    def _room(self, u: Array, cap: float) -> tuple[Array, Array]:
        """Bounds of a step from u: the numbers' own, and a multiple of their reach."""
        p = self._problem
        assert p is not None
        low, high = self._objective.lower - u, self._objective.upper - u
        with np.errstate(over="ignore"):
            low = np.where(p.linear, np.maximum(np.expm1(low), -_DARKER), np.maximum(low, -cap * p.reach))
            high = np.where(
                p.linear, np.minimum(np.expm1(np.minimum(high, 50)), _BRIGHTER), np.minimum(high, cap * p.reach)
            )
        return np.minimum(low, 0), np.maximum(high, 0)

    def _move(self, u: Array, step: Array) -> Array:
        """u after a step; strengths of lights are multiplied."""
        p = self._problem
        assert p is not None
        moved = np.where(p.linear, u + np.log1p(np.where(p.linear, step, 0)), u + step)
        return np.clip(moved, self._objective.lower, self._objective.upper)

    # -- approach ---------------------------------------------------------------------------------------------------

    def _approach(self, p: Linearizer) -> Move:
        layout = self._layout()
        pair = p.pair(self._trial, self._step, self._copies)
        samples = pair.samples
        first = not self._a.size
        trial, taken = self._trial.copy(), True
        if not first:
            new, new_error = normal.loss(pair.a, pair.b, p.target, self._weight(), layout)
            old, old_error = normal.loss(self._a, self._b, p.target, self._weight(), layout)
            noise = float(np.hypot(new_error, old_error))
            gain, expected = old - new, self._expected
            taken = gain > -2 * noise or not np.isfinite(noise)
            if expected > 2 * noise:
                ratio = gain / expected
                self._damping = float(
                    np.clip(self._damping * (0.2 if ratio > 0.6 else 4.0 if ratio < 0.2 else 1.0), 1e-6, 1e4)
                )
        if taken:
            self._rejected = 0
            self._u, self._a, self._b = trial.copy(), pair.a, pair.b
            if self._step:
                p.forget_noise()  # what is noisy changes with the answer: a highlight sharpens, a lamp comes into view
            self._reweigh(p, pair)
            self._J1, spent1 = p.jacobian(self._u, self._step, 0, self._copies)
            self._J2, spent2 = p.jacobian(self._u, self._step, 1, self._copies)
            samples += spent1 + spent2
        else:
            self._rejected += 1
            self._damping = float(np.clip(self._damping * 10, 1e-2, 1e4))
        equations = self._equations(layout, self._a, self._b)
        cap = 1.5 * 0.5**self._rejected
        step = equations.step(self._damping, *self._room(self._u, cap), hold=_HOLD if layout.blur else 0.0)
        self._expected = -equations.predicted(step)
        self._trial = self._move(self._u, step)
        self._answer = self._u.copy()
        move = self._report(trial, pair, equations.b, samples, "" if taken else ", step taken back")
        move.rescaled = first and bool(self._kept)  # a fresh start elsewhere does not compare with what was before
        if taken or self._rejected > 4:
            self._proceed(p, equations, step)
        return move

    def _proceed(self, p: Linearizer, equations: Normal, step: Array) -> None:
        """Go to the next width, to more samples or to refinement when steps drown in noise or come to rest."""
        inverse, _ = equations.inverse()
        jitter = float(np.sum(inverse * equations.noise))
        small = float(np.max(np.abs(step) / p.reach, initial=0.0)) < 0.02
        drowned = self._expected < 4 * jitter
        layout = self._layout()
        # what is held back creeps; it is free at the next width
        creeping = layout.blur > 0 and self._expected < _CREEP * self._present(layout)
        if not (small or drowned or creeping or self._rejected > 4):
            return
        if self._level < len(self._levels) - 1:
            self._level += 1
            self._damping, self._rejected = min(self._damping, 1e-2), 0
            return
        spread = np.sqrt(np.clip(np.diag(inverse @ equations.noise @ inverse), 0, None)) / p.reach
        if (
            (float(spread.max(initial=0.0)) > 0.3 or equations.inflation > 3)
            and self._copies < _MOST_COPIES
            and not small
        ):
            self._copies *= 2
            return
        self._refining = 1
        self._answer = self._u.copy()
        self._forget()

    def _present(self, layout: Layout) -> float:
        p = self._problem
        assert p is not None
        return normal.loss(self._a, self._b, p.target, self._weight(), layout)[0]

    def _equations(self, layout: Layout, a: Array, b: Array, lean: bool = False) -> Normal:
        p = self._problem
        assert p is not None
        return normal.build(self._J1, self._J2, a, b, p.target, self._weight(), p.reach, layout, lean=lean)

    def _reweigh(self, p: Linearizer, pair: Pair) -> None:
        factor = p.robust(np.abs(pair.mean - p.target)) if p.robust is not None else 1.0
        self._robust = np.zeros(0) if np.ndim(factor) == 0 else np.asarray(factor)

    # -- refinement -------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._sum_a, self._sum_b = np.zeros(0), np.zeros(0)
        self._sum_u, self._sum_w = np.zeros_like(self._u), 0.0
        self._whole, self._whole_at = np.full(self._u.size, np.inf), 0.0
        self._round = 0

    def _refine(self, p: Linearizer) -> Move:
        layout = self._layout()
        u = self._answer.copy()
        copies = min(self._copies * 2 ** (self._round // 2), _MOST_COPIES)
        pair = p.pair(u, self._step, copies)
        samples = pair.samples
        first = self._refining == 1
        if first:
            p.weigh()
            self._reweigh(p, pair)
            self._columns = 1.0
        if self._columns < _COLUMNS and (self._columns < 2 or self._inflation > _NOISY):
            # derivative images of the approach take part in the average: they are as good as new, a step away
            for half in (0, 1):
                J, spent = p.jacobian(u, self._step, half, self._copies)
                samples += spent
                mean = self._J2 if half else self._J1
                mean += (J - mean) / np.float32(self._columns + 1)
            self._columns += 1
        if not self._sum_a.size:
            self._sum_a, self._sum_b = np.zeros_like(pair.a), np.zeros_like(pair.b)
        self._sum_a += copies * pair.a
        self._sum_b += copies * pair.b
        self._sum_u += copies * u
        self._sum_w += copies
        self._refining += 1
        self._round += 1
        equations, centre = self._averaged(layout)
        # noise in the instruments costs precision in proportion; where an eigenvalue is in doubt, it costs the verdict
        self._inflation = max(equations.inflation, 2.0 if not np.all(equations.known) else 1.0)
        step = equations.step(0.0, *self._room(centre, 0.5), wander=3.0)
        self._answer = self._move(centre, step)
        move = self._report(u, pair, equations.b, samples, "")
        move.rescaled = first
        inverse, _ = equations.inverse()
        jitter = np.sqrt(np.clip(np.diag(inverse @ equations.renders @ inverse), 0, None))
        if np.any(np.abs(self._answer - centre) > np.maximum(_BENT * p.reach, 3 * jitter)):
            self._forget()  # farther than noise explains, and than one linear model reaches
            self._columns = 0.0
        elif self.stop == "auto" and self._precise(equations) and not self._again(p, equations, move):
            move.done = "settled"
        return move

    def _again(self, p: Linearizer, equations: Normal, move: Move) -> bool:
        """Start again at another minimum, if there may be one; of those that were reached keep the best."""
        if self._kept and not self._better():
            self._fall_back(move)
            return False
        self._kept = {}
        loss, error = self._settled_loss(self._snapshot(), self._weight())
        if self._tried >= _TWINS or not np.any(p.geometry) or loss < 3 * error:
            return False
        u, seeds = self._answer, itertools.count(_LOOKS + 64 * self._step)
        low, high = self._room(u, np.inf)

        def render(change: Array) -> Pair:
            pair = p.pair(self._move(u, change), next(seeds), _LOOK)
            move.evaluation.samples += pair.samples
            return pair

        shown = dict(self._objective.images)
        J, weight = 0.5 * (self._J1 + self._J2), self._weight()
        weight = weight * normal.trust(self._J1, self._J2, weight)[:, None]
        step = elsewhere(equations, J, render, p.target, weight, p.geometry, self._layout(), low, high)
        self._objective.images.update(shown)
        if step is None:
            return False
        # compared by these weights later: for `huber` and `l1` they bound the loss from above, and meet it here
        weights = {f"weights.{name}": np.array(w) for name, w in self._objective.weights.items()}
        self._kept = self._snapshot() | {"compare": self._weight()} | weights
        self._tried += 1
        self._trial = self._move(u, np.clip(step, low, high))
        self._a = self._b = np.zeros((0, 0))
        self._damping, self._rejected, self._refining = 1e-3, 0, 0
        return True

    def _better(self) -> bool:
        """Whether the averages of this minimum, if there are any yet, are better than those of the kept one."""
        if not (self._refining and self._sum_a.size):
            return False
        weight = self._kept["compare"]
        return self._settled_loss(self._snapshot(), weight)[0] < self._settled_loss(self._kept, weight)[0]

    def _settled_loss(self, state: Mapping[str, np.ndarray], weight: Array) -> tuple[float, float]:
        """Loss and its error of the averages in a state."""
        p = self._problem
        assert p is not None
        w = float(state["numbers"][self._NUMBERS.index("_sum_w")])
        return normal.loss(state["sum_a"] / w, state["sum_b"] / w, p.target, weight, self._layout())

    def _fall_back(self, move: Move) -> None:
        """Return to the minimum that was kept."""
        now = self._step, self._elapsed
        self._load_kept(self._kept)
        (self._step, self._elapsed), self._kept, self._tried = now, {}, _TWINS
        move.estimate = self._answer.copy()

    def _load_kept(self, kept: Mapping[str, np.ndarray]) -> None:
        from ..arrays import to_device

        self._load(kept)
        kind = {name: type(w) for name, w in self._objective.weights.items()}
        self._weigh_by({name: to_device(kept[f"weights.{name}"], kind[name]) for name in kind})

    def _weigh_by(self, weights: dict[str, Any]) -> None:
        assert self._problem is not None
        self._objective.weights.update(weights)
        self._problem.forget_weight()

    def _averaged(self, layout: Layout, lean: bool = False) -> tuple[Normal, Array]:
        centre = self._sum_u / self._sum_w
        return self._equations(layout, self._sum_a / self._sum_w, self._sum_b / self._sum_w, lean), centre

    def _pinned(self, u: Array) -> Array:
        o = self._objective
        return (u <= o.lower + 1e-9) | (u >= o.upper - 1e-9)

    def _precise(self, equations: Normal) -> bool:
        """Whether more renders would not help: their noise is below what was asked for, or below the observation's."""
        if self._round < 3:
            return False
        inverse, unknown = equations.inverse(self._pinned(self._answer))
        if len(unknown) and self._columns < _COLUMNS:
            return False
        own = np.clip(np.diag(inverse @ equations.renders @ inverse), 0, None)
        whole = np.clip(np.diag(inverse @ equations.spread @ inverse), 0, None)
        p = self._problem
        assert p is not None
        asked = (self.precision * p.unit) ** 2
        # what does not fall with the number of samples is not the renders' noise
        limited = (own <= 0.2 * whole) & (whole > 0.75 * self._whole)
        if self._sum_w >= 2 * self._whole_at:
            self._whole, self._whole_at = whole, self._sum_w
        return bool(np.all((own <= asked) | limited))

    def _report(self, latent: Array, pair: Pair, b: Array, samples: int, remark: str) -> Move:
        from ..objective import Evaluation

        p = self._problem
        assert p is not None
        plain = Layout(tuple(p.shapes), 0.0, p.tile)
        value, error = normal.loss(pair.a, pair.b, p.target, p.weight, plain)
        per_view = p.per_view(pair)
        evaluation = Evaluation(value, error, 2 * b, per_view, samples, pair.bad)
        blur = self._levels[self._level]
        stage = "refinement" if self._refining > 1 else f"approach, blur {blur:.1f} px" if blur else "approach"
        return Move(latent, self._answer.copy(), evaluation, True, stage + remark, self._damping)

    # -- what is known of the answer --------------------------------------------------------------------------------

    def uncertainty(self) -> tuple[Array, Array] | None:
        """Covariance (n, n) of the answer in latent numbers and the undetermined directions (k, n); None before
        refinement."""
        if self._kept:  # stopped on the way to another minimum: of the one that was kept
            now, kept, weights = self._snapshot(), self._kept, dict(self._objective.weights)
            self._load_kept(kept)
            found = self.uncertainty()
            self._load(now)
            self._kept = kept
            self._weigh_by(weights)
            return found
        if not (self._problem and self._sum_w):
            return None
        layout = self._layout()
        equations, _ = self._averaged(layout, lean=True)
        inverse, unknown = equations.inverse(self._pinned(self._answer))
        # renders at the mean point: the residual at the answer is a step away
        return equations.covariance(inverse), unknown

    # -- checkpoints ------------------------------------------------------------------------------------------------

    _ARRAYS = ("_u", "_trial", "_answer", "_J1", "_J2", "_a", "_b", "_sum_a", "_sum_b", "_sum_u", "_robust", "_whole")
    _COUNTERS = ("_step", "_round", "_rejected", "_copies", "_refining", "_level", "_tried")
    _NUMBERS = ("_damping", "_elapsed", "_columns", "_sum_w", "_whole_at", "_expected", "_inflation")
    _expected, _inflation = 0.0, np.inf

    def state(self) -> dict[str, np.ndarray]:
        """All that the next step depends on."""
        return self._snapshot() | {f"kept.{k}": v for k, v in self._kept.items()}

    def _snapshot(self) -> dict[str, np.ndarray]:
        state: dict[str, Any] = {k[1:]: np.array(getattr(self, k)) for k in self._ARRAYS}
        state["counters"] = np.array([getattr(self, k) for k in self._COUNTERS], np.int64)
        state["numbers"] = np.array([getattr(self, k) for k in self._NUMBERS], np.float64)
        return state

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from `state`."""
        self._restored = dict(state)

    def _load(self, state: Mapping[str, np.ndarray]) -> None:
        if state["u"].shape != self._u.shape:
            raise UsageError(f"the checkpoint holds {state['u'].size} numbers, the problem {self._u.size}")
        for k in self._ARRAYS:
            setattr(self, k, np.array(state[k[1:]]))
        for k, value in zip(self._COUNTERS, state["counters"], strict=True):
            setattr(self, k, int(value))
        for k, value in zip(self._NUMBERS, state["numbers"], strict=True):
            setattr(self, k, float(value))
        self._kept = {k[5:]: v for k, v in state.items() if k.startswith("kept.")}
