"""What a check asks (`Settings`) and what it found for one motion and one estimator (`Comparison`)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .statistics import Equivalence, Verdict


@dataclass(frozen=True)
class Settings:
    """How strict a check is and what it may cost.

    Attributes:
        tolerance: relative error of slope and backward gradient that counts as none.
        block_tolerance: error of a block that counts as none, relative to the strongest block.
        confidence: of each verdict.
        budget: seconds per motion and estimator.
        blocks: the image is divided into blocks × blocks.
        replicates: independent repetitions; 8 is the fewest that allow trimming.
        reference_replicates: the same of the reference, whose noise is mostly the larger: as many samples in more
            replicates give narrower intervals at small levels.
        spp: samples per pixel of a replicate at the first look; 0 for about 70 000 paths a replicate.
        reference_spp: the same of the reference, for each of the four renders of a replicate; 0 for as many.
        looks: doublings at most.
        backward: whether the backward mode is checked too.
        seed: of everything.
        resolution: larger images are checked with that many pixels on their longer side.
    """

    tolerance: float = 0.03
    block_tolerance: float = 0.10
    confidence: float = 0.95
    budget: float = 60.0
    blocks: int = 4
    replicates: int = 8
    reference_replicates: int = 16
    spp: int = 0
    reference_spp: int = 0
    looks: int = 8
    backward: bool = True
    seed: int = 0
    resolution: int = 64


@dataclass
class Comparison:
    """Outcome for one motion and one estimator.

    Attributes:
        motion, estimator: what was checked.
        verdict: pass, fail, inconclusive or unsupported.
        tests: every comparison at the last look; `decisive` those that made it fail or kept it open.
        reason: one sentence on what was found; `remedy` what to use instead.
        gradient, reference: (H, W, C) means, None where there are none.
        spp, reference_spp: samples per pixel and replicate that were spent.
        epsilon: step size of the reference.
        terms: of a failure, the factor that each term of the estimator would need (1 means it is right).
        notes: warnings that the estimator gave.
        view: (H, W, C) the image that is differentiated.
        aovs: how many of the channels are none of colour; they come last.
        case, expected, as_expected: in a run of the catalogue, the case, what is right for this estimator, and whether
            that was found; None where nothing is known.
    """

    motion: str
    estimator: str
    verdict: Verdict
    tests: list[Equivalence] = field(default_factory=list)
    decisive: list[Equivalence] = field(default_factory=list)
    reason: str = ""
    remedy: str = ""
    gradient: np.ndarray | None = None
    reference: np.ndarray | None = None
    spp: int = 0
    reference_spp: int = 0
    epsilon: float = 0.0
    seconds: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    view: np.ndarray | None = None
    aovs: int = 0
    case: str = ""
    expected: str = ""
    as_expected: bool | None = None

    def test(self, name: str) -> Equivalence | None:
        """The comparison called `name` ("slope", "backward", "adjoint", "block 1,2 c0")."""
        return next((t for t in self.tests if t.name == name), None)

    @property
    def slope(self) -> float:
        """Estimate over reference of the whole image; NaN where the reference is zero."""
        return _ratio(self.test("slope"))

    @property
    def backward(self) -> float:
        """The same of the backward gradient."""
        return _ratio(self.test("backward"))

    def slope_interval(self) -> tuple[float, float]:
        """Confidence interval of the slope."""
        test = self.test("slope")
        if test is None or test.reference == 0:
            return float("nan"), float("nan")
        ends = sorted(1 + d / test.reference for d in (test.low, test.high))
        return ends[0], ends[1]

    @property
    def worst_block(self) -> float:
        """Largest error of a block in units of its margin."""
        blocks = [abs(t.difference) / t.margin for t in self.tests if t.name.startswith("block") and t.margin > 0]
        return max(blocks, default=float("nan"))


def _ratio(test: Equivalence | None) -> float:
    return float("nan") if test is None or test.reference == 0 else test.estimate / test.reference


def describe(result: Comparison, settings: Settings) -> str:
    """What was found, in one sentence."""
    low, high = result.slope_interval()
    slope = f"slope {result.slope:.3f} [{low:.3f}, {high:.3f}]"
    if result.verdict is Verdict.PASS:
        test = result.test("slope")
        # wider than the tolerance where the derivative is so small that a thousandth of the image is a part of it
        margin = test.margin / abs(test.reference) if test is not None and test.reference else settings.tolerance
        return f"{slope}, within ±{margin:.1%}" if margin < 1 else "no derivative, as it should be"
    names = [t.name for t in result.decisive]
    blocks = sum(name.startswith("block") for name in names)
    parts = [name for name in names if not name.startswith("block")] + ([f"{blocks} blocks"] if blocks else [])
    what = ", ".join(parts)
    if result.verdict is Verdict.FAIL:
        if np.allclose(np.nan_to_num(result.slope), 0) and result.gradient is not None and not np.any(result.gradient):
            return f"{result.motion}: the gradient is zero although the image changes"
        return f"{result.motion}: {slope}; differs in {what}"
    heavy = [t.name for t in result.decisive if t.p_equal < 0.05 and not t.inside]
    tails = f"; heavy tails in {', '.join(heavy[:3])}" if heavy else ""
    return f"{result.motion}: {slope}; not yet clear in {what}{tails}; give more --budget"
