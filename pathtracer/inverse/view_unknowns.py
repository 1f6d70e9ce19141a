"""Unknowns that belong to a view and not to the scene: the pose and angle of its own camera, exposure, white balance.

Their keys are `views.NAME.PART` (globs allowed), NAME being the view's:

    to_world        pose of the view's own camera, as a rigid motion about where it stands
    x_fov           angle in degrees that it sees horizontally
    exposure        factor on the render
    white_balance   factors on red, green and blue of the render

Poses and angles reach the image through the rays that the camera sends out. Exposure and white balance multiply the
finished render, so their derivative is a sum over its pixels, which the step program gives back.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError, nearest_names
from .rigid_unknown import RigidUnknown, scene_size
from .unknowns import ArrayUnknown, Unknown

if TYPE_CHECKING:
    from ..capture import View
    from ..scenes import ParameterInfo, Scene
    from .parameters import Parameter

PREFIX = "views."
PARTS = ("to_world", "x_fov", "exposure", "white_balance")
#: Parts that multiply the render.
GAINS = ("exposure", "white_balance")


def key_of(view: View, part: str) -> str:
    """The key of a part of a view."""
    return f"{PREFIX}{view.name}.{part}"


def is_view_key(scene: Scene, key: str) -> bool:
    """Whether a key names a part of a view; an object of the scene called "views" comes first."""
    return key.startswith(PREFIX) and not any(k.startswith(PREFIX) for k in scene.params.keys())  # noqa: SIM118


def describe(views: Sequence[View]) -> dict[str, ParameterInfo]:
    """What can be unknown about views."""
    from ..scenes import ParameterInfo

    found: dict[str, ParameterInfo] = {}
    for view in views:
        rows: dict[str, dict[str, Any]] = {
            "exposure": {"kind": "scalar", "shape": (), "space": "log", "bounds": (0.0, None)},
            "white_balance": {"kind": "color", "shape": (3,), "space": "log", "bounds": (0.0, None)},
        }
        if isinstance(view.sensor, dict):
            moving = {"discontinuous": True, "needs": frozenset({"camera"})}
            rows["to_world"] = {"kind": "transform", "shape": (4, 4), "space": "pose", **moving}
            if view.sensor.get("fov_axis") == "x" and "fov" in view.sensor:
                rows["x_fov"] = {"kind": "scalar", "shape": (), "space": "log", "bounds": (0.0, 180.0), **moving}
        for part, row in rows.items():
            key = key_of(view, part)
            found[key] = ParameterInfo(key=key, owner="view", **row)
    return found


def resolve_views(scene: Scene, views: Sequence[View], requests: Sequence[Parameter]) -> list[Unknown]:
    """Turn requests for parts of views into unknowns.

    Raises:
        UsageError: unknown views or parts, a pose of a view that has no camera of its own, a held-out view, a part
            twice, exposure and white balance of one view at once.
    """
    infos = describe(views)
    by_key = {key_of(view, part): view for view in views for part in PARTS}
    chosen: dict[str, Parameter] = {}
    for request in requests:
        for key in _select(request.key, infos, by_key):
            if key in chosen:
                raise UsageError("named twice", where=key)
            chosen[key] = request
    for key in chosen:
        view = by_key[key]
        if all(key_of(view, part) in chosen for part in GAINS):
            raise UsageError(
                "exposure and white balance of one view multiply the same: only one of them can be unknown",
                where=key_of(view, "white_balance"),
            )
    groups: dict[str, list[str]] = {}
    for key, request in chosen.items():
        groups.setdefault(f"group {request.group}" if request.group else f"key {key}", []).append(key)
    return [_unknown(scene, by_key, keys, infos[keys[0]], chosen[keys[0]]) for keys in groups.values()]


def _select(pattern: str, infos: dict[str, ParameterInfo], by_key: dict[str, View]) -> list[str]:
    exact = pattern in infos
    found = [pattern] if exact else [k for k in infos if fnmatch.fnmatchcase(k, pattern)]
    if not found:
        if pattern in by_key:
            view = by_key[pattern]
            raise UsageError(
                "the view has no camera of its own", where=pattern, remedy=f"name the scene's sensor {view.sensor}"
            )
        raise UsageError("no view has such a part", where=pattern, nearest=nearest_names(pattern, by_key))
    fitted = [k for k in found if not by_key[k].holdout]
    if not fitted:
        raise UsageError("the view is held out: nothing would tell its value", where=pattern)
    return fitted


def _unknown(
    scene: Scene, by_key: dict[str, View], keys: list[str], info: ParameterInfo, request: Parameter
) -> Unknown:
    import mitsuba as mi

    view, part = by_key[keys[0]], keys[0].rsplit(".", 1)[-1]
    if any(k.rsplit(".", 1)[-1] != part for k in keys):
        raise UsageError("parts of different kinds cannot share a value", where=f"group {request.group}")
    if part == "to_world":
        if len(keys) > 1:
            raise UsageError("rigid motions cannot share a value", where=f"group {request.group}")
        if request.space not in (None, "pose"):
            raise UsageError(f"a `to_world` takes the space 'pose', not {request.space!r}", where=keys[0])
        assert isinstance(view.sensor, dict)
        pose = mi.Transform4f(np.asarray(view.sensor["to_world"], np.float64).tolist())
        return RigidUnknown(keys, pose, info, request, "pose", scene_size(scene))
    if part == "white_balance":
        return ArrayUnknown(keys, mi.Color3f(*view.white_balance), info, request)
    value = view.exposure if part == "exposure" else float(view.sensor["fov"])  # type: ignore[index]
    return ArrayUnknown(keys, mi.Float(value), info, request)
