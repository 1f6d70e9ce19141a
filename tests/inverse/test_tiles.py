"""Batches of pixels: tiles look like what they are cut from, and their gradient is that of the whole on average."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_scenes import camera, corner, reference, rgb

from pathtracer.capture import View
from pathtracer.errors import UsageError
from pathtracer.inverse import Estimation, Parameter, Problem, estimate
from pathtracer.inverse.objective import Objective
from pathtracer.inverse.tiles import Tiles
from pathtracer.scenes import Scene

FLOOR, WALL, LIGHT = "floor-mat.reflectance.value", "wall-mat.reflectance.value", "light.emitter.radiance.value"


def own_camera(width: int, height: int) -> dict:
    """A camera of a view, off the middle of its film."""
    import mitsuba as mi

    pose = np.array(mi.ScalarTransform4f().look_at([0.3, 0.2, 4], [0, -0.2, 0], [0, 1, 0]).matrix)
    shift = {"principal_point_offset_x": 0.07, "principal_point_offset_y": -0.04}
    return {"type": "perspective", "fov": 42.0, "fov_axis": "x", "to_world": pose, **shift}


def two_views(loss: str = "l2", parameters: list | None = None, scene: Scene | None = None, **options) -> Problem:
    """20 x 14 pixels through a camera of its own, and 18 x 18 through the scene's, half masked."""
    scene = scene or corner(18)
    mask = np.ones((18, 18))
    mask[:, 11:] = 0
    seen = [View("own", np.full((14, 20, 3), 0.3), sensor=own_camera(20, 14)), View("scene", reference(scene, 64))]
    views = [seen[0], replace(seen[1], mask=mask, exposure=1.3)]
    unknown = parameters or [Parameter(FLOOR, init=0.4), Parameter(LIGHT, init=[4.0, 5.0, 6.0])]
    return Problem(scene, views, unknown, loss=loss, spp=4, **options)


def test_a_tile_looks_like_the_part_of_the_picture_that_it_is() -> None:
    problem = two_views()
    tiles = Tiles(problem, 1, 8, 0.0)
    wholes = [problem.render(view, problem.start, 2048, 3) for view in problem.fitted]
    assert len(tiles.owner) == 2 * 3 + 3 * 3
    for k, (index, _) in enumerate(tiles.owner):
        view = tiles.view(k)
        window = view.window
        assert window is not None
        seen = problem.render(view, problem.start, 2048, 5)
        part = wholes[index][window.top : window.top + 8, window.left : window.left + 8]
        assert seen.shape == part.shape == (8, 8, 3)
        # a shift by a tenth of a pixel would show at the edges of floor and wall
        assert np.abs(seen - part).max() < 0.05 * part.max()
        assert abs(seen.mean() - part.mean()) < 0.004 * part.max()


def test_weights_of_the_tiles_are_those_of_the_picture_once() -> None:
    problem = two_views()
    tiles = Tiles(problem, 1, 8, 0.0)
    for index, view in enumerate(problem.fitted):
        total = np.zeros(view.target.weight.shape)
        for k in np.flatnonzero(tiles.owner[:, 0] == index):
            tile = tiles.view(int(k))
            w = tile.window
            assert w is not None
            total[w.top : w.top + 8, w.left : w.left + 8] += np.array(tile.target.weight)
        np.testing.assert_allclose(total, np.array(view.target.weight), rtol=1e-6)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_every_tile_is_drawn_as_often_as_its_probability_says(count: int) -> None:
    tiles = Tiles(two_views(), count, 8, 0.7)
    tiles.scores[:] = np.random.default_rng(0).exponential(size=len(tiles.scores))
    tiles.scores[[1, 7]] = np.nan
    q = tiles.probabilities([0, 1])
    assert q.sum() == pytest.approx(1) and np.all(q[tiles._counts] > 0) and not np.any(q[~tiles._counts])
    assert not np.any(tiles.probabilities([0])[tiles.owner[:, 0] == 1])
    hits = np.zeros(len(q))
    numbers = (np.arange(5000) + 0.5) / 5000
    for number in numbers:
        for k, factor in tiles.draw([0, 1], float(number)):
            assert factor == pytest.approx(1 / (count * q[k]))
            hits[k] += 1
    np.testing.assert_allclose(hits / 5000, count * q, atol=2 / 5000)


@pytest.mark.parametrize("focus", [0.0, 0.8])
def test_the_gradient_of_tiles_is_that_of_the_pictures_on_average(focus: float) -> None:
    steps = 300
    whole, part = Objective(two_views(), seed=1), Objective(two_views(), seed=2)
    part.tiles = Tiles(part.problem, 4, 8, focus)
    full = [whole.evaluate(whole.start, k) for k in range(60)]
    some = [part.evaluate(part.start, k) for k in range(steps)]
    assert part.recordings <= 2  # of 15 tiles of two cameras
    assert some[0].samples < 0.6 * full[0].samples
    for values in (lambda e: e.gradient, lambda e: np.array([e.loss])):
        a, b = np.array([values(e) for e in full]), np.array([values(e) for e in some])
        error = np.hypot(a.std(axis=0, ddof=1) / np.sqrt(60), b.std(axis=0, ddof=1) / np.sqrt(steps))
        gap = np.abs(a.mean(axis=0) - b.mean(axis=0))
        assert np.all(gap < 4 * error), (gap, error)
        assert np.all(error < 0.12 * np.abs(a.mean(axis=0)).max())


def test_a_camera_that_is_unknown_moves_its_tiles() -> None:
    unknown = [Parameter("views.own.to_world", init=[0, 3.0, 0, 0.05, 0, 0]), Parameter("views.own.x_fov", init=44.0)]

    def objective(seed: int) -> Objective:
        return Objective(two_views(parameters=unknown, scene=spot(18), estimator="edge_sampling"), seed=seed)

    whole, part = objective(1), objective(2)
    part.tiles = Tiles(part.problem, 6, 8, 0.0)
    a = np.array([whole.evaluate(whole.start, k).gradient for k in range(40)])
    b = np.array([part.evaluate(part.start, k).gradient for k in range(100)])
    error = np.hypot(a.std(axis=0, ddof=1) / np.sqrt(40), b.std(axis=0, ddof=1) / np.sqrt(100))
    assert np.all(np.abs(a.mean(axis=0) - b.mean(axis=0)) < 4 * error)
    assert np.all(error < 0.2 * np.abs(a.mean(axis=0)).max())


def spot(size: int = 48) -> Scene:
    """A wall that fills the picture, and in a corner a small patch whose colour is unknown."""
    import mitsuba as mi

    t = mi.ScalarTransform4f
    return Scene.from_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 2},
            "sensor": camera(size),
            "sky": {"type": "constant", "radiance": rgb(1, 1, 1)},
            "wall": {"type": "rectangle", "to_world": t().translate([0, 0, -0.5]).scale(4)},
            "patch-mat": {"type": "diffuse", "reflectance": rgb(0.8, 0.2, 0.2)},
            "patch": {
                "type": "rectangle",
                "to_world": t().translate([0.9, 0.9, 0]).scale(0.2),
                "bsdf": {"type": "ref", "id": "patch-mat"},
            },
        }
    )


def test_tiles_that_follow_their_gradients_scatter_less_where_little_of_the_picture_is_off() -> None:
    spread = {}
    for focus in (0.0, 0.5, 0.9):
        scene = spot()
        unknown = Parameter("patch-mat.reflectance.value", init=0.5)
        objective = Objective(Problem(scene, View("v", scene.render(spp=64)), unknown, spp=8), seed=3)
        objective.tiles = Tiles(objective.problem, 4, 8, focus)
        gradients = np.array([objective.evaluate(objective.start, k).gradient for k in range(60)])[20:]
        spread[focus] = float(gradients.std(axis=0).max() / np.abs(gradients.mean(axis=0)).max())
    assert spread[0.5] < 0.4 * spread[0.0] and spread[0.9] < spread[0.5], spread


def test_adam_finds_materials_and_light_in_tiles() -> None:
    scene = corner(24)
    unknown = [Parameter(k, init=i, truth="scene") for k, i in ((FLOOR, 0.5), (WALL, 0.5), (LIGHT, [2.0, 10.0, 5.0]))]
    problem = Problem(scene, View("front", reference(scene)), unknown, spp=8)
    result = estimate(problem, tiles=4, tile_size=8, seed=1, iterations=400, pictures=False)
    assert result.info["solver"].startswith("adam: the option") and result.info["recordings"] <= 2
    assert all(row.error is not None and row.error < 0.03 for row in result.recovered), result.recovered


def test_steps_without_a_check_before_are_in_tiles_too() -> None:
    from pathtracer.inverse.solvers.adam import Adam

    objective = Objective(two_views(), seed=3)
    move = next(Adam(iterations=2, tiles=2, tile_size=8).steps(objective))
    assert isinstance(objective.tiles, Tiles) and move.rescaled


@pytest.mark.skipif("'llvm' not in __import__('mitsuba').variant()", reason="the order of sums on a GPU is not fixed")
def test_going_on_remembers_where_gradients_were_large(one_thread) -> None:
    def run(state: dict[str, np.ndarray] | None = None) -> Estimation:
        return Estimation(two_views(), "adam", seed=3, iterations=40, tiles=3, tile_size=8, focus=0.8, state=state)

    first = run()
    for _ in range(7):
        first.step()
    state = {k: np.array(v) for k, v in first.checkpoint().items()}
    assert np.isfinite(state["solver.scores"]).any()
    second = run(state)
    for _ in range(6):
        first.step()
        second.step()
    np.testing.assert_array_equal(second.latent, first.latent)
    assert first.objective.images["own"].shape == (14, 20, 3)


def test_what_cannot_be_cut_is_refused_with_a_remedy() -> None:
    with pytest.raises(UsageError, match=r"noise_weighted.*whole pictures"):
        Estimation(two_views("noise_weighted"), "adam", tiles=2)
    with pytest.raises(UsageError, match=r"multi_resolution.*whole pictures"):
        Estimation(two_views("multi_resolution"), "adam", tiles=2)
    with pytest.raises(UsageError, match="focus is 1"):
        Estimation(two_views(), "adam", tiles=2, focus=1.0)
    smooth = camera(8)
    smooth["film"]["rfilter"] = {"type": "gaussian"}
    scene = Scene.from_dict(
        {"type": "scene", "sensor": smooth, "ball": {"type": "sphere"}, "sky": {"type": "constant"}}
    )
    problem = Problem(scene, View("v", np.ones((8, 8, 3))), "sky.radiance.value")
    with pytest.raises(UsageError, match="box filter"):
        Estimation(problem, "adam", tiles=2)


def test_tiles_that_show_nothing_make_no_divergence_of_those_that_do() -> None:
    """A small patch in the dark: most draws have no loss at all."""
    import mitsuba as mi

    def patch(*color: float) -> Scene:
        t = mi.ScalarTransform4f
        return Scene.from_dict(
            {
                "type": "scene",
                "integrator": {"type": "path", "max_depth": 2},
                "sensor": camera(48),
                "lamp": {"type": "directional", "direction": [0.1, 0.2, -1], "irradiance": rgb(3, 3, 3)},
                "paint": {"type": "diffuse", "reflectance": rgb(*color)},
                "patch": {"type": "rectangle", "to_world": t().translate([0.9, 0.9, 0]).scale(0.2)}
                | {"bsdf": {"type": "ref", "id": "paint"}},
            }
        )

    unknown = Parameter("paint.reflectance.value", init=0.5)
    subject = Problem(patch(0.5, 0.5, 0.5), View("v", patch(0.8, 0.2, 0.2).render(spp=64)), unknown, spp=8)
    run = Estimation(subject, "adam", seed=0, iterations=80, tiles=2, tile_size=8)
    losses = [step.loss for step in run]
    assert min(losses) < 1e-9 < max(losses)
    np.testing.assert_allclose(next(iter(run.values.values())).ravel(), [0.8, 0.2, 0.2], atol=0.1)
