"""Discontinuities that the boundary terms do not see: named, so that no part of a gradient is missing in silence."""

from __future__ import annotations

import mitsuba as mi

#: (code, what is missing, what to do)
Limit = tuple[str, str, str]


def boundary_limits(scene: mi.Scene) -> list[Limit]:
    """What a scene contains that moving geometry would need a boundary term for, and has none."""
    found: list[Limit] = []
    bsdfs = [(shape, shape.bsdf()) for shape in scene.shapes() if shape.bsdf() is not None]
    specular = (mi.BSDFFlags.DeltaReflection, mi.BSDFFlags.DeltaTransmission)
    mirrors = [shape.id() for shape, bsdf in bsdfs if any(mi.has_flag(bsdf.flags(), lobe) for lobe in specular)]
    if mirrors:
        found.append(
            (
                "specular-chain",
                f"silhouettes and shadows seen in perfect mirrors or through smooth glass ({_list(mirrors)}) are left "
                "out of the derivative",
                "give the surface a small roughness, or use finite_difference",
            )
        )
    masks = [shape.id() for shape, bsdf in bsdfs if mi.has_flag(bsdf.flags(), mi.BSDFFlags.Null)]
    if masks:
        found.append(
            (
                "behind-mask",
                f"shadows seen through transparent surfaces ({_list(masks)}) are left out of the derivative",
                "model the cut-out as geometry, or use finite_difference",
            )
        )
    return found


def _list(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
