"""Adam in stages, with averaging: first fast, then precise.

Adam (Kingma and Ba 2015) moves every latent number by about its rate per step, whatever the gradient's scale, and never
comes to rest on a noisy gradient. So it runs in stages. In each the rate is constant until statistics say that nothing
moves any more (the loss is flat and the gradients only scatter around zero, see `stopping.py`) or the stage's share of
the budget is spent; then the rate drops, and the noise with it. The answer is the average of the later iterates of a
stage (Polyak and Juditsky 1992), whose noise falls with their number.

Where bodies, cameras or lights move, some rounds come before the stages in which the pictures are seen through a
Gaussian, wide, then narrower (`sights.py`): a shadow that does not overlap the photographed one has no gradient to go
there by, its blurred picture has. A round ends as a stage does. After them nothing is blurred, so the answer is that of
the exact gradient.

The second moment forgets within about ten steps: gradients shrink by orders of magnitude on the way, and a long memory
of the large ones at the start would stop the small ones (a wall's colour) while the large one (the lamp) settles.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...errors import UsageError, nearest_names
from ..stopping import gradients_balance, is_flat
from . import Move

if TYPE_CHECKING:
    from ..objective import Evaluation, Objective

#: What may share a second moment.
VARIANTS = ("auto", "adam", "uniform", "vector")
#: When blurred pictures come first.
COARSE = ("auto", "never", "always")
#: Share of the budget that blurred rounds may take, each as much.
_COARSE = 0.3
#: Each stage's share of the budget, counted from the end of the blurred rounds.
_SHARES = (0.5, 0.75, 1.0)
#: Tests need so many steps of a stage; the last one averages longer, as its length decides how precise the answer is.
_SHORTEST = (24, 24, 72)
#: Gradients kept for the tests.
_WINDOW = 200
#: The average forgets the early iterates of a stage: the weight of iterate k falls as (k / t)^3.
_TAIL = 3
#: Latent vectors larger than this are tested on a fixed random subset of their numbers.
_TESTED = 4096


@dataclass
class Adam:
    """First-order solver for any number of unknowns.

    Args:
        iterations: most steps.
        seconds: most wall time of the steps, None for no limit.
        rate: factor on the latent step sizes of all parameters.
        decay: factor on the rate from stage to stage.
        beta1, beta2: memory of the first and second moment.
        stop: "auto" ends stages by statistics, "never" uses the whole budget.
        variant: what shares a second moment: "adam" nothing, "uniform" all numbers of an unknown, "vector" the
            components of a vector in space; "auto" takes what suits each unknown (`Objective.scales`).
        coarse: "auto" starts with blurred pictures where bodies, cameras or lights move, "always" does so in any case,
            "never" does not.
        tiles: tiles of the pictures rendered in a step; 0 renders all pixels. Blurred rounds see whole pictures.
        tile_size: their side in pixels.
        focus: share of the tiles that are drawn where gradients were large (`tiles.py`).
    """

    iterations: int = 400
    seconds: float | None = None
    rate: float = 1.0
    decay: float = 0.3
    beta1: float = 0.9
    beta2: float = 0.9
    stop: str = "auto"
    variant: str = "auto"
    coarse: str = "auto"
    tiles: int = 0
    tile_size: int = 64
    focus: float = 0.8
    name: str = field(default="adam", init=False)

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise UsageError(f"iterations is {self.iterations}, at least 1 was expected", where="solver")
        if self.tiles < 0 or self.tile_size < 1:
            raise UsageError(
                f"tiles is {self.tiles} and tile_size {self.tile_size}, at least 0 and 1 were expected", where="solver"
            )
        shares = (("beta1", self.beta1), ("beta2", self.beta2), ("decay", self.decay), ("focus", self.focus))
        for what, value in shares:
            if not 0 <= value < 1:
                raise UsageError(f"{what} is {value}, a number in [0, 1) was expected", where="solver")
        if self.stop not in ("auto", "never"):
            raise UsageError(f"stop is {self.stop!r}, 'auto' or 'never' was expected", where="solver")
        for what, given, known in (("variant", self.variant, VARIANTS), ("coarse", self.coarse, COARSE)):
            if given not in known:
                raise UsageError(
                    f"{what} is {given!r}, one of {', '.join(known)} was expected",
                    where="solver",
                    nearest=nearest_names(given, known),
                )
        self._restored: dict[str, np.ndarray] | None = None

    def check(self, objective: Objective) -> None:
        """Cut the pictures into tiles where that was asked for.

        Raises:
            UsageError: a loss or a camera that cannot be cut.
        """
        if self.tiles:
            from ..tiles import Tiles

            objective.tiles = Tiles(objective.problem, self.tiles, self.tile_size, self.focus)

    def _begin(self, objective: Objective) -> None:
        if objective.tiles is None:
            self.check(objective)
        self._tiles = objective.tiles
        n = objective.start.size
        self._u = objective.start.copy()
        self._mean, self._square = np.zeros(n), np.zeros(n)
        self._average = self._u.copy()
        self._blurs = objective.blurs(self.coarse)
        rounds = len(self._blurs)
        self._ends = [_COARSE * (k + 1) / rounds for k in range(rounds)]
        spent = _COARSE if rounds else 0.0
        self._ends += [spent + (1 - spent) * share for share in _SHARES]
        self._step = self._stage = self._updates = self._in_stage = self._averaged = 0
        self._losses: list[float] = []
        self._gradients: list[np.ndarray] = []
        self._elapsed = 0.0

    def steps(self, objective: Objective) -> Iterator[Move]:
        """See the module's docstring."""
        self._begin(objective)
        rng = np.random.default_rng(0)
        n = objective.start.size
        self._tested = np.arange(n) if n <= _TESTED else np.sort(rng.choice(n, _TESTED, replace=False))
        if self._restored is not None:
            self._load(self._restored)
        objective.blur(self._width)
        if self._restored is None:
            objective.weigh(self._u, 0)
        while True:
            began = time.perf_counter()
            evaluation = objective.evaluate(self._u, self._step)
            latent = self._u.copy()
            # losses of pictures seen in two ways do not compare
            rescaled = self._in_stage == 0 and 0 < self._stage <= len(self._blurs)
            # nor do those of different tiles: of a black background alone the loss is 0
            rescaled |= self._tiles is not None and not self._width
            rate = self.rate * self.decay ** max(0, self._stage - len(self._blurs))
            if evaluation.finite:
                self._update(objective, evaluation, rate)
            self._step += 1
            self._elapsed += time.perf_counter() - began
            label = self._label
            done = self._advance(objective)
            move = Move(
                latent=latent,
                estimate=self._average.copy(),
                evaluation=evaluation,
                taken=evaluation.finite,
                stage=label,
                rate=rate,
                done=done,
                rescaled=rescaled,
            )
            yield move
            if move.done:
                return

    def _update(self, objective: Objective, evaluation: Evaluation, rate: float) -> None:
        g = evaluation.gradient
        self._updates += 1
        self._mean += (1 - self.beta1) * (g - self._mean)
        self._square += (1 - self.beta2) * (g * g - self._square)
        mean = self._mean / (1 - self.beta1**self._updates)
        scale = objective.scales(self._square / (1 - self.beta2**self._updates), self.variant)
        # a number without gradient (an unlit light, an unseen texel) stays where it is
        direction = np.divide(mean, scale, out=np.zeros_like(mean), where=scale > 0)
        self._u = np.clip(self._u - rate * objective.rates * direction, objective.lower, objective.upper)
        self._in_stage += 1
        self._losses.append(evaluation.loss)
        self._gradients.append(g[self._tested].astype(np.float32))
        del self._losses[:-_WINDOW], self._gradients[:-_WINDOW]
        self._averaged += 1
        weight = min(1.0, (_TAIL + 1) / (self._averaged + _TAIL))
        self._average += weight * (self._u - self._average)

    def _advance(self, objective: Objective) -> str:
        """Go to the next stage when this one is over; returns why the run is over, or ""."""
        spent = self._step / self.iterations
        if self.seconds is not None:
            spent = max(spent, self._elapsed / self.seconds)
        if spent >= 1:
            return "budget"
        over = spent >= self._ends[self._stage]
        settled = self.stop == "auto" and self._step >= objective.waits and self._settled()
        if not (over or settled):
            return ""
        if self._stage == len(self._ends) - 1:
            return "settled"
        if settled or not self._width:
            self._u = self._average.copy()  # what is still on its way through a blurred round goes on from where it is
        self._stage += 1
        self._in_stage = self._averaged = 0
        self._losses, self._gradients = [], []
        objective.blur(self._width)
        objective.weigh(self._u, self._step)
        return ""

    @property
    def _width(self) -> float:
        """Of the Gaussian that the pictures are seen through, a share of their smaller side; 0 without one."""
        return self._blurs[self._stage] if self._stage < len(self._blurs) else 0.0

    @property
    def _label(self) -> str:
        rounds = len(self._blurs)
        if self._stage < rounds:
            return f"blur {100 * self._width:.0f} %"
        return f"stage {self._stage - rounds + 1}/{len(_SHARES)}"

    def _settled(self) -> bool:
        count = min(self._in_stage, len(self._losses))
        if count < _SHORTEST[max(0, self._stage - len(self._blurs))]:
            return False
        half = slice(-(count // 2), None)
        return is_flat(self._losses[half]) and gradients_balance(self._gradients[half])

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, np.ndarray]:
        """All that the next step depends on."""
        counters = [self._step, self._stage, self._updates, self._in_stage, self._averaged]
        gradients = np.array(self._gradients, np.float32).reshape(len(self._gradients), self._tested.size)
        return {
            "latent": self._u,
            "mean": self._mean,
            "square": self._square,
            "average": self._average,
            "counters": np.array(counters, np.int64),
            "elapsed": np.array([self._elapsed]),
            "losses": np.array(self._losses, np.float64),
            "gradients": gradients,
            "scores": np.zeros(0) if self._tiles is None else self._tiles.scores.copy(),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from `state`."""
        self._restored = dict(state)

    def _load(self, state: Mapping[str, np.ndarray]) -> None:
        if state["latent"].shape != self._u.shape:
            raise UsageError(f"the checkpoint holds {state['latent'].size} numbers, the problem {self._u.size}")
        self._u, self._average = state["latent"].copy(), state["average"].copy()
        self._mean, self._square = state["mean"].copy(), state["square"].copy()
        self._step, self._stage, self._updates, self._in_stage, self._averaged = (int(c) for c in state["counters"])
        self._elapsed = float(state["elapsed"][0])
        self._losses = [float(x) for x in state["losses"]]
        self._gradients = list(state["gradients"])
        if self._tiles is not None:
            self._tiles.scores[:] = state["scores"]


@dataclass
class LargeSteps(Adam):
    """Adam for meshes as Nicolet et al. 2021 have it: smoothed gradients, one second moment for all of a mesh.

    The smoothing is a property of the unknowns (the space "large-steps", `vertices.py`); without any, this is refused.
    """

    variant: str = "uniform"
    name: str = field(default="large-steps", init=False)

    def check(self, objective: Objective) -> None:
        """Refuse problems that it is not for.

        Raises:
            UsageError: no vertices are unknown, or their gradients are not smoothed; see also `Adam.check`.
        """
        super().check(objective)
        if not any(u.space == "large-steps" and u.shared for u in objective.problem.unknowns):
            raise UsageError(
                "large-steps is for the vertices of a mesh, and none is unknown with smoothed gradients",
                where="solver",
                remedy='give a `vertex_positions` the space = "large-steps" and leave `smooth` out, or use "adam"',
            )
