"""What a solver sees of a problem: a noisy function of a latent vector, with a noisy gradient of independent noise.

Every step of every view draws its own seeds, hashed from (run seed, step, view, purpose), so that a run can be resumed
at any step and two runs with one seed see the same noise.
"""

from __future__ import annotations

import gc
import re
import time
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EnvironmentFault
from .arrays import to_device
from .prepared_views import PreparedView
from .problem import Problem
from .rendering import PASS_SAMPLES, FrozenProgram, Samples
from .sights import BlurredTargets, widths
from .weights import PILOT, NoiseMap

if TYPE_CHECKING:
    from .linearize import Linearizer
    from .tiles import Tiles

#: What Dr.Jit, CUDA and the C++ library say.
_OUT_OF_MEMORY = re.compile(r"out of memory|bad_alloc|could not allocate|allocation failed", re.IGNORECASE)
_PRIMAL_A, _PRIMAL_B, _ADJOINT, _ORDER = range(4)
_SPLIT, _TILES = 32, 33


def derive_seed(run: int, step: int, view: int, purpose: int) -> int:
    """A 32-bit seed that is independent for different arguments (NumPy's `SeedSequence`)."""
    return int(np.random.SeedSequence([run, step, view, purpose]).generate_state(1)[0])


@dataclass
class Evaluation:
    """Loss and gradient at one latent vector.

    Attributes:
        loss: weighted mean over the views of this step.
        loss_error: its Monte Carlo standard error.
        gradient: by the latent numbers (n,).
        prior: part of the loss that the priors add.
        per_view: loss of each view, by name.
        samples: camera paths spent.
        left_out: non-finite pixels and samples that were left out.
        faults: (view, seed) of each view whose loss or gradient was not finite.
        seconds: wall time.
    """

    loss: float
    loss_error: float
    gradient: np.ndarray
    per_view: dict[str, float] = field(default_factory=dict)
    samples: int = 0
    left_out: int = 0
    faults: list[tuple[str, int]] = field(default_factory=list)
    seconds: float = 0.0
    prior: float = 0.0

    @property
    def finite(self) -> bool:
        """Whether the step can be taken."""
        return not self.faults


class Objective:
    """A problem as a solver sees it.

    Args:
        problem: what is to be solved.
        seed: of the whole run.
        batch: views per step, in a fresh random order every round; 0 takes all views in their order.
        freeze: record the step program instead of tracing it at every step.
    Attributes:
        start, lower, upper, rates: latent start, bounds and step sizes (n,).
        images: the latest primal picture of each view (Dr.Jit tensors), for previews.
        waits: the step from which on every unknown moves.
    """

    def __init__(self, problem: Problem, seed: int = 0, batch: int = 0, freeze: bool = True) -> None:
        self.problem = problem
        self.seed = seed
        self.batch = batch if 0 < batch < len(problem.fitted) else 0
        self.freeze = freeze
        self.start = problem.start
        self.lower, self.upper = problem.bounds
        self.start = np.clip(self.start, self.lower, self.upper)
        self.rates = problem.rates
        ends = np.cumsum([u.start.size for u in problem.unknowns])
        pieces = [slice(int(b) - u.start.size, int(b)) for b, u in zip(ends, problem.unknowns, strict=True)]
        self._waiting = [(u.freeze_until, p) for u, p in zip(problem.unknowns, pieces, strict=True) if u.freeze_until]
        self._pieces = pieces
        self.waits = max((waits for waits, _ in self._waiting), default=0)
        self.images: dict[str, Any] = {}
        self.noise: dict[str, NoiseMap] = {v.view.name: NoiseMap() for v in problem.fitted}
        self.weights = {v.view.name: v.target.weight for v in problem.fitted}
        self._pass_samples = PASS_SAMPLES
        self._programs: dict[tuple[str, Samples, bool], FrozenProgram] = {}
        #: batches of pixels, None for whole pictures
        self.tiles: Tiles | None = None
        self._blurred = BlurredTargets(problem.loss)
        self._linearizer: Linearizer | None = None
        self._balanced = False
        #: samples of each term of the estimator over those of an equal split, once they were balanced
        self.shares: dict[str, float] = {}

    @property
    def linearizer(self) -> Linearizer:
        """Renders and derivative images, for solvers that want more than a loss and its gradient."""
        if self._linearizer is None:
            from .linearize import Linearizer

            self._linearizer = Linearizer(self)
        return self._linearizer

    @property
    def recordings(self) -> int:
        """How often step programs were recorded so far."""
        own = sum(p.recordings for p in self._programs.values())
        return own + (self._linearizer.recordings if self._linearizer is not None else 0)

    def scales(self, square: np.ndarray, variant: str = "auto") -> np.ndarray:
        """What a first-order solver divides each number's gradient by (n,), from second moments of gradients (n,).

        "adam": every number by its own root mean square. "uniform": all numbers of an unknown by their largest one, so
        that smoothed gradients make smooth steps (AdamUniform; Nicolet et al. 2021, section 4). "vector": the
        components of a vector in space by the root mean square of its length, so that the steps turn with the axes
        (VectorAdam; Ling et al. 2022, section 3); other numbers as in "adam". "auto": "uniform" where gradients are
        smoothed, "vector" for vertices where they are not, "adam" for the rest.
        """
        scale = np.sqrt(square)
        for unknown, piece in zip(self.problem.unknowns, self._pieces, strict=True):
            how = variant
            if variant == "auto":
                how = "uniform" if unknown.shared else "vector" if unknown.measure == "points" else "adam"
            if how == "uniform":
                scale[piece] = scale[piece].max(initial=0.0)
            elif how == "vector" and unknown.vectors > 1:
                lengths = np.sqrt(square[piece].reshape(-1, unknown.vectors).sum(axis=1))
                scale[piece] = np.repeat(lengths, unknown.vectors)
        return scale

    def views_of(self, step: int) -> list[int]:
        """Indices of the views that a step renders."""
        count = len(self.problem.fitted)
        if not self.batch:
            return list(range(count))
        per_round = -(-count // self.batch)
        rng = np.random.default_rng(derive_seed(self.seed, step // per_round, 0, _ORDER))
        return [int(i) for i in np.array_split(rng.permutation(count), per_round)[step % per_round]]

    def weigh(self, latent: np.ndarray, step: int) -> None:
        """Weight pixels by the noise of the renders so far (for losses that ask for it), and forget those renders.

        The first call renders a pilot at `latent`. Steps between two calls share their weights, so that their losses
        can be compared.
        """
        if not self.problem.loss.by_noise:
            return
        for index, view in enumerate(self.problem.fitted):
            noise = self.noise[view.view.name]
            for k in range(max(0, PILOT - noise.count)):
                # adjoints of the pilot are not needed, but the program is compiled already
                self._one(latent, view, index, step + (k + 1) * 1_000_003, None, Evaluation(0, 0, latent))
            self.weights[view.view.name] = noise.weight(view.target)
            noise.clear()

    def evaluate(self, latent: np.ndarray, step: int, spp: int | None = None) -> Evaluation:
        """Loss and gradient at `latent` with the noise of step number `step`.

        Args:
            spp: samples per pixel of the adjoint pass; None takes the problem's.
        """
        began = time.perf_counter()
        chosen = self.views_of(step)
        views = [self.problem.fitted[i] for i in chosen]
        share = sum(v.weight for v in views) or 1.0
        total = Evaluation(0.0, 0.0, np.zeros_like(latent))
        variance = 0.0
        if self.tiles is not None and not self._blurred.share:
            variance = self._in_tiles(self.tiles, latent, step, spp, total, chosen, share)
        else:
            for index, view in zip(chosen, views, strict=True):
                loss, spread, _ = self._add(latent, view, index, step, spp, total, view.weight / share)
                total.per_view[view.view.name] = loss
                variance += (view.weight / share) ** 2 * spread
        total.prior, slope = self.problem.penalty(latent)
        total.loss += total.prior
        total.gradient += slope
        for waits, piece in self._waiting:
            if step < waits:
                total.gradient[piece] = 0.0
        total.loss_error = float(np.sqrt(variance))
        total.seconds = time.perf_counter() - began
        return total

    def _add(
        self,
        latent: np.ndarray,
        view: PreparedView,
        index: int,
        step: int,
        spp: int | None,
        total: Evaluation,
        weight: float,
    ) -> tuple[float, float, np.ndarray]:
        """Add a view or a tile to `total`; returns its loss, the variance of that, and its gradient."""
        loss, spread, gradient, bad, seed = self._one(latent, view, index, step, spp, total)
        total.left_out += bad
        if np.isfinite(loss) and np.all(np.isfinite(gradient)):
            total.loss += weight * loss
            total.gradient += weight * gradient
            return loss, spread, gradient
        total.faults.append((view.view.name, seed))
        return loss, 0.0, np.zeros_like(gradient)

    def _in_tiles(
        self,
        tiles: Tiles,
        latent: np.ndarray,
        step: int,
        spp: int | None,
        total: Evaluation,
        chosen: list[int],
        share: float,
    ) -> float:
        """Add the tiles of a step to `total`; returns the variance of the loss, from renders and from the draw."""
        number = float(np.random.default_rng(derive_seed(self.seed, step, 0, _TILES)).uniform())
        parts, variance = [], 0.0
        for k, (tile, factor) in enumerate(tiles.draw(chosen, number)):
            view = tiles.view(tile)
            weight = factor * view.weight / share
            found = self._add(latent, view, len(self.problem.fitted) + k, step, spp, total, weight)
            loss, spread, gradient = found
            name = view.view.name
            self.images[name] = tiles.learn(tile, self.images[name], gradient * self.rates)
            if np.isfinite(loss):
                total.per_view[name] = total.per_view.get(name, 0.0) + factor * loss
            parts.append(weight * loss)
            variance += weight**2 * spread
        return max(variance, float(np.var(parts, ddof=1)) * len(parts)) if len(parts) > 1 else variance

    def _one(
        self, latent: np.ndarray, view: PreparedView, index: int, step: int, spp: int | None, total: Evaluation
    ) -> tuple[float, float, np.ndarray, int, int]:
        seeds = [derive_seed(self.seed, step, index, purpose) for purpose in (_PRIMAL_A, _PRIMAL_B, _ADJOINT)]
        samples = self.problem.plan(view, spp, self._pass_samples)
        try:
            loss, spread, bad, gradient, image, noise = self._launch(latent, view, samples, seeds)
        except (RuntimeError, MemoryError) as error:
            self._save_memory(error)
            return self._one(latent, view, index, step, spp, total)
        self.images[view.view.name] = image
        if self.problem.loss.by_noise:
            self.noise[view.view.name].add(noise)
        total.samples += samples.total * view.pixels
        return loss, spread, gradient, bad, seeds[2]

    def memory(self) -> dict[str, np.ndarray]:
        """What the estimator takes over from step to step, for checkpoints; most have nothing of it."""
        state = getattr(self.problem.integrator, "state", None)
        return {} if state is None else state()

    def remember(self, memory: dict[str, np.ndarray]) -> None:
        """Go on from `memory`, before the first step."""
        if memory:
            self.problem.integrator.restore(memory)
            self.shares = self.problem.integrator.shares
            self._balanced = bool(self.shares)

    def balance(self, latent: np.ndarray, view: PreparedView) -> None:
        """Once: let an estimator that was asked to (`split = "auto"`) split its samples among its terms.

        The pilot moves all unknowns at once, each by its latent step size with a random sign.
        """
        integrator = self.problem.integrator
        if self._balanced or getattr(integrator, "split", "equal") != "auto":
            return
        self._balanced = True
        gc.collect()  # virtual calls look at every object of the process, attached ones of dead scenes too
        import drjit as dr
        import mitsuba as mi

        problem = self.problem
        signs = np.random.default_rng(self.seed).choice([-1.0, 1.0], latent.size)

        def attach() -> None:
            leaves = problem.set_latent(latent, view.lit)
            problem.aim(view)
            for leaf, piece in zip(leaves, problem.split(signs * self.rates), strict=True):
                dr.set_grad(leaf, to_device(piece, mi.Float))
            dr.enqueue(dr.ADMode.Forward, leaves)
            dr.traverse(dr.ADMode.Forward, flags=dr.ADFlag.ClearEdges)

        seed = derive_seed(self.seed, 0, 0, _SPLIT)
        scene, spp = problem.scene, problem.plan(view).adjoint
        self.shares = integrator.balance(scene.mi, scene.params, view.sensor, attach, spp, seed)

    def _launch(
        self, latent: np.ndarray, view: PreparedView, samples: Samples, seeds: list[int]
    ) -> tuple[float, float, int, np.ndarray, Any, Any]:
        import drjit as dr
        import mitsuba as mi

        problem, target = self.problem, view.target
        self.balance(latent, view)
        leaves = problem.set_latent(latent, view.lit)
        try:
            problem.aim(view)
            gain = problem.gain(view)
            loss, spread, bad, image, noise, by_gain = self._program(view, samples)(
                problem.scene.mi,
                problem.scene.params,
                view.sensor,
                target.image,
                self.weights[view.view.name] if view.window is None else target.weight,
                self._blurred.layers(view),
                dr.detach(gain),
                [dr.opaque(mi.UInt32, s) for s in seeds],
            )
            if dr.grad_enabled(gain):
                dr.backward(dr.sum(gain * by_gain, axis=None))
            gradient = np.concatenate([u.pull(_gradient(x)) for u, x in zip(problem.unknowns, leaves, strict=True)])
        finally:
            problem.release(leaves)
        return loss, spread, bad, gradient, image, noise

    def _save_memory(self, error: BaseException) -> None:
        """After running out of memory: smaller passes, once.

        Raises:
            EnvironmentFault: it happened again; or `error` itself when it is about something else.
        """
        chain = [error]
        while chain[-1].__cause__ is not None:
            chain.append(chain[-1].__cause__)
        if not any(isinstance(e, MemoryError) or _OUT_OF_MEMORY.search(str(e)) for e in chain):
            raise error
        if self._pass_samples < PASS_SAMPLES:
            raise EnvironmentFault(
                f"out of memory even with {self._pass_samples} samples a pass",
                remedy="use smaller images, fewer views a step or a machine with more memory",
            ) from error
        self._pass_samples //= 8
        self._programs.clear()
        text = f"out of memory: samples are rendered in passes of {self._pass_samples} from now on"
        warnings.warn(text, stacklevel=2)

    def _program(self, view: PreparedView, samples: Samples) -> FrozenProgram:
        coarse = self._blurred.share > 0
        key = (view.shape, samples, coarse)
        if key not in self._programs:
            problem = self.problem
            self._programs[key] = FrozenProgram(problem.integrator, problem.loss, samples, self.freeze, coarse)
        return self._programs[key]

    # -- blurred pictures -------------------------------------------------------------------------------------------

    def blurs(self, coarse: str) -> tuple[float, ...]:
        """The widths of the Gaussians through which first-order solvers see the pictures at first, in shares of the
        pictures' smaller side, descending.

        Args:
            coarse: "always", "never", or "auto": where bodies, cameras or lights move as a whole.
        """
        moves = [
            u.space != "large-steps" and any(self.problem.infos[k].needs - {"interior"} for k in u.keys)
            for u in self.problem.unknowns
        ]
        if coarse == "never" or (coarse == "auto" and not any(moves)):
            return ()
        size = min(min(v.view.height, v.view.width) for v in self.problem.fitted)
        return widths(size)

    def blur(self, share: float) -> None:
        """See the pictures through a Gaussian of this share of their smaller side from now on; 0: as they are."""
        self._blurred = BlurredTargets(self.problem.loss, share)


def _gradient(leaf: Any) -> np.ndarray:
    import drjit as dr

    gradient = np.array(dr.grad(leaf), np.float64)
    # a parameter that no lit path reaches has one zero for all its entries
    return np.broadcast_to(gradient, (dr.width(leaf),)) if gradient.size == 1 else gradient
