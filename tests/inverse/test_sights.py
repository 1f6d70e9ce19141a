"""Pictures seen coarsely: adjoints, means over masks, gradients of steps, and a shadow that finds its target."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_scenes import camera, corner, reference, rgb

from pathtracer.capture import View
from pathtracer.errors import UsageError
from pathtracer.inverse import Estimation, Parameter, Problem
from pathtracer.inverse.losses import Loss, make_loss
from pathtracer.inverse.objective import Objective
from pathtracer.inverse.sights import Layer, blurred, level_count, mean_loss, pyramid
from pathtracer.inverse.solvers import choose
from pathtracer.scenes import Scene

FLOOR, LIGHT, BLOCK = "floor-mat.reflectance.value", "light.emitter.radiance.value", "block.vertex_positions"
RNG = np.random.default_rng(5)
SHAPE = (13, 10, 3)
IMAGE = RNG.uniform(0.1, 2.0, SHAPE)
MASK = (RNG.uniform(size=SHAPE[:2]) < 0.7) * RNG.uniform(0.5, 1.0, SHAPE[:2])


def layers(loss: str | Loss = "multi_resolution", mask: np.ndarray = MASK) -> list[Layer]:
    made = make_loss(loss)
    return [*pyramid(IMAGE, mask, made), *(blurred(IMAGE, mask, made, s, 0.7) for s in (3.0, 0.7))]


def test_back_is_the_adjoint_of_see_on_host_and_device() -> None:
    import drjit as dr
    import mitsuba as mi

    x = RNG.normal(size=SHAPE)
    for layer in layers():
        y = RNG.normal(size=layer.target.shape)
        seen, back = layer.see(x, np), layer.back(y, np)
        assert float((seen * y).sum()) == pytest.approx(float((x * back).sum()))
        there = Layer(*layer.on_device())
        np.testing.assert_allclose(np.array(there.see(mi.TensorXf(x.astype(np.float32)), dr)), seen, atol=1e-5)
        np.testing.assert_allclose(np.array(there.back(mi.TensorXf(y.astype(np.float32)), dr)), back, atol=1e-5)


def test_a_cell_is_the_mean_of_the_pixels_that_the_mask_counts() -> None:
    layer = pyramid(IMAGE, MASK, make_loss("multi_resolution"))[0]
    assert layer.target.shape == (7, 5, 3)
    block, weight = IMAGE[2:4, 4:6], MASK[2:4, 4:6, None]
    np.testing.assert_allclose(layer.target[1, 2], (block * weight).sum((0, 1)) / weight.sum())
    last = IMAGE[12:, 4:6], MASK[12:, 4:6, None]  # a row that is left over
    if last[1].sum() > 0:
        np.testing.assert_allclose(layer.target[6, 2], (last[0] * last[1]).sum((0, 1)) / last[1].sum())


def test_what_the_mask_leaves_out_is_not_seen_however_wide_the_blur() -> None:
    spoilt = np.where(MASK[..., None] > 0, IMAGE, 1e3)
    for loss in ("l2", "relative_l2", "multi_resolution"):
        for layer in layers(loss):
            np.testing.assert_allclose(layer.see(spoilt, np), layer.target, rtol=1e-12)
            assert not np.any(layer.back(np.ones_like(layer.target), np)[MASK == 0])


def test_weights_of_every_level_sum_to_its_share_and_a_constant_error_costs_its_square() -> None:
    loss = make_loss("multi_resolution")
    count = level_count(loss, SHAPE)
    assert count == 2 and level_count(make_loss("multi_resolution", levels=1), SHAPE) == 1
    assert level_count(loss, (512, 300, 3)) == 7
    for layer in pyramid(IMAGE, MASK, loss):
        assert layer.weight.sum() == pytest.approx(1 / count)
    off = IMAGE + 0.3
    assert mean_loss(loss, off, off, IMAGE, MASK) == pytest.approx(0.09)
    assert mean_loss(make_loss("l2"), off, off, IMAGE, MASK) == pytest.approx(0.09)


def test_a_shift_of_one_pixel_costs_less_where_cells_take_in_both() -> None:
    picture = np.zeros((32, 32, 3))
    picture[8:16, 8:16] = 1
    one, far = np.roll(picture, 1, axis=1), np.roll(picture, 12, axis=1)
    ones = np.ones((32, 32))
    costs = {
        name: [mean_loss(make_loss(name), x, x, picture, ones) for x in (one, far)]
        for name in ("l2", "multi_resolution")
    }
    assert costs["multi_resolution"][0] / costs["multi_resolution"][1] < 0.7 * costs["l2"][0] / costs["l2"][1]


def test_noise_leaves_the_mean_of_the_coarse_loss_alone() -> None:
    loss = make_loss("multi_resolution")
    seen = IMAGE + 0.2
    exact = mean_loss(loss, seen, seen, IMAGE, MASK)
    noisy = []
    for _ in range(2000):
        a, b = (seen + RNG.exponential(0.5, SHAPE) - 0.5 for _ in range(2))
        noisy.append(mean_loss(loss, a, b, IMAGE, MASK))
    assert abs(np.mean(noisy) - exact) < 4 * np.std(noisy) / np.sqrt(len(noisy))


def gradient_and_difference(loss: str, share: float) -> tuple[np.ndarray, np.ndarray, list[float], list[float]]:
    """Mean gradient by the floor's three numbers with its error, and central differences of the loss with theirs."""
    scene = corner(16)
    mask = np.ones((16, 16))
    mask[:5, 9:] = 0
    image = reference(scene, 256)
    image = np.where(mask[..., None] > 0, image, 7.0)
    objective = Objective(Problem(scene, View("v", image, mask=mask), Parameter(FLOOR, init=0.4), loss=loss, spp=8))
    objective.blur(share)
    problem, u = objective.problem, objective.start
    gradients = np.array([objective.evaluate(u, k).gradient for k in range(24)])
    view, made = problem.fitted[0], problem.loss

    def value(x: np.ndarray, seed: int) -> float:
        a, b = (problem.render(view, x, 512, 2 * seed + k) for k in (0, 1))
        if not share:
            return mean_loss(made, a, b, view.view.image, mask)
        layer = blurred(view.view.image, mask, made, share * 16, max(0.7, 0.02 * 16))
        return float((made.value(layer.see(a, np), layer.see(b, np), layer.target, np) * layer.weight).sum())

    found, errors = [], []
    for k in range(3):
        h = np.zeros(3)
        h[k] = 0.05
        each = [(value(u + h, s) - value(u - h, s)) / 0.1 for s in range(4)]
        found.append(float(np.mean(each)))
        errors.append(float(np.std(each, ddof=1) / 2))
    return gradients.mean(axis=0), gradients.std(axis=0, ddof=1) / np.sqrt(24), found, errors


@pytest.mark.parametrize(("loss", "share"), [("multi_resolution", 0.0), ("l2", 0.12), ("relative_l2", 0.05)])
def test_the_gradient_of_a_step_is_the_derivative_of_what_is_seen(loss: str, share: float) -> None:
    gradient, noise, difference, error = gradient_and_difference(loss, share)
    gap = np.abs(gradient - difference)
    assert np.all(gap < 4 * np.hypot(noise, error) + 2e-3 * np.abs(difference)), (gradient, difference)
    assert np.all(np.hypot(noise, error) < 0.1 * np.abs(difference))


def test_auto_takes_adam_for_the_coarse_loss_and_least_squares_says_no() -> None:
    scene = corner(8)
    problem = Problem(scene, View("v", reference(scene, 16)), FLOOR, loss="multi_resolution")
    assert choose(Objective(problem))[0] == "adam"
    with pytest.raises(UsageError, match="does not know the loss 'multi_resolution'"):
        next(iter(Estimation(problem, "least-squares")))
    with pytest.raises(UsageError, match="levels is for multi_resolution"):
        make_loss("l2", levels=3)


def shadow_scene(size: int = 24) -> Scene:
    """A block behind the camera throws its shadow on the wall before it: only the shadow is in the picture."""
    import mitsuba as mi

    t = mi.ScalarTransform4f
    return Scene.from_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 2},
            "camera": camera(size, distance=1.5, fov=60),
            "wall": {"type": "rectangle", "to_world": t().scale(2)},
            "block": {"type": "cube", "to_world": t().translate([-0.1, 0.05, 3]).scale(0.08)},
            "point": {"type": "point", "position": [0, 0, 6.0], "intensity": rgb(30, 30, 30)},
        }
    )


def shadow_centre(problem: Problem, latent: np.ndarray) -> np.ndarray:
    """Where the middle of the block's shadow is on the wall, whose plane is z = 0 and whose lamp is at z = 6."""
    x, y, z = problem.values(latent)[BLOCK].reshape(-1, 3).mean(axis=0)
    return np.array([x, y]) * 6 / (6 - z)


def shadow_run(coarse: str, state: dict[str, np.ndarray] | None = None) -> Estimation:
    scene = shadow_scene()
    target = View("v", scene.render(spp=128, seed=7))
    unknown = Parameter(BLOCK, space="pose", init=[0, 0, 0, 0.25, 0.1, 0])
    problem = Problem(scene, target, unknown, estimator="edge_sampling", spp=8)
    return Estimation(problem, "adam", seed=1, iterations=150, coarse=coarse, state=state)


def test_a_shadow_that_does_not_overlap_its_target_finds_it_through_the_blur_and_stays_without() -> None:
    off = {}
    for coarse in ("auto", "never"):
        run = shadow_run(coarse)
        truth = shadow_centre(run.problem, np.zeros(6))
        assert np.linalg.norm(shadow_centre(run.problem, run.objective.start) - truth) > 0.5  # its width is 0.33
        stages = list(dict.fromkeys(step.stage for step in run))
        assert stages[:-3] == (["blur 12 %", "blur 5 %"] if coarse == "auto" else [])
        assert run.objective.recordings == 1 + (coarse == "auto")
        off[coarse] = float(np.linalg.norm(shadow_centre(run.problem, run.latent) - truth))
    assert off["auto"] < 0.02 and off["never"] > 0.3, off


@pytest.mark.skipif("'llvm' not in __import__('mitsuba').variant()", reason="the order of sums on a GPU is not fixed")
def test_going_on_in_a_blurred_round_gives_the_same_bits(one_thread) -> None:
    first = shadow_run("auto")
    for _ in range(20):
        first.step()
    assert first.history[-1].stage == "blur 12 %"
    state = {k: np.array(v) for k, v in first.checkpoint().items()}
    second = shadow_run("auto", state)
    for _ in range(8):
        one, two = first.step(), second.step()
    assert one is not None and two is not None and one.stage == two.stage == "blur 5 %"
    np.testing.assert_array_equal(second.latent, first.latent)


def test_materials_see_pictures_as_they_are_unless_blur_is_asked_for() -> None:
    scene = corner(32)
    objective = Objective(Problem(scene, View("v", reference(scene, 4)), FLOOR))
    assert objective.blurs("auto") == objective.blurs("never") == ()
    assert objective.blurs("always") == (0.12, 0.05)  # of 32 pixels, 2 % is less than one
