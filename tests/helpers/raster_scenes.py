"""Scenes that the rasterisers can draw, and differences of their own images."""

from __future__ import annotations

from typing import Any

import numpy as np

from pathtracer.verify import Motion


def box_scene(size: int = 20, light: dict[str, Any] | None = None, **film: Any) -> dict[str, Any]:
    """A tilted cube over a floor that reaches behind the camera, under one light and a constant sky."""
    import mitsuba as mi

    T = mi.ScalarTransform4f
    return {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 2},
        "camera": {
            "type": "perspective",
            "fov": 40,
            "to_world": T().look_at([0.2, 1.2, 4], [0, 0, 0], [0, 1, 0]),
            "film": {"type": "hdrfilm", "width": size, "height": size, "rfilter": {"type": "box"}, **film},
        },
        "object": {
            "type": "cube",
            "to_world": T().rotate([0.3, 1, 0.1], 35).scale(0.6),
            "bsdf": {"type": "diffuse", "reflectance": {"type": "rgb", "value": [0.6, 0.4, 0.2]}},
        },
        "floor": {
            "type": "rectangle",
            "to_world": T().translate([0, -1.3, 0]).rotate([1, 0, 0], -90).scale(8),
            "bsdf": {"type": "diffuse", "reflectance": {"type": "rgb", "value": [0.3, 0.35, 0.4]}},
        },
        "lamp": light or {"type": "point", "position": [1, 3, 2.5], "intensity": {"type": "rgb", "value": [9, 8, 7]}},
        "sky": {"type": "constant", "radiance": {"type": "rgb", "value": [0.3, 0.4, 0.5]}},
    }


def load(description: dict[str, Any]) -> tuple[Any, Any]:
    """The scene and its parameters."""
    import mitsuba as mi

    scene = mi.load_dict(description, optimize=False)
    return scene, mi.traverse(scene)


def own_difference(integrator: Any, scene: Any, params: Any, motion: str, step: float) -> np.ndarray:
    """Central difference of the integrator's own image, (H, W, C) float64."""
    bound = Motion.parse(motion).bind(scene, params)
    images = []
    for theta in (step, -step):
        bound.apply(theta)
        images.append(np.array(integrator.render(scene, scene.sensors()[0]), dtype=np.float64))
    bound.restore()
    return (images[0] - images[1]) / (2 * step)


def forward_image(integrator: Any, scene: Any, params: Any, motion: str) -> np.ndarray:
    """The derivative image along a motion, (H, W, C) float64."""
    bound = Motion.parse(motion).bind(scene, params)
    with bound.attached(forward=True):
        return np.array(integrator.render_forward(scene, params, scene.sensors()[0]), dtype=np.float64)


def backward_number(integrator: Any, scene: Any, params: Any, motion: str, adjoint: np.ndarray) -> float:
    """⟨Jᵀ adjoint, motion⟩."""
    import drjit as dr
    import mitsuba as mi

    bound = Motion.parse(motion).bind(scene, params)
    with bound.attached(forward=False) as theta:
        tensor = mi.TensorXf(adjoint.astype(np.float32))
        integrator.render_backward(scene, params, tensor, scene.sensors()[0])
        return float(dr.grad(theta)[0])
