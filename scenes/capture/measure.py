"""How near a run came to what was photographed, one line a quantity: `python scenes/capture/measure.py runs/capture`.

Texels count when a fitted view sees them. PSNR is 10 log10(peak² / mean squared error), with peak 1 for the paint and
the linear pictures (black around the cut-out as in the job), and the brightest texel for the sky.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
import make


def psnr(found: np.ndarray, known: np.ndarray, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB."""
    return float(10 * np.log10(peak**2 / np.mean((np.asarray(found, float) - known) ** 2)))


def seen_texels(scene: Any, cameras: list[Any]) -> np.ndarray:
    """(32, 48) whether a camera sees the texel of the box, by 8 x 8 rays a pixel."""
    import mitsuba as mi

    seen = np.zeros(make.paint().shape[:2], bool)
    box = next(s for s in scene.mi.shapes() if s.id() == "box")
    for camera in cameras:
        at = (np.arange(8 * camera.width) + 0.5) / 8
        x, y = (a.ravel() for a in np.meshgrid(at, at))
        local = np.stack([(camera.cx - x) / camera.fx, (camera.cy - y) / camera.fy, np.ones_like(x)])
        direction = camera.to_world[:3, :3] @ (local / np.linalg.norm(local, axis=0))
        ray = mi.Ray3f(mi.Point3f(camera.position.tolist()), mi.Vector3f(direction.astype(np.float32)))
        hit = scene.mi.ray_intersect(ray)
        on = np.array(hit.is_valid() & (hit.shape == mi.ShapePtr(box)))
        u, v = np.array(hit.uv)[:, on]
        row = np.clip(((1 - v) * seen.shape[0]).astype(int), 0, seen.shape[0] - 1)
        seen[row, np.clip((u * seen.shape[1]).astype(int), 0, seen.shape[1] - 1)] = True
    return seen


def measure(run: Path) -> dict[str, float]:
    """All figures of a run folder."""
    from safetensors.numpy import load_file

    values = load_file(run / "result" / "values.safetensors")
    scene, cameras = make.truth(), make.cameras()
    held = [k for k in range(len(cameras)) if k % 6 == 0]
    seen = seen_texels(scene, [c for k, c in enumerate(cameras) if k not in held])
    vertices, _, _ = make.box()
    moved = values["box.vertex_positions"].reshape(-1, 3)
    u, _, vt = np.linalg.svd((moved - moved.mean(0)).T @ (vertices - vertices.mean(0)))
    turn = np.degrees(np.arccos(np.clip((np.trace(u @ vt) - 1) / 2, -1, 1)))
    sky = values["sky.data"][:, 1:-1]
    return {
        "paint_psnr_db": psnr(values["paint.base_color.data"][seen], make.paint()[seen]),
        "texels_seen": int(seen.sum()),
        "texels": int(seen.size),
        "roughness": float(values["paint.roughness.value"].ravel()[0]),
        "roughness_truth": make.ROUGHNESS,
        "box_offset": float(np.linalg.norm(moved.mean(0) - vertices.mean(0))),
        "box_turn_degrees": float(turn),
        "sky_psnr_db": psnr(sky, make.sky(), float(make.sky().max())),
        **views(run),
    }


def views(run: Path) -> dict[str, float]:
    """PSNR of the pictures of a run against the photographs, linear: fitted ones and held-out ones."""
    from pathtracer.capture import read_image

    found: dict[str, float] = {}
    for kind in ("fitted", "heldout"):
        errors = []
        for view in json.loads((run / "views" / "views.json").read_text()):
            if view["holdout"] == (kind == "heldout"):
                folder = run / "views" / view["folder"]
                result, target = (read_image(folder / f"{name}.exr")[0] for name in ("result", "target"))
                errors.append(np.mean((result - target) ** 2))
        found[f"{kind}_psnr_db"] = float(10 * np.log10(1 / np.mean(errors)))
    return found


def main() -> None:
    """The command line."""
    from pathtracer.runtime import activate

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    activate()
    for name, value in measure(parser.parse_args().run).items():
        print(f"{name:20} {value:.4g}")


if __name__ == "__main__":
    main()
