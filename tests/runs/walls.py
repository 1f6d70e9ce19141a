"""A picture of a painted wall, and jobs that recover the paint and the lamp: small enough for a test, complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

SCENE = """<scene version="3.0.0">
  <integrator type="path"><integer name="max_depth" value="2"/></integrator>
  <sensor type="perspective"><float name="fov" value="30"/>
    <transform name="to_world"><lookat origin="0,0,3" target="0,0,0" up="0,1,0"/></transform>
    <film type="hdrfilm"><integer name="width" value="12"/><integer name="height" value="10"/><rfilter type="box"/>
      <string name="pixel_format" value="rgb"/></film></sensor>
  <emitter type="point" id="lamp"><point name="position" x="0" y="0.5" z="3"/>
    <rgb name="intensity" value="9,8,7"/></emitter>
  <shape type="rectangle" id="wall">
    <bsdf type="diffuse" id="paint"><texture type="bitmap" name="reflectance">
      <string name="filename" value="paint.exr"/><boolean name="raw" value="true"/></texture></bsdf></shape>
</scene>"""
PAINT, LAMP = "wall.bsdf.reflectance.data", "lamp.intensity.value"


def write_walls(folder: Path) -> Path:
    """Write scene, texture and photograph into `folder`; returns the scene's file."""
    from pathtracer.capture import write_image
    from pathtracer.scenes import load_scene

    y, x = np.mgrid[:6, :8] / 8
    write_image(folder / "paint.exr", np.stack([0.2 + 0.6 * x, 0.3 + 0.5 * y, 0.5 + 0 * x], -1).astype(np.float32))
    (folder / "wall.xml").write_text(SCENE)
    write_image(folder / "photo.exr", load_scene(folder / "wall.xml").render(spp=64, seed=5))
    return folder / "wall.xml"


def job(folder: Path, iterations: int = 20, **tables: dict[str, Any]) -> Any:
    """A job for `execute` that starts from grey paint; `tables` add to it."""
    from pathtracer.inverse.job import make_job

    data: dict[str, Any] = {
        "scene": {"file": str(folder / "wall.xml")},
        "views": {"images": [str(folder / "photo.exr")]},
        "parameter": [{"key": PAINT, "init": 0.5, "truth": "scene"}, {"key": LAMP, "init": 5.0}],
        "estimator": {"spp": 2},
        "solver": {"name": "adam", "iterations": iterations},
        "run": {"checkpoint": 5, "deterministic": True},
        "report": {"spp": 4, "export": False},
    }
    for name, table in tables.items():
        data[name] = data.get(name, {}) | table
    return make_job(data)
