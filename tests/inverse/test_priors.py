"""Priors, smoothed gradients, ties, common motions and parameters that wait."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_scenes import corner, reference, rgb

from pathtracer.capture import View
from pathtracer.errors import UsageError
from pathtracer.inverse import Estimation, Parameter, Problem
from pathtracer.inverse.arrays import as_numpy
from pathtracer.inverse.filters import Filter, GridFilter, MeshFilter, laplacian
from pathtracer.inverse.objective import Objective
from pathtracer.inverse.priors import Prior
from pathtracer.inverse.spaces import Box, Identity, Log, Logit
from pathtracer.scenes import Scene

FLOOR, WALL, LIGHT = "floor-mat.reflectance.value", "wall-mat.reflectance.value", "light.emitter.radiance.value"
TEXTURE = "wall.bsdf.reflectance.data"


def painted(texels: np.ndarray, size: int = 16) -> Scene:
    """A painted wall that fills the picture of `size` pixels, under a uniform sky."""
    import mitsuba as mi
    from tiny_scenes import camera

    return Scene.from_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 2},
            "sensor": camera(size, distance=2.7),
            "sky": {"type": "constant", "radiance": rgb(1, 1, 1)},
            "wall": {
                "type": "rectangle",
                "bsdf": {
                    "type": "diffuse",
                    "reflectance": {"type": "bitmap", "bitmap": mi.Bitmap(texels), "raw": True, "format": "variant"},
                },
            },
        }
    )


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("kind", ["tv", "smooth", "normal"])
def test_the_gradient_of_a_prior_is_that_of_its_value(kind: str, wrap: bool) -> None:
    rng = np.random.default_rng(1)
    x, prior = rng.uniform(0, 1, (4, 5, 3)), Prior(kind, 0.7, mean=0.4, sigma=0.2)
    _, gradient = prior(x, wrap)
    for index in [(0, 0, 0), (3, 4, 2), (1, 2, 1), (2, 0, 0)]:
        step = np.zeros_like(x)
        step[index] = 1e-6
        numeric = (prior(x + step, wrap)[0] - prior(x - step, wrap)[0]) / 2e-6
        assert gradient[index] == pytest.approx(numeric, rel=1e-5)


def test_total_variation_of_one_edge_is_its_height_per_texel() -> None:
    x = np.zeros((8, 8, 1))
    x[:, 4:] = 0.5
    assert Prior("tv", 1.0, edge=1e-6)(x)[0] == pytest.approx(0.5 / 8, rel=1e-4)
    assert Prior("tv", 1.0, edge=1e-6)(x, wrap=True)[0] == pytest.approx(2 * 0.5 / 8, rel=1e-4)
    assert Prior("smooth", 1.0)(x)[0] == pytest.approx(0.25 / 8)


@pytest.mark.parametrize("space", [Log(), Logit(0.1, 2.0), Box(-1, 3), Identity(scale=2.5)], ids=lambda s: s.name)
def test_the_slope_of_a_space_is_that_of_its_map(space) -> None:
    u = np.array([0.2, 0.5, 0.7])
    numeric = (space.forward(u + 1e-6) - space.forward(u - 1e-6)) / 2e-6
    np.testing.assert_allclose(space.slope(u), numeric, rtol=1e-6)


def tetrahedron() -> np.ndarray:
    return np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])


@pytest.mark.parametrize(
    ("filter", "size"),
    [
        (GridFilter((4, 5, 2), 3.0), 40),
        (GridFilter((4, 5, 2), 3.0, wrap=True), 40),
        (MeshFilter(tetrahedron(), 4, 19.0), 12),
    ],
    ids=["grid", "wrapped grid", "mesh"],
)
def test_filters_are_symmetric_have_an_inverse_and_leave_constants(filter: Filter, size: int) -> None:
    matrix = np.stack([filter.apply(e) for e in np.eye(size)])
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(matrix).min() > 0
    x = np.random.default_rng(0).normal(size=size)
    np.testing.assert_allclose(filter.apply(filter.inverse(x)), x, atol=1e-12)
    np.testing.assert_allclose(filter.apply(np.full(size, 2.0)), 2.0, atol=1e-12)


def test_the_grid_filter_solves_the_system_of_the_grid_s_neighbours() -> None:
    height, width, strength = 3, 4, 2.5
    degree, gain = np.zeros((12, 12)), np.zeros((12, 12))
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0)):
                a, b = y * width + x, (y + dy) * width + x + dx
                if y + dy < height and x + dx < width:
                    degree[a, a] += 1
                    degree[b, b] += 1
                    gain[a, b] = gain[b, a] = 1
    system = np.eye(12) + strength * (degree - gain)
    v = np.random.default_rng(0).normal(size=12)
    np.testing.assert_allclose(GridFilter((3, 4, 1), strength).apply(v), np.linalg.solve(system, v), atol=1e-12)


def test_the_mesh_filter_s_matrix_is_that_of_mitsuba_s_large_steps() -> None:
    from mitsuba.python.ad.largesteps import mesh_laplacian

    index, values = mesh_laplacian(4, tetrahedron(), 19.0)
    theirs = np.zeros((4, 4))
    np.add.at(theirs, tuple(index), values)
    ours = np.eye(4) + 19.0 * laplacian(tetrahedron(), 4).toarray()
    np.testing.assert_allclose(ours, theirs)


def test_total_variation_keeps_the_noise_of_a_short_capture_out_of_a_texture() -> None:
    y, x = np.mgrid[:16, :16]
    truth = np.where((x // 8 + y // 8) % 2 == 0, 0.7, 0.3)[..., None] * np.ones(3)
    scene = painted(truth.astype(np.float32))
    noisy = reference(scene, 512) + np.random.default_rng(3).normal(0, 0.08, (16, 16, 3)).astype(np.float32)
    errors = []
    for prior in (None, {"kind": "tv", "weight": 0.02}):
        parameter = Parameter(TEXTURE, init=0.5, prior=prior)
        run = Estimation(Problem(scene, View("v", np.maximum(noisy, 0)), parameter, spp=16), "adam", iterations=150)
        list(run)
        assert (run.history[-1].prior > 0) == (prior is not None)
        errors.append(float(np.sqrt(np.mean((run.values[TEXTURE][2:-2, 2:-2] - truth[2:-2, 2:-2]) ** 2))))
    print("RMS error without and with total variation:", errors)
    assert errors[1] < 0.6 * errors[0]


def test_smoothed_gradients_fill_texels_that_no_pixel_shows_from_their_neighbours() -> None:
    truth = np.full((8, 8, 3), 0.7, np.float32)
    scene = painted(truth)
    mask = np.ones((16, 16), np.float32)
    mask[4:12, 4:12] = 0
    found = []
    for smooth in (0.0, 4.0):
        parameter = Parameter(TEXTURE, init=0.3, smooth=smooth)
        view = View("v", reference(scene, 256), mask=mask)
        run = Estimation(Problem(scene, view, parameter, spp=16), iterations=120)
        assert run.solver.name == "adam"
        list(run)
        found.append(run.values[TEXTURE])
    centre = [float(v[3:5, 3:5].mean()) for v in found]
    print("unseen texels without and with smoothing:", centre)
    assert abs(centre[0] - 0.3) < 0.15 and abs(centre[1] - 0.7) < 0.05
    assert np.abs(found[1] - 0.7).max() < 0.1


def test_a_tie_keeps_two_parameters_in_proportion() -> None:
    scene = corner(16)
    parameters = [Parameter(FLOOR, group="paint", init=0.4), Parameter(WALL, group="paint", factor=0.5)]
    problem = Problem(scene, View("v", np.ones((16, 16, 3))), parameters, spp=4)
    assert problem.start.size == 3 and problem.unknowns[0].name == "paint (2 keys)"
    values = problem.values(problem.start + 0.3)
    np.testing.assert_allclose(values[WALL], 0.5 * values[FLOOR], rtol=1e-6)
    problem.set_latent(problem.start + 0.3, active=frozenset())
    np.testing.assert_allclose(np.array(scene.params[WALL]), 0.5 * np.array(scene.params[FLOOR]), rtol=1e-5)


def test_objects_of_one_group_move_as_one_body() -> None:
    scene = corner(16)
    keys = ["floor.to_world", "wall.to_world"]
    before = {k: as_numpy(scene.params[k]) for k in keys}
    parameters = [Parameter(k, group="room", space="pose") for k in keys]
    with pytest.warns(UserWarning, match="visibility-left-out"):
        problem = Problem(scene, View("v", np.ones((16, 16, 3))), parameters, spp=4)
    latent = np.array([0.1, -0.2, 0.3, 0.05, 0.1, -0.1])
    values = problem.values(latent)
    motions = [values[k] @ np.linalg.inv(before[k]) for k in keys]
    np.testing.assert_allclose(motions[0], motions[1], atol=1e-5)
    problem.set_latent(latent, active=frozenset())
    for key in keys:
        np.testing.assert_allclose(as_numpy(scene.params[key]), values[key], atol=1e-5)


def test_a_parameter_that_waits_stays_at_its_start_until_its_step() -> None:
    scene = corner(16)
    parameters = [Parameter(FLOOR, init=0.4), Parameter(WALL, init=0.4, freeze_until=6)]
    run = Estimation(Problem(scene, View("v", reference(scene, 128)), parameters, spp=4), iterations=12)
    steps = list(run)
    assert all(s.values[WALL] == steps[0].values[WALL] for s in steps[:7])
    assert steps[11].values[WALL] != steps[6].values[WALL] and steps[3].values[FLOOR] != steps[0].values[FLOOR]


def test_gradients_with_priors_and_filters_are_those_of_the_loss() -> None:
    scene = painted(np.random.default_rng(2).uniform(0.2, 0.8, (4, 4, 3)).astype(np.float32), size=8)
    parameter = Parameter(TEXTURE, init=0.4, smooth=2.0, prior=[{"kind": "smooth", "weight": 1.0}])
    objective = Objective(Problem(scene, View("v", np.full((8, 8, 3), 0.5)), parameter, spp=64), seed=1, freeze=False)
    latent = objective.start + np.random.default_rng(3).normal(0, 0.5, objective.start.size)
    direction = np.random.default_rng(4).normal(size=latent.size)
    # the same seeds on both sides of the difference: its noise is only that of the slope
    plus, minus = (objective.evaluate(latent + e * direction, 0).loss for e in (1e-2, -1e-2))
    slopes = [float(objective.evaluate(latent, step).gradient @ direction) for step in range(8)]
    assert (plus - minus) / 2e-2 == pytest.approx(np.mean(slopes), rel=0.03)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"prior": {"kind": "tw", "weight": 1}}, "did you mean 'tv'"),
        ({"prior": {"kind": "tv", "weigth": 1}}, "did you mean 'weight'"),
        ({"prior": {"kind": "tv", "weight": -1}}, "positive"),
        ({"prior": "tv"}, "a table was expected"),
        ({"smooth": -1}, ">= 0"),
        ({"factor": 2}, "group"),
    ],
)
def test_impossible_requests_are_refused(options, match) -> None:
    with pytest.raises(UsageError, match=match):
        Parameter(FLOOR, **options)


def test_priors_of_images_are_not_for_colours_and_not_for_least_squares() -> None:
    scene, view = corner(16), View("v", np.ones((16, 16, 3)))
    with pytest.raises(UsageError, match="textures"):
        Problem(scene, view, Parameter(FLOOR, prior={"kind": "tv", "weight": 1}))
    problem = Problem(scene, view, Parameter(FLOOR, prior={"kind": "normal", "weight": 1, "mean": 0.5}))
    with pytest.raises(UsageError, match="least-squares does not know priors"):
        Estimation(problem, "least-squares")
    assert Estimation(problem).solver.name == "adam"
