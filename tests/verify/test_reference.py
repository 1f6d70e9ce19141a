"""The range that a reference leaves for the derivative: it holds the derivative wherever the error is of order one."""

from __future__ import annotations

import numpy as np
import pytest

from pathtracer.verify.reference import RATIO, Reference
from pathtracer.verify.samples import Replicates


def reference_of(difference, epsilon: float) -> Reference:
    """A reference without noise whose central differences are `difference(step)`."""
    found = Reference.__new__(Reference)
    found.differences = Replicates(0)
    steps = np.array([difference(epsilon), difference(epsilon / RATIO)])
    found.differences.values = np.broadcast_to(steps[None, :, None, None, None], (8, 2, 1, 1, 1))
    return found


def central(function, step):
    return (function(step) - function(-step)) / (2 * step)


def kinked(theta):
    """I'(0) = 1; I' falls on both sides from |θ| = 0.03 on, as where a shadow's corner leaves the frame."""
    far = np.maximum(np.abs(theta) - 0.03, 0)
    return theta - 3 * np.sign(theta) * far**2


@pytest.mark.parametrize("order", [1, 2, 4])
def test_ends_enclose_a_derivative_whose_error_falls_by_any_order_from_one_on(order):
    low, high = (end.mean() for end in reference_of(lambda step: 1 - step**order, 0.1).ends)
    assert low <= 1 <= high + 1e-12


def test_best_guess_is_that_of_smooth_functions():
    assert reference_of(lambda step: 1 - step**2, 0.1).images == pytest.approx(1)


@pytest.mark.parametrize("epsilon", [0.2, 0.1, 0.05])
def test_kink_within_the_step_is_enclosed_where_an_order_of_two_would_be_off(epsilon):
    found = reference_of(lambda step: central(kinked, step), epsilon)
    low, high = (end.mean() for end in found.ends)
    assert low <= 1 + 1e-12 and high >= 1 - 1e-12
    assert abs(found.corrections.mean()) == pytest.approx(high - found.images.mean())


def test_order_one_is_what_is_assumed():
    """Below it the range does not hold the derivative: the assumption is one."""
    low, high = (end.mean() for end in reference_of(lambda step: 1 - step**0.5, 0.1).ends)
    assert low < high < 1
