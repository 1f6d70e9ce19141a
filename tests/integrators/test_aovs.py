"""Depth, normals and other variables of what the camera meets first: values, derivatives, refusals.

Against finite differences they are checked by the cases `aovs-...` of the catalogue.
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
import pytest

from integrators import UnsupportedGradient
from pathtracer.verify.motion import Motion

#: Without uv, which jump along the seam of the sphere
MOVING = "d:depth,n:sh_normal,p:position,i:shape_index,a:albedo"
AOVS = MOVING + ",t:uv"


def scene(**film: Any) -> mi.Scene:
    """A cube and a sphere that sinks into it, before the sky."""
    t = mi.ScalarTransform4f
    film = {"type": "hdrfilm", "width": 12, "height": 12, "rfilter": {"type": "box"}, "pixel_format": "rgb"} | film
    look = t().look_at([1, -4, 3], [0, 0, 0], [0, 0, 1])
    return mi.load_dict(
        {
            "type": "scene",
            "camera": {"type": "perspective", "fov": 30, "to_world": look, "film": film},
            "body": {"type": "cube", "to_world": t().rotate([0, 0, 1], 30).scale(0.5)},
            "ball": {"type": "sphere", "center": [0.6, 0, 0.3], "radius": 0.4},
            "sky": {"type": "constant"},
        },
        optimize=False,
    )


def estimator(**properties: Any) -> mi.Integrator:
    return mi.load_dict({"type": "edge_sampling", "max_depth": 2, "aovs": AOVS} | properties)


@pytest.mark.parametrize("pixel_format", ["rgb", "rgba"])
def test_channels_and_values_are_those_of_mitsubas_integrator(pixel_format: str) -> None:
    loaded = scene(pixel_format=pixel_format)
    theirs = mi.load_dict({"type": "aov", "aovs": AOVS, "image": {"type": "path", "max_depth": 2}})
    images = [np.array(x.render(loaded, loaded.sensors()[0], seed=0, spp=1024)) for x in (theirs, estimator())]
    assert estimator().aov_names() == [name for name in theirs.aov_names() if not name.startswith("image.")]
    assert images[0].shape == images[1].shape
    scale = np.ptp(images[0], axis=(0, 1))
    off = np.abs(images[1] - images[0]).mean((0, 1)) > 0.01 * scale + 1e-6
    assert not off[[*range(3), *range(-13, 0)]].any()  # coverage is something else: theirs counts the sky


@pytest.mark.parametrize("pixel_format", ["rgb", "rgba"])
@pytest.mark.parametrize(
    "motion", ["body.vertex_positions rotate:y", "ball.to_world scale", "camera.to_world rotate:z"]
)
def test_forward_and_backward_are_adjoint(motion: str, pixel_format: str) -> None:
    loaded = scene(pixel_format=pixel_format)
    bound = Motion.parse(motion).bind(loaded, mi.traverse(loaded))
    with bound.attached(forward=True):
        image = estimator(aovs=MOVING).render_forward(loaded, bound.params, seed=3, spp=32)
    tangent = np.array(image, dtype=np.float64)
    assert (np.abs(tangent[..., -11:-3]).max((0, 1)) > 0).all()
    adjoint = np.random.default_rng(0).random(tangent.shape).astype(np.float32)
    with bound.attached(forward=False) as theta:
        estimator(aovs=MOVING).render_backward(loaded, bound.params, mi.TensorXf(adjoint), seed=3, spp=32)
        dr.enqueue(dr.ADMode.Backward, *[bound.params[key] for key in set(bound.motion.keys)])
        dr.traverse(dr.ADMode.Backward)
        gradient = dr.grad(theta)[0]
    assert gradient == pytest.approx(float((tangent * adjoint).sum()), rel=2e-3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("d:depht", "no 'depht', did you mean 'depth'"),
        ("depth", "'depth' is not name:type"),
        ("n:geo_normal", "geo_normal jumps at edges where nothing else does"),
    ],
)
def test_what_has_no_derivative_is_refused(text: str, says: str) -> None:
    with pytest.raises(RuntimeError, match=says):
        estimator(aovs=text)


def test_uv_of_a_sphere_that_moves_are_refused() -> None:
    loaded = scene()
    bound = Motion.parse("camera.to_world rotate:z").bind(loaded, mi.traverse(loaded))
    for kind in ("edge_sampling", "path_replay"):
        with bound.attached(forward=True), pytest.raises(UnsupportedGradient, match="the uv of ball jump"):
            estimator(type=kind).render_forward(loaded, bound.params, spp=1)


def test_warped_area_refuses() -> None:
    loaded = scene()
    bound = Motion.parse("ball.to_world translate:x").bind(loaded, mi.traverse(loaded))
    with bound.attached(forward=True), pytest.raises(UnsupportedGradient, match="use edge_sampling"):
        estimator(type="warped_area").render_forward(loaded, bound.params, spp=1)
