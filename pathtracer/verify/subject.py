"""What a check works on: a scene from any source, its depth settings, and estimators made to match them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from integrators import ESTIMATORS
from pathtracer.errors import UsageError, nearest_names
from pathtracer.integrator_plugins import load_integrator

from .motion import Motion

#: Mitsuba's own differentiable integrators, which can be checked by name as well.
FOREIGN = ("prb", "prb_basic", "prb_projective", "direct_projective")
#: Guiding changes their variance, not their expectation, and costs 4 to 15 s a pass on two cores; without it 0.3 s.
_UNGUIDED = {"prb_projective": {"guiding": "none"}, "direct_projective": {"guiding": "none"}}
#: The differences that everything is compared with; checking it against itself says nothing.
REFERENCE = "finite_difference"


@dataclass
class Subject:
    """A scene under check.

    Attributes:
        scene: `mi.Scene`.
        params: its `mi.SceneParameters`.
        sensor: the `mi.Sensor` that looks at it.
        depth: `max_depth`, `rr_depth`, `hide_emitters` of the scene file.
        owner: the `pathtracer.scenes.Scene` it came from, if any.
        aovs: channels behind the colours, those of the scene file's `aov` integrator that have a derivative.
        unchecked: types of that integrator that have none.
    """

    scene: Any
    params: Any
    sensor: Any
    depth: dict[str, Any]
    owner: Any = None
    aovs: str = ""
    unchecked: tuple[str, ...] = ()

    def base(self) -> Any:
        """The integrator that finite differences render with: Mitsuba's path tracer, without roulette on short paths.

        Roulette ends paths by a coin whose odds depend on the parameter: unbiased, but it makes the two sides differ.
        """
        import mitsuba as mi

        from integrators.spread_path import primal_plugin, spread_path

        depth = dict(self.depth)
        if 0 <= depth["max_depth"] <= 32:
            depth["rr_depth"] = 1000
        if not self.aovs:
            return spread_path(**depth)
        return mi.load_dict(self.with_aovs({"type": primal_plugin(self.scene), **depth}))

    def with_aovs(self, integrator: dict[str, Any]) -> dict[str, Any]:
        """One of Mitsuba's integrators, with the scene's further channels."""
        return {"type": "aov", "aovs": self.aovs, "image": integrator} if self.aovs else integrator


def subject_of(scene: Any, sensor: int = 0) -> Subject:
    """Wrap a `pathtracer.scenes.Scene`, a `mi.Scene`, a path or a Mitsuba dictionary."""
    from pathtracer.runtime import activate
    from pathtracer.scenes import Scene, load_scene

    activate()
    import mitsuba as mi

    if isinstance(scene, (str, Path)):
        scene = load_scene(scene)
    elif isinstance(scene, dict):
        scene = Scene.from_dict(scene)
    if isinstance(scene, Scene):
        from integrators.aovs import TYPES

        asked = [kind for _, _, kind in (pair.strip().partition(":") for pair in scene.aovs().split(",")) if kind]
        known = ",".join(f"{kind}:{kind}" for kind in asked if kind in TYPES)  # the names say what a reference shows
        rest = tuple(kind for kind in asked if kind not in TYPES)
        return Subject(scene.mi, scene.params, scene.sensor(sensor), scene.default_integrator(), scene, known, rest)
    if not isinstance(scene, mi.Scene):
        raise UsageError(
            f"cannot check a {type(scene).__name__}", remedy="give a scene, a path or a Mitsuba dictionary"
        )
    sensors = scene.sensors()
    if not 0 <= sensor < len(sensors):
        raise UsageError(f"sensor {sensor} does not exist: the scene has {len(sensors)}")
    return Subject(scene, mi.traverse(scene), sensors[sensor], _depth_of(scene.integrator()))


def _depth_of(integrator: Any) -> dict[str, Any]:
    """Depth settings as an integrator prints them; Mitsuba has no other way to ask."""
    text = str(integrator)
    found = {name: re.search(rf"{name}\s*=\s*(-?\d+)", text) for name in ("max_depth", "rr_depth")}
    max_depth = int(found["max_depth"][1]) if found["max_depth"] else -1
    return {
        "max_depth": -1 if max_depth >= 2**31 else max_depth,
        "rr_depth": int(found["rr_depth"][1]) if found["rr_depth"] else 5,
        "hide_emitters": bool(re.search(r"hide_emitters\s*=\s*(1|true)", text)),
    }


@contextmanager
def resized(sensor: Any, most: int) -> Iterator[str]:
    """A context in which the film of `sensor` has at most `most` pixels on its longer side; yields what was changed.

    The derivative of a coarser image is a derivative all the same, of sums of pixels, and answers in seconds what the
    full image answers in minutes.
    """
    import mitsuba as mi

    params = mi.traverse(sensor)
    keys = ("film.size", "film.crop_size", "film.crop_offset")
    start = {key: [int(v) for v in np.asarray(params[key]).ravel()] for key in keys}
    longer = max(start["film.crop_size"])
    if longer <= most:
        yield ""
        return
    size, crop, offset = (
        [max(low, round(v * most / longer)) for v in start[k]] for k, low in zip(keys, (1, 1, 0), strict=True)
    )
    crop = [min(c, s - o) for c, s, o in zip(crop, size, offset, strict=True)]
    types = {key: type(params[key]) for key in keys}

    def write(values: Sequence[Sequence[int]]) -> None:
        for key, value in zip(keys, values, strict=True):
            params[key] = types[key](*value)
        params.update()

    write([size, crop, offset])
    try:
        width, height = start["film.crop_size"]
        yield f"the image of {width} x {height} pixels was checked at {crop[0]} x {crop[1]}"
    finally:
        write(list(start.values()))


def load_estimator(subject: Subject, spec: Any, **properties: Any) -> tuple[str, Any]:
    """An estimator with the subject's depth settings: its name and the `mi.Integrator`.

    Args:
        spec: a plugin name, `name:property=value,...`, a Mitsuba dictionary, or an integrator (taken as it is).
        properties: further properties.

    Raises:
        UsageError: unknown plugin or property, or a value that the estimator refuses.
    """
    import mitsuba as mi

    if isinstance(spec, mi.Integrator):
        return type(spec).__name__, spec
    if isinstance(spec, dict):
        name = spec["type"]
        properties = {**{k: v for k, v in spec.items() if k != "type"}, **properties}
    else:
        name, _, text = str(spec).partition(":")
        properties = {**_parse_properties(text, name), **properties}
    depth = dict(subject.depth)
    if name == "direct_projective":
        depth = {"hide_emitters": depth["hide_emitters"]}
    settings = {"type": name, **depth, **_UNGUIDED.get(name, {}), **properties}
    if "aovs" in properties:
        raise UsageError(
            "the differences have only the channels of the scene",
            where=name,
            remedy="ask for aovs by an aov integrator in the scene file",
        )
    if name in FOREIGN:
        settings = subject.with_aovs(settings)
    elif subject.aovs and name == REFERENCE:
        settings["base"] = subject.base()
    elif subject.aovs and name in checkable():
        settings["aovs"] = subject.aovs
    elif subject.aovs and name in ESTIMATORS:
        raise UsageError(f"{name} renders no aovs", remedy="take the aov integrator out of the scene file")
    try:
        integrator = load_integrator(settings, name)
    except RuntimeError as error:
        if "not found" in str(error) or "could not be" in str(error).lower():
            known = [*ESTIMATORS, *FOREIGN]
            raise UsageError(
                f"unknown estimator {name!r}, one of {', '.join(known)}", nearest=nearest_names(name, known)
            ) from error
        raise
    return name, integrator


def _parse_properties(text: str, name: str) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"{part!r} is not property=value", where=name)
        for convert in (int, float):
            try:
                properties[key] = convert(value)
                break
            except ValueError:
                continue
        else:
            properties[key] = {"true": True, "false": False}.get(value.lower(), value)
    return properties


def choose_estimators(names: Any) -> list[Any]:
    """The estimators to check: "all" for those of the table that can be, None for the one that handles most."""
    if names is None:
        candidates = [row for row in ESTIMATORS.values() if row.unbiased]
        return [max(candidates, key=lambda row: len(row.handles)).name]
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, Sequence):
        names = [names]
    chosen: list[Any] = []
    for name in names:
        chosen += checkable() if isinstance(name, str) and name == "all" else [name]
    return chosen


def checkable() -> list[str]:
    """Names of the table but for the reference, and for baselines, which draw another image."""
    return [n for n, row in ESTIMATORS.items() if n != REFERENCE and not row.baseline]


def choose_motions(subject: Subject, motions: Any) -> list[Motion]:
    """Motions from text or `Motion`s; a key may be a glob, which gives one motion for each key that it matches."""
    if isinstance(motions, (str, Motion)):
        motions = [motions]
    chosen: list[Motion] = []
    for motion in motions:
        if isinstance(motion, Motion):
            chosen.append(motion)
            continue
        key, _, spec = motion.partition(" ")
        if " + " not in motion and any(c in key for c in "*?["):
            chosen += [Motion.parse(k, spec or None) for k in _matching(subject, key)]
        else:
            chosen.append(Motion.parse(motion))
    if not chosen:
        raise UsageError("nothing to check", remedy="name at least one parameter key")
    return chosen


def _matching(subject: Subject, pattern: str) -> list[str]:
    import fnmatch

    if subject.owner is not None:
        return list(subject.owner.select(pattern))
    keys = list(subject.params.keys())
    found = fnmatch.filter(keys, pattern)
    if not found:
        raise UsageError(f"no parameter matches {pattern!r}", nearest=nearest_names(pattern, keys))
    return found
