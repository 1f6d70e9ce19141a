"""Scenes of the benchmarks: the cases of the catalogue, and a few of their own.

A subject is named by text: the id of a catalogue case ("shadow-area-light"), or "NAME MOTION" with a scene of `SCENES`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pathtracer.errors import UsageError, nearest_names

if TYPE_CHECKING:
    from pathtracer.scenes import Scene

_RGB = Callable[..., dict[str, Any]]


def _rgb(*value: float) -> dict[str, Any]:
    return {"type": "rgb", "value": list(value)}


def _matte(*value: float) -> dict[str, Any]:
    return {"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": _rgb(*value)}}


def _camera(origin: list[float], target: list[float], fov: float, size: int) -> dict[str, Any]:
    import mitsuba as mi

    return {
        "type": "perspective",
        "fov": fov,
        "to_world": mi.ScalarTransform4f().look_at(origin, target, [0, 1, 0]),
        "film": {"type": "hdrfilm", "width": size, "height": size, "rfilter": {"type": "box"}},
    }


def _path(depth: int) -> dict[str, Any]:
    return {"type": "path", "max_depth": depth, "rr_depth": 1000}


def meshes() -> Path | None:
    """The folder of other people's meshes beside a checkout, None where there is none."""
    from .record import REPOSITORY

    folder = REPOSITORY.parent / "shared" / "data" / "third_party" / "meshes"
    return folder if folder.is_dir() else None


def _mesh(name: str) -> dict[str, Any]:
    """A mesh by name, of about unit size around the origin; `cube` has 24 vertices for 8 corners."""
    import mitsuba as mi
    import numpy as np

    if name == "cube":
        return {"type": "cube", "to_world": mi.ScalarTransform4f().rotate([0.3, 1, 0.1], 35).scale(0.6)}
    folder = meshes()
    if folder is None:
        raise UsageError(f"the mesh {name!r} is not part of the project", remedy="it lies in ../shared/data")
    shape = {"type": "ply", "filename": str(folder / f"{name}.ply"), "face_normals": True}
    box = mi.load_dict(shape).bbox()
    centre, extent = np.array(box.center()), float(np.max(np.array(box.extents())))
    place = mi.ScalarTransform4f().rotate([0, 1, 0], 30).scale(1.7 / extent).translate([float(-c) for c in centre])
    return {**shape, "to_world": place}


def convex(mesh: str = "cube", size: int = 24, depth: int = 3) -> dict[str, Any]:
    """One body under a constant sky: nothing shades a convex one, so only the outline that the camera sees jumps."""
    return {
        "type": "scene",
        "integrator": _path(depth),
        "camera": _camera([0.1, 0.2, 4], [0, 0, 0], 36, size),
        "object": {**_mesh(mesh), "bsdf": _matte(0.6, 0.4, 0.2)},
        "sky": {"type": "constant", "radiance": _rgb(0.8, 0.9, 1.0)},
    }


def around(number: int, count: int, size: int) -> dict[str, Any]:
    """One of `count` cameras on a ring around a body at the origin."""
    from math import cos, pi, sin

    angle = 2 * pi * number / count
    return _camera([4 * sin(angle), 1.0, 4 * cos(angle)], [0, 0, 0], 36, size)


def silhouette(size: int = 24) -> dict[str, Any]:
    """A dark cube before a bright sky, seen directly."""
    return convex("cube", size, 2)


def shadow(size: int = 24) -> dict[str, Any]:
    """A floor on which a cube outside of the frame casts the shadow of a point light."""
    import mitsuba as mi

    T = mi.ScalarTransform4f
    return {
        "type": "scene",
        "integrator": _path(2),
        "camera": _camera([0, 0.75, 1.6], [0, 0, 0.1], 42, size),
        "floor": {
            "type": "rectangle",
            "to_world": T().rotate([1, 0, 0], -90).scale(6),
            "bsdf": _matte(0.6, 0.6, 0.5),
        },
        "object": {"type": "cube", "to_world": T().translate([0.1, 1.5, 0]).scale(0.2), "bsdf": _matte(0.3, 0.3, 0.3)},
        "lamp": {"type": "point", "position": [0.2, 3.0, -0.2], "intensity": _rgb(12, 11, 10)},
    }


def reflection(size: int = 24) -> dict[str, Any]:
    """A cube behind the camera, seen in a perfect mirror that fills the frame."""
    import mitsuba as mi

    T = mi.ScalarTransform4f
    return {
        "type": "scene",
        "integrator": _path(3),
        "camera": _camera([0, 0.3, 2], [0, 0, -1], 40, size),
        "mirror": {
            "type": "rectangle",
            "to_world": T().translate([0, 0, -1]).scale(4),
            "bsdf": {"type": "conductor", "specular_reflectance": _rgb(0.9, 0.85, 0.8)},
        },
        "object": {
            "type": "cube",
            "to_world": T().translate([0.1, 0.9, 3.0]).rotate([0.3, 1, 0.1], 35).scale(0.5),
            "bsdf": _matte(0.2, 0.5, 0.7),
        },
        "sky": {"type": "constant", "radiance": _rgb(0.8, 0.9, 1.0)},
    }


#: Scenes that are not in the catalogue.
SCENES: dict[str, Callable[..., dict[str, Any]]] = {
    "convex": convex,
    "silhouette": silhouette,
    "shadow": shadow,
    "reflection": reflection,
}


def load_subject(name: str) -> tuple[Scene, str]:
    """The scene and the motion of a subject.

    Raises:
        UsageError: there is no such case or scene.
    """
    from pathtracer.scenes import Scene, load_scene
    from pathtracer.verify.catalogue import catalogue_folder, find_case

    scene, space, motion = name.partition(" ")
    if not space:
        case = find_case(name)
        return load_scene(catalogue_folder() / f"{case.scene}.xml", **dict[str, Any](case.defines)), case.motion
    kind, _, argument = scene.partition(":")
    if kind not in SCENES:
        raise UsageError(f"the benchmarks have no scene {kind!r}", nearest=nearest_names(kind, SCENES))
    return Scene.from_dict(SCENES[kind](argument) if argument else SCENES[kind]()), motion
