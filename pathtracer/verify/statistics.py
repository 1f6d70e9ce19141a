"""Tests that say *equal within a margin*, *different by more*, or *cannot tell yet*.

Samples are independent replicates: each is itself the mean of many paths. Whether an estimator agrees with a reference
is decided by two one-sided Welch tests (TOST, Schuirmann 1987): agreement is the alternative hypothesis, so that too
few samples give "inconclusive", never "pass".

Location. Gradients have heavy tails (a path that grazes a surface can weigh as much as all others), and one such path
ruins the mean and, worse, the variance of the replicates. The tests therefore use the trimmed mean with Yuen's
variance (Yuen 1974; `scipy.stats.ttest_ind(trim=...)`): with eight replicates the largest and the smallest are set
aside. Medians of means were tried on paper and rejected: at eight replicates their intervals are a third wider and
they have no test in a library. Trimming is a bias when the tail carries part of the expectation. So a verdict also
asks the plain means to agree with it: where trimmed and plain mean fall on different sides of the margin the answer is
"inconclusive".

A reference that is only known to lie between two. What is left of a step size's bias is a range, from one quantity that
can be sampled to another. "Equal" is then asked of both ends, and "different" of both on the same side: what holds for
the ends holds for all between them, at the same level and with the noise of each (again an intersection-union test).

Multiplicity. "All agree" is an intersection-union test: every single test must reject at level α, which needs no
correction (Berger 1982). "Some differ" is corrected by Holm's step-down procedure; each kind of comparison has the same
share of α, however many blocks it consists of, so that the slope of the whole image does not pay for them. Repeated
looks at growing samples share α equally (Bonferroni).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import numpy as np
from scipy import stats

#: Share of replicates set aside on each side: one of eight.
TRIM = 0.125


Alternative = Literal["two-sided", "greater"]


class Verdict(str, Enum):
    """What a check concludes."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    UNSUPPORTED = "unsupported"  # the estimator refused, with a reason

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Equivalence:
    """Outcome of comparing replicates of an estimate with replicates of a reference.

    Attributes:
        name: what was compared.
        estimate, reference: trimmed means.
        margin: half width of the interval of differences that count as none, in the unit of the samples.
        low, high: confidence interval of estimate - reference (at 1 - 2α as belongs to TOST), over the whole range of
            the reference.
        p_equal: p-value of "the difference lies outside ± margin"; small means equal.
        p_different: p-value of "the difference lies inside ± margin"; small means different.
        inside, outside: whether the difference of the plain means lies inside or outside of the margin, wherever in its
            range the reference is.
        spread: length of the reference's range, 0 for a reference without one.
        weight: share of α when several comparisons are judged together, in any unit.
    """

    name: str
    estimate: float
    reference: float
    margin: float
    low: float
    high: float
    p_equal: float
    p_different: float
    inside: bool
    outside: bool
    spread: float = 0.0
    weight: float = 1.0

    @property
    def difference(self) -> float:
        """Estimate minus reference."""
        return self.estimate - self.reference


def trimmed_mean(samples: np.ndarray, axis: int = 0) -> Any:
    """Mean without the largest and smallest `TRIM` share of the replicates along `axis`."""
    return stats.trim_mean(samples, TRIM, axis=axis)


def equivalence(
    estimate: np.ndarray,
    reference: np.ndarray,
    relative: float = 0.0,
    absolute: float = 0.0,
    ends: Sequence[np.ndarray] = (),
    alpha: float = 0.05,
    name: str = "",
) -> Equivalence:
    """Two one-sided Welch tests of |E estimate - E reference| <= relative |E reference| + absolute.

    Args:
        estimate: (n,) independent replicates.
        reference: (m,) independent replicates, or one value that is known exactly.
        relative, absolute: the two parts of the margin; the relative part moves with the reference's own noise.
        ends: where the true reference is only known to lie between two, replicates (m,) of both; `reference` is then a
            guess between them, for the margin and for show.
        alpha: level of the confidence interval.
    """
    column = lambda samples: np.asarray(samples, dtype=np.float64).reshape(-1, 1)
    return equivalences(
        column(estimate), column(reference), [name], relative, absolute, [column(end) for end in ends], alpha
    )[0]


def equivalences(
    estimates: np.ndarray,
    references: np.ndarray,
    names: Sequence[str],
    relative: float = 0.0,
    absolute: float | np.ndarray = 0.0,
    ends: Sequence[np.ndarray] = (),
    alpha: float = 0.05,
) -> list[Equivalence]:
    """`equivalence` of many quantities at once.

    Args:
        estimates: (n, K) replicates of K quantities.
        references: (m, K).
        names: K names.
        absolute: one number, or (K,).
        ends: none, or two of (m, K).
    """
    x, y = np.asarray(estimates, dtype=np.float64), np.asarray(references, dtype=np.float64)
    sides = [np.asarray(end, dtype=np.float64) for end in ends] or [y]
    location_x, location_y = trimmed_mean(x), trimmed_mean(y)
    finite = np.asarray(np.all([np.isfinite(v).all(0) for v in (x, y, *sides)], axis=0))
    sign = np.where(location_y < 0, -1.0, 1.0)
    x, sides = np.where(finite, sign * x, 0.0), [np.where(finite, sign * side, 0.0) for side in sides]
    tested = [_one_sided(x, side, relative, absolute) for side in sides]
    p_equal = np.max([np.maximum(*t.within) for t in tested], axis=0)
    # beyond the same border, wherever in its range the reference is
    beyond = np.min(np.max([t.beyond for t in tested], axis=0), axis=0)
    outside = np.any(np.all([t.past for t in tested], axis=0), axis=0)
    inside = np.all([~t.past.any(axis=0) for t in tested], axis=0)
    margin = np.broadcast_to(relative * np.abs(location_y) + absolute, sign.shape)
    intervals = [_intervals(x, side, alpha) for side in sides]
    low, high = np.min([i[0] for i in intervals], axis=0), np.max([i[1] for i in intervals], axis=0)
    low, high = np.where(sign > 0, low, -high), np.where(sign > 0, high, -low)
    spread = np.abs(trimmed_mean(sides[-1]) - trimmed_mean(sides[0]))
    return [
        Equivalence(
            name,
            float(location_x[k]),
            float(location_y[k]),
            float(margin[k]),
            float(low[k]),
            float(high[k]),
            float(p_equal[k]),
            float(min(1.0, 2 * beyond[k])),
            bool(inside[k]),
            bool(outside[k]),
            float(spread[k]),
        )
        if finite[k]
        else Equivalence(
            name, float(location_x[k]), float(location_y[k]), float("nan"), -np.inf, np.inf, 1.0, 1.0, False, False
        )
        for k, name in enumerate(names)
    ]


@dataclass(frozen=True)
class _OneSided:
    """Estimates against one reference, at the lower and at the upper border of the margin.

    Attributes:
        within: two of (K,), p-values of "not within this border"; small means within.
        beyond: two of (K,), p-values of "not beyond this border"; small means beyond.
        past: (2, K) whether the plain mean lies beyond the border.
    """

    within: tuple[np.ndarray, np.ndarray]
    beyond: tuple[np.ndarray, np.ndarray]
    past: np.ndarray


def _one_sided(x: np.ndarray, y: np.ndarray, relative: float, absolute: float | np.ndarray) -> _OneSided:
    floor, ceiling = (1 - relative) * y - absolute, (1 + relative) * y + absolute
    plain, size = x.mean(0) - y.mean(0), relative * np.abs(y.mean(0)) + absolute
    return _OneSided(
        (_p_greater(x, floor), _p_greater(-x, -ceiling)),
        (_p_greater(-x, -floor), _p_greater(x, ceiling)),
        np.stack([plain < -size, plain > size]),
    )


def _without_spread(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(K,) whether nothing is random, in what trimming leaves."""
    scale = np.maximum(np.maximum(np.abs(x).max(0), np.abs(y).max(0)), 1e-300)
    return np.asarray(np.maximum(_spread(x), _spread(y)) <= 1e-12 * scale)


def _spread(samples: np.ndarray) -> np.ndarray:
    """(K,) range of what trimming leaves."""
    count = int(TRIM * len(samples)) if len(samples) >= 8 else 0
    ordered = np.sort(samples, axis=0)
    return np.asarray(ordered[-count - 1] - ordered[count])


def _welch(x: np.ndarray, y: np.ndarray, alternative: Alternative = "two-sided") -> Any:
    with warnings.catch_warnings():
        # one side without any spread (a block that nothing reaches): its variance is then rightly zero
        warnings.filterwarnings("ignore", message="Precision loss", category=RuntimeWarning)
        return stats.ttest_ind(x, y, axis=0, equal_var=False, trim=_trim_for(x, y), alternative=alternative)


def _p_greater(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(K,) p-values of Welch's (Yuen's) test that E x > E y; where nothing is random, the comparison itself."""
    result = np.where(trimmed_mean(x) > trimmed_mean(y), 0.0, 1.0)
    random = ~_without_spread(x, y)
    if np.any(random):
        x, y = x[:, random], y[:, random]
        found = (
            stats.ttest_1samp(_trimmed(x) - y, 0.0, alternative="greater") if len(y) == 1 else _welch(x, y, "greater")
        )
        result[random] = found.pvalue
    return result


def _trim_for(x: np.ndarray, y: np.ndarray) -> float:
    """No trimming with fewer than eight replicates: too few would remain."""
    return TRIM if min(len(x), len(y)) >= 8 else 0.0


def _trimmed(x: np.ndarray) -> np.ndarray:
    """One-sample counterpart of Yuen's test: pseudo-values with the trimmed mean and its winsorised variance."""
    count = int(TRIM * len(x)) if len(x) >= 8 else 0
    if count == 0:
        return x
    ordered = np.sort(x, axis=0)
    winsorised = np.clip(x, ordered[count], ordered[-count - 1])
    kept = len(x) - 2 * count
    # variance of the trimmed mean = (n - 1) s_w² / (h (h - 1)); rescaled so that a plain t-test on n values sees it
    factor = np.sqrt((len(x) - 1) * len(x) / (kept * (kept - 1)))
    return np.asarray(trimmed_mean(x) + factor * (winsorised - winsorised.mean(0)))


def _intervals(x: np.ndarray, y: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """(K,) ends of the intervals of E x - E y that belong to TOST at level α: confidence 1 - 2α."""
    low = np.asarray(trimmed_mean(x) - trimmed_mean(y), dtype=np.float64)
    high = low.copy()
    random = ~_without_spread(x, y)
    if np.any(random):
        x, y = x[:, random], y[:, random]
        if len(y) == 1:
            interval = stats.ttest_1samp(_trimmed(x) - y, 0.0).confidence_interval(1 - 2 * alpha)
        else:
            interval = _welch(x, y).confidence_interval(1 - 2 * alpha)
        low[random], high[random] = interval.low, interval.high
    return low, high


def holm(p_values: Sequence[float], weights: Sequence[float] | None = None) -> np.ndarray:
    """Holm's step-down adjustment: reject those whose adjusted value is at most α, family-wise error at most α.

    Args:
        weights: shares of α, in any unit (Holm 1979, section 4); None for equal ones.
    """
    p = np.asarray(p_values, dtype=np.float64)
    w = np.ones(p.size) if weights is None else np.asarray(weights, dtype=np.float64)
    order = np.argsort(p / w)
    left = np.cumsum(w[order][::-1])[::-1]  # weight of those not yet rejected
    result = np.empty_like(p)
    result[order] = np.minimum(np.maximum.accumulate(p[order] / w[order] * left), 1.0)
    return result


def judge(tests: Sequence[Equivalence], alpha: float = 0.05) -> tuple[Verdict, list[Equivalence]]:
    """One verdict from several comparisons, and the comparisons that decided it (failed, or not yet decided).

    pass: every comparison shows equality at level α. fail: some comparison shows a difference, after Holm with the
    comparisons' weights. Both only where the plain means agree (see the module's notes on location).
    """
    if not tests:
        raise ValueError("no comparison to judge")
    adjusted = holm([t.p_different for t in tests], [t.weight for t in tests])
    different = [t for t, p in zip(tests, adjusted, strict=True) if p <= alpha and t.outside]
    if different:
        return Verdict.FAIL, different
    open_tests = [t for t in tests if not (t.p_equal <= alpha and t.inside)]
    return (Verdict.INCONCLUSIVE, open_tests) if open_tests else (Verdict.PASS, [])


def decide(
    draw: Callable[[int], tuple[np.ndarray, np.ndarray]],
    relative: float = 0.0,
    absolute: float = 0.0,
    alpha: float = 0.05,
    looks: int = 6,
) -> tuple[Verdict, Equivalence]:
    """Compare with doubled samples until the answer is clear: the sequential form for one scalar.

    Args:
        draw: look number k to fresh replicates (estimate, reference), each a mean of 2^k times as many samples.
        looks: how many times at most; each is tested at α / looks.
    """
    for look in range(looks):
        estimate, reference = draw(look)
        test = equivalence(estimate, reference, relative, absolute, alpha=alpha / looks)
        verdict, _ = judge([test], alpha / looks)
        if verdict is not Verdict.INCONCLUSIVE:
            break
    return verdict, test
