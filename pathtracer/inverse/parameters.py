"""What is to be found: from the keys that a user names to the flat vector of latent numbers that a solver moves.

`Parameter` is the request; `resolve` turns requests into `Unknown`s (`unknowns.py`), each of which owns a piece of the
latent vector: plain values through a space, a rigid motion, or the vertices of a mesh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError, nearest_names
from .arrays import as_numpy
from .priors import make_priors
from .rigid_unknown import RigidUnknown, scene_size
from .spaces import SPACE_NAMES
from .unknowns import ArrayUnknown, Unknown
from .vertices import EVERY_NUMBER, VerticesUnknown

if TYPE_CHECKING:
    from ..scenes import ParameterInfo, Scene


@dataclass(frozen=True)
class Parameter:
    """A request to find one parameter, or all that match a glob.

    Attributes:
        key: Mitsuba's key (`pathtracer params SCENE` lists them), or a glob.
        space: "log", "logit", "box", "identity", "direction", "pose", "large-steps"; None takes what suits the
            parameter.
        bounds: physical bounds (lower, upper); None takes the natural ones.
        init: start value: a number for all entries, or an array of the parameter's shape (a direction: 3 numbers; a
            pose: 6 numbers, by which the object is turned and moved from where the scene has it: a rotation vector in
            degrees and a translation in scene units; or the 4x4 matrix itself); None starts at the scene's own value.
        lr: latent step size of first-order solvers; None takes the space's own.
        group: parameters of one group share one value; poses of one group are one rigid motion of all their objects.
        factor: times the group's value is this parameter's, so that one may be tied to another in proportion.
        prior: what is known besides the images: a `Prior`, a table such as {"kind": "tv", "weight": 1e-3}, or several.
        smooth: λ of the smoothing of gradients (see `filters`), for textures, environment maps and vertices; 0 is off;
            None is 19 for vertices in the space "large-steps" and off for the rest.
        freeze_until: the step before which it stays at its start.
        truth: the known answer, for tables and tests only: an array, or "scene" for the value in the scene file.
    """

    key: str
    space: str | None = None
    bounds: tuple[float, float] | None = None
    init: Any = None
    lr: float | None = None
    group: str | None = None
    truth: Any = None
    factor: float = 1.0
    prior: Any = None
    smooth: float | None = None
    freeze_until: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "prior", make_priors(self.prior, self.key))
        if not (np.isfinite(self.factor) and self.factor != 0):
            raise UsageError(f"factor is {self.factor}, a number other than 0 was expected", where=self.key)
        if self.smooth is not None and not (np.isfinite(self.smooth) and self.smooth >= 0):
            raise UsageError(f"smooth is {self.smooth}, a number >= 0 was expected", where=self.key)
        if self.factor != 1 and self.group is None:
            raise UsageError("a factor is for members of a group", where=self.key, remedy="give it a group")
        if self.space is not None and self.space not in SPACE_NAMES:
            raise UsageError(
                f"unknown space {self.space!r}, one of {', '.join(SPACE_NAMES)}",
                where=self.key,
                nearest=nearest_names(self.space, SPACE_NAMES),
            )
        if self.lr is not None and not (np.isfinite(self.lr) and self.lr > 0):
            raise UsageError(f"lr is {self.lr}, a positive number was expected", where=self.key)


def resolve(scene: Scene, requests: Sequence[Parameter]) -> list[Unknown]:
    """Turn requests into unknowns; 8-bit textures among them are reloaded as float.

    Raises:
        UsageError: no request, a key twice, a parameter that cannot be differentiated, groups that do not fit.
    """
    if not requests:
        raise UsageError("nothing to estimate", remedy="name a parameter (`pathtracer params SCENE` lists them)")
    chosen: dict[str, Parameter] = {}
    for request in requests:
        found = scene.select(request.key)
        infos = scene.parameters()
        if len(found) > 1 or found != [request.key]:
            found = [key for key in found if infos[key].differentiable] or found
        for key in found:
            if key in chosen:
                raise UsageError("named twice", where=key)
            if not infos[key].differentiable:
                raise UsageError(
                    f"cannot be differentiated: {infos[key].reason or 'nothing has a derivative for it'}",
                    where=key,
                    nearest=nearest_names(key, (k for k, i in infos.items() if i.differentiable)),
                )
            chosen[key] = request
    # reloading replaces the scene's objects, so it comes before any value is read
    chosen = {scene.make_differentiable(key): request for key, request in chosen.items()}
    infos = scene.parameters()
    groups: dict[str, list[str]] = {}
    for key, request in chosen.items():
        groups.setdefault(f"group {request.group}" if request.group else f"key {key}", []).append(key)
    return [_unknown(scene, keys, infos, chosen[keys[0]], [chosen[k].factor for k in keys]) for keys in groups.values()]


def _unknown(
    scene: Scene, keys: list[str], infos: dict[str, ParameterInfo], request: Parameter, factors: list[float]
) -> Unknown:
    info = infos[keys[0]]
    like = scene.params[keys[0]]
    space = request.space or info.space
    for key in keys[1:] if space != "pose" else ():
        other = scene.params[key]
        if type(other) is not type(like) or as_numpy(other).shape != as_numpy(like).shape:
            raise UsageError(
                f"{key} has another shape than {keys[0]}: they cannot share a value", where=f"group {request.group}"
            )
    matrix = as_numpy(like).shape == (4, 4)
    if space == "large-steps":
        if info.kind != "positions":
            raise UsageError("the space 'large-steps' is for vertex positions", where=keys[0])
        if request.prior:
            raise UsageError("vertices take no prior; their gradients are smoothed", where=keys[0], remedy=EVERY_NUMBER)
        return VerticesUnknown(scene, keys, like, request)
    if space in ("direction", "pose"):
        for key in keys:
            if infos[key].kind not in ("transform", "positions"):
                raise UsageError(f"the space {space!r} is for `to_world` and vertex positions", where=key)
        if request.prior or request.smooth:
            raise UsageError("rigid motions take no prior and no smoothing", where=keys[0])
        if len(keys) > 1 and (space == "direction" or any(f != 1 for f in factors)):
            raise UsageError(
                "directions cannot share a value, and a common motion takes no factor", where=f"group {request.group}"
            )
        companions = [scene.params[key] for key in keys[1:]]
        return RigidUnknown(keys, like, info, request, space, scene_size(scene), companions)
    if matrix:
        raise UsageError(f"a `to_world` takes the space 'pose' or 'direction', not {space!r}", where=keys[0])
    return ArrayUnknown(keys, like, info, request, factors)
