"""The step loop: recovery, skipped steps, divergence, stopping, going on, and its overhead."""

from __future__ import annotations

import gc
import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_scenes import corner, reference

from pathtracer.capture import View
from pathtracer.errors import Diverged, EnvironmentFault
from pathtracer.inverse import Estimation, Parameter, Problem, estimate
from pathtracer.inverse.estimation import EXPLODE_LIMIT
from pathtracer.inverse.objective import Objective
from pathtracer.inverse.rendering import Samples
from pathtracer.inverse.solvers import Move

FLOOR, WALL, LIGHT = "floor-mat.reflectance.value", "wall-mat.reflectance.value", "light.emitter.radiance.value"


def problem(size: int = 24, spp: int = 4, **options) -> Problem:
    scene = corner(size)
    parameters = [
        Parameter(FLOOR, init=0.5, truth="scene"),
        Parameter(WALL, init=0.5, truth="scene"),
        Parameter(LIGHT, init=[2.0, 10.0, 5.0], truth="scene"),
    ]
    return Problem(scene, View("front", reference(scene)), parameters, loss="noise_weighted", spp=spp, **options)


def test_materials_and_light_are_recovered_together() -> None:
    result = estimate(problem(spp=8), seed=1, iterations=300, pictures=False)
    errors = {r.name: r.error for r in result.recovered}
    assert all(e is not None and e < 0.02 for e in errors.values()), errors
    assert result.values[LIGHT].shape == (3,)
    assert "error" in result._repr_html_() and FLOOR in repr(result)
    json.dumps(result.summary(), allow_nan=False)


def test_a_run_can_be_stepped_watched_and_stopped() -> None:
    run = Estimation(problem(), seed=1, iterations=50)
    for step in run:
        assert set(step.estimate) == {FLOOR, WALL, LIGHT} and step.loss_error > 0
        if step.index == 4:
            run.stop("enough")
    result = run.result(spp=8)
    assert len(result.history) == 5 and result.info["stopped"] == "enough"
    assert result.images["front"]["result"].shape == (24, 24, 3)


class Faulty(Objective):
    """Gradients of some steps are not finite."""

    bad: frozenset[int] = frozenset()

    def evaluate(self, latent, step, spp=None):
        e = super().evaluate(latent, step, spp)
        if step in self.bad:
            e.gradient[:] = np.nan
            e.faults.append(("front", 99))
        return e


def faulty(bad: frozenset[int], **options) -> Estimation:
    run = Estimation(problem(16), "adam", seed=1, **options)
    run.objective = Faulty(run.problem, seed=1)
    run.objective.bad = bad
    return run


def test_a_step_whose_gradient_is_not_finite_is_skipped_counted_and_recorded_with_its_seed() -> None:
    run = faulty(frozenset({3}), iterations=100)
    steps = [run.step() for _ in range(6)]
    assert steps[3].skipped == [("front", 99)] and np.isnan(steps[3].loss)
    assert steps[3].record()["loss"] is None
    assert steps[3].values == steps[4].values
    result = run.result(pictures=False)
    assert result.info["skipped"] == 1 and any("'front' with seed 99" in w for w in result.warnings)


class Blind(Objective):
    """No view shows what the wall's colour changes."""

    def evaluate(self, latent, step, spp=None):
        e = super().evaluate(latent, step, spp)
        e.gradient[3:6] = 0
        return e


def test_a_parameter_that_no_gradient_reaches_is_named_not_counted_as_recovered() -> None:
    run = Estimation(problem(), "adam", seed=1, iterations=3)
    run.objective.__class__ = Blind
    for _ in run:
        pass
    remarks = [w for w in run.result(pictures=False).warnings if "zero-gradient" in w]
    assert len(remarks) == 1 and WALL in remarks[0]


def test_too_many_such_steps_end_the_run_with_the_last_good_state() -> None:
    run = faulty(frozenset(range(5, 100)), iterations=100)
    with pytest.raises(Diverged, match="in view 'front' with seed 99") as caught:
        list(run)
    assert caught.value.exit_code == 5
    result = caught.value.result(pictures=False)
    assert all(np.all(np.isfinite(v)) for v in result.values.values())


@pytest.mark.parametrize("rescaled", [True, False])
def test_a_loss_that_weighs_pixels_anew_is_not_compared_with_the_one_before(rescaled: bool) -> None:
    run = Estimation(problem(8), "adam", seed=1, iterations=10)
    latent, losses = run.objective.start, [1e-3, *[5.0] * EXPLODE_LIMIT]
    for k, loss in enumerate(losses):
        move = Move(latent, latent, None, rescaled=rescaled and k == 1)  # type: ignore[arg-type]
        step = SimpleNamespace(loss=loss, loss_error=1e-4, index=k)
        if k < len(losses) - 1 or rescaled:
            run._judge(move, step)  # type: ignore[arg-type]
        else:
            with pytest.raises(Diverged):
                run._judge(move, step)  # type: ignore[arg-type]


def test_an_exploding_loss_ends_the_run_with_the_best_parameters() -> None:
    class Exploding(Objective):
        def evaluate(self, latent, step, spp=None):
            e = super().evaluate(latent, step, spp)
            e.loss *= 1e6 if step > 4 else 1.0
            return e

    run = Estimation(problem(16), "adam", seed=1, iterations=100)
    run.objective = Exploding(run.problem, seed=1)
    with pytest.raises(Diverged, match="the loss exploded"):
        list(run)
    assert run.result(pictures=False).recovered[0].value.tolist() == pytest.approx(
        run.history[4].values[FLOOR], rel=0.3
    )


@pytest.mark.skipif("'llvm' not in __import__('mitsuba').variant()", reason="the order of sums on a GPU is not fixed")
def test_going_on_from_a_checkpoint_on_one_thread_gives_the_same_bits(one_thread) -> None:
    whole = Estimation(problem(16), "adam", seed=1, iterations=40)
    list(whole)
    first = Estimation(problem(16), "adam", seed=1, iterations=40)
    for _ in range(17):
        first.step()
    state = {k: np.array(v) for k, v in first.checkpoint().items()}
    second = Estimation(problem(16), "adam", seed=1, state=state, iterations=40)
    steps = list(second)
    assert steps[0].index == 17 and steps[-1].index == whole.history[-1].index
    np.testing.assert_array_equal(second.latent, whole.latent)


def test_one_seed_gives_one_course_and_another_seed_another(one_thread) -> None:
    courses = []
    for seed in (1, 1, 2):
        run = Estimation(problem(16), seed=seed, iterations=6)
        courses.append([s.loss for s in run])
    assert courses[0] == courses[1] != courses[2]


def test_steps_replay_one_recording_with_little_overhead_over_the_kernels(lone_scene) -> None:
    import drjit as dr

    objective = Objective(problem(48, spp=16), seed=1)
    overheads = []
    with dr.scoped_set_flag(dr.JitFlag.KernelHistory, True):
        for step in range(3):
            objective.evaluate(objective.start, step)
        for step in range(3, 12):
            dr.kernel_history_clear()
            began = time.perf_counter()
            objective.evaluate(objective.start + 1e-3 * step, step)
            wall = 1e3 * (time.perf_counter() - began)
            overheads.append(wall - sum(k["execution_time"] for k in dr.kernel_history()))
    assert objective.recordings == 1
    print(f"overhead {np.median(overheads):.1f} ms a step")
    # milliseconds; the least, since other processes share the machine (benchmarks/speed.py has the median)
    assert min(overheads) < 20, overheads


def test_unused_material_of_another_live_scene_is_named_when_it_prevents_a_recording(lone_scene) -> None:
    import mitsuba as mi

    other = mi.load_dict({"type": "scene", "unused": {"type": "conductor"}}, optimize=False)
    objective = Objective(problem(8), seed=1)
    with pytest.warns(match="step-not-recorded.*another scene alive in this process.*delete that scene"):
        assert objective.evaluate(objective.start, 0).finite
    del other


def test_held_out_views_are_rendered_but_do_not_pull() -> None:
    scene = corner(16)
    target = reference(scene)
    wrong = View("other", np.zeros((16, 16, 3)), holdout=True)
    both = Problem(scene, [View("front", target), wrong], [Parameter(FLOOR, init=0.4)], spp=4)
    result = estimate(both, iterations=30)
    assert result.heldout == ["other"] and set(result.images) == {"front", "other"}
    assert result.losses["front"] < 1e-3 < result.losses["other"]
    assert [w for w in result.warnings if "[held-out]" in w and "fitted ones" in w]


def test_running_out_of_memory_means_smaller_passes_once_and_then_a_clear_error(monkeypatch) -> None:
    objective = Objective(problem(16), seed=1)
    launch, failures = objective._launch, 1

    def scarce(*arguments):
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise RuntimeError("jit_malloc(): out of memory! Could not allocate 17179869184 bytes")
        return launch(*arguments)

    monkeypatch.setattr(objective, "_launch", scarce)
    with pytest.warns(UserWarning, match="out of memory: samples are rendered in passes"):
        assert objective.evaluate(objective.start, 0).finite
    failures = 1
    with pytest.raises(EnvironmentFault, match="even with"):
        objective.evaluate(objective.start, 1)


def test_passes_give_the_same_loss_and_gradient_as_one_launch() -> None:
    problem_ = problem(16, spp=16)
    whole, split = Objective(problem_, seed=1), Objective(problem_, seed=1)
    split._pass_samples = 16 * 16 * 4
    a, b = ([o.evaluate(o.start, k) for k in range(12)] for o in (whole, split))
    plan = split.problem.plan(problem_.fitted[0], None, 1024)
    assert (plan.primal_passes, plan.adjoint_passes) == (2, 4)
    for what in ("loss", "gradient"):
        x, y = (np.array([getattr(e, what) for e in es]) for es in (a, b))
        error = np.sqrt((x.var(axis=0, ddof=1) + y.var(axis=0, ddof=1)) / len(x))
        assert np.all(np.abs(x.mean(axis=0) - y.mean(axis=0)) < 4.5 * error)


@pytest.mark.parametrize(
    ("primal", "adjoint", "pixels", "limit"), [(10, 10, 100, 300), (2, 64, 100, 1600), (7, 1, 50, 10), (2, 2, 1, 1000)]
)
def test_passes_never_take_fewer_samples_than_asked_for_nor_more_memory(primal, adjoint, pixels, limit) -> None:
    plan = Samples.plan(primal, adjoint, pixels, limit)
    assert 2 * plan.primal * plan.primal_passes >= primal and plan.adjoint * plan.adjoint_passes >= adjoint
    assert plan.total < primal + adjoint + 2 * plan.primal_passes + plan.adjoint_passes + 2
    for spp in (plan.primal, plan.adjoint):
        assert spp * pixels <= limit or spp == 1


def test_samples_that_the_estimator_leaves_out_are_counted_over_all_passes(monkeypatch) -> None:
    objective = Objective(problem(16, spp=16), seed=1, freeze=False)
    objective._pass_samples = 16 * 16 * 4
    integrator = objective.problem.integrator

    def some(*arguments, **options):
        import mitsuba as mi

        integrator.dropped = mi.UInt32(3)

    monkeypatch.setattr(integrator, "render_backward", some)
    assert objective.evaluate(objective.start, 0).left_out == 4 * 3


def test_the_garbage_collector_rests_while_a_step_is_recorded(monkeypatch) -> None:
    # Dr.Jit aborts the process when a scene of an earlier estimation is collected during a recording
    objective = Objective(problem(16), seed=1)
    integrator = objective.problem.integrator
    render, seen = integrator.render, []

    def watched(*arguments, **options):
        seen.append(gc.isenabled())
        return render(*arguments, **options)

    monkeypatch.setattr(integrator, "render", watched)
    objective.evaluate(objective.start, 0)
    assert seen and not any(seen) and gc.isenabled()
