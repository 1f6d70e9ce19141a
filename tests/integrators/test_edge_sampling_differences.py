"""Edge sampling against finite differences: light of every kind, cameras and curves, whoever moves alone."""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
import pytest
from helpers.moving_scenes import (
    LIGHTS,
    OCCLUDERS,
    Subject,
    area_light,
    assert_slope_is_one,
    ball,
    cube,
    diffuse,
    look,
    mover,
    point_light,
    rgb,
    room,
    sun,
    translate,
)


@pytest.mark.parametrize("who", ["occluder", "floor", "light", "camera"])
@pytest.mark.parametrize(("light", "occluder"), [("point", "cube"), ("sun", "ball"), ("area", "ball")])
def test_direct_light_has_the_slope_of_finite_differences(light: str, occluder: str, who: str) -> None:
    subject = Subject(room(LIGHTS[light](), OCCLUDERS[occluder]()), mover(who, light, occluder))
    reference = subject.difference(2, 1e-2, 12)
    assert_slope_is_one(reference, subject.forward(4, max_depth=2))


@pytest.mark.parametrize(
    "who", ["light", *(pytest.param(w, marks=pytest.mark.slow) for w in ("occluder", "wall", "camera"))]
)
def test_indirect_light_has_the_slope_of_finite_differences(who: str) -> None:
    scene = room(point_light(), cube())
    to_world = mi.ScalarTransform4f().translate([-1.5, 0, 1.6]).rotate([0, 1, 0], 90).scale(1.4)
    scene["wall"] = {"type": "rectangle", "to_world": to_world, "bsdf": diffuse(0.9, 0.8, 0.7)}
    motion = ("wall.to_world", translate(1, 0, 0)) if who == "wall" else mover(who, "point", "cube")
    subject = Subject(scene, motion)
    assert_slope_is_one(subject.difference(3, 1e-2, 16), subject.forward(8, max_depth=3))


@pytest.mark.slow
def test_light_that_only_bounces_reveals_the_shadow_of_an_unseen_occluder() -> None:
    """The camera looks at a wall; what moves is behind it, between a light and the floor that lights the wall."""
    scene = room(area_light(), ball(), origin=(0.4, -3, 0.6), size=8)
    to_world = mi.ScalarTransform4f().translate([-1.2, 0, 1.3]).rotate([0, 1, 0], 90).scale(1.2)
    scene["wall"] = {"type": "rectangle", "to_world": to_world, "bsdf": diffuse(0.9, 0.8, 0.7)}
    scene["camera"]["to_world"] = look([-0.3, 0, 1.4], [-1.2, 0, 1.4], [0, 0, 1])
    subject = Subject(scene, mover("occluder", "area", "ball"))
    reference = subject.difference(3, 2e-2, 16, spp=16384)
    assert_slope_is_one(reference, subject.forward(16, max_depth=3, spp=16384))


SENSORS: dict[str, dict[str, Any]] = {
    "orthographic": {"type": "orthographic"},
    "thinlens": {"type": "thinlens", "aperture_radius": 0.2, "focus_distance": 4.0},
}


@pytest.mark.parametrize("kind", ["orthographic", "thinlens"])
@pytest.mark.parametrize("who", ["occluder", "camera"])
def test_other_cameras_have_the_slope_of_finite_differences(kind: str, who: str) -> None:
    scene = room(point_light(), cube())
    scene["camera"] |= SENSORS[kind]
    if kind == "orthographic":
        del scene["camera"]["fov"]
        scene["camera"]["to_world"] = scene["camera"]["to_world"] @ mi.ScalarTransform4f().scale([1.5, 1.5, 1])
    motion = mover(who, "point", "cube") if who == "occluder" else ("camera.to_world", translate(1, 0, 0.3))
    subject = Subject(scene, motion)
    assert_slope_is_one(subject.difference(2, 1e-2, 12), subject.forward(4, max_depth=2))


@pytest.mark.parametrize("kind", ["bsplinecurve", "linearcurve"])
def test_curves_and_their_shadows_have_the_slope_of_finite_differences(kind: str, tmp_path: Any) -> None:
    points = [
        (-1.2, -0.7, 0.8, 0.2),
        (-0.5, -0.3, 0.7, 0.25),
        (0, 0.4, 0.9, 0.2),
        (0.4, -0.2, 0.8, 0.2),
        (1, 0.4, 1, 0.3),
    ]
    (tmp_path / "curve.txt").write_text("\n".join(" ".join(map(str, point)) for point in points))
    curve = {"type": kind, "filename": str(tmp_path / "curve.txt"), "bsdf": {"type": "diffuse"}}
    move = lambda base, θ: dr.ravel(mi.Point4f(dr.unravel(mi.Point4f, base) + θ * mi.Vector4f(1, 0.3, 0.4, 0.2)))
    # The shading of a moving linear curve is not differentiated by Mitsuba: compare what the boundary alone explains
    black = {"type": "diffuse", "reflectance": rgb(0, 0, 0)}
    subject = Subject(room(sun(), curve | {"bsdf": black}), ("occluder.control_points", move))
    assert_slope_is_one(subject.difference(2, 1e-2, 12), subject.forward(4, max_depth=2))


def rough_ball(size: int = 128) -> mi.Mesh:
    """A sphere whose vertices are off by a thousandth of its radius: its outline is full of hidden folds."""
    rng = np.random.default_rng(2)
    θ, φ = np.meshgrid(np.linspace(0, np.pi, size), np.linspace(0, 2 * np.pi, 2 * size, endpoint=False), indexing="ij")
    θ[1:-1] += rng.normal(0, 0.2 * np.pi / size, θ[1:-1].shape)
    r = 0.45 * (1 + rng.normal(0, 1e-3, θ.shape))
    r[0], r[-1] = 0.45, 0.45
    points = np.stack([r * np.sin(θ) * np.cos(φ), r * np.sin(θ) * np.sin(φ), r * np.cos(θ) + 0.9], axis=-1)
    i, j = np.meshgrid(np.arange(size - 1), np.arange(2 * size), indexing="ij")
    at = lambda a, b: (a * 2 * size + b % (2 * size)).ravel()
    quad = [at(i, j), at(i + 1, j), at(i + 1, j + 1), at(i, j + 1)]
    faces = np.concatenate([np.stack([quad[0], quad[1], quad[2]], 1), np.stack([quad[0], quad[2], quad[3]], 1)])
    properties = mi.Properties()
    properties["mesh_bsdf"] = mi.load_dict(diffuse(0.6, 0.4, 0.3))
    mesh = mi.Mesh("ball", size * 2 * size, len(faces), has_vertex_normals=True, props=properties)
    parameters = mi.traverse(mesh)
    parameters["vertex_positions"] = points.astype(np.float32).ravel()
    parameters["faces"] = faces.astype(np.uint32).ravel()
    parameters.update()
    return mesh


@pytest.mark.parametrize("who", ["camera", pytest.param("floor", marks=pytest.mark.slow)])
def test_an_outline_full_of_folds_counts_once(who: str) -> None:
    subject = Subject(room(sun(), rough_ball()), (f"{who}.to_world", translate(1, 0.3, 0.4)))
    reference = subject.difference(2, 1e-2, 12)
    assert_slope_is_one(reference, subject.forward(4, max_depth=2))


def projector() -> dict[str, Any]:
    texels = mi.TensorXf(np.random.default_rng(4).random((4, 4, 3)).astype(np.float32))
    image = {"type": "bitmap", "data": texels, "raw": True}
    to_world = look([0.8, 0.5, 3], [0, 0, 0.3], [0, 1, 0])
    return {"type": "projector", "to_world": to_world, "irradiance": image, "fov": 40, "scale": 30}


def sky_map() -> dict[str, Any]:
    texels = np.random.default_rng(4).random((8, 16, 3)).astype(np.float32) * 0.5
    texels[2, 3] += 8
    to_world = mi.ScalarTransform4f().rotate([1, 0, 0], 90)
    return {"type": "envmap", "bitmap": mi.Bitmap(texels), "to_world": to_world}


@pytest.mark.parametrize(
    ("light", "key"),
    [
        ("projector", "light.to_world"),
        pytest.param("projector", "floor.to_world", marks=pytest.mark.slow),
        pytest.param("projector", "camera.to_world", marks=pytest.mark.slow),
        pytest.param("sky", "occluder.to_world", marks=pytest.mark.slow),
    ],
)
def test_images_as_lights_have_the_slope_of_finite_differences(light: str, key: str) -> None:
    """A projector's light ends at the frame of its image; an environment map is brighter here and there."""
    lights = {"projector": projector, "sky": sky_map}
    subject = Subject(room(lights[light](), ball()), (key, translate(1, 0.3, 0.4)))
    reference = subject.difference(2, 1e-2, 16)
    assert_slope_is_one(reference, subject.forward(8, spp=128 if light == "sky" else 64, max_depth=2))
