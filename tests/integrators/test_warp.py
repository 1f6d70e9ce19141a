"""The field of velocities that warped_area reparameterises by: its divergence, its rings, closed forms on a limb."""

from __future__ import annotations

import drjit as dr
import mitsuba as mi
import numpy as np
import pytest
from helpers.glowing_scenes import T, glowing

from integrators.contours import Contours
from integrators.warp import Kernel, direction_score, film_field, ring_centres
from integrators.warped_film import FilmPoints
from pathtracer.verify.motion import Motion


def test_divergence_of_a_linear_field_is_its_trace() -> None:
    """(W5) holds for every number of auxiliary rays, extrapolated or not."""
    for rays, debias, even in ((3, False, False), (6, False, False), (6, True, False), (6, False, True)):
        kernel = Kernel(rays=rays, debias=debias)
        lanes = 200_000
        rings = kernel.rings(lanes, dr.arange(mi.UInt32, lanes), even)
        x = rings.centre
        velocity = mi.Vector2f(2 * x.x + x.y, 3 * x.y - x.x)
        mean, divergence = kernel.mean(rings, rings.slope * rings.centre, velocity)
        values = np.asarray(divergence, dtype=np.float64)
        error = values.std() / np.sqrt(lanes)
        assert abs(values.mean() - 5) < 4 * error < 0.1
        assert np.isfinite(np.asarray(mean)).all()


def test_centres_for_the_velocity_alone_have_the_same_density_and_equal_weights() -> None:
    lanes = 200_000
    moments = []
    for even in (False, True):
        rings = Kernel(rays=6).rings(lanes, dr.arange(mi.UInt32, lanes), even)
        r, share = np.asarray(dr.norm(rings.centre), dtype=np.float64), np.asarray(rings.share, dtype=np.float64)
        moments.append([np.mean(share * r**k) for k in (0, 1, 2, 4)])
        assert (np.ptp(share) == 0) == even
    exact = [15 * (2 / 3 / (k + 2) - 1 / (k + 3) + 1 / 3 / (k + 5)) for k in (0, 1, 2, 4)]
    np.testing.assert_allclose(moments, [exact, exact], rtol=0.01)


def test_divergence_on_directions_counts_the_turning_tangent_plane() -> None:
    """The part of a constant vector a across ω has the divergence −2 a·ω; a rotation has none."""
    lanes, radius = 200_000, 0.05
    rings = Kernel(rays=6).rings(lanes, dr.arange(mi.UInt32, lanes))
    d, a = dr.normalize(mi.Vector3f(0.3, -0.5, 0.8)), mi.Vector3f(1, 2, -0.5)
    centre = ring_centres(d, radius, rings)
    score = direction_score(d, centre, radius, rings)
    for velocity, exact in ((a - centre * dr.dot(a, centre), -2 * dr.dot(a, d)[0]), (dr.cross(a, centre), 0.0)):
        _, divergence = Kernel(rays=6).mean(rings, score, mi.Vector3f(velocity))
        values = np.asarray(divergence, dtype=np.float64)
        error = values.std() / np.sqrt(lanes)
        assert abs(values.mean() - exact) < 4 * error + 2e-3 * abs(exact) + 5e-4


def test_a_straight_edge_through_the_middle_always_has_ring_points_on_both_sides() -> None:
    rings = Kernel(rays=6).rings(50_000, dr.arange(mi.UInt32, 50_000))
    x = dr.gather(mi.Vector2f, rings.centre, rings.ring) + rings.offset
    for angle in np.linspace(0, np.pi, 7):
        side = np.asarray(x.x * np.cos(angle) + x.y * np.sin(angle)) > 0
        found = side.reshape(-1, rings.size)
        assert (found.any(axis=1) & ~found.all(axis=1)).all()


def field_at(scene: dict, motion: str, points: np.ndarray, copies: int, width: float, **kernel) -> np.ndarray:
    """Mean film velocity of the warp at film positions (n, 2), pixels per unit of the motion."""
    loaded = mi.load_dict(scene, optimize=False)
    bound = Motion.parse(motion).bind(loaded, mi.traverse(loaded))
    sensor = loaded.sensors()[0]
    u = np.repeat(points, copies, axis=0).astype(np.float32)
    with bound.attached(forward=True):
        contours = Contours(loaded)
        contours.refresh()
        place = FilmPoints(mi.Point2f(u.T), mi.Float(0), mi.Float(0), mi.Point2f(0.5))
        seed = dr.arange(mi.UInt32, len(u))
        shift, _ = film_field(loaded, contours, Kernel(**{"rays": 6} | kernel), mi.Float(width), seed, sensor, place)
        tangent = dr.forward_to(shift, flags=dr.ADFlag.ClearEdges | dr.ADFlag.AllowNoGrad)
        return np.asarray(tangent, dtype=np.float64).T.reshape(len(points), copies, 2).mean(axis=1)


def test_field_of_parallel_rays_is_finite_beside_an_infinite_background() -> None:
    scene = glowing("cube")
    scene["sensor"]["type"] = "orthographic"
    del scene["sensor"]["fov"], scene["wall"]
    scene["sky"] = {"type": "constant"}
    points = np.array([[1.0, 1.0], [6.0, 6.0]])
    assert np.isfinite(field_at(scene, "sensor.to_world rotate:y", points, 200, 0.5)).all()


def limb(radius: float, distance: float, pixels: float, fov: float, n: int) -> tuple[np.ndarray, float]:
    """Film positions on the limb of a centred sphere, and the limb's radius in pixels."""
    r = np.tan(np.arcsin(radius / distance)) / np.tan(np.radians(fov / 2)) * pixels / 2
    angles = 2 * np.pi * np.arange(n) / n
    return pixels / 2 + r * np.stack([np.cos(angles), np.sin(angles)], axis=1), r


def facing() -> dict:
    """A sphere of radius 0.8 at distance 4, its limb a circle in the middle of the film."""
    scene = glowing("sphere")
    scene["sensor"]["to_world"] = T().look_at([0, 0, 4], [0, 0, 0], [0, 1, 0])
    scene["wall"]["to_world"] = T().translate([0, 0, -2]).scale(8)
    scene["shape"] = {"type": "sphere", "radius": 0.8}
    return scene


def test_field_on_the_limb_of_a_sphere_converges_to_the_closed_form_with_the_square_of_the_width() -> None:
    """The limb of a growing sphere moves by d/dR [f tan asin(R/D)] = f D² (D² − R²)^(−3/2) pixels per unit."""
    R, D, n = 0.8, 4.0, 16
    points, r = limb(R, D, 12, 40, n)
    focal = 6 / np.tan(np.radians(20))
    exact = focal * D**2 / (D**2 - R**2) ** 1.5 * R  # θ is relative growth
    out = (points - 6) / r
    errors = []
    for width in (1.0, 0.5):
        v = (field_at(facing(), "shape.to_world scale", points, 4000, width) * out).sum(axis=1)
        errors.append(v.mean() / exact - 1)
    assert abs(errors[1]) < 0.02
    assert abs(errors[1]) < 0.5 * abs(errors[0])


@pytest.mark.parametrize("turn", ["rotate:y", "rotate:z"])
def test_a_sphere_that_turns_about_itself_does_not_move_its_limb(turn: str) -> None:
    points, r = limb(0.8, 4.0, 12, 40, 8)
    v = field_at(facing(), f"shape.to_world {turn}", points, 1000, 0.25)
    out = (points - 6) / r
    assert np.abs((v * out).sum(axis=1)).max() < 1e-3 * r
