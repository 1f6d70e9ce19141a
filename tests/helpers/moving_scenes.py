"""Scenes in which one parameter moves; derivative images by edge sampling and by differences, and their comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np

Motion = tuple[str, Callable[[Any, mi.Float], Any]]


def rgb(*value: float) -> dict[str, Any]:
    return {"type": "rgb", "value": list(value)}


def diffuse(*value: float) -> dict[str, Any]:
    return {"type": "twosided", "inner": {"type": "diffuse", "reflectance": rgb(*value)}}


def look(origin: list[float], target: list[float], up: list[float]) -> Any:
    return mi.ScalarTransform4f().look_at(origin, target, up)


def camera(size: int = 20, origin: tuple[float, ...] = (1, -4, 3), **more: Any) -> dict[str, Any]:
    film = {"type": "hdrfilm", "width": size, "height": size, "pixel_format": "rgb", "component_format": "float32"}
    film |= {"rfilter": {"type": "box"}} | more.pop("film", {})
    to_world = look(list(origin), [0, 0, 0.4], [0, 0, 1])
    return {"type": "perspective", "fov": 45, "to_world": to_world, "film": film, **more}


def translate(*axis: float) -> Callable[[Any, mi.Float], Any]:
    """A motion by θ along an axis, for transforms, points and vertex buffers."""

    def move(base: Any, θ: mi.Float) -> Any:
        v = mi.Vector3f(*axis) * θ
        if isinstance(base, mi.Float):
            return dr.ravel(mi.Point3f(dr.unravel(mi.Point3f, base) + v))
        if isinstance(base, mi.Point3f):
            return mi.Point3f(base + v)
        return mi.Transform4f().translate(v) @ mi.Transform4f(base)

    return move


def turn(*axis: float) -> Callable[[Any, mi.Float], Any]:
    """A rotation by θ radians about an axis through the origin."""

    def move(base: Any, θ: mi.Float) -> Any:
        rotation = mi.Transform4f().rotate(list(axis), θ * 180 / dr.pi)
        if isinstance(base, mi.Float):
            return dr.ravel(mi.Point3f(rotation @ dr.unravel(mi.Point3f, base)))
        return rotation @ mi.Transform4f(base)

    return move


class Subject:
    """A scene in which one parameter moves."""

    def __init__(self, scene: dict[str, Any], motion: Motion) -> None:
        self.scene = mi.load_dict({"type": "scene", **scene}, optimize=False)
        self.params = mi.traverse(self.scene)
        self.key, self.move = motion
        value = self.params[self.key]
        self.base = type(value)(value)

    def set(self, θ: mi.Float) -> None:
        self.params[self.key] = self.move(self.base, θ)
        self.params.update()

    def difference(
        self, depth: int, ε: float, passes: int, spp: int = 256, integrator: str = "path", **props: Any
    ) -> np.ndarray:
        """(passes, H, W, 3) central differences with equal seeds."""
        path = mi.load_dict({"type": integrator, "max_depth": depth, "rr_depth": 100, **props})
        sides = []
        for θ in (ε, -ε):
            self.set(mi.Float(θ))
            images = [mi.render(self.scene, integrator=path, seed=i, spp=spp) for i in range(passes)]
            sides.append(np.array(images, dtype=np.float64))
        self.set(mi.Float(0))
        return (sides[0] - sides[1]) / (2 * ε)

    def forward(self, passes: int, spp: int = 64, **props: Any) -> np.ndarray:
        """(passes, H, W, 3) derivative images."""
        integrator = mi.load_dict({"type": "edge_sampling", "rr_depth": 100, **props})
        images = []
        for i in range(passes):
            θ = mi.Float(0)
            dr.enable_grad(θ)
            self.set(θ)
            dr.forward(θ, dr.ADFlag.ClearEdges)
            images.append(np.array(integrator.render_forward(self.scene, self.params, seed=i, spp=spp)))
        self.set(mi.Float(0))
        return np.array(images, dtype=np.float64)

    def backward(self, grad: np.ndarray, seed: int = 0, spp: int = 64, **props: Any) -> float:
        """d<grad, image>/dθ."""
        integrator = mi.load_dict({"type": "edge_sampling", "rr_depth": 100, **props})
        θ = mi.Float(0)
        dr.enable_grad(θ)
        self.set(θ)
        integrator.render_backward(self.scene, self.params, mi.TensorXf(grad), seed=seed, spp=spp)
        result = dr.grad(θ)[0]
        self.set(mi.Float(0))
        return float(result)


def room(light: dict[str, Any], occluder: dict[str, Any], **more: Any) -> dict[str, Any]:
    floor = {"type": "rectangle", "to_world": mi.ScalarTransform4f().scale(2), "bsdf": diffuse(0.8, 0.8, 0.8)}
    return {"camera": camera(**more), "light": light, "occluder": occluder, "floor": floor}


def cube() -> dict[str, Any]:
    to_world = mi.ScalarTransform4f().translate([0, 0, 0.9]).rotate([0.6, 0.8, 0], 30).scale(0.35)
    return {"type": "cube", "to_world": to_world, "bsdf": diffuse(0.6, 0.4, 0.3)}


def ball() -> dict[str, Any]:
    return {"type": "sphere", "center": [0, 0, 0.9], "radius": 0.45, "bsdf": diffuse(0.6, 0.4, 0.3)}


def point_light() -> dict[str, Any]:
    return {"type": "point", "position": [0.8, 0.5, 3], "intensity": rgb(20, 20, 20)}


def area_light() -> dict[str, Any]:
    to_world = look([0.8, 0.5, 3], [0, 0, 0], [0, 1, 0]) @ mi.ScalarTransform4f().scale(0.4)
    return {"type": "rectangle", "to_world": to_world, "emitter": {"type": "area", "radiance": rgb(30, 30, 30)}}


def sun() -> dict[str, Any]:
    return {"type": "directional", "to_world": look([0.8, 0.5, 2], [0, 0, 0], [0, 1, 0]), "irradiance": rgb(2, 2, 2)}


LIGHTS = {"point": point_light, "area": area_light, "sun": sun}
OCCLUDERS = {"cube": cube, "ball": ball}


def mover(who: str, light: str, occluder: str) -> Motion:
    if who == "light":
        return {
            "point": ("light.position", translate(1, 0.3, 0)),
            "area": ("light.to_world", translate(1, 0.3, 0)),
            "sun": ("light.to_world", turn(0, 1, 0)),
        }[light]
    if who == "occluder":
        key = "occluder.vertex_positions" if occluder == "cube" else "occluder.to_world"
        return key, translate(1, 0.2, 0.4)
    return (f"{who}.to_world", translate(0, 0, 1))


def assert_slope_is_one(reference: np.ndarray, estimate: np.ndarray, tolerance: float = 0.03, blur: int = 4) -> None:
    """The regression slope of estimate on reference is 1, up to a tolerance and three of its standard errors.

    Both are given as independent replicates. The reference is averaged over blocks of pixels; noise in it biases the
    slope towards zero, so its norm is estimated without bias from pairs of different replicates.
    """
    block = lambda x: (
        x.reshape(len(x), x.shape[1] // blur, blur, x.shape[2] // blur, blur, 3).mean((2, 4)).reshape(len(x), -1)
    )
    f, g = block(reference), block(estimate)
    n = len(f)
    norm = ((f.sum(0) ** 2).sum() - (f**2).sum()) / (n * (n - 1))
    slopes = g @ f.mean(0) / norm
    error = slopes.std(ddof=1) / np.sqrt(len(slopes))
    from_reference = (f @ g.mean(0) / norm).std(ddof=1) / np.sqrt(n)
    assert error + from_reference < 0.03, "too noisy to judge"
    assert abs(slopes.mean() - 1) < tolerance + 3 * np.hypot(error, from_reference)
