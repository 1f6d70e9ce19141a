"""Vertices as unknowns: seams stay closed, normals follow, and a sphere becomes a bunny."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tiny_scenes import camera, rgb

from pathtracer.capture import View
from pathtracer.errors import UsageError
from pathtracer.inverse import Estimation, Parameter, Problem
from pathtracer.inverse.objective import Objective
from pathtracer.scenes import Scene

KEY = "body.vertex_positions"


def cube(size: int = 12) -> Scene:
    """A cube, which stores each of its 8 corners three times, under a lamp at the camera."""
    import mitsuba as mi

    return Scene.from_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 2},
            "sensor": camera(size),
            "sky": {"type": "constant", "radiance": rgb(1, 1, 1)},
            "body": {
                "type": "cube",
                "to_world": mi.ScalarTransform4f().rotate([1, 2, 3], 40).scale(0.6),
                "bsdf": {"type": "diffuse", "reflectance": rgb(0.3, 0.5, 0.7)},
            },
        }
    )


@pytest.fixture
def problem() -> Problem:
    scene = cube()
    parameter = Parameter(KEY, truth="scene")
    return Problem(scene, View("v", np.zeros((12, 12, 3))), parameter, estimator="edge_sampling", spp=4)


def test_vertices_start_where_the_mesh_has_them(problem) -> None:
    own = np.array(problem.scene.params[KEY])
    np.testing.assert_allclose(problem.values(problem.start)[KEY], own, atol=1e-6)
    assert problem.start.size == 8 * 3, "one unknown for each place, which is the default"
    assert problem.unknowns[0].display(problem.start).shape == (24, 3)


def test_seams_stay_closed_and_the_scene_gets_what_the_values_say(problem) -> None:
    latent = problem.start + np.random.default_rng(0).normal(0, 0.5, problem.start.size)
    before = np.array(problem.scene.params[KEY]).reshape(-1, 3)
    values = problem.values(latent)[KEY].reshape(-1, 3)
    weld = np.unique(before, axis=0, return_inverse=True)[1].reshape(-1)
    for corner in range(8):
        assert np.ptp(values[weld == corner], axis=0).max() == 0
    assert np.abs(values - before).max() > 0.05
    problem.set_latent(latent, active=frozenset())
    np.testing.assert_allclose(np.array(problem.scene.params[KEY]), values.ravel(), atol=1e-5)


def test_normals_follow_the_positions() -> None:
    scene = cube()
    shape = scene.mi.shapes()[0]
    assert shape.has_vertex_normals()
    before = np.array(scene.params["body.vertex_normals"]).reshape(-1, 3)
    unknown = Parameter(KEY, space="large-steps")
    problem = Problem(scene, View("v", np.zeros((12, 12, 3))), unknown, estimator="edge_sampling", spp=4)
    problem.set_latent(problem.start + np.random.default_rng(0).normal(0, 0.5, problem.start.size), active=frozenset())
    after = np.array(scene.params["body.vertex_normals"]).reshape(-1, 3)
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, atol=1e-4)
    assert np.abs(after - before).max() > 0.01


@pytest.mark.parametrize("estimator", ["edge_sampling", "warped_area"])
def test_a_step_with_normals_of_their_own_is_recorded_and_replayed(estimator: str) -> None:
    unknown = Parameter("body.vertex_normals", truth="scene")
    problem = Problem(cube(), View("v", np.zeros((12, 12, 3))), unknown, estimator=estimator, spp=4)
    found = []
    for freeze in (False, True):
        objective = Objective(problem, seed=3, freeze=freeze)
        found.append([objective.evaluate(problem.start * scale, step).gradient for step, scale in enumerate((1, 0.9))])
        assert objective.recordings == int(freeze)
    assert min(np.linalg.norm(traced) for traced in found[0]) > 0
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-5)


def test_without_smoothing_the_positions_themselves_are_the_unknowns() -> None:
    scene = cube()
    view = View("v", scene.render(spp=16))
    bare = Problem(scene, view, Parameter(KEY, space="large-steps", smooth=0.0), estimator="edge_sampling", spp=4)
    own = np.unique(np.array(scene.params[KEY]).reshape(-1, 3), axis=0)
    np.testing.assert_allclose(bare.start.reshape(-1, 3) * bare.unknowns[0].size, own, atol=1e-6)
    square = np.random.default_rng(0).uniform(size=bare.start.size)
    lengths = np.sqrt(square.reshape(-1, 3).sum(axis=1))
    np.testing.assert_allclose(Objective(bare).scales(square), np.repeat(lengths, 3))
    with pytest.raises(UsageError, match="large-steps is for the vertices"):
        Estimation(bare, "large-steps")


def test_the_solver_large_steps_moves_vertices_as_adam_does_with_one_moment(problem) -> None:
    square = np.random.default_rng(0).uniform(size=problem.start.size)
    np.testing.assert_allclose(Objective(problem).scales(square), np.sqrt(square.max()))
    runs = [Estimation(problem, name, seed=1, iterations=3) for name in ("large-steps", "adam")]
    for run in runs:
        list(run)
    assert runs[0].choice == "large-steps, as asked"
    np.testing.assert_allclose(runs[0].latent, runs[1].latent, rtol=1e-4)
    assert np.abs(runs[0].latent - problem.start).max() > 1e-3


def test_what_has_no_vertices_or_no_sense_is_refused() -> None:
    scene = cube()
    view = View("v", np.zeros((12, 12, 3)))
    with pytest.raises(UsageError, match="vertex positions"):
        Problem(scene, view, Parameter("body.bsdf.reflectance.value", space="large-steps"))
    with pytest.raises(UsageError, match="no bounds"):
        Problem(scene, view, Parameter(KEY, space="large-steps", bounds=(0, 1)))
    with pytest.raises(UsageError, match="numbers, the mesh"):
        Problem(scene, view, Parameter(KEY, space="large-steps", init=[1.0, 2.0]))


@pytest.fixture(scope="module")
def bundled(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("make", repository / "scenes" / "sphere-to-bunny" / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_chamfer_distance_of_two_spheres_is_the_difference_of_their_radii(bundled) -> None:
    points, faces = bundled.icosphere(4)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1)
    assert len(points) == 10 * 4**4 + 2 and len(faces) == 20 * 4**4
    assert bundled.chamfer((points, faces), (0.8 * points, faces), 10_000) == pytest.approx(0.2, rel=0.01)
    assert bundled.chamfer((points, faces), (points, faces), 10_000) < 0.02


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_sphere_becomes_a_bunny(bundled, shared_data: Path, tmp_path: Path, capfd) -> None:
    from pathtracer.cli.main import main

    bunny = shared_data / "third_party" / "meshes" / "bunny_lowres.ply"
    if not bunny.is_file():
        pytest.skip(f"needs {bunny}")
    job = bundled.make(bunny, tmp_path / "problem")
    assert main(["estimate", str(job), "-o", str(tmp_path / "run"), "-q"]) == 0
    before, after = bundled.compare(tmp_path / "problem", tmp_path / "run" / "result" / "values.safetensors")
    print(f"Chamfer distance {before:.4f} -> {after:.4f}, down by {before / after:.1f}x")
    assert after < before / 10
