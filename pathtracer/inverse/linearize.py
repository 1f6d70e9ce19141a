"""The image as a function of few numbers: pairs of renders, and derivative images of every number by forward mode.

    I(u + du) ≈ I(u) + J du          u: latent numbers (n,), I: all pixels of all views

One derivative image is one forward pass with a tangent; the pass is recorded once and replayed for every tangent, the
tangent being an input. Numbers that are the three channels of one colour share a pass where the channels of the image
do not mix (which is tried, not assumed). Every pass draws its own seed, so that products of what comes from different
calls are free of bias.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import to_device
from .losses import Huber, Loss
from .rendering import _OPAQUE_CAMERAS, FrozenProgram, _fields
from .unknowns import ArrayUnknown
from .view_unknowns import GAINS, PREFIX
from .weights import weights_of

if TYPE_CHECKING:
    from .objective import Objective
    from .prepared_views import PreparedView

Array = np.ndarray

#: Camera paths of one launch: fewer leave the cores idle, more cost memory.
LAUNCH = 1 << 16
#: Latent changes that are large: a factor e, odds of 4.5, a quarter of the range, a third of the start's size.
_REACH = {"log": 1.0, "logit": 1.5, "box": 0.25, "identity": 0.3}
#: Likewise of motions (radians, shares of the scene), and the unit of their precision.
_MOTION = (0.1, 0.5)
#: Standard deviation (pixels) of the Gaussian that noise maps are smoothed with.
_SMOOTH = 1.5
#: Purposes of seeds; see `objective.derive_seed`.
PAIR, JACOBIAN, PROBE = 16, 18, 20


@dataclass
class Pair:
    """Two independent renders of all views, exposure included.

    Attributes:
        a, b: (P, C) radiance of every pixel of every view; where one was not finite, both are the target's.
        bad: values that were not finite.
        samples: camera paths spent.
    """

    a: Array
    b: Array
    bad: int
    samples: int

    @property
    def mean(self) -> Array:
        return 0.5 * (self.a + self.b)


class Linearizer:
    """Renders and derivative images of an objective, all views stacked.

    Args:
        objective: the problem with its seeds and weights.
    Attributes:
        target: (P, C) observed radiance; P counts the pixels of all fitted views, C is 1 or 3.
        shapes: (H, W) of each view, in the order of their pixels.
        names: of the views.
        linear: (n,) whether the image is proportional to exp of the number: strengths of lights in the log space.
        geometry: (n,) whether the number moves something.
        reach: (n,) latent change that counts as large.
        unit: (n,) latent change of which a thousandth counts as precise.
        robust: factor on the weights from the size of the residual; None where the loss is no sum of squares.
        tile: side of the squares of pixels whose noise is independent: 1 for a box filter.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.problem = problem = objective.problem
        self.views = problem.fitted
        self.names = [v.view.name for v in self.views]
        self.shapes = [(v.view.height, v.view.width) for v in self.views]
        self.channels = 3 if any(int(v.target.image.shape[-1]) >= 3 for v in self.views) else 1
        self.target = self._stack([np.array(v.target.image) for v in self.views])
        shares = np.array([v.weight for v in self.views])
        self._shares = shares / (shares.sum() or 1.0)
        self._programs: dict[tuple[str, str, int], _Program] = {}
        self._weight: Array | None = None
        self.loss_name = problem.loss.name
        self.robust = _robust(problem.loss)
        box = all(v.sensor.film().rfilter().is_box_filter() for v in self.views)
        self.tile = 1 if box else 4
        self._separable: dict[int, bool] = {}
        self._n = [u.start.size for u in problem.unknowns]
        self._offsets = np.concatenate([[0], np.cumsum(self._n)]).astype(int)
        moves = [any(problem.infos[k].needs - {"interior"} for k in u.keys) for u in problem.unknowns]
        self._moves = moves
        self._gains = [is_view_part(u.keys[0], GAINS) for u in problem.unknowns]
        self.geometry = np.concatenate([np.full(n, m) for n, m in zip(self._n, moves, strict=True)])
        strengths = {s for e in problem.emitters for s in (*e.strengths, e.prefix + ".data")}
        light = [u.space == "log" and all(k in strengths for k in u.keys) for u in problem.unknowns]
        self.linear = np.concatenate([np.full(n, m) for n, m in zip(self._n, light, strict=True)])
        spaces = [u.space for u in problem.unknowns for _ in range(u.start.size)]
        self.reach = np.array([_REACH.get(s, _MOTION[0]) for s in spaces])
        self.unit = np.array([_REACH.get(s, _MOTION[1]) for s in spaces])

    @property
    def recordings(self) -> int:
        """How often programs were recorded so far."""
        return sum(p.recordings for p in self._programs.values())

    @property
    def weight(self) -> Array:
        """(P, C) weight of every squared difference; the loss is their sum over both."""
        if self._weight is None:
            weights = [np.array(self.objective.weights[name]) for name in self.names]
            self._weight = self._stack([w * s for w, s in zip(weights, self._shares, strict=True)])
        return self._weight

    @property
    def pixels(self) -> int:
        """Pixels of all views."""
        return sum(h * w for h, w in self.shapes)

    def spp(self, view: PreparedView) -> int:
        """Samples per pixel of one launch: the problem's, or more where a picture is small."""
        return int(np.clip(LAUNCH // (view.view.width * view.view.height), self.problem.spp, 256))

    # -- renders ----------------------------------------------------------------------------------------------------

    def pair(self, latent: Array, step: int, copies: int = 1) -> Pair:
        """Two independent renders of every view, each the mean of `copies` launches."""
        import drjit as dr
        import mitsuba as mi

        halves: tuple[list[Array], list[Array]] = ([], [])
        samples = 0
        for index, view in enumerate(self.views):
            self._place(latent, view, frozenset())
            gain = dr.detach(self.problem.gain(view))
            spp = self.spp(view)
            sums = []
            for half in (0, 1):
                total: Any = None
                for copy in range(copies):
                    seed = self._seed(step, index, PAIR + half, copy)
                    image = self._call("primal", view, spp, dr.opaque(mi.UInt32, seed)) * gain
                    dr.eval(image)
                    total = image if total is None else total + image
                sums.append(total / copies)
            noise = dr.square(0.5 * (sums[0] - sums[1]))
            self.objective.images[view.view.name] = 0.5 * (sums[0] + sums[1])
            if self.problem.loss.by_noise:
                self.objective.noise[view.view.name].add(dr.select(dr.isfinite(noise), noise, 0) * copies)
            for half in (0, 1):
                halves[half].append(np.array(sums[half]))
            samples += 2 * copies * spp * view.view.width * view.view.height
        a, b = self._stack(halves[0]), self._stack(halves[1])
        bad = ~(np.isfinite(a) & np.isfinite(b))
        a[bad] = b[bad] = self.target[bad]
        return Pair(a, b, int(bad.sum()), samples)

    def lit_by(
        self, latent: Array, view: PreparedView, lit: frozenset[str], seed: int, copies: int = 1
    ) -> tuple[Array, int]:
        """A view under some of its lights alone: ((H W, C) radiance with exposure, camera paths spent)."""
        import drjit as dr
        import mitsuba as mi

        self.problem.lights.begin()
        self.problem.set_latent(latent, lit, frozenset())
        self.problem.aim(view)
        spp = self.spp(view)
        total: Any = None
        for copy in range(copies):
            own = int(np.random.SeedSequence([seed, copy]).generate_state(1)[0])
            image = self._call("primal", view, spp, dr.opaque(mi.UInt32, own)) * dr.detach(self.problem.gain(view))
            dr.eval(image)
            total = image if total is None else total + image
        rows = np.array(total / copies, np.float64)
        rows = rows.reshape(-1, rows.shape[-1])[:, : self.channels]
        return np.where(np.isfinite(rows), rows, 0), copies * spp * len(rows)

    def forget_weight(self) -> None:
        """Take the objective's weights anew: they were exchanged."""
        self._weight = None

    def forget_noise(self) -> None:
        """Forget the noise of all renders so far."""
        for noise in self.objective.noise.values():
            noise.clear()

    def weigh(self) -> None:
        """Weight pixels by the noise of the renders since the last call (for losses that ask for it).

        The noise is smoothed over neighbours: of a rare bright path, one pixel shows what may hit any of them.
        """
        if not self.problem.loss.by_noise:
            return
        from scipy.ndimage import gaussian_filter

        for view in self.views:
            noise = self.objective.noise[view.view.name]
            if noise.count:
                smooth = gaussian_filter(noise.mean, (_SMOOTH, _SMOOTH, 0))
                self.objective.weights[view.view.name] = weights_of(smooth, view.target)
            noise.clear()
        self._weight = None

    def per_view(self, pair: Pair) -> dict[str, float]:
        """Loss of each view."""
        terms = (self.weight * (pair.a - self.target) * (pair.b - self.target)).sum(axis=1)
        ends = np.cumsum([h * w for h, w in self.shapes])[:-1]
        sums = [float(t.sum()) for t in np.split(terms, ends)]
        return {name: s / (share or 1.0) for name, s, share in zip(self.names, sums, self._shares, strict=True)}

    # -- derivatives ------------------------------------------------------------------------------------------------

    def jacobian(self, latent: Array, step: int, half: int, copies: int = 1) -> tuple[Array, int]:
        """Derivative images at `latent`.

        Args:
            half: 0 or 1; the two are independent.
            copies: launches whose mean is taken.
        Returns:
            (J (n, P, C), camera paths spent).
        """
        self._probe(latent)
        n = int(self._offsets[-1])
        result = np.zeros((n, self.pixels, self.channels), np.float32)
        samples = 0
        start = 0
        for index, view in enumerate(self.views):
            stop = start + view.view.height * view.view.width
            for moving in (False, True):
                for tangent, columns in self._tangents(view, moving):
                    for copy in range(copies):
                        seed = self._seed(step, index, JACOBIAN + half, copy)
                        image = self._forward(latent, view, tangent, moving, seed)
                        samples += self.spp(view) * (stop - start)
                        flat = image.reshape(stop - start, -1)
                        for column, channel in columns:
                            if channel < 0:
                                result[column, start:stop, : flat.shape[1]] += flat
                            else:
                                result[column, start:stop, channel] += flat[:, channel]
            start = stop
        result /= copies
        return result, samples

    def _tangents(self, view: PreparedView, moving: bool) -> list[tuple[Array, list[tuple[int, int]]]]:
        """The forward passes of a view: (tangent (n,), [(number, channel or -1 for all)])."""
        n = int(self._offsets[-1])
        dark = [p for p in (e.prefix for e in self.problem.emitters) if p not in view.lit]
        passes = []
        for number, unknown in enumerate(self.problem.unknowns):
            if self._moves[number] != moving:
                continue
            if dark and all(any(k.startswith(p + ".") for p in dark) for k in unknown.keys):
                continue  # a lamp that is off in this view changes nothing
            if all(k in self._others(view) for k in unknown.keys):
                continue  # nor does the camera of another view
            first = int(self._offsets[number])
            if self._separable.get(number, False):
                for k in range(first, first + self._n[number], 3):
                    tangent = np.zeros(n)
                    tangent[k : k + 3] = 1
                    passes.append((tangent, [(k + c, c) for c in range(3)]))
            else:
                for k in range(first, first + self._n[number]):
                    tangent = np.zeros(n)
                    tangent[k] = 1
                    passes.append((tangent, [(k, -1)]))
        return passes

    def _others(self, view: PreparedView) -> frozenset[str]:
        """Keys of what belongs to other views."""
        mine = PREFIX + view.view.name + "."
        return frozenset(k for k in self.problem.parts if not k.startswith(mine))

    def _probe(self, latent: Array) -> None:
        """Find out whose channels do not mix: a tangent in red must leave green and blue exactly where they are."""
        import mitsuba as mi

        candidates = [
            k
            for k, u in enumerate(self.problem.unknowns)
            if k not in self._separable
            and isinstance(u, ArrayUnknown)
            and not self._moves[k]
            and not self._gains[k]
            and u.colored
            and self.channels == 3
            and mi.is_rgb
        ]
        view = self.views[0]
        for k in candidates:
            tangent = np.zeros(int(self._offsets[-1]))
            tangent[self._offsets[k] : self._offsets[k + 1] : 3] = 1
            image = self._forward(latent, view, tangent, False, self._seed(0, k, PROBE, 0))
            self._separable[k] = image.shape[-1] >= 3 and not np.any(image[..., 1:3])

    def _forward(self, latent: Array, view: PreparedView, tangent: Array, moving: bool, seed: int) -> Array:
        """One derivative image (H, W, 1 or 3), exposure included; values that are not finite are zero."""
        import drjit as dr
        import mitsuba as mi

        self.objective.balance(latent, view)
        by_gain = any(np.any(t) and g for t, g in zip(self.problem.split(tangent), self._gains, strict=True))
        # exposure multiplies the finished render: what does not reach the rays is no business of the estimator
        active = frozenset(k for k, m in enumerate(self._moves) if m == moving and self._gains[k] == by_gain)
        leaves = self._place(latent, view, active)
        factor = self.problem.gain(view)
        pieces = self.problem.split(tangent)
        chosen = [leaves[k] for k in sorted(active)]
        for k in active:
            # evaluated even where it is zero: all tangents have to look alike to the recording
            dr.set_grad(leaves[k], to_device(pieces[k], mi.Float))
        dr.enqueue(dr.ADMode.Forward, chosen)
        dr.traverse(dr.ADMode.Forward, flags=dr.ADFlag.ClearEdges)
        if by_gain:
            factor = dr.grad(factor)
        kind = "primal" if by_gain else "moving" if moving else "still"
        image = np.array(self._call(kind, view, self.spp(view), dr.opaque(mi.UInt32, seed)))
        image = image * np.array(factor, np.float32)
        image = image[..., : 3 if image.shape[-1] >= 3 else 1]
        return np.where(np.isfinite(image), image, 0)

    # -- programs ---------------------------------------------------------------------------------------------------

    def _place(self, latent: Array, view: PreparedView, active: frozenset[int]) -> list[Any]:
        leaves = self.problem.set_latent(latent, view.lit, active)
        self.problem.aim(view)
        return leaves

    def _call(self, kind: str, view: PreparedView, spp: int, seed: Any) -> Any:
        key = (kind, view.shape, spp)
        if key not in self._programs:
            self._programs[key] = _Program(self.problem.integrator, kind == "primal", spp, self.objective.freeze)
        scene = self.problem.scene
        return self._programs[key].image(scene.mi, scene.params, view.sensor, seed, _fields(view.sensor))

    def _seed(self, step: int, view: int, purpose: int, copy: int) -> int:
        words = [self.objective.seed, step, view, purpose, copy]
        return int(np.random.SeedSequence(words).generate_state(1)[0])

    def _stack(self, images: list[Array]) -> Array:
        """(P, C) float64 from an (H, W, >= C) array of each view; films of one channel leave the others zero."""
        rows = []
        for image in images:
            flat = np.asarray(image, np.float64).reshape(-1, image.shape[-1])
            flat = flat[:, :3] if flat.shape[1] >= 3 else flat[:, :1]
            if flat.shape[1] < self.channels:
                flat = np.concatenate([flat, np.zeros((len(flat), self.channels - flat.shape[1]))], axis=1)
            rows.append(flat)
        return np.concatenate(rows)


class _Program(FrozenProgram):
    """A recorded render, or a recorded derivative image along the tangents that the parameters carry."""

    def __init__(self, integrator: Any, primal: bool, spp: int, freeze: bool) -> None:
        import drjit as dr

        def program(scene: Any, params: Any, sensor: Any, seed: Any, fields: Any) -> Any:
            if sensor.class_name() in _OPAQUE_CAMERAS:
                sensor.parameters_changed(["near_clip"])
            if primal:
                return dr.detach(integrator.render(scene, sensor=sensor, seed=seed, spp=spp))
            return integrator.render_forward(scene, params, sensor=sensor, seed=seed, spp=spp)

        self._integrator = integrator
        if hasattr(integrator, "dropped"):
            integrator.dropped = dr.opaque(type(integrator.dropped), 0)
        self._plain = program
        self._recorded = dr.freeze(program, limit=8, warn_after=64) if freeze else None
        self._proven = False

    def image(self, *inputs: Any) -> Any:
        """Run; returns the image tensor."""
        return self._run(inputs)


def _robust(loss: Loss) -> Callable[[Array], Any] | None:
    """Weights that turn squares into the loss, by iteration (Holland and Welsch 1977)."""
    if loss.name in ("l2", "relative_l2", "noise_weighted"):
        return lambda size: 1.0
    if isinstance(loss, Huber):
        delta = loss.delta
        return lambda size: delta / np.maximum(size, delta)
    if loss.name == "l1":
        return lambda size: 1 / np.maximum(size, 0.05 * max(float(np.median(size)), 1e-6))
    return None


def is_view_part(key: str, parts: tuple[str, ...]) -> bool:
    """Whether a key is one of these parts of a view."""
    return key.startswith(PREFIX) and key.rsplit(".", 1)[-1] in parts
