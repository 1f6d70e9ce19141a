"""Is this gradient right? Estimators against finite differences, with a verdict that states its confidence.

For one motion and one estimator several things are compared (`quantities`), each an equivalence test on independent
replicates, in looks at growing samples until the answer is clear or the budget is spent. After each look

    the step is halved    where the range that it leaves is wider than the noise of an open comparison
    samples are added     otherwise: as much time as was spent so far, or what is left of the budget, on the sides where
                          it helps the open comparisons most (`samples`)

An estimator that can split its samples among its terms by their variance does so after the first look. While the
budget lasts, a difference must show twice, the second time with twice the samples of the estimator: a share of the
expectation that sits in rare paths looks like a bias until one of them is drawn. A step that is far too large may look
like one too, and where the step was not halved for other reasons it is halved then, unless an earlier run left a
reference that takes longer to draw anew than this one has taken.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from integrators.errors import GradientWarning, UnsupportedGradient

from .channels import aov_count
from .comparison import Comparison, Settings, describe
from .estimate import Gradient
from .motion import BoundMotion
from .quantities import Quantities, adjoint_image, compared
from .reference import Reference
from .samples import Side, further_samples, whole
from .statistics import Equivalence, Verdict, judge, trimmed_mean

#: Samples per pixel of the pilot that splits samples among an estimator's terms, at most.
PILOT_SPP = 64
#: Another look must bring this share of the time spent so far; less would narrow intervals by a tenth.
WORTHWHILE = 0.25


def first_spp(sensor: Any, settings: Settings) -> tuple[int, int]:
    """Samples per pixel of the first look: of the estimator and of the reference."""
    size = sensor.film().crop_size()
    automatic = 2 ** int(np.clip(np.log2(73_728 / (int(size[0]) * int(size[1]))), 2, 9))
    return settings.spp or automatic, settings.reference_spp or automatic


#: Said instead of asking for more budget.
BLACK = "the image is black and stays so: there is nothing to compare; look at it: pathtracer render"


@dataclass(frozen=True)
class Plan:
    """What the next look adds, in samples per pixel; `refine` draws the reference anew with half the step."""

    forward: int = 0
    backward: int = 0
    reference: int = 0
    refine: bool = False

    @property
    def anything(self) -> bool:
        """Whether there is anything to be done."""
        return max(self.forward, self.backward, self.reference) > 0


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
    adjoint = adjoint_image(reference.pilot, settings.seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GradientWarning)
        plan = Plan(spp, spp if settings.backward else 0)
        failed = black = False
        for look in range(settings.looks):
            try:
                if look == 0:
                    gradient.limit(spp, 0.5 * settings.budget)
                elif gradient.forward.spp == spp and plan.forward:
                    gradient.balance(min(spp, PILOT_SPP))
                if plan.forward:
                    gradient.grow(plan.forward)
                if plan.backward:
                    gradient.grow_backward(adjoint, plan.backward)
            except (UnsupportedGradient, NotImplementedError) as error:
                result.verdict, result.reason = Verdict.UNSUPPORTED, str(error)
                break
            except Exception as error:
                # Someone else's estimator may raise anything; that is a finding about it, told with its first cause
                result.verdict, result.reason = Verdict.FAIL, f"{bound.motion}: raised {first_cause(error)}"
                break
            if plan.refine:
                reference.refine(plan.reference)
            elif plan.reference:
                reference.grow(plan.reference)
            found = compared(gradient, reference, adjoint, settings, bound.scale)
            result.tests = [test for quantities in found for test in quantities.tests(alpha)]
            broken = _not_finite(gradient)
            if broken:
                result.verdict, result.reason = Verdict.FAIL, broken
                break
            result.verdict, result.decisive = judge(result.tests, alpha)
            black = not any(np.any(x) for x in (reference.view, reference.images, gradient.images))
            if result.verdict is Verdict.PASS or (black and look > 0):
                break
            if result.verdict is Verdict.FAIL:
                if failed or not np.any(gradient.images):
                    break
                failed = True
            elapsed = time.monotonic() - start
            looks_left = settings.looks - look - 1
            plan = _plan(gradient, reference, found, result, elapsed, settings.budget - elapsed, looks_left)
            if not plan.anything:
                break
    gradient.forget_split()
    result.notes = sorted({str(w.message) for w in caught if issubclass(w.category, GradientWarning)})
    for w in caught:
        if not issubclass(w.category, GradientWarning):
            warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
    images = gradient.forward.values
    result.gradient = None if images is None else trimmed_mean(images)
    result.reference, result.view = trimmed_mean(reference.images), reference.view
    result.aovs = aov_count(reference.base)
    result.spp, result.reference_spp, result.epsilon = gradient.forward.spp, reference.spp, reference.epsilon
    result.seconds = time.monotonic() - start
    if not result.reason:
        dark = black and result.verdict is Verdict.INCONCLUSIVE
        result.reason = f"{bound.motion}: {BLACK}" if dark else describe(result, settings)
    return result


def first_cause(error: BaseException) -> str:
    """The innermost exception of a chain, in one line; Dr.Jit hides causes behind "see above"."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _plan(
    gradient: Gradient,
    reference: Reference,
    found: Sequence[Quantities],
    result: Comparison,
    elapsed: float,
    left: float,
    looks: int,
) -> Plan:
    """What to add before the next look; nothing when the rest of the budget or of the looks allows nothing worthwhile.

    Args:
        elapsed, left: seconds of the budget.
        looks: that may still follow.
    """
    forward, backward, differences = gradient.forward, gradient.backward, reference.differences
    sides = {"forward": forward, "backward": backward, "reference": differences}
    spent = sum(side.rate * side.spp for side in sides.values())
    done = min(spent, elapsed)  # what was read from disk was not spent
    if looks == 0 or left < WORTHWHILE * done:
        return Plan()
    # As much as so far, so that the looks suffice for all sizes; more where they would end before the budget does
    seconds = min(left, max(done, left / 2 ** (looks - 1)))
    if result.verdict is Verdict.FAIL:
        anew = differences.rate * differences.spp
        refine = not reference.refined and anew <= seconds
        share = min(1.0, left / (spent - anew))
        more = {name: max(1, round(share * side.spp)) if side.spp else 0 for name, side in sides.items()}
        more["reference"] = differences.spp if refine else max(1, round(min(1.0, seconds / anew) * differences.spp))
        return Plan(more["forward"], more["backward"], more["reference"], refine)
    if any(_step_too_large(test) for test in result.decisive):
        growth = seconds / (differences.rate * differences.spp)
        if growth >= WORTHWHILE:
            return Plan(reference=whole(growth, differences.spp), refine=True)
    noise = _noise(found, result.decisive)
    more = further_samples({n: Side(s.spp, s.rate, noise[n]) for n, s in sides.items()}, seconds)
    return Plan(more["forward"], more["backward"], more["reference"])


def _step_too_large(test: Equivalence) -> bool:
    """Whether the range that the step leaves keeps a comparison open, or will.

    With a range R in proportion to ε and a variance of the differences in proportion to 1/(n ε), R and the noise to
    either side of it come below a margin with n ∝ 1 / ((1 - R)² R) samples, R in units of the margin. Half the step
    needs fewer from R = (√2 - 1) / (√2 - 1/2) = 0.45 on, where the noise is R / 0.83. The range's own standard error is
    at most half of that of its upper end, so that less than a third of the noise, which is three of the latter, is not
    taken for a range.
    """
    noise = (test.high - test.low - test.spread) / 2
    return test.spread > max(noise / 3, min(0.83 * noise, 0.45 * test.margin))


def _noise(found: Sequence[Quantities], open_tests: Sequence[Equivalence]) -> dict[str, float]:
    """Of each side, the sum of its variances over the open comparisons, in units of their squared margins."""
    margins = {test.name: test.margin for test in open_tests}
    noise = {"forward": 0.0, "backward": 0.0, "reference": 0.0}
    for quantities in found:
        for side, variances in quantities.variances().items():
            for name, variance in zip(quantities.names, variances, strict=True):
                if margins.get(name, 0.0) > 0 and np.isfinite(variance):
                    noise[side] += float(variance) / margins[name] ** 2
    return noise


def _not_finite(gradient: Gradient) -> str:
    bad = int(np.sum(~np.isfinite(gradient.images).all((0, 3))))
    if bad:
        return f"the gradient is not finite in {bad} pixels"
    numbers = gradient.backward.values
    if numbers is not None and not np.all(np.isfinite(numbers)):
        return "the backward gradient is not finite"
    return ""
