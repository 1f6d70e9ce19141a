"""Assertions about random quantities, on the equivalence tests that `pathtracer check` uses.

    from helpers.statistics import assert_equivalent
    assert_equivalent([estimate(seed) for seed in range(8)], exact, relative=0.03)

They fail both when a difference is shown and when the samples are too few to tell; the message says which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from pathtracer.verify.statistics import Equivalence, Verdict, equivalence, judge


def assert_equivalent(
    samples: Sequence[float] | np.ndarray,
    reference: Sequence[float] | np.ndarray | float,
    relative: float = 0.03,
    absolute: float = 0.0,
    confidence: float = 0.99,
) -> Equivalence:
    """Assert that E samples equals E reference within the margin, with the given confidence.

    Args:
        samples: (n,) independent replicates, n >= 4; eight or more are trimmed.
        reference: replicates, or the exact value.
        relative, absolute: the margin is relative |reference| + absolute.
    """
    verdict, test = _compare(samples, reference, relative, absolute, confidence)
    assert verdict is Verdict.PASS, f"{verdict}: {_words(test)}"
    return test


def assert_different(
    samples: Sequence[float] | np.ndarray,
    reference: Sequence[float] | np.ndarray | float,
    relative: float = 0.03,
    absolute: float = 0.0,
    confidence: float = 0.99,
) -> Equivalence:
    """Assert that E samples differs from E reference by more than the margin, with the given confidence."""
    verdict, test = _compare(samples, reference, relative, absolute, confidence)
    assert verdict is Verdict.FAIL, f"expected a difference, found {verdict}: {_words(test)}"
    return test


def verdict_rates(trial: Callable[[int], Verdict], trials: int) -> dict[Verdict, float]:
    """Share of each verdict over independent trials, given as a function of the trial's number."""
    counts = Counter(trial(i) for i in range(trials))
    return {verdict: counts[verdict] / trials for verdict in Verdict}


def _compare(
    samples: Sequence[float] | np.ndarray,
    reference: Sequence[float] | np.ndarray | float,
    relative: float,
    absolute: float,
    confidence: float,
) -> tuple[Verdict, Equivalence]:
    x = np.asarray(samples, dtype=float).ravel()
    assert x.size >= 4, f"{x.size} replicates cannot tell noise from bias; give at least 4"
    alpha = 1 - confidence
    test = equivalence(x, np.atleast_1d(np.asarray(reference, dtype=float)), relative, absolute, alpha=alpha)
    return judge([test], alpha)[0], test


def _words(test: Equivalence) -> str:
    return (
        f"estimate {test.estimate:.6g}, reference {test.reference:.6g}, "
        f"difference in [{test.low:.3g}, {test.high:.3g}], margin ±{test.margin:.3g}"
    )
