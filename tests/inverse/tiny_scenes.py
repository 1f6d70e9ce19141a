"""Tiny scenes for the tests of inverse rendering."""

from __future__ import annotations

from typing import Any

import numpy as np

from pathtracer.scenes import Scene


def camera(size: int = 24, distance: float = 4.0, fov: float = 40.0) -> dict[str, Any]:
    """A camera on +z that looks at the origin; box filter."""
    import mitsuba as mi

    film = {"type": "hdrfilm", "width": size, "height": size, "pixel_format": "rgb", "component_format": "float32"}
    return {
        "type": "perspective",
        "fov": fov,
        "to_world": mi.ScalarTransform4f().look_at(origin=[0, 0, distance], target=[0, 0, 0], up=[0, 1, 0]),
        "film": {**film, "rfilter": {"type": "box"}},
        "sampler": {"type": "independent"},
    }


def rgb(*value: float) -> dict[str, Any]:
    """A colour."""
    return {"type": "rgb", "value": list(value)}


def corner(size: int = 24, light: tuple[float, float, float] = (6.0, 5.0, 4.0)) -> Scene:
    """A floor and a back wall under an area light: keys floor-mat, wall-mat (diffuse) and light."""
    import mitsuba as mi

    t = mi.ScalarTransform4f
    return Scene.from_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 4},
            "sensor": camera(size),
            "floor-mat": {"type": "diffuse", "reflectance": rgb(0.7, 0.3, 0.2)},
            "wall-mat": {"type": "diffuse", "reflectance": rgb(0.2, 0.5, 0.6)},
            "floor": {
                "type": "rectangle",
                "to_world": t().translate([0, -1, 0]).rotate([1, 0, 0], -90).scale(2),
                "bsdf": {"type": "ref", "id": "floor-mat"},
            },
            "wall": {
                "type": "rectangle",
                "to_world": t().translate([0, 0, -1.5]).scale(2),
                "bsdf": {"type": "ref", "id": "wall-mat"},
            },
            "light": {
                "type": "rectangle",
                "to_world": t().translate([0, 1.2, 0]).rotate([1, 0, 0], 90).scale(0.5),
                "emitter": {"type": "area", "radiance": rgb(*light)},
            },
        }
    )


#: Light directions of `lamps`, by name.
SUNS = {"sun0": (0.0, 0.0, -1.0), "sun1": (-1.0, 0.2, -1.0), "sun2": (0.3, 1.0, -1.0)}


def lamps(size: int = 16, area: bool = True) -> Scene:
    """A ball (material ball-mat) under three directional lights, and an area light behind the camera."""
    import mitsuba as mi

    scene: dict[str, Any] = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 3},
        "sensor": camera(size, fov=30.0),
        "ball-mat": {"type": "diffuse", "reflectance": rgb(0.4, 0.5, 0.6)},
        "ball": {"type": "sphere", "bsdf": {"type": "ref", "id": "ball-mat"}},
    }
    for number, (name, direction) in enumerate(SUNS.items()):
        scene[name] = {"type": "directional", "direction": list(direction), "irradiance": rgb(1, 1 + number, 2)}
    if area:
        scene["lamp"] = {
            "type": "rectangle",
            "to_world": mi.ScalarTransform4f().look_at(origin=[0, 6, 6], target=[0, 0, 0], up=[0, 1, 0]).scale(2),
            "emitter": {"type": "area", "radiance": rgb(2, 2, 2)},
        }
    return Scene.from_dict(scene)


def reference(scene: Scene, spp: int = 1024, seed: int = 4321) -> np.ndarray:
    """What the scene looks like now."""
    return scene.render(spp=spp, seed=seed)
