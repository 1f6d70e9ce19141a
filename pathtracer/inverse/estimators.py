"""Which gradient estimator serves a problem, and what it leaves out of the gradients of the problem's unknowns."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from integrators import ESTIMATORS, PHENOMENA, GradientWarning

from ..errors import UsageError, nearest_names
from ..integrator_plugins import load_integrator

if TYPE_CHECKING:
    from ..scenes import ParameterInfo, Scene

#: Mitsuba's own estimators, usable besides ours.
MITSUBA_ESTIMATORS: dict[str, frozenset[str]] = {
    "prb": frozenset({"interior"}),
    "prb_basic": frozenset({"interior"}),
    "prbvolpath": frozenset({"interior"}),
}
_TERMS = ("interior", "primary", "shadow", "indirect")
#: Properties that Mitsuba's own estimators do not know.
ESTIMATOR_BUDGETS = ("primal_spp", *(f"{term}_spp" for term in _TERMS), *_TERMS, "split")


def check_estimator(
    estimator: Mapping[str, Any], keys: Sequence[str], infos: Mapping[str, ParameterInfo], strict: bool
) -> None:
    """Say what an estimator leaves out; warnings point at the caller's caller.

    Args:
        estimator: its Mitsuba dictionary.
        keys: parameters whose gradients are asked for.
        infos: what is known about them.
        strict: take it for an error.
    Raises:
        UsageError: unknown estimator; or `strict`, and it leaves something out.
    """
    name = str(estimator.get("type"))
    if name in ESTIMATORS:
        handles = ESTIMATORS[name].accounts_for(estimator)
    elif name in MITSUBA_ESTIMATORS:
        handles = MITSUBA_ESTIMATORS[name]
    else:
        known = [*ESTIMATORS, *MITSUBA_ESTIMATORS]
        raise UsageError(
            f"unknown estimator {name!r}, one of {', '.join(known)}",
            where="estimator",
            nearest=nearest_names(name, known),
        )
    told: dict[tuple[str, str | None], list[str]] = {}
    for key in keys:
        missing = (infos[key].needs or frozenset()) - handles
        if not missing:
            continue
        what = "; ".join(PHENOMENA.get(m, m) for m in sorted(missing))
        better = [n for n, e in ESTIMATORS.items() if infos[key].needs <= e.handles]
        remedy = f"use one of {', '.join(better)}" if better else None
        if strict:
            raise UsageError(f"{name} leaves out {what}", where=key, remedy=remedy)
        told.setdefault((what, remedy), []).append(key)
    for (what, remedy), left_out in told.items():
        which = ", ".join(left_out[:2]) + (f" and {len(left_out) - 2} more" if len(left_out) > 2 else "")
        warnings.warn(
            GradientWarning("visibility-left-out", f"{which}: {name} leaves out {what}", remedy), stacklevel=3
        )


def load_estimator(scene: Scene, estimator: Mapping[str, Any]) -> Any:
    """The `mi.Integrator` of an estimator, with the scene's own path depths.

    Raises:
        UsageError: it asks for aovs, for a property that it does not have, or refuses a value.
    """
    settings = {**scene.default_integrator(), **estimator}
    if "aovs" in settings:
        raise UsageError("photographs have no aovs", where="estimator", remedy="leave them out, or write a loop")
    if estimator["type"] not in ESTIMATORS:
        settings = {k: v for k, v in settings.items() if k not in ESTIMATOR_BUDGETS}
    return load_integrator(settings, "estimator")
