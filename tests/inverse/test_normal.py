"""Normal equations of noisy images, on images made of random numbers: what is unbiased, what the noise hides."""

from __future__ import annotations

import numpy as np
import pytest

from pathtracer.inverse.solvers import normal
from pathtracer.inverse.solvers.normal import Layout

SHAPE = (20, 20)
LAYOUT = Layout((SHAPE,))
P = SHAPE[0] * SHAPE[1]


def columns(n: int, seed: int = 0) -> np.ndarray:
    """Smooth derivative images (n, P, 1)."""
    x, y = np.meshgrid(*(np.linspace(0, 1, k) for k in SHAPE))
    rng = np.random.default_rng(seed)
    return np.stack([np.sin(a * x + b * y + c) for a, b, c in rng.uniform(0, 6, (n, 3))]).reshape(n, P, 1)


def equations(J: np.ndarray, step: np.ndarray, noise_j: float, noise_r: float, rng, layout: Layout = LAYOUT):
    """Normal equations at a point that is `-step` away from the answer."""
    n = len(J)
    truth = np.einsum("npc,n->pc", J, step)
    J1, J2 = (J + noise_j * rng.normal(size=J.shape) for _ in range(2))
    a, b = (truth + noise_r * rng.normal(size=truth.shape) for _ in range(2))
    weight = np.full((P, 1), 1 / P)
    return normal.build(J1, J2, a, b, np.zeros((P, 1)), weight, np.ones(n), layout)


def test_two_jacobians_give_an_unbiased_matrix_where_one_is_far_too_large() -> None:
    rng = np.random.default_rng(1)
    J = columns(3)
    exact = np.einsum("ipc,jpc->ij", J, J) / P
    found = [equations(J, np.zeros(3), 2.0, 0.1, rng) for _ in range(200)]
    mean = np.mean([f.A for f in found], axis=0)
    error = np.std([f.A for f in found], axis=0) / np.sqrt(len(found))
    assert np.all(np.abs(mean - exact) < 4.5 * error)
    assert np.median([f.inflation for f in found]) > 5  # what a single Jacobian would have claimed


def test_the_noise_of_the_gradient_is_what_it_is_said_to_be() -> None:
    rng = np.random.default_rng(2)
    J, step = columns(3), np.array([0.3, -0.2, 0.1])
    found = [equations(J, step, 0.5, 0.4, rng) for _ in range(400)]
    scatter = np.cov(np.array([f.b for f in found]).T)
    claimed = np.mean([f.noise for f in found], axis=0)
    ratio = np.diag(claimed) / np.diag(scatter)
    assert np.all(ratio > 0.8) and np.all(ratio < 1.6), ratio  # noise times noise is counted twice


def test_a_step_finds_the_answer_within_the_bounds() -> None:
    rng = np.random.default_rng(3)
    J, step = columns(3), np.array([0.3, -0.2, 0.1])
    e = equations(J, step, 0.01, 0.001, rng)
    free = e.step(0.0, np.full(3, -1.0), np.full(3, 1.0))
    np.testing.assert_allclose(free, -step, atol=0.01)
    held = e.step(0.0, np.array([-0.1, -1.0, -1.0]), np.full(3, 1.0))
    assert held[0] == -0.1
    rest = np.linalg.solve(e.A[1:, 1:], -(e.b[1:] + e.A[1:, 0] * held[0]))
    np.testing.assert_allclose(held[1:], rest, atol=0.02)


def test_what_no_image_responds_to_is_found_and_not_moved() -> None:
    rng = np.random.default_rng(4)
    J = columns(3)
    J[2] = -J[1]  # the second and the third number trade off
    e = equations(J, np.array([0.3, 0.2, 0.0]), 0.3, 0.05, rng)
    _, unknown = e.inverse()
    assert len(unknown) == 1
    assert abs(unknown[0] @ np.array([0, 1, 1]) / np.sqrt(2)) > 0.99
    step = e.step(0.0, np.full(3, -5.0), np.full(3, 5.0))
    assert abs(step[1] + step[2]) < 0.5  # noise alone, held back
    assert abs(step[0] + 0.3) < 0.1


def test_a_pinned_number_takes_no_part_in_the_inverse() -> None:
    rng = np.random.default_rng(5)
    e = equations(columns(3), np.zeros(3), 0.01, 0.01, rng)
    inverse, _ = e.inverse(np.array([False, True, False]))
    assert np.all(inverse[1] == 0) and np.all(inverse[:, 1] == 0)
    np.testing.assert_allclose(inverse[np.ix_([0, 2], [0, 2])], np.linalg.inv(e.A[np.ix_([0, 2], [0, 2])]), rtol=1e-6)


def test_the_loss_is_unbiased_and_its_error_is_its_scatter() -> None:
    rng = np.random.default_rng(6)
    residual = columns(1)[0]
    for size in (1.0, 0.0):
        values, errors = [], []
        for _ in range(300):
            a, b = (size * residual + 0.5 * rng.normal(size=residual.shape) for _ in range(2))
            value, error = normal.loss(a, b, np.zeros((P, 1)), np.full((P, 1), 1 / P), LAYOUT)
            values.append(value)
            errors.append(error)
        exact = size**2 * float((residual**2).mean())
        scatter = np.std(values)
        assert abs(np.mean(values) - exact) < 4.5 * scatter / np.sqrt(len(values))
        assert 0.7 < np.mean(errors) / scatter < 1.6


def test_a_blur_is_its_own_adjoint() -> None:
    rng = np.random.default_rng(7)
    layout = Layout(((20, 20), (9, 13)), blur=2.0)
    a, b = rng.normal(size=(2, 400 + 117, 3))
    assert abs((layout.filter(a) * b).sum() - (a * layout.filter(b)).sum()) < 1e-9


def test_tiles_account_for_noise_that_neighbours_share() -> None:
    rng = np.random.default_rng(8)
    from scipy.ndimage import gaussian_filter

    J = columns(2)
    claimed, found = {1: [], 4: []}, []
    for _ in range(200):
        noise = [gaussian_filter(rng.normal(size=SHAPE), 0.6, mode="wrap").reshape(P, 1) for _ in range(2)]
        for tile in claimed:
            layout = Layout((SHAPE,), tile=tile)
            e = normal.build(J, J, *noise, np.zeros((P, 1)), np.full((P, 1), 1 / P), np.ones(2), layout)
            claimed[tile].append(np.diag(e.noise))
        found.append(e.b)
    exact = np.var(found, axis=0)
    pixels, tiles = (np.mean(claimed[k], axis=0) / exact for k in (1, 4))
    assert np.all(pixels < 0.5) and np.all(tiles > 0.6)


def test_a_pixel_whose_derivative_is_all_noise_does_not_rule_the_rest() -> None:
    rng = np.random.default_rng(5)
    J, step = columns(3), np.array([0.3, -0.2, 0.1])
    truth = np.einsum("npc,n->pc", J, step)
    weight = np.full((P, 1), 1 / P)
    off = {True: [], False: []}
    for _ in range(50):
        J1, J2 = (J + 0.05 * rng.normal(size=J.shape) for _ in range(2))
        a, b = (truth + 0.02 * rng.normal(size=truth.shape) for _ in range(2))
        for heavy in (False, True):
            if heavy:  # one of them only, as heavy tails are
                J1[:, 17] = 300 * rng.normal(size=(3, 1))
            e = normal.build(J1, J2, a, b, np.zeros((P, 1)), weight, np.ones(3), LAYOUT)
            off[heavy].append(e.step(0.0, np.full(3, -1.0), np.full(3, 1.0)) + step)
    spread = {heavy: np.abs(found).max() for heavy, found in off.items()}
    assert spread[True] < 2 * spread[False]


@pytest.mark.parametrize(("few", "least"), [(3, 0.90), (10, 0.93)])
def test_intervals_hold_the_truth_where_few_pixels_decide(few: int, least: float) -> None:
    """One number that few pixels show, with noise in proportion: 1.96 standard errors hold it about always."""
    rng = np.random.default_rng(6)
    J = np.zeros((1, P, 1))
    J[0, :few, 0], J[0, few:, 0] = 1.0, 0.01
    weight = np.full((P, 1), 1 / P)
    inside, plain = [], []
    for _ in range(600):
        noise = J[0] * rng.normal(size=(P, 1))
        e = normal.build(J, J, noise, noise, np.zeros((P, 1)), weight, np.ones(1), LAYOUT)
        inverse, _ = e.inverse()
        answer = -float((inverse @ e.b)[0])
        residual = noise + J[0] * answer
        at = normal.build(J, J, residual, residual, np.zeros((P, 1)), weight, np.ones(1), LAYOUT, lean=True)
        inside.append(abs(answer) < 1.96 * np.sqrt(at.covariance(inverse)[0, 0]))
        plain.append(abs(answer) < 1.96 * np.sqrt((inverse @ at.spread @ inverse)[0, 0]))
    assert np.mean(plain) < np.mean(inside) < 0.99
    assert np.mean(inside) > least, (np.mean(inside), np.mean(plain))


def test_where_renders_and_derivatives_share_noise_every_pixel_keeps_its_weight() -> None:
    """Else a firefly would be left out of the errors of an answer that it moves."""
    rng = np.random.default_rng(8)
    J = columns(1)
    J1, J2 = (J + 0.1 * rng.normal(size=J.shape) for _ in range(2))
    J1[:, 5] += 200
    weight, target = np.full((P, 1), 1 / P), J[0]
    built = {
        crossed: normal.build(J1, J2, J1[0], J2[0], target, weight, np.ones(1), LAYOUT, crossed)
        for crossed in (True, False)
    }
    assert np.sqrt(built[True].noise[0, 0]) > 10 * np.sqrt(built[False].noise[0, 0])


def test_a_number_that_is_all_noise_silences_no_pixel_for_the_others() -> None:
    rng = np.random.default_rng(9)
    J1, J2 = (np.concatenate([columns(1), np.zeros((1, P, 1))]) for _ in range(2))
    for J in (J1, J2):
        J[1, rng.choice(P, 60, replace=False)] = 1.0
    assert normal.trust(J1, J2, np.full((P, 1), 1 / P)).min() > 0.5
