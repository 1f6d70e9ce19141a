"""Cameras around a point, pictures for them, and the numbers of one camera written down by hand in each convention."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import numpy as np

from pathtracer.capture.cameras import Camera
from pathtracer.capture.shots import Capture, Shot

#: A camera at (0, -4, 1) that looks along +y with z up: columns right/left, up/down, backward/forward, position.
BY_HAND = {
    "opengl": [[1, 0, 0, 0], [0, 0, -1, -4], [0, 1, 0, 1], [0, 0, 0, 1]],
    "opencv": [[1, 0, 0, 0], [0, 0, 1, -4], [0, -1, 0, 1], [0, 0, 0, 1]],
    "mitsuba": [[-1, 0, 0, 0], [0, 0, 1, -4], [0, 1, 0, 1], [0, 0, 0, 1]],
}


def look_at(origin: np.ndarray, target: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Camera-to-world in Mitsuba's axes: x left, y up, z forward."""
    z = (target - origin) / np.linalg.norm(target - origin)
    x = np.cross(up, z)
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([x, np.cross(z, x), z], axis=-1)
    pose[:3, 3] = origin
    return pose


def ring(
    count: int = 6, size: tuple[int, int] = (32, 24), target: tuple[float, float, float] = (1, 2, 0)
) -> list[Camera]:
    """Cameras on a circle at a height of 2 and a distance of 5 about `target`, with lenses of their own."""
    rng = np.random.default_rng(3)
    out = []
    for k in range(count):
        angle = 2 * np.pi * k / count + 0.1
        centre = np.array(target, float)
        origin = centre + np.array([5 * np.cos(angle), 5 * np.sin(angle), 2])
        f = float(rng.uniform(34, 38))
        cx, cy = (float(s / 2 + rng.uniform(-2, 2)) for s in size)
        out.append(Camera(*size, f, f, cx, cy, look_at(origin, centre, np.array([0, 0, 1.0]))))
    return out


def photographed(folder: Path, cameras: list[Camera], alpha: bool = False) -> Capture:
    """PNG files for cameras: noise; with alpha, the silhouette of a lopsided body of three balls about (1, 2, 0)."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    shots = []
    for k, camera in enumerate(cameras):
        image = rng.integers(40, 200, (camera.height, camera.width, 3)).astype(np.uint8)
        if alpha:
            shape = silhouette(camera)[..., None].astype(np.uint8) * 255
            image = np.concatenate([image, shape], axis=-1)
        file = folder / "images" / f"photo {k}.png"
        iio.imwrite(file, image)
        shots.append(Shot(file, file.stem, camera))
    return Capture(shots, folder)


def silhouette(camera: Camera) -> np.ndarray:
    """(H, W) True where a ray through the pixel's centre meets a ball."""
    y, x = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
    local = np.stack([(camera.cx - x) / camera.fx, (camera.cy - y) / camera.fy, np.ones_like(x)], axis=-1)
    d = local @ camera.to_world[:3, :3].T
    d /= np.linalg.norm(d, axis=-1, keepdims=True)
    hit = np.zeros(x.shape, bool)
    for centre, radius in (((1.0, 2.0, 0.0), 0.5), ((1.8, 2.2, 0.5), 0.4), ((1.0, 1.0, 0.9), 0.3)):
        to = np.array(centre) - camera.position
        along = d @ to
        hit |= (to @ to - along**2 < radius**2) & (along > 0)
    return hit
