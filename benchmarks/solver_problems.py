"""The inverse problems that `benchmarks/solvers.py` times: scenes, what is unknown, random starts, and errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SCENES = Path(__file__).parents[1] / "scenes"


@dataclass
class Subject:
    """One inverse problem.

    Attributes:
        name: short name.
        build: makes a fresh Mitsuba scene (a dictionary, or a path of a file).
        unknown: (key, kind) of what is unknown: "log" (emission), "unit" (in [0, 1]), "pose", "place", "map".
        start: random start values, one for each unknown.
        loss, estimator: of the problem.
        levels: errors whose sustained time is measured.
        success: error that counts as found.
        what: in words.
        unit: of errors, "" for relative ones.
        baseline: whether a plain Mitsuba script can solve it.
        limit: processor seconds after which a plain script is stopped at the latest.
        patience: it is stopped after so many times our own time to the strictest error.
        control: options of the solver for a second run of every start, to compare with.
    """

    name: str
    build: Callable[[], Any]
    unknown: Sequence[tuple[str, str]]
    start: Callable[[np.random.Generator, list[np.ndarray]], list[Any]]
    levels: tuple[float, ...]
    success: float
    what: str
    unit: str = ""
    loss: str = "l2"
    estimator: str = "path_replay"
    baseline: bool = True
    limit: float = 60.0
    patience: float = 10.0
    spp: int = 16
    control: dict[str, Any] = field(default_factory=dict)


def rgb(*value: float) -> dict[str, Any]:
    return {"type": "rgb", "value": list(value)}


def camera(size: int, origin: Sequence[float], target: Sequence[float], fov: float) -> dict[str, Any]:
    import mitsuba as mi

    film = {"type": "hdrfilm", "width": size, "height": size, "pixel_format": "rgb", "component_format": "float32"}
    look = mi.ScalarTransform4f().look_at(origin=list(origin), target=list(target), up=[0, 1, 0])
    return {
        "type": "perspective",
        "fov": fov,
        "to_world": look,
        "film": {**film, "rfilter": {"type": "box"}},
        "sampler": {"type": "independent"},
    }


def panel(position: Sequence[float], target: Sequence[float], size: float, *radiance: float) -> dict[str, Any]:
    import mitsuba as mi

    place = mi.ScalarTransform4f().look_at(origin=list(position), target=list(target), up=[0.1, 0, 1]).scale(size)
    return {"type": "rectangle", "to_world": place, "emitter": {"type": "area", "radiance": rgb(*radiance)}}


def seven(size: int = 48) -> dict[str, Any]:
    """A principled ball on a known floor under a lamp."""
    import mitsuba as mi

    t = mi.ScalarTransform4f
    ball = {"type": "principled", "base_color": rgb(0.7, 0.3, 0.15), "roughness": 0.35, "specular": 0.6}
    return {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 4},
        "sensor": camera(size, (0, 0.9, 4), (0, -0.2, 0), 38),
        "ball": {"type": "sphere", "radius": 0.8, "bsdf": ball},
        "floor": {
            "type": "rectangle",
            "to_world": t().translate([0, -0.8, 0]).rotate([1, 0, 0], -90).scale(3),
            "bsdf": {"type": "diffuse", "reflectance": rgb(0.5, 0.5, 0.5)},
        },
        "light": panel((1.2, 2.6, 1.6), (0, 0, 0), 0.5, 18, 14, 9),
    }


def room(size: int = 48) -> dict[str, Any]:
    """A closed room: two unknown wall colours, an unknown lamp; six bounces."""
    import mitsuba as mi

    t = mi.ScalarTransform4f
    grey = {"type": "diffuse", "reflectance": rgb(0.6, 0.6, 0.6)}
    walls = {
        "left": (t().translate([-1, 0, 0]).rotate([0, 1, 0], 90), "left-paint"),
        "right": (t().translate([1, 0, 0]).rotate([0, 1, 0], -90), "right-paint"),
        "back": (t().translate([0, 0, -1]), None),
        "front": (t().translate([0, 0, 1]).rotate([0, 1, 0], 180), None),
        "floor": (t().translate([0, -1, 0]).rotate([1, 0, 0], -90), None),
        "ceiling": (t().translate([0, 1, 0]).rotate([1, 0, 0], 90), None),
    }
    scene: dict[str, Any] = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 6},
        "sensor": camera(size, (0, 0, 0.95), (0, -0.1, 0), 85),
        "left-paint": {"type": "diffuse", "reflectance": rgb(0.65, 0.12, 0.1)},
        "right-paint": {"type": "diffuse", "reflectance": rgb(0.15, 0.5, 0.14)},
        "light": panel((0, 0.98, 0), (0, 0, 0), 0.3, 10, 8, 5),
    }
    for name, (place, paint) in walls.items():
        bsdf = grey if paint is None else {"type": "ref", "id": paint}
        scene[name] = {"type": "rectangle", "to_world": place, "bsdf": bsdf}
    return scene


def four(size: int = 48) -> dict[str, Any]:
    """Four lamps of unknown colour over a known corner with a ball."""
    import mitsuba as mi

    t = mi.ScalarTransform4f
    scene: dict[str, Any] = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 4},
        "sensor": camera(size, (0, 0.3, 4), (0, -0.4, 0), 36),
        "floor": {
            "type": "rectangle",
            "to_world": t().translate([0, -1, 0]).rotate([1, 0, 0], -90).scale(3),
            "bsdf": {"type": "diffuse", "reflectance": rgb(0.6, 0.5, 0.4)},
        },
        "wall": {
            "type": "rectangle",
            "to_world": t().translate([0, 0, -1.5]).scale(3),
            "bsdf": {"type": "diffuse", "reflectance": rgb(0.4, 0.5, 0.6)},
        },
        "ball": {
            "type": "sphere",
            "center": [0, -0.4, 0],
            "radius": 0.6,
            "bsdf": {"type": "diffuse", "reflectance": rgb(0.7, 0.7, 0.7)},
        },
    }
    lamps = [
        ((-1.8, 1.8, 0.5), (8, 6, 4)),
        ((1.8, 1.8, 0.5), (3, 5, 9)),
        ((-1.5, 1.2, 2), (9, 3, 3)),
        ((1.6, 0.2, 2), (3, 8, 3)),
    ]
    for k, (place, radiance) in enumerate(lamps):
        scene[f"lamp{k}"] = panel(place, (0, -0.6, 0), 0.35, *radiance)
    return scene


def sky_values(rows: int = 16, columns: int = 32) -> np.ndarray:
    """A bright patch and a blue one over a gradient (rows, columns, 3)."""
    y, x = np.meshgrid(np.linspace(0, np.pi, rows), np.arange(columns) / columns * 2 * np.pi, indexing="ij")
    light = 0.3 + 0.5 * (1 + np.cos(y))[..., None] * (1 + 0.3 * np.sin(x[..., None] + np.arange(3)))
    way = np.stack([np.sin(y) * np.sin(x), np.cos(y), -np.sin(y) * np.cos(x)], axis=-1)
    for towards, width, color in (((0.5, 0.6, 0.6), 12, (8, 7, 5)), ((-0.7, 0.3, 0.5), 8, (1, 2, 4))):
        d = np.array(towards) / np.linalg.norm(towards)
        light = light + np.exp(width * (way @ d - 1))[..., None] * np.array(color)
    return light.astype(np.float32)


def sky(size: int = 48) -> dict[str, Any]:
    """A diffuse and a glossy ball under an unknown environment map of 16 x 32 texels."""
    import mitsuba as mi

    def ball(x: float, bsdf: dict[str, Any]) -> dict[str, Any]:
        return {"type": "sphere", "center": [x, 0, 0], "radius": 0.5, "bsdf": bsdf}

    return {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 3},
        "sensor": camera(size, (0, 0, 4), (0, 0, 0), 30),
        "dull": ball(-0.52, {"type": "diffuse", "reflectance": rgb(0.8, 0.8, 0.8)}),
        "shiny": ball(0.52, {"type": "roughconductor", "alpha": 0.1}),
        "sky": {"type": "envmap", "bitmap": mi.Bitmap(sky_values())},
    }


def joint(size: int = 48) -> dict[str, Any]:
    """Camera, place and strength of a point light, paint of a block: 15 numbers, with all shadows."""
    import mitsuba as mi

    t = mi.ScalarTransform4f

    def paint(*value: float) -> dict[str, Any]:
        return {"type": "diffuse", "reflectance": rgb(*value)}

    return {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 2},
        "sensor": {**camera(size, (0.8, 2.4, 3.4), (0, 0.3, 0), 48), "id": "camera"},
        "lamp": {"type": "point", "position": [-1.3, 2.6, 1.2], "intensity": rgb(14, 12, 10)},
        "sky": {"type": "constant", "radiance": rgb(0.1, 0.13, 0.18)},
        "floor": {
            "type": "rectangle",
            "to_world": t().rotate([1, 0, 0], -90).scale(2.2),
            "bsdf": paint(0.55, 0.53, 0.5),
        },
        "block-paint": paint(0.65, 0.2, 0.12),
        "block": {
            "type": "cube",
            "to_world": t().translate([-0.7, 0.35, 0.2]).rotate([0, 1, 0], 25).scale([0.4, 0.35, 0.3]),
            "bsdf": {"type": "ref", "id": "block-paint"},
        },
        "post": {
            "type": "cube",
            "to_world": t().translate([0.6, 0.6, -0.4]).rotate([0, 1, 0], -15).scale([0.2, 0.6, 0.2]),
            "bsdf": paint(0.15, 0.2, 0.6),
        },
        "brick": {
            "type": "cube",
            "to_world": t().translate([0.55, 0.2, 0.8]).rotate([0, 1, 0], 40).scale([0.3, 0.2, 0.2]),
            "bsdf": paint(0.2, 0.5, 0.2),
        },
    }


#: Of `shadow`: a point light.
LAMP = (0.1, 4.5, 0.2)


def shadow(size: int = 48) -> dict[str, Any]:
    """A letter above a floor, out of sight; a lamp casts its shadow."""
    import mitsuba as mi

    t = mi.ScalarTransform4f
    paint = {"type": "diffuse", "reflectance": rgb(0.6, 0.6, 0.6)}
    place = t().translate([0.0, 1.9, -0.1]).rotate([1, 0, 0], -75).rotate([0, 0, 1], 20).scale(0.45)
    return {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 2},
        "sensor": camera(size, (0, 1.7, 2.0), (0, 0, -0.05), 48),
        "lamp": {"type": "point", "position": list(LAMP), "intensity": rgb(20, 20, 20)},
        "floor": {"type": "rectangle", "to_world": t().rotate([1, 0, 0], -90).scale(3), "bsdf": paint},
        "letter": {
            "type": "ply",
            "filename": str(SCENES / "pose-shadow" / "letter.ply"),
            "face_normals": True,
            "to_world": place,
            "bsdf": {"type": "twosided", "bsdf": paint},
        },
    }


def shadow_box(points: np.ndarray) -> np.ndarray:
    """(2, 2) least and largest (x, z) of the shadow of points (n, 3) on the floor."""
    away = points - LAMP
    floor = LAMP + away * (LAMP[1] / -away[:, 1])[:, None]
    return np.array([floor[:, ::2].min(axis=0), floor[:, ::2].max(axis=0)])


def _shadow_start(rng: np.random.Generator, truth: list[np.ndarray]) -> list[Any]:
    """Turned by up to 10 degrees and moved until its shadow, still in the picture, is clear of the photographed one."""
    from scipy.spatial.transform import Rotation

    points = truth[0].reshape(-1, 3)
    centre = 0.5 * (points.min(axis=0) + points.max(axis=0))
    there = shadow_box(points)
    while True:
        pose = np.array(pose_start(rng, 10 * rng.uniform(0.3, 1), 0.0))
        side, far = rng.uniform(-np.pi, np.pi), rng.uniform(0.15, 0.6)
        pose[3:] = far * np.cos(side), rng.uniform(-0.1, 0.1), far * np.sin(side)
        here = shadow_box(Rotation.from_rotvec(pose[:3], degrees=True).apply(points - centre) + centre + pose[3:])
        apart = np.any(here[0] > there[1]) or np.any(there[0] > here[1])
        if apart and np.all(here[0] > (-1.05, -1.05)) and np.all(here[1] < (1.05, 0.85)):
            return [pose.tolist()]


def _colors_and_lights(rng: np.random.Generator, truth: list[np.ndarray]) -> list[Any]:
    """Colours and roughness anywhere in [0.1, 0.9]; lights off by a factor of up to four."""
    start = []
    for value in truth:
        if np.max(value) > 1:
            start.append((value * 4 ** rng.uniform(-1, 1, value.shape)).tolist())
        else:
            start.append(rng.uniform(0.1, 0.9, value.shape).tolist())
    return start


def pose_start(rng: np.random.Generator, degrees: float, distance: float) -> list[float]:
    """A rotation vector (degrees) and a translation of the given sizes in random directions."""
    a, b = rng.normal(size=(2, 3))
    return [*(degrees * a / np.linalg.norm(a)), *(distance * b / np.linalg.norm(b))]


def _joint_start(rng: np.random.Generator, truth: list[np.ndarray]) -> list[Any]:
    off = 1 + 0.15 * rng.choice([-1, 1], 3)
    place = truth[1] + 0.15 * np.linalg.norm(truth[1]) * (lambda d: d / np.linalg.norm(d))(rng.normal(size=3))
    return [
        pose_start(rng, 15 * rng.uniform(0.5, 1), 0.15 * 4 * rng.uniform(0.3, 1)),
        place.tolist(),
        (truth[2] * off).tolist(),
        (truth[3] * (1 + 0.15 * rng.choice([-1, 1], 3))).tolist(),
    ]


def subjects() -> dict[str, Subject]:
    """All problems by name."""
    made = (
        Subject(
            "seven",
            seven,
            (
                ("ball.bsdf.base_color.value", "unit"),
                ("ball.bsdf.roughness.value", "unit"),
                ("light.emitter.radiance.value", "log"),
            ),
            _colors_and_lights,
            (0.02, 0.01),
            0.02,
            "base colour, roughness, light (7 numbers)",
        ),
        Subject(
            "room",
            room,
            (
                ("left-paint.reflectance.value", "unit"),
                ("right-paint.reflectance.value", "unit"),
                ("light.emitter.radiance.value", "log"),
            ),
            _colors_and_lights,
            (0.01, 0.005),
            0.01,
            "closed room: two walls and light, six bounces (9)",
            patience=6.0,
        ),
        Subject(
            "four",
            four,
            tuple((f"lamp{k}.emitter.radiance.value", "log") for k in range(4)),
            _colors_and_lights,
            (0.02, 0.01),
            0.02,
            "four lamps (12)",
            patience=25.0,
        ),
        Subject(
            "sky",
            sky,
            (("sky.data", "map"),),
            lambda rng, truth: [float(rng.uniform(0.3, 3))],
            (0.1, 0.05),
            0.05,
            "environment map of 16 x 32 texels",
            patience=25.0,
        ),
        Subject(
            "shadow",
            shadow,
            (("letter.vertex_positions", "pose"),),
            _shadow_start,
            (),
            0.5,
            "object out of sight, by its shadow; it starts beside the photographed one (6)",
            unit="degrees, tenths of a unit",
            estimator="edge_sampling",
            baseline=False,
            control={"coarse": "never", "iterations": 12},
        ),
        Subject(
            "pose",
            lambda: SCENES / "pose-camera" / "scene.xml",
            (("camera.to_world", "pose"),),
            lambda rng, truth: [pose_start(rng, 15 * rng.uniform(0.3, 1), 0.15 * 4 * rng.uniform(0.3, 1))],
            (),
            0.1,
            "camera pose within 15 degrees and 15 % (6)",
            unit="degrees, tenths of a unit",
            estimator="edge_sampling",
            baseline=False,
        ),
        Subject(
            "joint",
            joint,
            (
                ("camera.to_world", "pose"),
                ("lamp.position", "place"),
                ("lamp.intensity.value", "log"),
                ("block-paint.reflectance.value", "unit"),
            ),
            _joint_start,
            (),
            0.05,
            "camera, light and paint together (15)",
            estimator="edge_sampling",
            baseline=False,
        ),
    )
    return {s.name: s for s in made}


def sky_error(found: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square difference over the sphere, relative to the map's own root mean square."""
    weight = np.sin(np.linspace(0, np.pi, len(truth)))[:, None, None]
    return float(np.sqrt((weight * (found - truth) ** 2).sum() / (weight * truth**2).sum()))


def sustained(course: Sequence[tuple[float, float]], level: float, window: int = 20) -> float | None:
    """The time after which the median error of the next `window` steps stays below `level`; None when it never does.

    Args:
        course: (seconds, error) of each step. A solver that stops keeps its last error.
    """
    if not course:
        return None
    times = [t for t, _ in course]
    errors = [e for _, e in course] + [course[-1][1]] * window
    fine = [float(np.median(errors[k : k + window])) <= level for k in range(len(course))]
    if not fine[-1]:
        return None
    first = len(fine) - next((k for k, ok in enumerate(reversed(fine)) if not ok), len(fine))
    return times[first] if errors[first] <= level else next((t for t, e in course[first:] if e <= level), None)
