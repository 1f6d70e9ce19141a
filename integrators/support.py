"""Refusals: derivatives that the estimators cannot compute are named before any sample is spent."""

from __future__ import annotations

import traceback
import warnings
from typing import Any

import drjit as dr
import mitsuba as mi

from .attached import SPECULAR, scene_bsdfs
from .errors import GradientWarning, UnsupportedGradient

_TABLE = (
    "Mitsuba tabulates the transmittance of a roughplastic without derivatives, which would give a wrong gradient",
    "use a principled material, or finite_difference",
)

_SUN = (
    "Mitsuba does not track how its sun and sky turn, which would give a wrong gradient",
    "use an envmap or a directional light, or finite_difference",
)

#: (class of the owner, name of the parameter) -> why it cannot be differentiated, what to do.
_UNSUPPORTED: dict[tuple[str, str], tuple[str, str]] = {
    ("SmoothDielectric", "eta"): (
        "the index of a smooth dielectric turns the refracted ray itself, which detached sampling keeps fixed",
        "use a roughdielectric with a small alpha, or finite_difference",
    ),
    ("RoughPlastic", "alpha"): _TABLE,
    ("RoughPlastic", "eta"): _TABLE,
    ("SunskyEmitter", "to_world"): _SUN,
    ("SunskyEmitter", "sun_direction"): _SUN,
    ("TimedSunskyEmitter", "to_world"): _SUN,
    ("Instance", "to_world"): (
        "Mitsuba does not track the pose of an instance: its derivative would be zero",
        "give the shape its own to_world instead of instancing it, or use finite_difference",
    ),
}

_MEDIUM = (
    "participating media are not rendered by this estimator",
    "use Mitsuba's prbvolpath",
)


def attached_keys(params: Any) -> list[str]:
    """Keys of a `mi.SceneParameters` whose values carry derivatives."""
    if not isinstance(params, mi.SceneParameters):
        return []
    return [key for key in params.keys() if dr.grad_enabled(params[key])]


def refusal(params: mi.SceneParameters, key: str) -> tuple[str, str] | None:
    """Why no estimator can differentiate `key`, and the remedy; None when one can."""
    owner = params.properties[key][2] if key in params.properties else None
    if owner is None:
        return None
    if isinstance(owner, (mi.Medium, mi.PhaseFunction)):
        return _MEDIUM
    name = key.rsplit(".", 1)[-1]
    if type_name(owner) == "UniformSpectrum":  # "blend.weight.value": the owner that matters is one level up
        name = key.rsplit(".", 2)[-2]
    return _UNSUPPORTED.get((type_name(owner), name))


def type_name(owner: Any) -> str:
    """Mitsuba's class name of a plugin instance ("SmoothDielectric")."""
    return owner.class_name() if hasattr(owner, "class_name") else type(owner).__name__


def require_supported(scene: mi.Scene, params: Any, integrator: Any) -> None:
    """Raise `UnsupportedGradient` for the first attached parameter that nothing here can differentiate."""
    for key in attached_keys(params):
        why = refusal(params, key)
        if why is not None:
            raise UnsupportedGradient(why[0], key=key, remedy=why[1])


def warn_of_hidden_motion(scene: mi.Scene) -> None:
    """Say which part of the light is not followed when things move: caustics, mixtures of specular and other lobes."""
    if any(int(bsdf.flags()) & SPECULAR for bsdf in scene_bsdfs(scene)):
        warnings.warn(
            GradientWarning(
                "specular-motion",
                "light that reaches a surface through a perfect mirror or smooth glass (caustics), or that is seen in "
                "the smooth coat of a plastic, is differentiated as if the reflected direction stayed where it is",
                "use a rough material with a small alpha, or compare with finite_difference",
            ),
            stacklevel=2,
        )


def foreign_derivatives(error: BaseException | None) -> UnsupportedGradient | None:
    """What to say when forward mode meets derivatives that were not propagated; None for any other error.

    Virtual calls look at every live object of the process, so an attached parameter of another scene takes part.
    """
    while error is not None and "isolate_grad" not in str(error):
        error = error.__cause__ or error.__context__
    if error is None:
        return None
    return UnsupportedGradient(
        "forward mode met a parameter, of this scene or of another one alive in the process, whose derivative was not "
        "propagated yet",
        remedy="call dr.forward(x, dr.ADFlag.ClearEdges) for each variable x of this derivative, and dr.disable_grad "
        "on those of other scenes, or delete them",
    )


def release_frames(error: BaseException | None) -> None:
    """Drop the local variables of the frames that an exception and its causes keep alive."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
