"""Does stock Mitsuba see the exported scene as we do? A new process renders it, and the images are compared.

Both sides render with the same integrator and the same seed, so that they should agree but for rounding. Two thresholds
tell agreement from luck: the difference has to be small against the noise (the difference between two seeds), and the
mean of the image has to agree.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathtracer.errors import InputError

from .parameters import as_array

if TYPE_CHECKING:
    from .scene import Scene

#: Samples of one comparison (pixels x samples per pixel), at most.
_BUDGET = 2**20
#: Largest mean difference, as a fraction of the mean difference between two seeds.
NOISE_FRACTION = 0.05
#: Largest difference of the means of both images, relative.
MEAN_TOLERANCE = 2e-3

# Nothing but stock Mitsuba: no module of this project is imported.
_PROGRAM = """
import json, sys
import numpy as np
import mitsuba as mi
job = json.load(sys.stdin)
mi.set_variant(job["variant"])
scene = mi.load_file(job["path"], optimize=False)
integrator = mi.load_dict(job["integrator"])
images = [
    np.array(mi.render(scene, sensor=i, integrator=integrator, spp=job["spp"], seed=job["seed"]))
    for i in range(job["sensors"])
]
np.savez(job["output"], *images)
"""


@dataclass(frozen=True)
class ExportCheck:
    """How far the exported scene's image is from ours.

    Attributes:
        mean: mean absolute difference of pixels.
        maximum: largest absolute difference.
        noise: mean absolute difference between two seeds of our own image.
        brightness: mean of our image.
    """

    mean: float
    maximum: float
    noise: float
    brightness: float

    @property
    def agrees(self) -> bool:
        """Whether the difference is rounding and not another scene."""
        return self.mean <= NOISE_FRACTION * self.noise + 1e-5 * self.brightness + 1e-9


def verify_export(
    scene: Scene,
    path: str | Path,
    values: Mapping[str, Any] | None = None,
    *,
    spp: int = 0,
    seed: int = 1,
    timeout: float = 600,
) -> ExportCheck:
    """Render an exported scene with stock Mitsuba in a new process and compare with ours.

    Args:
        scene: the scene that was exported.
        path: the exported XML file, or its folder.
        values: the exported values; they are set in a fresh copy of the scene, so that whatever else was changed in
            `scene.params` (lights that are switched off) does not matter. None: `scene` as it stands.
        spp: samples per pixel; 0 chooses by the size of the film.
        seed: of both renders.
        timeout: seconds for the new process.

    Raises:
        InputError: stock Mitsuba cannot load the export, or shows another image.
    """
    path = Path(path)
    if path.is_dir():
        path = path / (scene.path.name if scene.path is not None else "scene.xml")
    width, height = scene.sensor(0).film().crop_size()
    spp = spp or max(1, min(16, _BUDGET // max(1, int(width) * int(height))))
    sensors = min(len(scene.mi.sensors()), 4)
    integrator = _stock_integrator(scene)
    theirs = _render_in_new_process(path, integrator, spp, seed, sensors, timeout)
    if values is not None:
        scene = scene.fresh()
        for key, value in values.items():
            scene.params[key] = to_scene_value(value, scene.params[key])
        scene.params.update()
    ours = [_render(scene, integrator, i, spp, seed) for i in range(sensors)]
    other = [_render(scene, integrator, i, spp, seed + 1) for i in range(sensors)]
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a.shape != b.shape:
            raise InputError(f"stock Mitsuba renders sensor {i} with shape {b.shape}, we with {a.shape}", where=path)
    check = ExportCheck(
        mean=float(np.mean([np.abs(a - b).mean() for a, b in zip(ours, theirs, strict=True)])),
        maximum=float(max(np.abs(a - b).max() for a, b in zip(ours, theirs, strict=True))),
        noise=float(np.mean([np.abs(a - b).mean() for a, b in zip(ours, other, strict=True)])),
        brightness=float(np.mean([np.abs(a).mean() for a in ours])),
    )
    if not check.agrees:
        raise InputError(
            f"stock Mitsuba shows another image than ours: mean difference {check.mean:.3g} at a noise of "
            f"{check.noise:.3g} and a brightness of {check.brightness:.3g}",
            where=path,
            remedy="a parameter was lost in the export; please report it with the scene",
        )
    return check


def _stock_integrator(scene: Scene) -> dict[str, Any]:
    """Mitsuba's own path tracer with the depths of the scene file."""
    media = any(scene.graph.plugin(i) in ("homogeneous", "heterogeneous") for i in range(1, len(scene.graph)))
    return {"type": "volpath" if media else "path", **scene.default_integrator()}


def _render(scene: Scene, integrator: dict[str, Any], sensor: int, spp: int, seed: int) -> np.ndarray:
    import mitsuba as mi

    image = mi.render(scene.mi, sensor=sensor, integrator=mi.load_dict(integrator), spp=spp, seed=seed)
    return np.array(image, dtype=np.float64)


def to_scene_value(value: Any, like: Any) -> Any:
    """An array (of `as_array`'s shape) as the type that a parameter has."""
    import drjit as dr

    if type(value) is type(like):
        return value
    array = as_array(value)
    if array is None:
        return value
    kind = type(like)
    if isinstance(like, bool | int | float):
        return kind(array.reshape(-1)[0])
    if "Transform" in kind.__name__:
        matrix_type = type(like.matrix)
        return kind(matrix_type(array.tolist()))
    if dr.is_tensor_v(like):
        if array.shape[1] == like.shape[1] - 2:
            from .textures import add_pad_columns

            array = add_pad_columns(array)
        return kind(array.astype(np.float32))
    if dr.depth_v(like) > 1:
        return kind([float(v) for v in array.reshape(-1)])
    return kind(array.reshape(-1).tolist() if array.ndim else float(array))


def _render_in_new_process(
    path: Path, integrator: dict[str, Any], spp: int, seed: int, sensors: int, timeout: float
) -> list[np.ndarray]:
    import json

    import mitsuba as mi

    with tempfile.TemporaryDirectory(prefix="pathtracer-export-") as folder:
        output = Path(folder) / "images.npz"
        job = {
            "path": str(path.absolute()),  # the new process works in another folder
            "variant": mi.variant(),
            "integrator": integrator,
            "spp": spp,
            "seed": seed,
            "sensors": sensors,
            "output": str(output),
        }
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(_site_packages())}
        try:
            done = subprocess.run(
                [sys.executable, "-c", _PROGRAM],
                input=json.dumps(job),
                text=True,
                capture_output=True,
                timeout=timeout,
                env=environment,
                cwd=folder,
            )
        except subprocess.TimeoutExpired as error:
            raise InputError(f"stock Mitsuba did not render the export within {timeout:g} s", where=path) from error
        if done.returncode != 0:
            raise InputError(f"stock Mitsuba cannot render the export: {_said(done)}", where=path)
        with np.load(output, allow_pickle=False) as images:
            return [images[name].astype(np.float64) for name in images.files]


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """The error that came first: Dr.Jit wraps the cause in another one."""
    lines = done.stderr.strip().splitlines()
    errors = [line for line in lines if line.partition(":")[0].endswith(("Error", "Exception"))]
    return (errors or lines[-1:] or [f"exit code {done.returncode}"])[0]


def _site_packages() -> list[str]:
    """Where this interpreter found Mitsuba: the new process must find the same one."""
    import drjit
    import mitsuba

    return sorted({str(Path(m.__file__).parent.parent) for m in (mitsuba, drjit)})
