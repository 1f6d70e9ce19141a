"""Arbitrary output variables: what the camera meets first, as further channels of the image.

Types, channels and their order are those of Mitsuba's `aov` integrator, whose derivative leaves out what becomes
visible. As functions of the film they jump where radiance does (outlines, creases, seams, curves where surfaces pass
through each other), so that the same samples carry both; what would jump elsewhere is refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import drjit as dr
import mitsuba as mi

from .attached import still_at_limb
from .errors import UnsupportedGradient


def _albedo(si: mi.SurfaceInteraction3f, valid: mi.Bool) -> list[mi.Float]:
    value = si.bsdf().eval_diffuse_reflectance(si, valid)
    return [value.x] * 3 if mi.is_monochromatic else list(value)


#: Type -> the suffixes of its channels, and its value at a hit; depth is a distance from the camera, see `values`.
TYPES: dict[str, tuple[str, Callable[[mi.SurfaceInteraction3f, mi.Bool], list[mi.Float]]]] = {
    "albedo": ("RGB", _albedo),
    "depth": ("T", lambda si, _: [si.t]),
    "position": ("XYZ", lambda si, _: list(si.p)),
    "uv": ("UV", lambda si, _: list(si.uv)),
    "sh_normal": ("XYZ", lambda si, _: list(si.sh_frame.n)),
    "shape_index": ("I", lambda si, _: [mi.Float(dr.reinterpret_array(mi.UInt32, si.shape))]),
}

#: Types of Mitsuba's integrator that jump at every edge of a mesh, or mean nothing as a derivative.
_LEFT_OUT = ("geo_normal", "dp_du", "dp_dv", "duv_dx", "duv_dy", "prim_index", "boundary_test")


class Aovs:
    """The variables that an integrator was asked for.

    Args:
        text: `name:type` pairs separated by commas, as of Mitsuba's `aov` integrator ("dd:depth,nn:sh_normal").

    Attributes:
        names: of the channels ("dd.T", "nn.X", ...).

    Raises:
        ValueError: no such type.
    """

    def __init__(self, text: str) -> None:
        self.types: list[str] = []
        self.names: list[str] = []
        for pair in filter(None, (part.strip() for part in text.split(","))):
            name, colon, kind = pair.partition(":")
            if not (name and colon and kind):
                raise ValueError(f"aovs: {pair!r} is not name:type")
            if kind not in TYPES:
                raise ValueError(f"aovs: {_why_not(kind)}, one of {', '.join(TYPES)}")
            self.types.append(kind)
            self.names += [f"{name}.{suffix}" for suffix in TYPES[kind][0]]
        if "albedo" in self.types and mi.is_spectral:
            raise ValueError("aovs: no albedo in spectral variants; use an rgb variant")

    def values(self, scene: mi.Scene, ray: mi.Ray3f, eye: mi.Point3f, active: Any = True) -> list[mi.Float]:
        """What rays meet, attached to the surface and the ray: one (N,) array for each channel, 0 where they escape.

        Args:
            eye: (N,) where depth is measured from: the origin of the camera ray.
        """
        if not self.types:
            return []
        pi = scene.ray_intersect_preliminary(dr.detach(ray), coherent=False, active=active)
        si = still_at_limb(pi.compute_surface_interaction(ray, mi.RayFlags.All, active), ray.d)
        valid = active & si.is_valid()
        si.t = dr.norm(si.p - eye)
        found = [value for kind in self.types for value in TYPES[kind][1](si, valid)]
        return [dr.select(valid, value, 0) for value in found]

    def require_known_jumps(self, scene: mi.Scene) -> None:
        """Refuse uv where they jump within a surface: along the seam of a round shape, or at every edge of a bare mesh.

        Raises:
            UnsupportedGradient: something moves, and there is such a shape.
        """
        for shape in scene.shapes() if "uv" in self.types else []:
            if not (isinstance(shape, mi.Mesh) and shape.has_vertex_texcoords()):
                raise UnsupportedGradient(
                    f"the uv of {shape.id()} jump within its surface, and of these jumps no samples are taken",
                    remedy="leave uv out of the aovs, or use meshes with texture coordinates",
                )


def _why_not(kind: str) -> str:
    if kind in _LEFT_OUT:
        return f"{kind} jumps at edges where nothing else does and has no derivative here"
    close = difflib.get_close_matches(kind, [*TYPES, *_LEFT_OUT], 1)
    return f"there is no {kind!r}" + (f", did you mean {close[0]!r}?" if close else "")


def widened(image: mi.TensorXf, channels: int) -> mi.TensorXf:
    """A derivative image of the colours alone, with channels of zeros behind them."""
    height, width, have = image.shape
    if have == channels:
        return image
    return dr.concat((image, dr.zeros(mi.TensorXf, (height, width, channels - have))), axis=2)
