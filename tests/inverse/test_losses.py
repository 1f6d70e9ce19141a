"""Losses: the slope is the derivative, and noise does not shift what claims to be unbiased."""

from __future__ import annotations

import numpy as np
import pytest

from pathtracer.errors import UsageError
from pathtracer.inverse.losses import LOSSES, make_loss

RNG = np.random.default_rng(11)
TARGET = RNG.uniform(0.1, 2.0, size=(5, 4, 3))
IMAGE = TARGET + RNG.normal(scale=0.3, size=TARGET.shape).clip(-0.09, 1)


@pytest.mark.parametrize("name", LOSSES)
def test_slope_is_the_derivative_of_the_value_by_the_image(name: str) -> None:
    loss = make_loss(name)
    h = 1e-6
    numeric = (loss.value(IMAGE + h, IMAGE + h, TARGET, np) - loss.value(IMAGE - h, IMAGE - h, TARGET, np)) / (2 * h)
    np.testing.assert_allclose(loss.slope(IMAGE, TARGET, np), numeric, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in LOSSES if make_loss(n).unbiased])
def test_noise_leaves_the_mean_of_an_unbiased_loss_alone(name: str) -> None:
    loss = make_loss(name)
    exact = loss.value(IMAGE, IMAGE, TARGET, np).mean()
    count = 4000
    a, b = (IMAGE + RNG.exponential(0.5, size=(count, *IMAGE.shape)) - 0.5 for _ in range(2))
    noisy = loss.value(a, b, TARGET, np).mean(axis=(1, 2, 3))
    assert abs(noisy.mean() - exact) < 4 * noisy.std() / np.sqrt(count)


def test_a_squared_loss_of_one_noisy_render_would_be_too_large_by_the_variance() -> None:
    loss = make_loss("l2")
    a = IMAGE + RNG.normal(scale=0.5, size=(2000, *IMAGE.shape))
    excess = loss.value(a, a, TARGET, np).mean() - loss.value(IMAGE, IMAGE, TARGET, np).mean()
    assert 0.24 < excess < 0.26


@pytest.mark.parametrize("name", LOSSES)
def test_drjit_and_numpy_agree(name: str) -> None:
    import drjit as dr
    import mitsuba as mi

    loss = make_loss(name)
    image, target = mi.TensorXf(IMAGE.astype(np.float32)), mi.TensorXf(TARGET.astype(np.float32))
    np.testing.assert_allclose(np.array(loss.slope(image, target, dr)), loss.slope(IMAGE, TARGET, np), atol=1e-4)
    np.testing.assert_allclose(
        np.array(loss.value(image, image, target, dr)), loss.value(IMAGE, IMAGE, TARGET, np), atol=1e-4
    )


def test_unknown_loss_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="'huber'"):
        make_loss("hubber")
    with pytest.raises(UsageError, match="takes no delta"):
        make_loss("l2", delta=1.0)
