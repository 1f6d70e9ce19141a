"""Which emitters shine in a view: photographs of one object under one light after the other.

An emitter that is off in a view has every factor of its radiance set to zero there: what is rendered is exactly the sum
over the lit emitters, and nothing reaches the parameters of the others. Lights without extent also leave the sampling
distribution (a path picks one emitter, and picking dark ones is waste). Lights that a path can run into keep their
place in it: their sampling weight is part of multiple importance sampling and is a constant of the compiled program.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, UsageError, nearest_names
from .arrays import as_numpy, to_scene

if TYPE_CHECKING:
    from ..scenes import Scene

#: Parameters that multiply everything an emitter sends out; the first that exists is used.
_STRENGTHS = (
    "scale",
    "radiance.value",
    "radiance.data",
    "irradiance.value",
    "irradiance.data",
    "intensity.value",
    "intensity.data",
    "radiance.scale",
)


#: A scene whose sampling weights are all 1 has no sampling distribution; with this factor there always is one.
_SHARED = 2.0


@dataclass(frozen=True)
class Emitter:
    """One light: its key prefix, the parameters that switch it off, and whether paths can hit it."""

    prefix: str
    strengths: tuple[str, ...]
    delta: bool

    @property
    def names(self) -> tuple[str, ...]:
        """What a view may call it: its id, or for the emitter of a shape the shape's id."""
        short = self.prefix.removesuffix(".emitter")
        return (short, self.prefix) if short != self.prefix else (short,)


def find_emitters(scene: Scene) -> list[Emitter]:
    """The emitters of a scene, in the order of its parameters."""
    keys = list(scene.params.keys())
    infos = scene.parameters()
    found = []
    for key in keys:
        if not key.endswith(".sampling_weight"):
            continue
        prefix = key.removesuffix(".sampling_weight")
        if prefix + ".sun_scale" in keys:
            strengths: tuple[str, ...] = (prefix + ".sun_scale", prefix + ".sky_scale")
        else:
            strengths = tuple(f"{prefix}.{s}" for s in _STRENGTHS if f"{prefix}.{s}" in keys)[:1]
        owner = infos[key].owner
        found.append(Emitter(prefix, strengths, owner in ("point", "spot", "directional", "projector")))
    return found


def require_light(scene: Scene, emitters: Sequence[Emitter]) -> None:
    """Refuse a scene in which nothing shines.

    Raises:
        InputError: no emitter, or every emitter has a strength of zero.
    """
    where = scene.path or "scene"
    if not emitters:
        raise InputError("the scene has no emitter, every picture of it is black", where, remedy="add a light")
    dark = [e for e in emitters if e.strengths and not any(_shines(scene, e, s) for s in e.strengths)]
    if len(dark) == len(emitters):
        names = ", ".join(e.names[0] for e in dark)
        raise InputError(
            f"no emitter shines: {names} {'is' if len(dark) == 1 else 'are'} zero",
            where,
            remedy="give a positive radiance, or a positive `init` for it",
        )


def _shines(scene: Scene, emitter: Emitter, key: str) -> bool:
    data = emitter.prefix + ".data"  # an environment map of zeros is dark whatever its scale
    if key.endswith(".scale") and data in scene.params and not np.any(as_numpy(scene.params[data])):
        return False
    return bool(np.any(as_numpy(scene.params[key])))


class Switchboard:
    """Switches emitters on and off; remembers what they were.

    Args:
        scene: whose parameters are changed (`update()` is left to the caller).
        emitters: from `find_emitters`.
    """

    def __init__(self, scene: Scene, emitters: Sequence[Emitter]) -> None:
        self._scene = scene
        self._emitters = list(emitters)
        self._on = {k: as_numpy(scene.params[k]) for e in emitters for k in e.strengths}
        self._weights = {e.prefix: float(scene.params[e.prefix + ".sampling_weight"]) for e in emitters}
        self._lit: frozenset[str] | None = None
        self._switching = False

    def _all(self) -> frozenset[str]:
        return frozenset(e.prefix for e in self._emitters)

    def begin(self) -> None:
        """From now on emitters are switched, also those that no view switches."""
        if not self._switching:
            self._switching, self._lit = True, None

    def select(self, lit: Sequence[str] | None, where: str = "") -> frozenset[str]:
        """The prefixes of the emitters called `lit` (None: all).

        Raises:
            UsageError: unknown name, none at all, or an emitter that has no strength to switch.
        """
        if lit is None:
            return self._all()
        self._switching = True
        by_name = {name: e for e in self._emitters for name in e.names}
        chosen = set()
        for name in lit:
            if name not in by_name:
                raise UsageError(f"no emitter {name!r}", where=where, nearest=nearest_names(name, by_name))
            chosen.add(by_name[name].prefix)
        if not chosen:
            raise UsageError("no emitter is lit", where=where, remedy="leave `lit` out to light them all")
        for e in self._emitters:
            if e.prefix not in chosen and not e.strengths:
                raise UsageError(f"the emitter {e.names[0]!r} has no strength that could be set to zero", where=where)
        return frozenset(chosen)

    def apply(self, lit: frozenset[str], attached: dict[str, Any]) -> dict[str, Any]:
        """Write the strengths of a view; returns `attached` with the values of dark emitters multiplied by zero.

        All views leave the scene with variables of the same kinds (differentiable, opaque, a sampling distribution), so
        that one recorded program serves them all.

        Args:
            lit: prefixes from `select`.
            attached: differentiable values by key.
        """
        import drjit as dr
        import mitsuba as mi

        result = dict(attached)
        params = self._scene.params
        for e in self._emitters:
            on = e.prefix in lit
            changed = self._lit is None or (e.prefix in self._lit) != on
            for key in e.strengths:
                if key in attached:
                    result[key] = attached[key] * dr.opaque(mi.Float, float(on))
                elif changed and self._switching:
                    value = to_scene(self._on[key] if on else np.zeros_like(self._on[key]), params[key])
                    dr.make_opaque(value)
                    params[key] = value
            if changed and e.delta and self._switching:
                params[e.prefix + ".sampling_weight"] = _SHARED * self._weights[e.prefix] if on else 0.0
        self._lit = lit
        return result

    def restore(self) -> None:
        """All emitters as they were found."""
        for e in self._emitters if self._switching else ():
            for key in e.strengths:
                self._scene.params[key] = to_scene(self._on[key], self._scene.params[key])
            self._scene.params[e.prefix + ".sampling_weight"] = self._weights[e.prefix]
        self._lit = None
