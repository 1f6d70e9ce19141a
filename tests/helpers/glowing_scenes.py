"""Scenes in which everything that is seen glows: visibility from the camera decides the picture, and nothing else."""

from __future__ import annotations

import mitsuba as mi
import numpy as np


def T() -> mi.ScalarTransform4f:
    """The identity, to chain transforms on."""
    return mi.ScalarTransform4f()


def texture() -> dict:
    pixels = 0.5 + np.random.default_rng(1).random((4, 4, 3)).astype(np.float32)
    return {"type": "area", "radiance": {"type": "bitmap", "bitmap": mi.Bitmap(pixels), "raw": True}}


SHAPES = {
    "cube": lambda: {"type": "cube", "to_world": T().rotate([0, 1, 0], 30).scale(0.6)},
    "sphere": lambda: {"type": "sphere", "radius": 0.8},
    "rectangle": lambda: {"type": "rectangle", "to_world": T().rotate([0, 1, 0], 30).scale(0.8)},
    "disk": lambda: {"type": "disk", "to_world": T().rotate([0, 1, 0], 30).scale(0.8)},
    "cylinder": lambda: {"type": "cylinder", "p0": [-0.5, -0.3, 0], "p1": [0.6, 0.4, 0.2], "radius": 0.4},
}


def glowing(kind: str, rfilter: str = "gaussian") -> dict:
    """A glowing textured object before a glowing wall: visibility from the camera and nothing else."""
    return {
        "type": "scene",
        "sensor": {
            "type": "perspective", "fov": 40, "to_world": T().look_at([0.6, 1.2, 4], [0, 0, 0], [0, 1, 0]),
            "film": {
                "type": "hdrfilm", "width": 12, "height": 12, "pixel_format": "rgb", "component_format": "float32",
                "rfilter": {"type": rfilter},
            },
        },
        "shape": SHAPES[kind]() | {"emitter": texture()},
        "wall": {
            "type": "rectangle", "to_world": T().translate([0, 0, -2]).scale(6),
            "emitter": {"type": "area", "radiance": {"type": "rgb", "value": [0.2, 0.3, 0.4]}},
        },
    }  # fmt: skip
