"""Curves along which surfaces pass through each other, and where shading normals turn away: edges of no shape."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import mitsuba as mi
import numpy as np
import pytest

from integrators.boundary.contact import boxes_meet, touching
from integrators.boundary.silhouettes import Silhouettes
from integrators.errors import GradientWarning
from pathtracer.capture import View
from pathtracer.inverse import Parameter, Problem
from pathtracer.inverse.objective import Objective
from pathtracer.scenes import Scene, load_scene
from pathtracer.verify.catalogue import catalogue_folder
from pathtracer.verify.estimate import Gradient
from pathtracer.verify.motion import Motion

T = mi.ScalarTransform4f


def glowing(*radiance: float) -> dict[str, Any]:
    return {"type": "area", "radiance": {"type": "rgb", "value": list(radiance)}}


#: Bodies that pass through the origin, which the camera sees from above.
BODIES: dict[str, dict[str, Any]] = {
    "cube": {"type": "cube", "to_world": T().rotate([1, 0.3, 0.2], 40).scale(0.5)},
    "ball": {"type": "sphere", "radius": 0.6, "center": [0.1, 0, 0.1]},
    "card": {"type": "rectangle", "to_world": T().rotate([0, 1, 0], 15).scale(0.9)},
    "rod": {"type": "cylinder", "p0": [-0.3, -0.9, -0.2], "p1": [0.3, 0.9, 0.3], "radius": 0.4},
    "plate": {"type": "disk", "to_world": T().rotate([1, 0, 0], 20).scale(0.9)},
}
FROM_ABOVE = T().look_at([0.3, -1.5, 4], [0, 0, 0], [0, 1, 0])
FILM = {"type": "hdrfilm", "width": 24, "height": 24, "rfilter": {"type": "box"}, "pixel_format": "rgb"}
#: How one of two equal bodies lies.
SHIFT = T().translate([0.35, 0.2, 0.15])


def cubes(shift: float = 0.0) -> list[Any]:
    """How two cubes lie that pass through each other; the second one moved along x."""
    second = T().translate([shift, 0, 0]) @ SHIFT @ T().rotate([0.3, 1, 0.2], 70).scale(0.45)
    return [BODIES["cube"]["to_world"], second]


def pair(first: str, second: str, more: dict[str, Any] | None = None, apart: float = 0.0, **sensor: Any) -> Scene:
    other = dict(BODIES[second])
    if first == second:
        other = {"type": "sphere", "radius": 0.5, "center": [0.45, 0.2, 0.2]} if first == "ball" else other
        if first == "cube":
            other["to_world"] = cubes()[1]
    if apart:
        other = {"type": "sphere", "radius": 0.3, "center": [0.2, 0.1, apart]}
    sensor = sensor or {"type": "perspective", "fov": 30}
    return Scene.from_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 1},
            "camera": {"to_world": FROM_ABOVE, "film": FILM} | sensor,
            "first": BODIES[first] | {"emitter": glowing(0.6, 0.4, 0.2)},
            "second": other | {"emitter": glowing(0.2, 0.5, 0.9)},
            **(more or {}),
        }
    )


def where(body: str) -> str:
    return "first.vertex_positions" if body == "cube" else "first.to_world"


def gradient(scene: Scene, motion: str, **properties: Any) -> Gradient:
    bound = Motion.parse(motion).bind(scene.mi, scene.params)
    integrator = mi.load_dict({"type": "edge_sampling", "max_depth": 1, **properties})
    return Gradient(bound, scene.mi.sensors()[0], integrator, 1, 0)


def assert_right(scene: Scene, motion: str, step: float = 5e-3, max_depth: int = 1, spp: int = 256) -> None:
    """Slope 1 against finite differences, within 3 % and three standard errors, forward and backward."""
    found = gradient(scene, motion, max_depth=max_depth)
    # Mitsuba's own path tracer counts the opacity of a mask twice
    path = mi.load_dict({"type": "path" if max_depth == 1 else "path_replay", "max_depth": max_depth})
    sides = []
    for θ in (step, -step):
        found.bound.apply(θ)
        images = [np.array(mi.render(scene.mi, integrator=path, seed=i, spp=2 * spp), np.float64) for i in range(12)]
        sides.append(np.mean(images, axis=0))
    found.bound.restore()
    reference = (sides[0] - sides[1]) / (2 * step)
    norm = np.sum(reference**2)
    images = np.array([found.gradient_image(spp, seed) for seed in range(8)])
    slopes = np.einsum("nhwc,hwc->n", images, reference) / norm
    error = slopes.std(ddof=1) / np.sqrt(len(slopes))
    assert error < 0.015
    assert slopes.mean() == pytest.approx(1, abs=0.03 + 3 * error)
    backward = [found.backward_gradient(reference, spp, 20 + seed) / norm for seed in range(4)]
    assert np.mean(backward) == pytest.approx(slopes.mean(), abs=0.03 + 3 * error)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("cube", "cube"),
        ("ball", "ball"),
        ("cube", "ball"),
        pytest.param("ball", "card", marks=pytest.mark.slow),
        pytest.param("ball", "rod", marks=pytest.mark.slow),
        pytest.param("cube", "card", marks=pytest.mark.slow),
        pytest.param("card", "rod", marks=pytest.mark.slow),
        pytest.param("ball", "plate", marks=pytest.mark.slow),
    ],
)
def test_bodies_that_pass_through_each_other_have_the_slope_of_finite_differences(first: str, second: str) -> None:
    assert_right(pair(first, second), f"{where(first)} translate:0.5,0.3,1")


LENSES: dict[str, dict[str, Any]] = {
    "thinlens": {"fov": 30, "aperture_radius": 0.1, "focus_distance": 4.0},
    "orthographic": {"to_world": FROM_ABOVE @ T().scale([1.2, 1.2, 1])},
}


@pytest.mark.slow
@pytest.mark.parametrize("motion", ["first.vertex_positions rotate:x", "camera.to_world translate:x"])
@pytest.mark.parametrize("kind", LENSES)
def test_crossings_move_under_every_camera(kind: str, motion: str) -> None:
    assert_right(pair("cube", "ball", type=kind, **LENSES[kind]), motion)


def foil(opacity: float, to_world: mi.ScalarTransform4f) -> dict[str, Any]:
    black = {"type": "diffuse", "reflectance": 0.0}
    return {"type": "rectangle", "to_world": to_world, "bsdf": {"type": "mask", "opacity": opacity, "inside": black}}


#: Across the way of the camera's rays, which go on sideways of it.
ACROSS = T().translate([0.2, -0.8, 2]).rotate([1, 0.5, 0], 50).scale(2)


#: Light behind masks, of which there is none.
no_shadows = pytest.mark.filterwarnings("ignore::integrators.errors.GradientWarning")


@no_shadows
def test_crossings_are_seen_through_masks() -> None:
    scene = pair("cube", "ball", {"foil": foil(0.1, ACROSS)})
    assert_right(scene, "first.vertex_positions translate:0.5,0.3,1", max_depth=2, spp=1024)


@pytest.mark.filterwarnings("ignore::integrators.errors.GradientWarning")  # shadows seen in mirrors: there are none
@pytest.mark.parametrize(
    "motion", ["floor.to_world translate:0.3,1,0", "mirror.to_world rotate:y", "camera.to_world translate:y"]
)
def test_crossings_are_seen_in_mirrors(motion: str) -> None:
    assert_right(load_scene(catalogue_folder() / "sunk-mirror.xml"), motion, max_depth=2, spp=2048)


@no_shadows
def test_masks_that_pass_through_each_other_do_so_once() -> None:
    """Straight through one of them, the other is behind it on either side: the same curve again."""
    scene = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 2},
        "camera": {"type": "perspective", "fov": 20, "to_world": FROM_ABOVE, "film": FILM},
        "first": foil(0.5, T().rotate([1, 0, 0], 20)) | {"emitter": glowing(0.6, 0.4, 0.2)},
        "second": foil(0.6, T().rotate([0, 1, 0], -30)) | {"emitter": glowing(0.2, 0.5, 0.9)},
    }
    assert_right(Scene.from_dict(scene), "first.to_world rotate:0.3,1,0", step=1e-2, max_depth=2, spp=2048)


@no_shadows
def test_shading_turns_away_behind_masks() -> None:
    scene = sunk({"foil": foil(0.1, T().translate([0, -0.6, 2.8]).rotate([1, 0.5, 0], 20).scale(0.5))}, floor=False)
    assert_right(scene, "camera.to_world translate:x", max_depth=3)


def in_parts(folder: Path, shift: float = 0.0) -> Scene:
    """The two cubes of `pair` as one mesh, told apart by the colour of their light."""
    sides = [mi.traverse(mi.load_dict({"type": "cube", "to_world": t})) for t in cubes(shift)]
    vertices = [np.array(side["vertex_positions"]).reshape(-1, 3) for side in sides]
    mesh = mi.Mesh("both", sum(len(v) for v in vertices), sum(len(side["faces"]) // 3 for side in sides))
    mesh.add_attribute("vertex_color", 3, np.repeat([[0.6, 0.4, 0.2], [0.2, 0.5, 0.9]], 24, axis=0).ravel())
    params = mi.traverse(mesh)
    params["vertex_positions"] = np.concatenate(vertices).ravel()
    params["faces"] = np.concatenate([np.array(side["faces"]) + 24 * i for i, side in enumerate(sides)])
    params.update()
    mesh.write_ply(str(folder / "both.ply"))
    light = {"type": "area", "radiance": {"type": "mesh_attribute", "name": "vertex_color"}}
    both = {"type": "ply", "filename": str(folder / "both.ply"), "face_normals": True, "emitter": light}
    camera = {"type": "perspective", "fov": 30, "to_world": FROM_ABOVE, "film": FILM}
    return Scene.from_dict(
        {"type": "scene", "integrator": {"type": "path", "max_depth": 1}, "camera": camera, "first": both}
    )


@pytest.mark.parametrize("motion", ["translate:0.5,0.3,1", "random:3"])
def test_parts_of_a_mesh_that_pass_through_each_other_are_right(tmp_path: Path, motion: str) -> None:
    """The eyes of a head, the spout of a pot: one mesh, but no edge where they meet. Moved as a whole, and bent."""
    assert_right(in_parts(tmp_path), f"first.vertex_positions {motion}")


def test_bodies_apart_are_not_looked_at(tmp_path: Path) -> None:
    scene = pair("cube", "ball", apart=1.5)
    assert not touching(scene.mi, True, [])
    assert touching(pair("cube", "ball").mi, True, [])
    assert not touching(pair("cube", "ball").mi, False, []), "nothing moves"
    found = gradient(scene, "first.vertex_positions translate:x")
    found.gradient_image(4, 0)
    assert not found.estimator._touching
    for shift, met in ((0.0, True), (3.0, False)):
        scene = in_parts(tmp_path, shift)
        assert touching(scene.mi, True, Silhouettes(scene.mi).topology.parts) == met


def test_boxes_that_meet_are_found_among_many() -> None:
    low = np.arange(1000.0)[:, None] * [1.5, 0.1, 0]
    assert not boxes_meet(low, low + 1)
    assert not boxes_meet(np.roll(low, 1, axis=1), np.roll(low, 1, axis=1) + 1)
    low[777] = low[300] + 0.5
    assert boxes_meet(low, low + 1)
    still = np.zeros(1000, dtype=bool)
    assert not boxes_meet(low, low + 1, still)
    still[300] = True
    assert boxes_meet(low, low + 1, still)
    assert not boxes_meet(np.full((2, 3), np.inf), np.full((2, 3), -np.inf)), "nothing in them"
    assert not boxes_meet(np.zeros((0, 3)), np.zeros((0, 3)))


def test_an_edge_in_the_middle_of_a_face_counts_once() -> None:
    """A box that stands on another has edges there; sunk by a hundredth it has none, and the derivative is the same."""
    images = []
    for height in (0.0, -0.01):
        scene = standing(height)
        images.append(np.mean([gradient(scene, TOP).gradient_image(256, seed) for seed in range(4)], axis=0))
    slope = np.sum(images[0] * images[1]) / np.sum(images[1] ** 2)
    assert slope == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("height", [0.0, -0.1])
def test_a_body_on_the_ground_moves_or_the_ground_below_a_sunk_one(height: float) -> None:
    assert_right(standing(height), "base.vertex_positions translate:0.2,0,1" if height else TOP)


def sunk_ball(height: float) -> Scene:
    """A small ball in a floor under an even sky, where they meet on the side of the camera."""
    return Scene.from_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 2},
            "camera": {
                "type": "perspective",
                "fov": 3,
                "to_world": T().look_at([0, -3.4, 2.2], [0, -0.09, 0], [0, 0, 1]),
                "film": FILM,
            },
            "floor": {"type": "rectangle", "to_world": T().scale(8)},
            "ball": {"type": "sphere", "radius": 0.1, "center": [0, 0, height]},
            "sky": {"type": "constant"},
        }
    )


@pytest.mark.parametrize("height", [0.04, -0.04])
def test_the_sky_that_a_round_body_hides_counts_once_where_it_meets_the_floor(height: float) -> None:
    """It changes with the root of the distance: looked at from farther than Mitsuba's own offsets, it counts twice."""
    assert_right(sunk_ball(height), "ball.to_world translate:0.2,1,0.4", step=1e-3, max_depth=2, spp=1024)


@pytest.mark.parametrize(("height", "expected"), [(0.0, set()), (-0.01, {"crossing-indirect"})])
def test_what_other_surfaces_see_of_a_crossing_is_warned_of(height: float, expected: set[str]) -> None:
    found = gradient(standing(height), TOP, max_depth=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found.gradient_image(4, 0)
    assert {w.message.code for w in caught if isinstance(w.message, GradientWarning)} == expected


TOP = "top.vertex_positions translate:1,0.3,0"


def standing(height: float) -> Scene:
    """A small box on a large one, its lower side `height` above the other's upper side; sides of their own colours."""
    scene = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 1},
        "camera": {"type": "perspective", "fov": 30, "to_world": FROM_ABOVE, "film": FILM},
        "base": {"type": "cube", "to_world": T().translate([0, 0, -0.5]).scale([1, 1, 0.5])},
        "top": {"type": "cube", "to_world": T().translate([0.1, 0, 0.4 + height]).rotate([0, 0, 1], 25).scale(0.4)},
    }
    scene["base"] |= {"emitter": glowing(0.6, 0.4, 0.2)}
    scene["top"] |= {"emitter": glowing(0.2, 0.5, 0.9)}
    return Scene.from_dict(scene)


def sunk(more: dict[str, Any] | None = None, floor: bool = True) -> Scene:
    """A coarse ball with interpolated normals, sunk in a floor: both terms have work."""
    camera = {"type": "perspective", "fov": 30, "to_world": FROM_ABOVE, "film": FILM | {"width": 12, "height": 12}}
    scene = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 2},
        "camera": camera,
        "ball": {"type": "ply", "filename": str(catalogue_folder() / "sphere.ply")},
        "sun": {"type": "directional", "direction": [0.5, 0.4, -1]},
    }
    if floor:
        scene["floor"] = {"type": "rectangle", "to_world": T().scale(3)}
    return Scene.from_dict({**scene, **(more or {})})


def test_recorded_steps_replay_both_terms_with_the_numbers_of_traced_ones() -> None:
    found = []
    for freeze in (False, True):
        scene = sunk()
        target = View("front", scene.render(spp=16, seed=7))
        unknown = Parameter("ball.vertex_positions", space="pose", init=[2.0, 0.0, 5.0, 0.1, 0.0, -0.1], truth="scene")
        objective = Objective(Problem(scene, target, unknown, estimator="edge_sampling", spp=16), seed=3, freeze=freeze)
        integrator = objective.problem.integrator
        integrator.shadow = integrator.indirect = False
        latents = [objective.problem.start * scale for scale in (1.0, 0.9, 0.5)]
        found.append([objective.evaluate(latent, step) for step, latent in enumerate(latents)])
        assert integrator._touching and integrator._smooth is not None
        assert objective.recordings == int(freeze)
    for traced, replayed in zip(*found, strict=True):
        assert np.linalg.norm(traced.gradient) > 0
        np.testing.assert_allclose(replayed.gradient, traced.gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore::integrators.errors.GradientWarning")
def test_recorded_steps_replay_crossings_in_mirrors() -> None:
    """The ball touches the floor from the third step on."""
    found = []
    for freeze in (False, True):
        scene = load_scene(catalogue_folder() / "sunk-mirror.xml")
        target = View("front", scene.render(spp=16, seed=7))
        unknown = Parameter("ball.to_world", space="pose", init=[0.0, 0.0, 0.0, 0.0, 0.25, 0.0], truth="scene")
        objective = Objective(Problem(scene, target, unknown, estimator="edge_sampling", spp=16), seed=3, freeze=freeze)
        latents = [objective.problem.start * scale for scale in (1.0, 0.95, 0.5, 0.4)]
        touching = []
        for step, latent in enumerate(latents):
            found.append(objective.evaluate(latent, step).gradient)
            touching.append(objective.problem.integrator._touching)
        assert touching == [False, False, True, True]
        assert objective.recordings <= 2 * freeze
    traced, replayed = found[:4], found[4:]
    for a, b in zip(traced, replayed, strict=True):
        assert np.linalg.norm(a) > 0
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("tilt", "place"), [(3, (0, 0, 0)), (30, (100, 30, 20))])
def test_surfaces_that_hardly_part_are_told_apart(tilt: float, place: tuple[float, float, float]) -> None:
    """The two sides of their crossing are looked at from where round-off does not decide which surface is in front."""
    here = T().translate(place)
    scene = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 1},
        "camera": {"type": "perspective", "fov": 20, "to_world": here @ FROM_ABOVE, "film": FILM},
        "first": {
            "type": "rectangle",
            "to_world": here @ T().rotate([0, 1, 0], tilt),
            "emitter": glowing(0.6, 0.4, 0.2),
        },
        "second": {"type": "rectangle", "to_world": here, "emitter": glowing(0.2, 0.5, 0.9)},
    }
    assert_right(Scene.from_dict(scene), "first.to_world translate:z", step=2e-3 * max(1.0, tilt / 10))
