"""Film maps, silhouettes in closed form, splatting, and the choice of curve elements."""

import drjit as dr
import mitsuba as mi
import numpy as np
import pytest

from integrators import UnsupportedGradient
from integrators.boundary.camera import FilmMap
from integrators.boundary.distribution import Discrete, stratified
from integrators.boundary.film import FilmSplat
from integrators.boundary.quadrics import Quadrics
from integrators.boundary.silhouettes import Silhouettes
from integrators.boundary.view import View

CROP = {"width": 40, "height": 30, "crop_width": 24, "crop_height": 20, "crop_offset_x": 5, "crop_offset_y": 7}


def camera(kind: str, **film: object) -> mi.Sensor:
    extra = {
        "perspective": {"fov": 40.0, "principal_point_offset_x": 0.1, "principal_point_offset_y": -0.2},
        "orthographic": {},
        "thinlens": {"fov": 40.0, "aperture_radius": 0.2, "focus_distance": 3.0},
    }[kind]
    to_world = mi.ScalarTransform4f().look_at([1, -3, 2], [0, 0, 0.3], [0, 0, 1])
    return mi.load_dict({"type": kind, "to_world": to_world, **extra, "film": {"type": "hdrfilm", **CROP, **film}})


@pytest.mark.parametrize("kind", ["perspective", "orthographic", "thinlens"])
def test_a_point_on_a_camera_ray_lands_where_the_ray_began(kind: str) -> None:
    film = FilmMap(camera(kind))
    u = mi.Point2f([6.25, 20.5, 28.75], [8.5, 15.25, 26.0])
    aperture = mi.Point2f([0.3, -0.5, 0.0], [0.1, 0.6, -0.9])
    ray, _ = film.ray(u, aperture)
    landed = film.project(mi.Point3f(ray.o + 2.5 * ray.d), aperture)
    np.testing.assert_allclose(np.array(landed), np.array(u), atol=2e-3)


@pytest.mark.parametrize("kind", ["perspective", "orthographic", "thinlens"])
def test_film_tangents_match_differences(kind: str) -> None:
    film = FilmMap(camera(kind))
    p, v, aperture = mi.Point3f(0.2, 0.1, 0.4), mi.Vector3f(0.3, -0.7, 0.5), mi.Point2f(0.4, -0.2)
    h = 5e-3
    ahead, behind = film.project(mi.Point3f(p + h * v), aperture), film.project(mi.Point3f(p - h * v), aperture)
    difference = (np.array(ahead) - np.array(behind)) / (2 * h)
    np.testing.assert_allclose(np.array(film.project_tangent(p, v, aperture)), difference, rtol=2e-3, atol=2e-3)


def test_another_sensor_is_refused() -> None:
    sensor = mi.load_dict({"type": "irradiancemeter", "film": {"type": "hdrfilm", "width": 1, "height": 1}})
    with pytest.raises(UnsupportedGradient, match="IrradianceMeter"):
        FilmMap(sensor)


def shape(name: str) -> mi.Shape:
    tilted = mi.ScalarTransform4f().rotate([0.6, 0.8, 0], 40).scale(0.6)
    shapes = {
        "sphere": {"type": "sphere", "center": [0.2, 0.1, 0.3], "radius": 0.7},
        "cylinder": {"type": "cylinder", "p0": [0, -0.4, 0], "p1": [0.5, 0.6, 0.2], "radius": 0.4},
        "disk": {"type": "disk", "to_world": tilted},
    }
    return mi.load_dict(shapes[name])


@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("name", ["sphere", "cylinder", "disk"])
def test_lines_of_sight_graze_a_silhouette(name: str, far: bool) -> None:
    """Just outside the silhouette the line misses the shape, just inside it hits."""
    solid = shape(name)
    scene = mi.load_dict({"type": "scene", "shape": solid})
    view = View(dr.normalize(mi.Point3f(1, 2, 3)) if far else mi.Point3f(1, 2, 3), mi.Bool(far))
    t = (mi.Float(dr.arange(mi.UInt32, 64)) + 0.5) / 64
    quadrics = Quadrics([solid])
    p, tangent, inner, valid = quadrics.sample(dr.zeros(mi.UInt32, 64), t, view, mi.Bool(True))
    d = dr.normalize(view.toward(p))
    n = dr.normalize(dr.cross(tangent, d))
    n = mi.Vector3f(dr.mulsign(n, -dr.dot(n, inner)))
    hits = lambda shift: np.array(scene.ray_test(mi.Ray3f(mi.Point3f(p + shift * n - 20 * d), d)))
    valid = np.array(valid)
    assert valid.any()
    if name != "cylinder":  # a rim of the cylinder may lie in front of, or behind, its own wall
        assert not hits(2e-3)[valid].any()
    assert hits(-2e-3)[valid].mean() > (0.99 if name != "cylinder" else 0.6)


@pytest.mark.parametrize("name", ["sphere", "cylinder", "disk"])
def test_silhouette_tangents_match_differences(name: str) -> None:
    quadrics = Quadrics([shape(name)])
    view = View(mi.Point3f(1, 2, 3), mi.Bool(False))
    at = lambda t: quadrics.sample(mi.UInt32(0), mi.Float(t), view, mi.Bool(True))
    for t in (0.1, 0.37, 0.6, 0.9):
        h = 1e-3
        difference = (np.array(at(t + h)[0]) - np.array(at(t - h)[0])) / (2 * h)
        np.testing.assert_allclose(np.array(at(t)[1]), difference, rtol=5e-3, atol=5e-3)


def test_nothing_is_a_silhouette_from_inside_a_sphere() -> None:
    view = View(mi.Point3f(0.2, 0.1, 0.3), mi.Bool(False))
    _, _, _, valid = Quadrics([shape("sphere")]).sample(mi.UInt32(0), mi.Float(0.3), view, mi.Bool(True))
    assert not valid[0]


@pytest.mark.parametrize("rfilter", ["box", "gaussian"])
@pytest.mark.parametrize("border", [False, True])
def test_splatting_and_its_adjoint_agree(rfilter: str, border: bool) -> None:
    film = FilmSplat(camera("perspective", rfilter={"type": rfilter}, sample_border=border))
    rng = np.random.default_rng(1)
    u = mi.Point2f(*(rng.uniform(low - 1, high + 1, 200) for low, high in ((5, 29), (7, 27))))
    value = mi.Spectrum(*rng.normal(size=(3, 200)))
    grad = mi.TensorXf(rng.normal(size=(20, 24, 3)))
    image = film.image(u, value, mi.Float(0), [])
    adjoint, *_ = film.adjoint(u, [], grad)
    left = float(np.sum(np.array(image, dtype=np.float64) * np.array(grad)))
    right = float(np.sum(np.array(adjoint, dtype=np.float64) * np.array(value)))
    assert left == pytest.approx(right, rel=1e-4)


@pytest.mark.parametrize(("rfilter", "border"), [("box", False), ("gaussian", False), ("gaussian", True)])
def test_a_uniform_density_of_splats_gives_its_own_value_in_every_pixel(rfilter: str, border: bool) -> None:
    film = FilmSplat(camera("perspective", rfilter={"type": rfilter}, sample_border=border))
    step = 0.125
    low, high = (np.array([film.low.x[0], film.low.y[0]]), np.array([film.high.x[0], film.high.y[0]]))
    x, y = (np.arange(low[i] + step / 2, high[i], step) for i in (0, 1))
    xx, yy = np.meshgrid(x, y)
    u = mi.Point2f(xx.ravel().astype(np.float32), yy.ravel().astype(np.float32))
    image = np.array(film.image(u, mi.Spectrum(step * step), mi.Float(0), []))
    np.testing.assert_allclose(image, 1, rtol=2e-3)


def test_items_come_with_their_probability() -> None:
    weights = np.array([0.0, 2.0, 0.0, 1.0, 5.0, 0.0])
    choice = Discrete(mi.Float(weights))
    n = 8000
    index, inside, probability = choice.sample(stratified(n, mi.Float(np.random.default_rng(0).random(n))))
    counts = np.bincount(np.array(index), minlength=6) / n
    np.testing.assert_allclose(counts, weights / weights.sum(), atol=2 / n)
    np.testing.assert_allclose(np.array(probability), (weights / weights.sum())[np.array(index)], rtol=1e-6)
    assert 0.49 < np.array(inside).mean() < 0.51


def test_no_weight_at_all_gives_probability_zero() -> None:
    _, _, probability = Discrete(mi.Float(0, 0, 0)).sample(mi.Float64(0.2, 0.9))
    assert np.all(np.array(probability) == 0)


def test_a_direction_from_the_lune_sees_a_silhouette() -> None:
    scene = mi.load_dict({"type": "scene", "cube": {"type": "cube"}, "ball": {"type": "sphere"}})
    curves = Silhouettes(scene)
    n = 4000
    rng = np.random.default_rng(2)
    index = mi.UInt32(rng.integers(0, curves.size, n))
    sample = mi.Point2f(*rng.random((2, n)))
    ω, density = curves.sample_direction(index, sample, mi.Bool(True))
    point = curves.sample(index, mi.Float(0.5), View(mi.Point3f(ω), mi.Bool(True)))
    possible = np.array(density) < 100  # the diagonals of the faces have a lune of no width
    assert np.array(point.silhouette)[possible].mean() > 0.999
    assert possible.mean() > 0.6


def test_attached_hits_follow_their_shape() -> None:
    scene = mi.load_dict(
        {"type": "scene", "cube": {"type": "cube"}, "ball": {"type": "sphere", "center": [5, 0, 0]}}, optimize=False
    )
    params = mi.traverse(scene)
    θ = mi.Float(0)
    dr.enable_grad(θ)
    vertices = dr.unravel(mi.Point3f, params["cube.vertex_positions"])
    params["cube.vertex_positions"] = dr.ravel(mi.Point3f(vertices + θ * mi.Vector3f(1, 2, 3)))
    params["ball.to_world"] = mi.Transform4f().rotate([0, 0, 1], θ * 180 / dr.pi) @ mi.Transform4f(
        params["ball.to_world"]
    )
    params.update()
    dr.forward(θ, dr.ADFlag.ClearEdges)
    ray = mi.Ray3f(mi.Point3f([0.2, 5.0], [0.3, 0.0], [5.0, 5.0]), mi.Vector3f(0, 0, -1))
    hit = scene.ray_intersect_preliminary(ray)
    p = dr.detach(hit.compute_surface_interaction(ray).p)
    followed = Silhouettes(scene).follow(hit, p, mi.Bool(True))
    velocity = np.array(dr.forward_to(followed, flags=dr.ADFlag.ClearNone)).T
    np.testing.assert_allclose(velocity, [[1, 2, 3], [0, 5, 0]], atol=1e-4)
