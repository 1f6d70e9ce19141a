"""Is this gradient right? Estimators against finite differences, with a verdict that states its confidence.

For one motion and one estimator three things are compared, each an equivalence test on independent replicates:

    slope       ⟨g, w⟩ against ⟨f, w⟩, w a blurred independent pilot of the reference f: one number for the image.
                Weights from other seeds keep noise of the reference out of the product, so the slope is not attenuated.
    blocks      sums over a grid of blocks, per channel: errors that cancel over the image do not cancel here.
    backward    the gradient for a random adjoint image u against ⟨u, f⟩, and against ⟨u, g⟩ of the forward mode
                (⟨u, J v⟩ = ⟨Jᵀ u, v⟩).

An estimator that can split its samples among its terms by their variance does so after the first look. Samples double,
on whichever side is noisier, until the answer is clear or the budget is spent. While the budget lasts,
a difference must show twice, the second time with twice the samples: a share of the expectation that sits in rare paths
looks like a bias until one of them is drawn.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from integrators.errors import GradientWarning, UnsupportedGradient

from .comparison import Comparison, Settings, describe
from .motion import BoundMotion
from .reference import Reference
from .statistics import Equivalence, Verdict, equivalence, equivalences, judge, trimmed_mean

#: Samples per pixel of the pilot that splits samples among an estimator's terms, at most.
PILOT_SPP = 64


def first_spp(sensor: Any, settings: Settings) -> tuple[int, int]:
    """Samples per pixel of the first look: of the estimator and of the reference."""
    size = sensor.film().crop_size()
    automatic = 2 ** int(np.clip(np.log2(73_728 / (int(size[0]) * int(size[1]))), 2, 9))
    return settings.spp or automatic, settings.reference_spp or 2 * automatic


class Gradient:
    """Replicates of an estimator's gradient image, and of its backward gradient for one adjoint image."""

    def __init__(self, bound: BoundMotion, sensor: Any, estimator: Any, replicates: int, seed: int) -> None:
        self.bound = bound
        self.sensor = sensor
        self.estimator = estimator
        self.replicates = replicates
        self.seed = seed
        self.spp = 0
        self.images: np.ndarray | None = None  # (replicates, H, W, C)
        self.backward: np.ndarray | None = None  # (replicates,)
        #: seconds of the last `grow`, had every pass taken as long as the last of its kind: without compilation
        self.steady = 0.0
        self._round = 0
        self._shares: dict[str, float] | None = None

    def limit(self, spp: int, seconds: float) -> None:
        """Make do with four replicates where eight in both modes would take longer than `seconds`.

        Times the second pass, since the first one compiles. Four are too few to trim, so only slow estimators get this.
        """
        for seed in (1, 2):
            start = time.monotonic()
            self.forward(spp, seed)
        if 2 * self.replicates * (time.monotonic() - start) > seconds:
            self.replicates = 4

    def balance(self, spp: int) -> None:
        """Let the estimator split its samples among its terms, if it can: the same mean with less noise."""
        split = getattr(self.estimator, "balance", None)
        if split is None:
            return
        self._shares = dict(self.estimator.shares)
        with ExitStack() as attached:

            def attach() -> None:
                attached.close()
                attached.enter_context(self.bound.attached(forward=True))

            split(self.bound.scene, self.bound.params, self.sensor, attach, spp, self.seed)

    def forget_split(self) -> None:
        """Leave the estimator with the split that it came with."""
        if self._shares is not None:
            self.estimator.shares = self._shares

    def grow(self, spp: int, adjoint: np.ndarray | None) -> None:
        """Add `spp` samples per pixel to every replicate, forward and, given an adjoint image, backward."""
        from integrators.finite_difference import pass_seeds

        self._round += 1
        seeds = pass_seeds(self.seed + 104729 * self._round, 2 * self.replicates)
        stack = []
        for s in seeds[: self.replicates]:
            start = time.monotonic()
            stack.append(_mean_of_passes(self.forward, spp, s, self._pixels))
            last = time.monotonic() - start
        images = np.stack(stack)
        self.images = images if self.images is None else (self.spp * self.images + spp * images) / (self.spp + spp)
        if adjoint is not None:
            numbers = []
            for s in seeds[self.replicates :]:
                start = time.monotonic()
                backward = lambda n, s: self.backward_gradient(adjoint, n, s)
                numbers.append(_mean_of_passes(backward, spp, s, self._pixels))
            last += time.monotonic() - start
            values = np.stack(numbers)
            old = self.backward
            self.backward = values if old is None else (self.spp * old + spp * values) / (self.spp + spp)
        self.spp += spp
        self.steady = self.replicates * last

    @property
    def _pixels(self) -> int:
        size = self.sensor.film().crop_size()
        return int(size[0]) * int(size[1])

    def forward(self, spp: int, seed: int) -> np.ndarray:
        """One gradient image, (H, W, C) float64."""
        import drjit as dr
        import mitsuba as mi

        with self.bound.attached(forward=True):
            image = self.estimator.render_forward(
                self.bound.scene, self.bound.params, self.sensor, seed=dr.opaque(mi.UInt32, seed), spp=spp
            )
            array = np.asarray(image, dtype=np.float64)
        return array[..., :3] if array.shape[-1] >= 3 else array[..., :1]

    def backward_gradient(self, adjoint: np.ndarray, spp: int, seed: int) -> np.ndarray:
        """One ⟨Jᵀ u, v⟩, () float64; `adjoint` is u, (H, W, C)."""
        import drjit as dr
        import mitsuba as mi

        with self.bound.attached(forward=False) as theta:
            self.estimator.render_backward(
                self.bound.scene,
                self.bound.params,
                mi.TensorXf(_as_film(adjoint, self.sensor)),
                self.sensor,
                seed=dr.opaque(mi.UInt32, seed),
                spp=spp,
            )
            return np.asarray(float(dr.grad(theta)[0]))


def _as_film(adjoint: np.ndarray, sensor: Any) -> np.ndarray:
    """The adjoint image with as many channels as the film has; zero for alpha."""
    channels = max(int(sensor.film().base_channels_count()) - 1, adjoint.shape[-1])  # the film counts its weight
    wide = np.zeros((*adjoint.shape[:2], channels), dtype=np.float32)
    wide[..., : adjoint.shape[-1]] = adjoint
    return wide


def _mean_of_passes(render: Callable[[int, int], np.ndarray], spp: int, seed: int, pixels: int) -> np.ndarray:
    """Mean over passes small enough for float32 sums and for the memory of a wavefront."""
    from integrators.finite_difference import MAX_PASS_RAYS, MAX_PASS_SPP, pass_seeds

    most = max(1, min(MAX_PASS_SPP, MAX_PASS_RAYS // pixels))
    passes = -(-spp // most)
    total = sum((render(-(-spp // passes), s) for s in pass_seeds(seed, passes)), np.zeros(()))
    return np.asarray(total) / passes


def compare(
    bound: BoundMotion,
    sensor: Any,
    estimator: Any,
    name: str,
    reference: Reference,
    settings: Settings,
    families: int = 1,
) -> Comparison:
    """Check one estimator along one motion.

    Args:
        reference: grown as needed, shared between estimators.
        families: how many comparisons the report makes in all; α is divided by it.
    """
    start = time.monotonic()
    result = Comparison(str(bound.motion), name, Verdict.INCONCLUSIVE)
    gradient = Gradient(bound, sensor, estimator, settings.replicates, settings.seed + 1000003)
    alpha = (1 - settings.confidence) / settings.looks / families
    spp, reference_spp = first_spp(sensor, settings)
    if reference.spp == 0:
        reference.grow(reference_spp)
    adjoint = _adjoint_image(reference.pilot, settings.seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GradientWarning)
        grow_gradient, grow_reference = True, False
        failed = False
        for look in range(settings.looks):
            look_start = time.monotonic()
            try:
                if look == 0:
                    gradient.limit(spp, 0.5 * settings.budget)
                if look == 1 and grow_gradient:
                    gradient.balance(min(spp, PILOT_SPP))
                if grow_gradient:
                    gradient.grow(max(spp, gradient.spp), adjoint if settings.backward else None)
            except (UnsupportedGradient, NotImplementedError) as error:
                result.verdict, result.reason = Verdict.UNSUPPORTED, str(error)
                break
            except Exception as error:
                # Someone else's estimator may raise anything; that is a finding about it, told with its first cause
                result.verdict, result.reason = Verdict.FAIL, f"{bound.motion}: raised {first_cause(error)}"
                break
            if grow_reference and _step_too_large(reference, result.decisive, adjoint, settings):
                reference.refine()
            elif grow_reference:
                reference.grow(reference.spp)
            result.tests = _tests(gradient, reference, adjoint, settings, alpha, bound.scale)
            broken = _not_finite(gradient)
            if broken:
                result.verdict, result.reason = Verdict.FAIL, broken
                break
            result.verdict, result.decisive = judge(result.tests, alpha)
            if result.verdict is Verdict.PASS:
                break
            failed, failed_before = result.verdict is Verdict.FAIL, failed
            if failed and (failed_before or not np.any(gradient.images)):
                break
            now = time.monotonic()
            lasted = gradient.steady if look == 0 else now - look_start
            if look + 1 == settings.looks or (now - start) + 2 * lasted > settings.budget:
                break
            grow_gradient, grow_reference = True, True
            if not failed:
                grow_gradient, grow_reference = _noisier(gradient, reference, result.decisive, adjoint, settings)
    gradient.forget_split()
    result.notes = sorted({str(w.message) for w in caught if issubclass(w.category, GradientWarning)})
    for w in caught:
        if not issubclass(w.category, GradientWarning):
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
    result.gradient = None if gradient.images is None else trimmed_mean(gradient.images)
    result.reference, result.view = trimmed_mean(reference.images), reference.view
    result.spp, result.reference_spp, result.epsilon = gradient.spp, reference.spp, reference.epsilon
    result.seconds = time.monotonic() - start
    if not result.reason:
        result.reason = describe(result, settings)
    return result


def first_cause(error: BaseException) -> str:
    """The innermost exception of a chain, in one line; Dr.Jit hides causes behind "see above"."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _adjoint_image(pilot: np.ndarray, seed: int) -> np.ndarray:
    """A random u that the derivative does not average away: the pilot under random gains, plus white noise."""
    rng = np.random.default_rng(seed + 17)
    size = float(np.sqrt(np.mean(pilot**2))) or 1.0
    rough = pilot / size * rng.uniform(0.5, 1.5, pilot.shape) + 0.2 * rng.standard_normal(pilot.shape)
    return _smooth(rough)


def _smooth(image: np.ndarray) -> np.ndarray:
    """Blur by 1.5 pixels.

    A pixel's value has a kink in θ whenever an edge crosses its border, where no extrapolation in ε helps; sums with
    smooth weights have none. With weights as sharp as the image the slope came out up to 12 % too large.
    """
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(image, sigma=(1.5, 1.5, 0)))


def _slope_weights(reference: Reference) -> np.ndarray:
    """The blurred pilot; ones where nothing changed, so that a derivative of zero is compared with zero."""
    weights = _smooth(reference.pilot)
    return weights if np.any(weights) else np.ones_like(weights)


def _blocks(images: np.ndarray, count: int) -> tuple[list[str], np.ndarray]:
    """Sums over a grid of blocks with blurred borders: names and (replicates, blocks × channels)."""
    height, width, channels = images.shape[1:]
    names, weights = [], []
    for i, rows in enumerate(np.array_split(np.arange(height), min(count, height))):
        for j, columns in enumerate(np.array_split(np.arange(width), min(count, width))):
            weight = np.zeros((height, width, 1))
            weight[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = 1
            weights.append(_smooth(weight)[..., 0])
            names += [f"block {i},{j} c{c}" for c in range(channels)]
    sums = np.einsum("nhwc,bhw->nbc", images, np.stack(weights))
    return names, sums.reshape(images.shape[0], -1)


def _tests(
    gradient: Gradient, reference: Reference, u: np.ndarray, settings: Settings, alpha: float, scale: float
) -> list[Equivalence]:
    g, f, correction = gradient.images, reference.images, reference.corrections
    assert g is not None
    # What counts as no derivative at all: a move by one `scale` that changes pixels by less than a thousandth
    floor = 1e-3 * reference.brightness / scale
    tests = []

    def add(name: str, x: np.ndarray, weights: np.ndarray, tolerance: float) -> None:
        y, b = np.sum(f * weights, (1, 2, 3)), np.sum(correction * weights, (1, 2, 3))
        absolute = tolerance * floor * float(np.sum(np.abs(weights)))
        tests.append(equivalence(x, y, tolerance, absolute, _step_bias(b), alpha, name))

    w = _slope_weights(reference)
    add("slope", np.sum(g * w, (1, 2, 3)), w, settings.tolerance)
    if gradient.backward is not None:
        add("backward", gradient.backward, u, settings.tolerance)
        size = settings.tolerance * (abs(tests[-1].reference) + floor * float(np.sum(np.abs(u))))
        tests.append(
            equivalence(gradient.backward, np.sum(g * u, (1, 2, 3)), absolute=size, alpha=alpha, name="adjoint")
        )
    names, x = _blocks(g, settings.blocks)
    _, y = _blocks(f, settings.blocks)
    _, b = _blocks(correction, settings.blocks)
    pixels = f.shape[1] * f.shape[2] / (settings.blocks**2)
    strongest = max(float(np.max(np.abs(trimmed_mean(y)))), floor * pixels)
    bias = np.array([_step_bias(column) for column in b.T])
    return tests + equivalences(x, y, names, 0.0, settings.block_tolerance * strongest, bias, alpha)


def _step_bias(corrections: np.ndarray, sure: float = 2.0) -> float:
    """Size of the mean correction; zero below `sure` standard errors, where the interval's own noise covers it."""
    mean, error = float(np.mean(corrections)), float(np.std(corrections, ddof=1)) / np.sqrt(corrections.size)
    return float(np.sqrt(mean**2 - error**2)) if abs(mean) > sure * error else 0.0


def _step_too_large(reference: Reference, open_tests: list[Equivalence], u: np.ndarray, settings: Settings) -> bool:
    """Whether the step's bias, beyond doubt, takes more than a quarter of the margin of an open comparison."""
    correction = reference.corrections
    names, sums = _blocks(correction, settings.blocks)
    columns = {name: sums[:, k] for k, name in enumerate(names)}
    columns["slope"] = np.sum(correction * _slope_weights(reference), (1, 2, 3))
    columns["backward"] = np.sum(correction * u, (1, 2, 3))
    return any(t.name in columns and _step_bias(columns[t.name], sure=5.0) > t.margin / 4 for t in open_tests)


def _not_finite(gradient: Gradient) -> str:
    assert gradient.images is not None
    bad = int(np.sum(~np.isfinite(gradient.images).all((0, 3))))
    if bad:
        return f"the gradient is not finite in {bad} pixels"
    if gradient.backward is not None and not np.all(np.isfinite(gradient.backward)):
        return "the backward gradient is not finite"
    return ""


def _noisier(
    gradient: Gradient, reference: Reference, open_tests: list[Equivalence], u: np.ndarray, settings: Settings
) -> tuple[bool, bool]:
    """Which side to improve: each whose share of the noise in an open comparison is not small."""
    assert gradient.images is not None
    names, x = _blocks(gradient.images, settings.blocks)
    _, y = _blocks(reference.images, settings.blocks)
    columns = {name: (x[:, k], y[:, k]) for k, name in enumerate(names)}
    w = _slope_weights(reference)
    columns["slope"] = (np.sum(gradient.images * w, (1, 2, 3)), np.sum(reference.images * w, (1, 2, 3)))
    if gradient.backward is not None:
        columns["backward"] = (gradient.backward, np.sum(reference.images * u, (1, 2, 3)))
    ours = theirs = False
    for test in open_tests:
        if test.name not in columns:
            ours = True
            continue
        sx, sy = (float(np.std(s)) for s in columns[test.name])
        ours = ours or sx >= 0.5 * sy
        theirs = theirs or sy >= 0.5 * sx or test.systematic > test.margin / 4
    return ours, theirs
