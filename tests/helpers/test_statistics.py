"""The helpers that judge randomness are themselves judged: at the rates they state."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.statistics import assert_different, assert_equivalent, verdict_rates
from scipy import stats

from pathtracer.verify.statistics import Verdict, decide, equivalence, equivalences, holm, judge, trimmed_mean

TRIALS = 400
TOLERANCE = 0.03
ALPHA = 0.05


def _normal(rng: np.random.Generator, mean: float, deviation: float, n: int | tuple[int, ...] = 8) -> np.ndarray:
    return mean + deviation * rng.standard_normal(n)


def _heavy(rng: np.random.Generator, mean: float, deviation: float, n: int | tuple[int, ...] = 8) -> np.ndarray:
    """Student's t with 2.5 degrees of freedom: finite variance, no third moment, like paths that graze a surface."""
    return mean + deviation * rng.standard_t(2.5, n)


def _families(estimates: np.ndarray, references: np.ndarray, alpha: float = ALPHA) -> list[Verdict]:
    """Verdicts of many families at once: (replicates, families, comparisons of a family) each."""
    n, families, size = estimates.shape
    tests = equivalences(
        estimates.reshape(n, -1), references.reshape(len(references), -1), [""] * (families * size), TOLERANCE
    )
    return [judge(tests[k * size : (k + 1) * size], alpha)[0] for k in range(families)]


def _rates(bias: float, deviation: float, draw=_normal, size: int = 1, trials: int = TRIALS) -> dict[Verdict, float]:
    """Shares of the verdicts over families of `size` comparisons, each as biased as the next."""
    rng = np.random.default_rng(1000)
    shape = (8, trials, size)
    verdicts = _families(draw(rng, 1 + bias, deviation, shape), draw(rng, 1.0, deviation / 2, shape))
    return verdict_rates(lambda i: verdicts[i], trials)


def _at_most(probability: float, trials: int = TRIALS) -> float:
    """A share that this many trials of this probability exceed once in ten thousand times."""
    return float(stats.binom.ppf(1 - 1e-4, trials, probability)) / trials


@pytest.mark.parametrize("draw", [_normal, _heavy])
def test_five_percent_bias_is_rejected(draw):
    assert _rates(0.05, 0.002, draw)[Verdict.FAIL] > 0.98


@pytest.mark.parametrize("draw", [_normal, _heavy])
def test_unbiased_noisy_estimator_is_accepted(draw):
    assert _rates(0.0, 0.005, draw)[Verdict.PASS] > 0.95


@pytest.mark.parametrize("draw", [_normal, _heavy])
@pytest.mark.parametrize("deviation", [0.002, 0.02, 0.2])
def test_bias_at_the_margin_passes_or_fails_no_more_often_than_stated(draw, deviation):
    rates = _rates(TOLERANCE, deviation, draw)
    assert rates[Verdict.PASS] <= _at_most(ALPHA)
    assert rates[Verdict.FAIL] <= _at_most(ALPHA)


@pytest.mark.parametrize("deviation", [0.02, 0.1, 1.0])
def test_unbiased_estimator_fails_no_more_often_than_stated(deviation):
    assert _rates(0.0, deviation)[Verdict.FAIL] <= _at_most(ALPHA)


def test_starved_comparison_is_inconclusive():
    assert _rates(0.0, 0.3)[Verdict.INCONCLUSIVE] > 0.9
    assert _rates(0.05, 0.3)[Verdict.PASS] <= _at_most(ALPHA)


@pytest.mark.parametrize("draw", [_normal, _heavy])
@pytest.mark.parametrize("deviation", [0.005, 0.2])
def test_family_of_blocks_errs_no_more_often_than_stated(draw, deviation):
    """48 blocks, every one of them biased by just the margin: the worst case for both errors."""
    rates = _rates(TOLERANCE, deviation, draw, size=48, trials=100)
    assert rates[Verdict.FAIL] <= _at_most(ALPHA, 100)
    assert rates[Verdict.PASS] <= _at_most(ALPHA, 100)


def test_report_on_several_keys_errs_no_more_often_than_stated():
    """Five keys of twelve blocks, biased by the margin; each is judged at a fifth of α, as `compare` does."""
    rng = np.random.default_rng(77)
    keys, trials = 5, 100
    shape = (8, keys * trials, 12)
    verdicts = _families(_normal(rng, 1 + TOLERANCE, 0.02, shape), _normal(rng, 1.0, 0.01, shape), ALPHA / keys)
    reports = [verdicts[k * keys : (k + 1) * keys] for k in range(trials)]
    for wrong in (Verdict.PASS, Verdict.FAIL):
        assert sum(wrong in report for report in reports) / trials <= _at_most(ALPHA, trials)


def test_one_wrong_block_among_many_is_found():
    rng = np.random.default_rng(3)
    tests = [equivalence(_normal(rng, 1.0, 0.005), _normal(rng, 1.0, 0.005), TOLERANCE, name=str(k)) for k in range(47)]
    tests.append(equivalence(_normal(rng, 1.2, 0.01), _normal(rng, 1.0, 0.01), TOLERANCE, name="wrong"))
    verdict, decisive = judge(tests, ALPHA)
    assert verdict is Verdict.FAIL
    assert [t.name for t in decisive] == ["wrong"]


def test_doubling_reaches_a_verdict_and_keeps_the_error_rate():
    def trial(i: int, bias: float) -> Verdict:
        rng = np.random.default_rng(90_000 + i)

        def draw(look: int) -> tuple[np.ndarray, np.ndarray]:
            deviation = 0.1 / 2 ** (look / 2)
            return _normal(rng, 1 + bias, deviation), _normal(rng, 1.0, deviation / 2)

        return decide(draw, TOLERANCE, alpha=ALPHA, looks=9)[0]

    right = verdict_rates(lambda i: trial(i, 0.0), 25)
    assert right[Verdict.FAIL] <= _at_most(ALPHA, 25)
    assert right[Verdict.PASS] > 0.9
    assert verdict_rates(lambda i: trial(i, 0.06), 25)[Verdict.FAIL] > 0.9


def test_single_firefly_does_not_decide():
    rng = np.random.default_rng(0)
    x = _normal(rng, 1.0, 0.004)
    x[3] = 50.0
    test = equivalence(x, _normal(rng, 1.0, 0.004), TOLERANCE)
    assert abs(test.difference) < 0.01
    # the plain mean disagrees with the trimmed one, so the answer is open, not "pass"
    assert judge([test], ALPHA)[0] is Verdict.INCONCLUSIVE


def test_reference_between_two_ends_decides_only_what_holds_for_both():
    rng = np.random.default_rng(1)
    x, y = _normal(rng, 1.05, 0.001), _normal(rng, 1.0, 0.001)
    assert judge([equivalence(x, y, TOLERANCE)], ALPHA)[0] is Verdict.FAIL
    for ends in ((y, y + 0.04), (y + 0.04, y)):  # 1.05 is within the tolerance of 1.04 and not of 1.00
        test = equivalence(x, y, TOLERANCE, ends=ends)
        assert judge([test], ALPHA)[0] is Verdict.INCONCLUSIVE
        assert not test.inside and not test.outside and test.spread == pytest.approx(0.04)
    assert judge([equivalence(x, y, TOLERANCE, ends=(y, y + 0.01))], ALPHA)[0] is Verdict.FAIL
    assert judge([equivalence(x, y, TOLERANCE, ends=(y + 0.04, y + 0.06))], ALPHA)[0] is Verdict.PASS
    # beyond the one end upwards, beyond the other downwards: nothing between them is excluded
    assert judge([equivalence(x, y, TOLERANCE, ends=(y, y + 0.1))], ALPHA)[0] is Verdict.INCONCLUSIVE


def test_noise_of_either_end_counts():
    rng = np.random.default_rng(3)
    x, y, noisy = _normal(rng, 1.0, 0.001), _normal(rng, 1.0, 0.001), _normal(rng, 1.0, 0.1)
    assert judge([equivalence(x, y, TOLERANCE, ends=(y, y))], ALPHA)[0] is Verdict.PASS
    assert judge([equivalence(x, y, TOLERANCE, ends=(y, noisy))], ALPHA)[0] is Verdict.INCONCLUSIVE


def test_negative_references_are_treated_as_positive_ones():
    rng = np.random.default_rng(2)
    x, y = _normal(rng, 1.01, 0.003), _normal(rng, 1.0, 0.003)
    up, down = equivalence(x, y, TOLERANCE), equivalence(-x, -y, TOLERANCE)
    assert up.p_equal == pytest.approx(down.p_equal)
    assert (up.low, up.high) == pytest.approx((-down.high, -down.low))


def test_many_comparisons_at_once_are_the_single_ones():
    rng = np.random.default_rng(6)
    x, y = _normal(rng, 1.0, 0.3, (8, 5)), _normal(rng, -0.2, 0.3, (8, 5))
    x[0, 3], y[:, 4], x[:, 4] = np.nan, 2.0, 2.0
    ends = (y, y + np.array([0, 0.1, 0, 0, 0]))
    together = equivalences(x, y, list("abcde"), 0.1, 0.2, ends)
    for k, test in enumerate(together):
        alone = equivalence(x[:, k], y[:, k], 0.1, 0.2, [end[:, k] for end in ends], name="abcde"[k])
        for field in ("estimate", "margin", "low", "high", "p_equal", "p_different", "inside", "outside", "spread"):
            np.testing.assert_allclose(getattr(test, field), getattr(alone, field), rtol=1e-9, err_msg=field)


def test_samples_without_spread_are_compared_exactly():
    ones = np.ones(8)
    assert judge([equivalence(ones, ones, TOLERANCE)], ALPHA)[0] is Verdict.PASS
    assert judge([equivalence(1.05 * ones, ones, TOLERANCE)], ALPHA)[0] is Verdict.FAIL


def test_non_finite_samples_never_pass():
    bad = np.array([1.0, np.nan, 1, 1, 1, 1, 1, 1])
    assert judge([equivalence(bad, np.ones(8), TOLERANCE)], ALPHA)[0] is Verdict.INCONCLUSIVE


def test_holm_matches_its_definition():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.9]) == pytest.approx([1.0, 1.0])


def test_trimmed_mean_sets_one_of_eight_aside_on_each_side():
    assert trimmed_mean(np.array([-1e6, 1, 2, 3, 4, 5, 6, 1e6])) == pytest.approx(3.5)


def test_assertions_say_what_they_found():
    rng = np.random.default_rng(4)
    assert_equivalent(_normal(rng, 2.0, 0.01), 2.0)
    assert_different(_normal(rng, 2.2, 0.01), 2.0)
    with pytest.raises(AssertionError, match="fail"):
        assert_equivalent(_normal(rng, 2.2, 0.01), 2.0)
    with pytest.raises(AssertionError, match="inconclusive"):
        assert_equivalent(_normal(rng, 2.0, 1.0), 2.0)
    with pytest.raises(AssertionError, match="at least 4"):
        assert_equivalent([2.0, 2.0], 2.0)


def test_weighted_holm_gives_each_its_share_and_the_rest_to_the_next():
    # 3 of 4 shares for the first: 0.03 / (3/4) = 0.04; then the second has all that is left
    assert holm([0.03, 0.045], [3, 1]) == pytest.approx([0.04, 0.045])
    assert holm([0.01, 0.04, 0.03], [2, 2, 2]) == pytest.approx(holm([0.01, 0.04, 0.03]))
