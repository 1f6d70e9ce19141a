"""Least squares on tiny scenes: what it finds, how sure it says it is, bounds, outliers, ambiguities, going on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_scenes import SUNS, camera, corner, lamps, reference, rgb

from pathtracer.capture import View
from pathtracer.errors import UsageError
from pathtracer.inverse import Estimation, Parameter, Problem, estimate
from pathtracer.inverse.objective import Objective
from pathtracer.inverse.solvers import choose, make_solver
from pathtracer.scenes import Scene

FLOOR, WALL, LIGHT = "floor-mat.reflectance.value", "wall-mat.reflectance.value", "light.emitter.radiance.value"


def problem(size: int = 16, spp: int = 8, loss: str = "noise_weighted", image: np.ndarray | None = None, **options):
    scene = corner(size)
    parameters = [
        Parameter(FLOOR, init=0.5, truth="scene"),
        Parameter(WALL, init=0.5, truth="scene"),
        Parameter(LIGHT, init=[2.0, 10.0, 5.0], truth="scene"),
    ]
    seen = reference(scene, 4096) if image is None else image
    return Problem(scene, View("front", seen), parameters, loss=loss, spp=spp, **options)


def test_it_finds_materials_and_light_without_a_setting_and_says_how_sure_it_is() -> None:
    result = estimate(problem(24), seed=1, pictures=False)
    assert result.info["solver"].startswith("least-squares: 9 unknown numbers")
    assert len(result.history) < 25 and result.info["stopped"] == "settled"
    for row in result.recovered:
        assert row.error is not None and row.error < 0.01, row
        assert row.standard_error is not None and row.standard_error.shape == row.value.shape
        assert np.all(np.abs(row.value - row.truth) < 4.5 * row.standard_error), row
        assert np.all(row.standard_error < 0.005 * np.maximum(row.value, 0.5)), row
    assert result.standard_errors[LIGHT] is not None
    assert "±" in repr(result) and "±" in result._repr_html_()
    json.dumps(result.summary(), allow_nan=False)


def test_columns_agree_with_the_adjoint() -> None:
    objective = Objective(problem(16, loss="l2"), seed=3)
    p, u = objective.linearizer, objective.start
    by_columns, by_adjoint = [], []
    for step in range(12):
        J, samples = p.jacobian(u, step, 0)
        pair = p.pair(u, step)
        by_columns.append(2 * np.einsum("npc,pc->n", J, p.weight * (pair.mean - p.target)))
        by_adjoint.append(objective.evaluate(u, step, spp=64).gradient)
        assert samples > 0
    error = np.sqrt((np.var(by_columns, axis=0, ddof=1) + np.var(by_adjoint, axis=0, ddof=1)) / 12)
    difference = np.mean(by_columns, axis=0) - np.mean(by_adjoint, axis=0)
    assert np.all(np.abs(difference) < 5 * error), difference / error
    assert np.all(error < 0.1 * np.abs(np.mean(by_adjoint, axis=0)))


def test_three_channels_share_a_pass_only_where_they_do_not_mix() -> None:
    scene = corner(8)
    objective = Objective(Problem(scene, View("v", reference(scene, 16)), [FLOOR, LIGHT]), seed=1)
    p = objective.linearizer
    p._probe(objective.start)
    assert p._separable == {0: True, 1: True}
    assert len(p._tangents(p.views[0], moving=False)) == 2

    import mitsuba as mi

    tinted = {"type": "principled", "base_color": rgb(0.6, 0.3, 0.2), "spec_tint": 0.9, "specular": 0.8}
    tinted_scene = Scene.from_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 2},
            "sensor": camera(8),
            "ball": {"type": "sphere", "bsdf": tinted},
            "sky": {"type": "constant", "radiance": rgb(1, 1, 1)},
        }
    )
    assert mi.is_rgb
    key = "ball.bsdf.base_color.value"
    objective = Objective(Problem(tinted_scene, View("v", np.ones((8, 8, 3))), [key]), seed=1)
    p = objective.linearizer
    p._probe(objective.start)
    assert p._separable == {0: False}
    assert len(p._tangents(p.views[0], moving=False)) == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*visibility-left-out")
def test_photographs_under_one_light_each_give_directions_and_strengths() -> None:
    scene = lamps(16)
    names = ["sun1", "sun2"]
    truth = Problem(scene, [View(n, np.ones((16, 16, 3)), lit=[n]) for n in names], ["ball-mat.reflectance.value"])
    views = [View(n, truth.render(v, truth.start, 512, 77), lit=[n]) for n, v in zip(names, truth.fitted, strict=True)]
    truth.settle(truth.start)  # all lights on again: what is called the truth is what the scene holds
    parameters = [Parameter(f"{n}.irradiance.value", init=3.0, truth="scene") for n in names]
    parameters += [
        Parameter(f"{n}.to_world", space="direction", init=[d + 0.25 for d in SUNS[n]], truth="scene") for n in names
    ]
    fit = Problem(scene, views, parameters, spp=16)
    objective = Objective(fit, seed=1)
    J, _ = objective.linearizer.jacobian(objective.start, 0, 0)
    assert not np.any(J[:3, 256:]) and not np.any(J[3:6, :256])  # a lamp changes only the view that it lights
    result = estimate(fit, "least-squares", seed=1, pictures=False)
    for row in result.recovered:
        limit = 0.5 if row.space == "direction" else 0.01  # degrees, relative
        assert row.error is not None and row.error < limit, row


def test_bounds_hold_at_every_step_and_a_number_on_one_is_reported() -> None:
    scene = corner(16)
    fit = Problem(
        scene, View("v", reference(scene)), [Parameter(FLOOR, init=0.3, bounds=(0.1, 0.5), space="box"), LIGHT], spp=8
    )
    run = Estimation(fit, "least-squares", seed=1, iterations=12)
    for step in run:
        assert np.all(np.array(step.values[FLOOR]) <= 0.5 + 1e-6) and np.all(np.array(step.values[FLOOR]) >= 0.1 - 1e-6)
    result = run.result(pictures=False)
    assert result.recovered[0].value[0] == pytest.approx(0.5)  # the truth is 0.7
    assert any("ended on a bound" in w for w in result.warnings)


def test_an_ambiguity_of_albedo_and_light_is_named_with_a_remedy() -> None:
    import mitsuba as mi

    scene = Scene.from_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 2},
            "sensor": camera(12, fov=20.0),
            "wall-mat": {"type": "diffuse", "reflectance": rgb(0.4, 0.5, 0.6)},
            "wall": {"type": "rectangle", "bsdf": {"type": "ref", "id": "wall-mat"}},
            "sun": {"type": "point", "position": [0.0, 1.0, 2.0], "intensity": rgb(3, 4, 5)},
        }
    )
    assert mi.is_rgb
    keys = [Parameter("wall-mat.reflectance.value", init=0.3), Parameter("sun.intensity.value", init=4.0)]
    result = estimate(Problem(scene, View("v", reference(scene)), keys, spp=8), "least-squares", pictures=False)
    notes = [w for w in result.warnings if "[not-determined]" in w]
    assert len(notes) == 1
    assert "wall-mat.reflectance.value and sun.intensity.value trade off (R, G, B)" in notes[0]
    assert "fix one of them" in notes[0]
    assert all(np.all(np.isinf(r.standard_error)) for r in result.recovered)
    product = result.values["wall-mat.reflectance.value"] * result.values["sun.intensity.value"]
    np.testing.assert_allclose(product, [1.2, 2.0, 3.0], rtol=0.02)  # what they do determine


@pytest.mark.slow
def test_outliers_pull_squares_but_hardly_huber() -> None:
    clean = reference(corner(16), 2048)
    spoilt = clean.copy()
    spoilt[9:12, 3:7] = 3.0  # a highlight that no model explains
    errors = {}
    for loss in ("l2", "huber"):
        from pathtracer.inverse.losses import make_loss

        kind = make_loss("huber", delta=0.02) if loss == "huber" else loss
        result = estimate(problem(16, loss=kind, image=spoilt), "least-squares", seed=1, pictures=False)  # type: ignore[arg-type]
        errors[loss] = max(r.error for r in result.recovered[:2])
    assert errors["huber"] < 0.15 < errors["l2"], errors


@pytest.fixture
def one_thread():
    import drjit as dr

    count = dr.thread_count()
    dr.set_thread_count(1)
    yield
    dr.set_thread_count(count)


@pytest.mark.skipif("'llvm' not in __import__('mitsuba').variant()", reason="the order of sums on a GPU is not fixed")
def test_going_on_from_a_checkpoint_on_one_thread_gives_the_same_bits(one_thread) -> None:
    whole = Estimation(problem(12, spp=4), "least-squares", seed=1, iterations=8)
    stages = [s.stage for s in whole]
    assert stages[0] == "approach" and stages[-1] == "refinement"
    for cut in (2, 6):
        first = Estimation(problem(12, spp=4), "least-squares", seed=1, iterations=8)
        for _ in range(cut):
            first.step()
        state = {k: np.array(v) for k, v in first.checkpoint().items()}
        second = Estimation(problem(12, spp=4), "least-squares", seed=1, state=state, iterations=8)
        steps = list(second)
        assert steps[0].index == cut and steps[-1].index == whole.history[-1].index
        np.testing.assert_array_equal(second.latent, whole.latent)


def test_auto_says_what_it_takes_and_why() -> None:
    objective = Objective(problem(8))
    name, why = choose(objective)
    assert name == "least-squares" and "9 unknown numbers" in why
    name, why = choose(objective, ["iterations", "beta1"])
    assert name == "adam" and "beta1" in why
    name, why = choose(Objective(problem(8, loss="smape")))
    assert name == "adam" and "smape" in why


def test_losses_that_are_no_squares_and_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="does not know the loss 'smape'"):
        estimate(problem(8, loss="smape"), "least-squares", pictures=False)
    with pytest.raises(UsageError, match="a positive number was expected"):
        make_solver("least-squares", precision=0.0)
    with pytest.raises(UsageError, match="one of auto, never, always"):
        make_solver("least-squares", coarse="maybe")


@pytest.mark.slow
def test_exposures_of_single_views_are_found() -> None:
    scene = corner(12)
    image = reference(scene, 2048)
    factors = {"a": 1.0, "b": 0.5, "c": 2.5}
    views = [View(name, factor * image) for name, factor in factors.items()]
    unknown = [Parameter("views.b.exposure"), Parameter("views.c.white_balance"), Parameter(FLOOR, init=0.4)]
    result = estimate(Problem(scene, views, unknown, spp=8), "least-squares", seed=1, pictures=False)
    floor, b, c = result.recovered  # those of the scene come first
    assert abs(float(b.value) / 0.5 - 1) < 0.01 and np.all(np.abs(c.value / 2.5 - 1) < 0.01)
    np.testing.assert_allclose(floor.value, [0.7, 0.3, 0.2], rtol=0.02)
    assert np.all(b.standard_error < 0.01) and np.all(np.abs(c.value - 2.5) < 4.5 * c.standard_error)
