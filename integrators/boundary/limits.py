"""Discontinuities that the boundary terms do not see: named, so that no part of a gradient is missing in silence."""

from __future__ import annotations

import mitsuba as mi

from .texture_lines import jumping_textures

#: (code, what is missing, what to do)
Limit = tuple[str, str, str]


def boundary_limits(scene: mi.Scene, too_fine: list[str], max_depth: int) -> list[Limit]:
    """What a scene contains that moving geometry would need a boundary term for, and has none.

    Args:
        too_fine: ids of meshes whose textures jump along too many lines.
        max_depth: longest path.
    """
    found: list[Limit] = []
    bsdfs = [(shape, shape.bsdf()) for shape in scene.shapes() if shape.bsdf() is not None]
    specular = (mi.BSDFFlags.DeltaReflection, mi.BSDFFlags.DeltaTransmission)
    mirrors = [shape.id() for shape, bsdf in bsdfs if any(mi.has_flag(bsdf.flags(), lobe) for lobe in specular)]
    if mirrors and max_depth > 2:
        found.append(
            (
                "specular-shadow",
                f"shadows, and what hides what else, as seen in perfect mirrors or through smooth glass "
                f"({_list(mirrors)}) are left out of the derivative; silhouettes seen there are part of it",
                "give the surface a small roughness, or use finite_difference",
            )
        )
    masks = [shape.id() for shape, bsdf in bsdfs if mi.has_flag(bsdf.flags(), mi.BSDFFlags.Null)]
    hard = all(mi.has_flag(emitter.flags(), mi.EmitterFlags.Delta) for emitter in scene.emitters())
    # Delta lights take cut-outs for opaque, and the camera looks through them: up to that depth nothing is missing
    if masks and not (hard and max_depth <= 3):
        found.append(
            (
                "mask-shadow",
                f"light that passes through transparent surfaces ({_list(masks)}) on its way between other surfaces "
                "and extended lights is differentiated without the shadow that they cast",
                "model the cut-out as geometry, or use finite_difference",
            )
        )
    curved = [
        shape.id()
        for shape in scene.shapes()
        if not shape.is_mesh()
        for owner in (shape.bsdf(), shape.emitter())
        if owner is not None and jumping_textures(owner)
    ]
    curved += too_fine
    if curved:
        found.append(
            (
                "texture-jump",
                f"jumps of textures without interpolation ({_list(curved)}) are left out of the derivative",
                "use a mesh with a coarser texture, or a bilinear filter",
            )
        )
    return found


#: What is left out where surfaces pass through each other.
CROSSING_INDIRECT: Limit = (
    "crossing-indirect",
    "surfaces pass through each other, and light that others receive from beside the curve where they do is "
    "differentiated as if the curve stood still; how the camera sees the curve is part of the derivative",
    "compare with finite_difference, or set max_depth to 2",
)


def _list(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
