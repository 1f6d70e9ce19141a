"""What `doctor` runs in a process of its own: an EXR round trip, a render and a gradient with known answers.

The scene is a white furnace: a convex diffuse object of reflectance ρ under a constant environment of radiance 1 has
radiance ρ everywhere, whatever the sampling, and dL/dρ = 1. Prints one JSON object per check: {"name", "ok", "detail"}.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from .threads import file_threads

REFLECTANCE = 0.5
#: 1024 pixels x 64 samples; the noise of the mean is below 1e-3
SPP = 64


def exr_round_trip() -> str:
    """Write and read an image; returns what was checked."""
    import mitsuba as mi
    import numpy as np

    image = np.random.default_rng(0).random((8, 8, 3), dtype=np.float32) * 100
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.exr"
        with file_threads():
            mi.Bitmap(image).write(str(path))
            back = np.array(mi.Bitmap(str(path)))
    if not np.array_equal(image, back):
        raise ValueError(f"read back other values (largest difference {abs(image - back).max():.3g})")
    return "8x8 float32, bit for bit"


def furnace():  # type: ignore[no-untyped-def]
    """The scene described above, 32x32 pixels."""
    import mitsuba as mi

    film = {"type": "hdrfilm", "width": 32, "height": 32, "rfilter": {"type": "box"}}
    return mi.load_dict(
        {
            "type": "scene",
            "sensor": {"type": "perspective", "fov": 20, "film": film},
            "light": {"type": "constant", "radiance": {"type": "rgb", "value": 1.0}},
            "ball": {
                "type": "sphere",
                "center": [0, 0, 5],
                "radius": 3,
                "bsdf": {"type": "diffuse", "reflectance": {"type": "rgb", "value": REFLECTANCE}},
            },
        },
        optimize=False,
    )


def small_render() -> str:
    """Render the furnace; returns its mean against the closed form."""
    import mitsuba as mi
    import numpy as np

    mean = float(
        np.mean(np.array(mi.render(furnace(), spp=SPP, integrator=mi.load_dict({"type": "path", "max_depth": 3}))))
    )
    if not abs(mean - REFLECTANCE) < 0.01 * REFLECTANCE:
        raise ValueError(f"the mean is {mean:.4f}, the exact value {REFLECTANCE}")
    return f"32x32, mean {mean:.4f}, exact {REFLECTANCE}"


def gradient() -> str:
    """Derivative of the mean by reflectance against a central finite difference with equal seeds."""
    import drjit as dr
    import mitsuba as mi

    import integrators

    name = "path_replay" if "path_replay" in integrators.ESTIMATORS else "prb"
    scene = furnace()
    params = mi.traverse(scene)
    key = next(k for k in dict(params) if k.endswith("reflectance.value"))
    integrator = mi.load_dict({"type": name, "max_depth": 3})

    def mean(value: float) -> float:
        params[key] = mi.Color3f(value)
        params.update()
        return float(dr.mean(mi.render(scene, spp=SPP, seed=1, integrator=integrator), axis=None).array[0])

    step = 0.125
    difference = (mean(REFLECTANCE + step) - mean(REFLECTANCE - step)) / (2 * step)
    params[key] = mi.Color3f(REFLECTANCE)
    dr.enable_grad(params[key])
    params.update()
    image = mi.render(scene, params, spp=SPP, seed=1, seed_grad=2, integrator=integrator)
    dr.backward(dr.mean(image, axis=None))
    derivative = sum(float(channel[0]) for channel in dr.grad(params[key]))
    if not abs(derivative - difference) < 0.02 * abs(difference):
        raise ValueError(f"{name} gives {derivative:.4f}, the finite difference is {difference:.4f}")
    return f"{name} {derivative:.4f}, finite difference {difference:.4f}"


CHECKS: dict[str, Callable[[], str]] = {"EXR": exr_round_trip, "render": small_render, "gradient": gradient}


def main() -> int:
    """Run every check, one JSON line each."""
    from pathtracer.runtime import activate

    activate(sys.argv[1] if len(sys.argv) > 1 else "auto")
    for name, check in CHECKS.items():
        try:
            ok, detail = True, check()
        except Exception as error:
            ok, detail = False, f"{type(error).__name__}: {' '.join(str(error.__cause__ or error).split())[:200]}"
        print(json.dumps({"name": name, "ok": ok, "detail": detail}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
