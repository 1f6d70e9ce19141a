"""Gradient estimators as Mitsuba plugins.

`register()` makes every estimator of `ESTIMATORS` loadable by name, from Python and from XML, in the current variant
and in every variant that is set later (Mitsuba's plugin registry is per variant).

    import mitsuba as mi, integrators
    mi.set_variant("llvm_ad_rgb")
    integrators.register()
    mi.render(scene, params, integrator=mi.load_dict({"type": "path_replay"}))
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import GradientWarning, UnsupportedGradient

__all__ = ["ESTIMATORS", "PHENOMENA", "Estimator", "GradientWarning", "UnsupportedGradient", "register"]

#: What a gradient may have to account for; the vocabulary of `Estimator.handles`.
PHENOMENA: dict[str, str] = {
    "interior": "continuous dependence: materials, textures, light intensity, smooth motion",
    "primary": "silhouettes, creases and cut-outs seen by the camera",
    "camera": "the camera itself moves, with the silhouettes that it sweeps over",
    "shadow-area": "shadows of area lights",
    "shadow-environment": "shadows of the environment",
    "shadow-delta": "hard shadows of point, spot, directional and projector lights",
    "indirect": "visibility between surfaces further along the path",
    "specular-chain": "silhouettes seen in a perfect mirror or through smooth glass",
    "aovs": "depth, normals and other variables of what the camera sees (arbitrary output variables)",
}


@dataclass(frozen=True)
class Estimator:
    """One row of the table of estimators.

    Attributes:
        name: Mitsuba plugin name.
        factory: "module:Class", the class taking `mi.Properties`.
        handles: keys of `PHENOMENA` that the estimator accounts for.
        unbiased: whether its expectation is the exact derivative for what it handles, but for offsets that are small
            against a pixel (`near`, and those that the theory page of edge sampling names).
        summary: one line for tables and help.
        reference: the source of the method.
        baseline: it renders an image of its own, not the path-traced one: for comparisons, and left out of "all".
        hybrid: what its property `hybrid` adds to `handles`.
    """

    name: str
    factory: str
    handles: frozenset[str]
    unbiased: bool
    summary: str
    reference: str
    baseline: bool = False
    hybrid: frozenset[str] = frozenset()

    def accounts_for(self, properties: Mapping[str, object]) -> frozenset[str]:
        """`handles`, with what properties add."""
        return self.handles | (self.hybrid if properties.get("hybrid") else frozenset())


_ROWS = (
    Estimator(
        name="path_replay",
        factory="integrators.path_replay:PathReplay",
        handles=frozenset({"interior", "aovs"}),
        unbiased=True,
        summary="interior derivative by path replay; no visibility terms",
        reference="Vicini, Speierer, Jakob 2021, Path Replay Backpropagation; Zeltner et al. 2021",
    ),
    Estimator(
        name="finite_difference",
        factory="integrators.finite_difference:FiniteDifference",
        handles=frozenset(PHENOMENA),
        unbiased=False,
        summary="central differences with Richardson extrapolation; the slow reference of all others",
        reference="Richardson 1911; Fischer and Ritschel 2023, section 3",
    ),
    Estimator(
        name="edge_sampling",
        factory="integrators.edge_sampling:EdgeSampling",
        handles=frozenset(PHENOMENA),
        unbiased=True,
        summary="path replay plus boundary terms sampled on silhouettes",
        reference="Li, Aittala, Durand, Lehtinen 2018; Zhang et al. 2020",
    ),
    Estimator(
        name="warped_area",
        factory="integrators.warped_area:WarpedArea",
        handles=frozenset({"interior", "primary", "camera", "shadow-area", "shadow-environment", "indirect"}),
        unbiased=False,
        summary="path replay on warped film and directions: visibility as an area integral, a second opinion",
        reference="Bangaru, Li, Durand 2020; Loubet, Holzschuh, Jakob 2019",
        hybrid=frozenset({"shadow-delta", "specular-chain"}),
    ),
    Estimator(
        name="soft_rasterizer",
        factory="integrators.soft_rasterizer:SoftRasterizer",
        handles=frozenset(),
        unbiased=False,
        summary="triangles with soft edges, Lambertian, no light transport; a control, and a help from far away",
        reference="Liu, Li, Chen, Li 2019, Soft Rasterizer",
        baseline=True,
    ),
    Estimator(
        name="opendr",
        factory="integrators.opendr:OpenDR",
        handles=frozenset(),
        unbiased=False,
        summary="screen-space derivatives of a rasterised image, Lambertian, no light transport; a control",
        reference="Loper and Black 2014, OpenDR: An Approximate Differentiable Renderer",
        baseline=True,
    ),
)

#: The one table of estimators; names exist nowhere else.
ESTIMATORS: dict[str, Estimator] = {row.name: row for row in _ROWS}

_hooked = False
_registered: str | None = None


def _register_current(_old: str | None = None, _new: str | None = None) -> None:
    global _registered
    import mitsuba as mi

    variant = mi.variant()
    if variant is None or "_ad_" not in variant:
        return
    if "polarized" in variant:
        return  # the classes refuse polarised variants with a sentence when they are loaded
    # The classes derive from variant-specific Mitsuba types: import their modules afresh for every variant.
    modules = {row.factory.split(":")[0] for row in _ROWS}
    for name in [m for m in sys.modules if m.startswith("integrators.") and m not in _VARIANT_FREE]:
        del sys.modules[name]
    for module in sorted(modules):
        importlib.import_module(module)
    for row in _ROWS:
        module, cls = row.factory.split(":")
        mi.register_integrator(row.name, getattr(sys.modules[module], cls))
    _registered = variant


_VARIANT_FREE = {"integrators.errors"}


def register() -> None:
    """Register every estimator in the current variant and in all that are set from now on."""
    global _hooked
    import mitsuba as mi

    if not _hooked:
        mi.detail.add_variant_callback(_register_current)
        _hooked = True
    if mi.variant() != _registered:
        _register_current()
