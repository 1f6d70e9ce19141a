"""Which parameters a scene has, what each of them is, and who can differentiate it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .scene import Scene


@dataclass(frozen=True)
class ParameterInfo:
    """One parameter of a scene.

    Attributes:
        key: Mitsuba's own key (`mi.traverse`).
        kind: "color", "scalar", "texture", "envmap", "positions", "normals", "transform", "vector", ...
        owner: plugin name of the object that holds it.
        shape: of the value as an array.
        range: smallest and largest current value, None when it has none.
        bounds: natural bounds, either side may be None.
        space: the space to optimise it in: "logit", "log", "box", "identity", "direction", "pose".
        differentiable: whether any estimator has a derivative for it.
        discontinuous: whether it moves geometry or cut-outs, so that visibility changes with it.
        reason: why it is not differentiable, "" when it is.
        needs: phenomena (keys of `integrators.PHENOMENA`) that its derivative is made of.
    """

    key: str
    kind: str
    owner: str
    shape: tuple[int, ...]
    range: tuple[float, float] | None = None
    bounds: tuple[float | None, float | None] = (None, None)
    space: str = "identity"
    differentiable: bool = True
    discontinuous: bool = False
    reason: str = ""
    needs: frozenset[str] = frozenset()


def discover(scene: Scene) -> dict[str, ParameterInfo]:
    """Every parameter of a scene."""
    found = {}
    for key in scene.params.keys():  # noqa: SIM118
        found[key] = ParameterInfo(key=key, kind="scalar", owner="", shape=())
    return found
