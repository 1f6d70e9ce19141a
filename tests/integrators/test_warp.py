"""The field of velocities that warped_area reparameterises by: its divergence, its rings, closed forms on a limb."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
import pytest
from helpers.glowing_scenes import T, glowing

from integrators.contours import Contours
from integrators.warp import Kernel, Looks, direction_field, direction_score, film_field, ring_centres
from integrators.warped_film import FilmPoints
from pathtracer.verify.motion import Motion


def test_divergence_of_a_linear_field_is_its_trace() -> None:
    """(W5) holds for every number of auxiliary rays and of pairs, extrapolated or not."""
    ways = (3, False, False, 1), (6, False, False, 1), (6, True, False, 1), (6, False, True, 1), (6, False, False, 2)
    for rays, debias, even, pairs in ways:
        kernel = Kernel(rays=rays, debias=debias, pairs=pairs)
        lanes = 200_000
        rings = kernel.rings(lanes, dr.arange(mi.UInt32, lanes), even)
        x = rings.centre
        velocity = mi.Vector2f(2 * x.x + x.y, 3 * x.y - x.x)
        mean, divergence = kernel.mean(rings, rings.slope * rings.centre, velocity)
        values = np.asarray(divergence, dtype=np.float64)
        error = values.std() / np.sqrt(lanes)
        assert abs(values.mean() - 5) < 4 * error < 0.1
        assert np.isfinite(np.asarray(mean)).all()


def test_the_velocity_in_the_middle_takes_noise_away_and_adds_no_bias() -> None:
    kernel, lanes = Kernel(rays=6, pairs=2), 200_000
    rings = kernel.rings(lanes, dr.arange(mi.UInt32, lanes))
    score, v = rings.slope * rings.centre, mi.Vector2f(0.3, -0.2)
    same, _ = kernel.mean(rings, score, v + dr.zeros(mi.Vector2f, dr.width(rings.lane)), v)
    np.testing.assert_allclose(np.asarray(same), np.broadcast_to([[0.3], [-0.2]], (2, lanes)), atol=1e-6)
    other, _ = kernel.mean(rings, score, mi.Vector2f(dr.square(rings.centre.x), 1), v)
    found = np.asarray(other, dtype=np.float64)
    # the second moment of p along an axis: half of 15 (2/3/4 − 1/5 + 1/3/7)
    exact = np.array([7.5 * (1 / 6 - 1 / 5 + 1 / 21), 1])
    assert np.all(np.abs(found.mean(1) - exact) < 4 * found.std(1) / np.sqrt(lanes))


def seen_from(scene: dict[str, Any], motion: str, p: Sequence[float], d: Sequence[float], direct: bool) -> np.ndarray:
    """(3, N) velocities, for N rings, of a direction at a point of what lies below it."""
    loaded = mi.load_dict({"type": "scene", **scene})
    lanes = 20_000
    every = dr.full(mi.Bool, True, lanes)
    down = mi.Ray3f(mi.Point3f(*p) + mi.Vector3f(0, 0, 0.05), mi.Vector3f(0, 0, -1))
    with Motion.parse(motion).bind(loaded, mi.traverse(loaded)).attached(forward=True):
        contours = Contours(loaded)
        contours.refresh()
        si = loaded.ray_intersect(down, mi.RayFlags.All | mi.RayFlags.FollowShape, True)
        with dr.suspend_grad():
            away = dr.normalize(mi.Vector3f(*d)) + dr.zeros(mi.Vector3f, lanes)
            origin = mi.Point3f(dr.detach(si).spawn_ray(away).o)
            met = loaded.ray_intersect_preliminary(mi.Ray3f(origin, away))
            n, radius = mi.Vector3f(dr.detach(si.n)), dr.full(mi.Float, 0.03, lanes)
            seed = dr.arange(mi.UInt32, lanes)
            point, origin, n = (x + dr.zeros(type(x), lanes) for x in (mi.Point3f(si.p), origin, n))
        point = mi.Point3f(si.p) + dr.zeros(mi.Point3f, lanes)
        looks = Looks(point, origin, n, away, met, radius, seed, direct & every, every)
        V, _ = direction_field(loaded, contours, Kernel(rays=6, pairs=2), looks)
        return np.array(dr.forward_to(V))


def test_a_room_that_grows_about_a_point_is_seen_to_stand_still() -> None:
    """Walks end where the surface has left the view: not at edges behind the eye, in the plane of its floor."""
    room = {"room": {"type": "cube", "flip_normals": True, "to_world": T().rotate([1, 0, 0], 90)}}
    found = seen_from(room, "room.vertex_positions scale", (0.567, 0.66, -1), (-0.226, 0.219, 0.949), False)
    assert np.abs(found).max() < 1e-2


@pytest.mark.parametrize("direct", [False, True])
def test_light_that_arrives_directly_ends_at_lamps_and_what_stands_before_them(direct: bool) -> None:
    """The edge of a card that moves before a dark wall, beside a lamp."""
    lamp = T().translate([-0.5, 0, 1]).rotate([1, 0, 0], 180).scale(0.5)
    scene = {
        "floor": {"type": "rectangle"},
        "wall": {"type": "rectangle", "to_world": T().translate([0, 0, 3]).scale(5)},
        "lamp": {"type": "rectangle", "to_world": lamp, "emitter": {"type": "area"}},
        "card": {"type": "rectangle", "to_world": T().translate([0.51, 0, 0.9]).scale(0.5)},
    }
    found = seen_from(scene, "card.to_world translate:x", (0, 0, 0), (-0.001, 0, 1), direct)[0]
    assert (np.abs(found) < 1e-3).all() if direct else (np.abs(found) > 0.1).mean() > 0.2


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


@pytest.mark.parametrize("floor", ["rectangle", "cube"])
@pytest.mark.parametrize("kind", ["perspective", "orthographic"])
def test_a_floor_that_goes_on_behind_the_camera_is_no_silhouette(kind: str, floor: str) -> None:
    """Its far rim lies in the plane of neighbouring rays, behind the eye."""
    eye, target = np.array([0, -5.0, 2]), np.array([0, 0, 0.7])
    forward = (target - eye) / np.linalg.norm(target - eye)
    up = np.array([0, 0, 1]) - forward[2] * forward
    place = T().look_at(eye, target, [0, 0, 1])
    view = {"to_world": place, "fov": 40} if kind == "perspective" else {"to_world": place @ T().scale([2, 2, 1])}
    film = {"type": "hdrfilm", "width": 96, "height": 96, "rfilter": {"type": "box"}}
    q = np.array([0, 0, 1]) - eye  # to the card's upper edge
    half = q @ forward * np.tan(np.radians(20)) if kind == "perspective" else 2
    points = np.array([[48.0, 48 - 48 * (q @ up) / np.linalg.norm(up) / half]])
    found = []
    for near in (-1, -20):
        middle, extent = (8 + near) / 2, (8 - near) / 2
        scene = {
            "type": "scene",
            "sensor": {"type": kind, **view, "film": film},
            "floor": {"type": floor, "to_world": T().translate([0, middle, -0.01]).scale([14, extent, 0.01])},
            "card": {"type": "rectangle", "to_world": T().translate([0, 0, 0.5]).rotate([1, 0, 0], 90).scale(0.5)},
        }
        found.append(field_at(scene, "card.to_world translate:z", points, 4000, 0.25)[0])
    assert found[0][1] < -15
    np.testing.assert_allclose(found[1], found[0], atol=0.5)
