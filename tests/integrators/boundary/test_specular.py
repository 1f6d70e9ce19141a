"""Silhouettes behind specular chains: a flat mirror shows what the mirrored scene shows directly."""

from __future__ import annotations

import warnings
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
import pytest

from integrators.errors import GradientWarning
from pathtracer.verify.estimate import Gradient
from pathtracer.verify.motion import Motion

MIRROR_Z = -1.0


def scene(mirrored: bool) -> mi.Scene:
    """A glowing ball behind the camera, seen in a mirror; or the ball where its image is, seen directly."""
    T = mi.ScalarTransform4f
    z = 2.6
    description: dict[str, Any] = {
        "type": "scene",
        "camera": {
            "type": "perspective",
            "fov": 40,
            "to_world": T().look_at([0, 0.3, 2], [0, 0, -1], [0, 1, 0]),
            "film": {"type": "hdrfilm", "width": 12, "height": 12, "rfilter": {"type": "box"}, "pixel_format": "rgb"},
        },
        "ball": {
            "type": "sphere",
            "center": [0.2, 0.9, z if mirrored else 2 * MIRROR_Z - z],
            "radius": 0.6,
            "emitter": {"type": "area", "radiance": {"type": "rgb", "value": [0.2, 0.5, 0.7]}},
        },
        "sky": {"type": "constant", "radiance": 1.0},
    }
    if mirrored:
        place = T().translate([0, 0, MIRROR_Z]).scale(6)
        conductor = {"type": "conductor", "material": "none", "specular_reflectance": 0.8}
        description["mirror"] = {"type": "rectangle", "to_world": place, "bsdf": conductor}
    return mi.load_dict(description, optimize=False)


def derivative(mirrored: bool, motion: str, spp: int) -> tuple[np.ndarray, float]:
    """Derivative image, and the backward derivative of <adjoint, image> for a fixed adjoint."""
    loaded = scene(mirrored)
    bound = Motion.parse(motion).bind(loaded, mi.traverse(loaded))
    integrator = mi.load_dict({"type": "edge_sampling", "max_depth": 3 if mirrored else 2, "interior": False})
    gradient = Gradient(bound, loaded.sensors()[0], integrator, 1, 0)
    image = np.mean([gradient.gradient_image(spp, seed) for seed in range(4)], axis=0)
    adjoint = np.linspace(0.5, 1.5, image.size).reshape(image.shape)
    backward = float(np.mean([gradient.backward_gradient(adjoint, spp, 10 + seed) for seed in range(4)]))
    return image, backward / float(np.sum(adjoint * image))


def test_a_flat_mirror_shows_the_derivative_of_the_mirrored_scene() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradientWarning)
        seen, ratio = derivative(True, "ball.to_world translate:1,0.5,0", 64)
        direct, _ = derivative(False, "ball.to_world translate:1,0.5,0", 64)
    slope = np.sum(seen * direct) / np.sum(direct**2)
    assert slope == pytest.approx(0.8, rel=0.03)
    assert np.linalg.norm(seen - 0.8 * direct) < 0.15 * np.linalg.norm(0.8 * direct)
    assert ratio == pytest.approx(1, abs=0.03)


def test_what_is_left_out_behind_mirrors_is_said() -> None:
    loaded = scene(True)
    bound = Motion.parse("ball.to_world translate:x").bind(loaded, mi.traverse(loaded))
    integrator = mi.load_dict({"type": "edge_sampling", "max_depth": 3, "interior": False})
    with bound.attached(forward=True), pytest.warns(GradientWarning) as caught:
        integrator.prepare_scene(loaded, loaded.sensors()[0], recorded=True)
    assert {w.message.code for w in caught if isinstance(w.message, GradientWarning)} == {"specular-shadow"}
    chains = integrator._chains
    assert chains.size == 1 and not chains.curved and not chains.dropped
    assert dr.width(chains.length) == 1
