"""Lighting in closed form: with geometry and materials fixed an image is linear in what its lights send out.

    I = Σ_k B_k x_k + I_rest       x >= 0

B_k is the image under light k alone at unit strength (`basis_images.py`): one tracing pass for all lamps, one for all
texels of an environment map. Two independent estimates B1 and B2 make the normal equations unbiased,

    A = ½ (B1 W B2ᵀ + B2 W B1ᵀ),  g = ½ (B1 W (t - r2) + B2 W (t - r1)),

a least-squares problem with bounds per colour channel. Texels that a picture hardly shows are filled in smoothly: a
penalty λ |∇x|² (`smoothness.py`), whose λ is the one that predicts the next, independent renders best.
Rounds double the samples until the renders' noise is below what was asked for. Of lamps, pixels weigh by the inverse of
that noise (unless the loss is relative): the model is linear, so weights decide how precise the answer is, not what it
is. Of texels the penalty, not the noise, decides; background that shows them without noise would drown all else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...errors import UsageError
from ..unknowns import ArrayUnknown
from . import Move, normal
from .basis_images import BasisImages
from .light_columns import DARK, Columns
from .normal import Array, Layout
from .quadratic import bounded, solver
from .smoothness import FIRST, best_strength, roughness, scale

if TYPE_CHECKING:
    from ..linearize import Linearizer
    from ..objective import Objective

#: Memory of one estimate of the basis images, in bytes.
MOST_BYTES = 1 << 30
_MOST_COPIES = 16
#: A map has settled when a round with twice the samples changes it by less than this share.
_SETTLED = 0.02


def suits(objective: Objective) -> str:
    """Why `LinearLighting` cannot take a problem, "" when it can."""
    problem = objective.problem
    strengths = {s for e in problem.emitters for s in e.strengths}
    sky = {e.prefix + ".data" for e in problem.emitters}
    size = sum(h * w for h, w in objective.linearizer.shapes)
    texels = 0
    for unknown in problem.unknowns:
        if not (isinstance(unknown, ArrayUnknown) and unknown.colored):
            return f"{unknown.name} is no colour of a light"
        if all(k in sky for k in unknown.keys):
            texels += unknown.start.size // 3
        elif not (all(k in strengths for k in unknown.keys) and unknown.start.size == 3):
            return f"{unknown.name} is not the strength of a light"
    if problem.loss.name not in ("l2", "relative_l2", "noise_weighted"):
        return f"the loss {problem.loss.name} is not a sum of squares"
    if objective.linearizer.channels != 3:
        return "the film has no colours"
    if 12 * texels * size > MOST_BYTES:
        return f"the basis images of {texels} texels at {size} pixels do not fit into memory"
    return ""


@dataclass
class LinearLighting:
    """Strengths of lamps and texels of an environment map by linear least squares.

    Args:
        iterations: most rounds of renders, each with twice the samples of the one before.
        seconds: most wall time, None for no limit.
        precision: relative standard error that renders may leave in a lamp's strength.
        smoothness: weight of the penalty on differences between neighbouring texels; None finds it.
        stop: "auto" ends by statistics, "never" uses the whole budget.
    """

    iterations: int = 8
    seconds: float | None = None
    precision: float = 1e-3
    smoothness: float | None = None
    stop: str = "auto"
    name: str = field(default="linear-lighting", init=False)

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise UsageError(f"iterations is {self.iterations}, at least 1 was expected", where="solver")
        if not self.precision > 0:
            raise UsageError(f"precision is {self.precision}, a positive number was expected", where="solver")
        if self.stop not in ("auto", "never"):
            raise UsageError(f"stop is {self.stop!r}, 'auto' or 'never' was expected", where="solver")
        self._restored: dict[str, np.ndarray] | None = None
        self._covariance: Array | None = None
        self._open = np.zeros((0, 0))

    # -- the loop ---------------------------------------------------------------------------------------------------

    def steps(self, objective: Objective) -> Iterator[Move]:
        """See the module's docstring."""
        why = suits(objective)
        if why:
            raise UsageError(f"linear-lighting is for lights alone: {why}", where="solver", remedy="use auto")
        self._objective = objective
        p = objective.linearizer
        self._columns = Columns(objective)
        self._images = BasisImages(objective, self._columns)
        self._sums = np.zeros((2, 3, self._columns.count, p.pixels), np.float32)
        self._rest = np.zeros((2, 3, p.pixels))
        self._total, self._round, self._elapsed = 0.0, 0, 0.0
        self._strength = FIRST  # of the penalty, relative to A
        self._whole = np.full((3, self._columns.count), np.inf)  # variances a round ago
        self._latent = objective.start.copy()
        if self._restored is not None:
            self._load(self._restored)
        while True:
            began = time.perf_counter()
            move = self._next(p)
            self._elapsed += time.perf_counter() - began
            if not move.done and (
                self._round >= self.iterations or (self.seconds is not None and self._elapsed >= self.seconds)
            ):
                move.done = "budget"
            yield move
            if move.done:
                return

    def _next(self, p: Linearizer) -> Move:
        from ..objective import Evaluation

        copies = min(2 ** max(self._round - 1, 0), _MOST_COPIES)
        fresh, rest, samples = self._images.render(self._round, copies)
        before = self._columns.values(self._latent)
        if self._round:
            if p.problem.loss.by_noise or (p.problem.loss.name == "l2" and not self._columns.mapped):
                self._weigh(p, *self._pictures(before))
            self._choose(p, fresh, rest, p.weight.T)
        for mean, new in ((self._sums, fresh), (self._rest, rest)):
            mean += (new - mean) * np.float32(copies / (self._total + copies))
        self._total += copies
        self._round += 1
        weight = p.weight.T  # (3, P)
        a, b = self._pictures(before)
        plain = Layout(tuple(p.shapes), 0.0, p.tile)
        value, error = normal.loss(a.T, b.T, p.target, p.weight, plain)
        x, gradient, precise = self._solve(p, weight, before)
        latent = self._latent.copy()
        self._latent = self._columns.latent(x)
        pair_names = {name: float("nan") for name in p.names}
        for k, view in enumerate(p.views):
            start = sum(h * w for h, w in p.shapes[:k])
            rows = slice(start, start + p.shapes[k][0] * p.shapes[k][1])
            terms = (weight * (a - p.target.T) * (b - p.target.T))[:, rows]
            pair_names[view.view.name] = float(terms.sum())
            picture = np.zeros((*p.shapes[k], 3), np.float32)
            picture[...] = (0.5 * (a + b))[:, rows].T.reshape(picture.shape)
            self._objective.images[view.view.name] = picture
        evaluation = Evaluation(value, error, gradient, pair_names, samples)
        done = "settled" if precise and self.stop == "auto" and self._round >= 2 else ""
        return Move(latent, self._latent.copy(), evaluation, True, f"round {self._round}", 1.0, done)

    def _pictures(self, x: Array) -> tuple[Array, Array]:
        """Two independent estimates (3, P) of the picture under lights (3, m)."""
        a, b = (self._rest[k] + np.einsum("cmp,cm->cp", self._sums[k], x) for k in (0, 1))
        return a, b

    # -- the solution -----------------------------------------------------------------------------------------------

    def _equations(self, weight: Array, basis: Array, rest: Array, target: Array, c: int) -> tuple[Array, Array, float]:
        """A, g and the weighted square of the target of one channel."""
        root = np.sqrt(weight[c])
        F1, F2 = basis[0, c] * root, basis[1, c] * root
        d1, d2 = (target[c] - rest[0, c]) * root, (target[c] - rest[1, c]) * root
        A = (F1 @ F2.T).astype(np.float64)
        return 0.5 * (A + A.T), 0.5 * (F1 @ d2 + F2 @ d1), float(d1 @ d2)

    def _choose(self, p: Linearizer, fresh: Array, rest: Array, weight: Array) -> None:
        """The penalty whose answer from all rounds so far predicts the renders of this one best."""
        L = roughness(self._columns)
        if L is None or self.smoothness is not None:
            return
        target, c = p.target.T, 1  # the channels have much the same basis, and each costs many factorisations
        A, g, _ = self._equations(weight, self._sums, self._rest, target, c)
        self._strength = best_strength(A, g, L, target[c], weight[c], rest[:, c], fresh[:, c])

    def _solve(self, p: Linearizer, weight: Array, before: Array) -> tuple[Array, Array, bool]:
        """The answer (3, m), the gradient of the loss by the latent numbers there before, and whether it is precise."""
        m = self._columns.count
        target = p.target.T
        L = roughness(self._columns)
        x = np.zeros((3, m))
        gradient = np.zeros((3, m))
        n = self._objective.start.size
        self._covariance = np.zeros((n, n))
        open_: list[Array] = []
        precise = True
        low, high = self._columns.bounds()
        for c in range(3):
            A, g, _ = self._equations(weight, self._sums, self._rest, target, c)
            gradient[c] = 2 * (A @ before[c] - g) * before[c]
            H = A if L is None else A + self._weight_of_penalty(A, L) * L
            x[c] = bounded(H, g, low[c], high[c])
        if L is not None:
            moved = np.linalg.norm(x - before, axis=1) / np.maximum(np.linalg.norm(x, axis=1), 1e-30)
            precise = bool(np.all(moved < _SETTLED))
        for c in range(3) if L is None else ():
            size = np.maximum(x[c], DARK * max(float(x.max()), 1e-30))
            covariance, directions, good = self._known(p, weight, x[c], size, c)
            precise &= good
            index = self._columns.index(c)
            for direction in directions:
                whole = np.zeros(n)
                whole[index] = direction
                open_.append(whole)
            self._covariance[np.ix_(index, index)] = covariance
        self._open = np.array(open_).reshape(-1, n)
        flat = np.zeros(n)
        for c in range(3):
            flat[self._columns.index(c)] = gradient[c]
        return x, flat, precise

    def _weight_of_penalty(self, A: Array, L: Array) -> float:
        return (self._strength if self.smoothness is None else self.smoothness) * scale(A, L)

    def _known(self, p: Linearizer, weight: Array, x: Array, size: Array, c: int) -> tuple[Array, Array, bool]:
        """Covariance of the logarithms of a few strengths, open directions, and whether renders would help."""
        plain = Layout(tuple(p.shapes), 0.0, p.tile)
        a, b = (self._rest[k][c] + self._sums[k][c].T @ x for k in (0, 1))
        top = max(float(x.max()), 1e-30)  # one unit for all: a lamp that is off must not hide one that is on
        J1, J2 = (self._sums[k][c][:, :, None] * top for k in (0, 1))
        a, b, target, w = (v[:, None] for v in (a, b, p.target[:, c], weight[c]))
        equations = normal.build(J1, J2, a, b, target, w, np.ones(len(x)), plain, crossed=True)
        inverse, directions = equations.inverse()
        own = np.diag(inverse @ equations.noise @ inverse) * (top / size) ** 2
        covariance = equations.covariance(inverse) * top**2 / np.outer(size, size)
        whole = np.diag(inverse @ equations.spread @ inverse) * (top / size) ** 2
        # what does not fall with the number of samples is not the renders' noise
        limited = (own <= 0.2 * whole) & (whole > 0.75 * self._whole[c])
        self._whole[c] = whole
        lit = x > 1e-3 * top
        return covariance, directions, bool(np.all((own <= self.precision**2) | limited | ~lit))

    def _weigh(self, p: Linearizer, a: Array, b: Array) -> None:
        """Weights from the noise of the picture under the lights as they are now, smoothed over neighbours."""
        from scipy.ndimage import gaussian_filter

        from ..weights import weights_of

        start = 0
        for view, (height, width) in zip(p.views, p.shapes, strict=True):
            rows = slice(start, start + height * width)
            start = rows.stop
            noise = np.ones(np.array(view.target.weight).shape)
            noise[..., :3] = (0.25 * (a - b)[:, rows] ** 2).T.reshape(height, width, 3)
            smooth = gaussian_filter(noise, (1.5, 1.5, 0))
            p.objective.weights[view.view.name] = weights_of(smooth, view.target)
        p.forget_weight()

    # -- what is known of the answer --------------------------------------------------------------------------------

    def uncertainty(self) -> tuple[Array, Array, Array] | None:
        """Covariance (n, n) of the logarithms, directions (k, n) that no image responds to, and large changes (n,).

        A large change (n,) of a lamp that is off is one that would make it as bright as the brightest.
        """
        if self._covariance is None:
            return None
        L = roughness(self._columns)
        if L is not None:
            # of the texels under their penalty, scaled by what the residual shows
            p = self._objective.linearizer
            weight, x = p.weight.T, self._columns.values(self._latent)
            for c in range(3):
                A, g, square = self._equations(weight, self._sums, self._rest, p.target.T, c)
                used = max(int(np.count_nonzero(weight[c])) - self._columns.count // 4, 1)
                misfit = max(square - 2 * x[c] @ g + x[c] @ A @ x[c], 0.0) / used
                inverse = solver(A + self._weight_of_penalty(A, L) * L)(np.eye(len(A)))
                index = self._columns.index(c)
                self._covariance[np.ix_(index, index)] = inverse * misfit / np.outer(x[c], x[c])
        x = self._columns.values(self._latent)
        reach = np.ones(len(self._latent))
        for c in range(3):
            top = max(float(x[c].max()), 1e-30)
            reach[self._columns.index(c)] = np.where(x[c] < 1e-3 * top, top / np.maximum(x[c], 1e-30), 1.0)
        return self._covariance, self._open, reach

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, np.ndarray]:
        """All that the next round depends on."""
        return {
            "latent": self._latent.copy(),
            "sums": self._sums.copy(),
            "rest": self._rest.copy(),
            "whole": self._whole.copy(),
            "numbers": np.array([self._total, self._round, self._elapsed, self._strength]),
        }

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from `state`."""
        self._restored = dict(state)

    def _load(self, state: Mapping[str, np.ndarray]) -> None:
        if state["latent"].shape != self._latent.shape or state["sums"].shape != self._sums.shape:
            raise UsageError(f"the checkpoint holds {state['latent'].size} numbers, the problem {self._latent.size}")
        self._latent, self._sums = np.array(state["latent"]), np.array(state["sums"])
        self._rest, self._whole = np.array(state["rest"]), np.array(state["whole"])
        self._total, _, self._elapsed, self._strength = (float(v) for v in state["numbers"])
        self._round = int(state["numbers"][1])
