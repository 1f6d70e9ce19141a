"""Edge sampling of textures that jump and of surfaces that they cut out, against finite differences."""

from __future__ import annotations

import warnings
from typing import Any

import mitsuba as mi
import numpy as np
import pytest
from helpers.moving_scenes import (
    Subject,
    area_light,
    assert_slope_is_one,
    camera,
    diffuse,
    mover,
    point_light,
    room,
    translate,
)

from integrators import GradientWarning


@pytest.mark.parametrize("who", ["occluder", "camera"])
@pytest.mark.parametrize("texture", ["checkerboard", "nearest", "cut-out"])
def test_jumping_textures_have_the_slope_of_finite_differences(texture: str, who: str) -> None:
    texels = np.zeros((6, 6, 1), dtype=np.float32)
    texels[1:5, 1:3] = texels[2:4, 3:6] = 1
    bitmap = {"type": "bitmap", "data": mi.TensorXf(texels), "raw": True, "filter_type": "nearest"}
    bsdf = {
        "checkerboard": {"type": "diffuse", "reflectance": {"type": "checkerboard"}},
        "nearest": {"type": "diffuse", "reflectance": bitmap},
        "cut-out": {"type": "mask", "opacity": bitmap, "card": {"type": "diffuse"}},
    }[texture]
    to_world = mi.ScalarTransform4f().rotate([0, 0, 1], 20).scale(1.2)
    card = {"type": "rectangle", "to_world": to_world, "bsdf": bsdf}
    scene = {"camera": camera(), "light": {"type": "constant"}, "occluder": card}
    motion = (f"{who}.to_world", translate(1, 0.3, 0.2))
    subject = Subject(scene, motion)
    reference = subject.difference(3, 1e-2, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradientWarning)  # shadows behind the mask, of which there are none here
        assert_slope_is_one(reference, subject.forward(4, max_depth=3))


def masked_card(opacity: np.ndarray, filter_type: str) -> dict[str, Any]:
    texels = mi.TensorXf(opacity.astype(np.float32)[..., None])
    opacity = {"type": "bitmap", "data": texels, "raw": True, "filter_type": filter_type}
    to_world = mi.ScalarTransform4f().translate([0, 0, 0.8]).rotate([0.6, 0.8, 0], 20).scale(0.6)
    bsdf = {"type": "mask", "opacity": opacity, "card": diffuse(0.6, 0.4, 0.3)}
    return {"type": "rectangle", "to_world": to_world, "bsdf": bsdf}


@pytest.mark.parametrize("who", ["occluder", "camera", "floor", "light"])
def test_shadows_seen_through_a_cut_out_have_the_slope_of_finite_differences(who: str) -> None:
    opacity = np.zeros((6, 6))
    opacity[1:5, 1:3] = opacity[2:4, 3:6] = 1
    subject = Subject(room(point_light(), masked_card(opacity, "nearest")), mover(who, "point", "card"))
    # Mitsuba's own path tracer counts the opacity of a mask twice
    reference = subject.difference(3, 1e-2, 12, integrator="path_replay")
    assert_slope_is_one(reference, subject.forward(4, max_depth=3))


@pytest.mark.parametrize("who", ["camera", "floor"])
def test_what_lies_behind_a_half_transparent_surface_slides_along_the_camera_ray(who: str) -> None:
    rng = np.random.default_rng(1)
    scene = room({"type": "constant"}, masked_card(0.1 + 0.8 * rng.random((6, 6)), "bilinear"))
    texels = mi.TensorXf(rng.random((6, 6, 3)).astype(np.float32))
    scene["floor"]["bsdf"] = {"type": "diffuse", "reflectance": {"type": "bitmap", "data": texels, "raw": True}}
    subject = Subject(scene, (f"{who}.to_world", translate(1, 0.3, 0.2)))
    reference = subject.difference(2, 1e-2, 12, integrator="path_replay")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradientWarning)  # shadows of the mask, which do not reach depth 2
        assert_slope_is_one(reference, subject.forward(4, max_depth=2))


def test_soft_shadows_of_a_mask_are_warned_of() -> None:
    scene = room(area_light(), masked_card(np.eye(6), "nearest"), size=8)
    with pytest.warns(GradientWarning) as caught:
        Subject(scene, mover("floor", "area", "card")).forward(1, max_depth=2)
    assert {w.message.code for w in caught} == {"mask-shadow"}  # type: ignore[union-attr]
