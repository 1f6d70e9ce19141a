"""Takes the photographs of the bundled capture: 24 views as transforms.json with PNG and alpha, and as COLMAP.

    python scenes/capture/make.py                    # photos/ beside this file, about half a minute

The box, its paint, its gloss, its place and the sky are made here and nowhere else: the job knows none of them. With
`--start` it also writes the files that the job starts from (box.ply, paint.exr, sky.exr).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
VIEWS, SIZE, SPP = 24, 48, 1024
#: Half the edges of the box, the number of texels along an edge of a face, and faces per row of the atlas.
HALF, TEXELS, ROW = (0.5, 0.35, 0.25), 16, 3
ROUGHNESS = 0.3
#: Maximum of the sky: the brightest reflection in the ball stays below white.
BRIGHTEST = 2.2


def box() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (24, 3), texture coordinates (24, 2) and faces (12, 3) of a box whose faces share no texel."""
    vertices, coordinates, faces = [], [], []
    for face in range(6):
        axis, sign = face // 2, 1 - 2 * (face % 2)
        u, v = (axis + 1) % 3, (axis + 2) % 3
        for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            corner = np.zeros(3)
            corner[axis], corner[u], corner[v] = sign, sign * a, b
            vertices.append(corner * HALF)
            column, row = face % ROW, face // ROW
            inside = 0.5 + (TEXELS - 1) * np.array([(a + 1) / 2, (b + 1) / 2])  # from texel centre to texel centre
            coordinates.append((np.array([column, row]) * TEXELS + inside) / (ROW * TEXELS, 2 * TEXELS))
        k = 4 * face
        faces += [(k, k + 1, k + 2), (k, k + 2, k + 3)]
    return np.array(vertices), np.array(coordinates), np.array(faces)


def paint() -> np.ndarray:
    """(32, 48, 3) albedo: soft blots on six grounds, and a letter-like figure on each face."""
    rng = np.random.default_rng(6)
    y, x = np.mgrid[0:TEXELS, 0:TEXELS] / (TEXELS - 1)
    faces = []
    for _ in range(6):
        face = np.ones((TEXELS, TEXELS, 3)) * rng.uniform(0.25, 0.7, 3)
        for _ in range(5):
            centre, width = rng.uniform(0, 1, 2), rng.uniform(0.1, 0.25)
            blot = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * width**2))
            face += blot[..., None] * (rng.uniform(0.1, 0.8, 3) - face)
        bar = np.exp(-(((x - 0.5) * np.cos(1.0 + len(faces)) + (y - 0.5) * np.sin(1.0 + len(faces))) ** 2) / 0.006)
        face += bar[..., None] * (rng.uniform(0.1, 0.8, 3) - face)
        faces.append(np.clip(face, 0.08, 0.85))
    return np.concatenate([np.concatenate(faces[k : k + ROW], axis=1) for k in (0, ROW)]).astype(np.float32)


def sky() -> np.ndarray:
    """(16, 32, 3) radiance: blue above, brown below, a warm sun and a cool window."""
    rows, columns = 16, 32
    theta = (np.arange(rows) + 0.5) / rows * np.pi
    phi = (np.arange(columns) + 0.5) / columns * 2 * np.pi
    t, p = np.meshgrid(theta, phi, indexing="ij")
    direction = np.stack([np.sin(t) * np.cos(p), np.cos(t), np.sin(t) * np.sin(p)], axis=-1)
    height = direction[..., 1:2]
    base = np.where(height > 0, 0.45 + 0.25 * height, 0.3) * np.where(height > 0, [0.75, 0.9, 1.15], [1.1, 0.9, 0.7])
    for where, colour, width in (((0.6, 0.55, 0.4), (2.2, 1.8, 1.2), 0.35), ((-0.8, 0.2, -0.5), (0.7, 1.0, 1.4), 0.3)):
        axis = np.array(where) / np.linalg.norm(where)
        lobe = np.exp(((direction @ axis) - 1) / width**2)
        base = base + lobe[..., None] * np.array(colour)
    return np.minimum(base, BRIGHTEST).astype(np.float32)


def cameras() -> list[Any]:
    """The 24 cameras: on a sphere from far below to high above, not quite aimed at the centre, not quite level."""
    import mitsuba as mi

    from pathtracer.capture.cameras import Camera

    rng = np.random.default_rng(24)
    out = []
    for k in range(VIEWS):
        height = -0.8 + 1.7 * (k + 0.5) / VIEWS
        angle = k * np.pi * (3 - np.sqrt(5))
        flat = np.sqrt(1 - height**2)
        origin = 3.0 * np.array([flat * np.cos(angle), flat * np.sin(angle), height]) + (0.2, 0, 0)
        target = np.array([0.2, -0.05, 0.0]) + rng.normal(0, 0.04, 3)
        up = np.array([0, 0, 1]) + rng.normal(0, 0.05, 3)
        pose = np.array(mi.ScalarTransform4f().look_at(origin.tolist(), target.tolist(), up.tolist()).matrix)
        focal = 1.75 * SIZE * rng.uniform(0.97, 1.03)
        cx, cy = SIZE / 2 + rng.normal(0, 0.5, 2)
        out.append(Camera(SIZE, SIZE, focal, focal, float(cx), float(cy), pose.reshape(4, 4)))
    return out


def truth() -> Any:
    """The scene as it was photographed."""
    import mitsuba as mi

    from pathtracer.scenes import load_scene

    scene = load_scene(FOLDER / "scene.xml")
    vertices, _, _ = box()
    texels = sky()
    scene.params["box.vertex_positions"] = mi.Float(vertices.astype(np.float32).ravel())
    scene.params["paint.base_color.data"] = mi.TensorXf(paint())
    scene.params["paint.roughness.value"] = ROUGHNESS
    scene.params["sky.data"] = mi.TensorXf(np.concatenate([texels[:, -1:], texels, texels[:, :1]], axis=1))
    scene.params.update()
    return scene


def photographs(folder: Path) -> None:
    """Write images/, transforms.json and sparse/0."""
    import mitsuba as mi

    from pathtracer.capture import write_image
    from pathtracer.capture.colmap import write_colmap
    from pathtracer.capture.shots import Capture, Shot
    from pathtracer.capture.transforms import write_transforms

    scene = truth()
    film = {"type": "hdrfilm", "pixel_format": "rgba", "component_format": "float32", "rfilter": {"type": "box"}}
    path = mi.load_dict({"type": "path", "max_depth": 4, "hide_emitters": True})
    shots = []
    for k, camera in enumerate(cameras()):
        sensor = camera.sensor()
        pose = mi.ScalarTransform4f(sensor.pop("to_world"))
        sensor = mi.load_dict({**sensor, "to_world": pose, "film": {**film, "width": SIZE, "height": SIZE}})
        image = sum(
            np.array(mi.render(scene.mi, sensor=sensor, integrator=path, spp=256, seed=1000 * k + j))
            for j in range(SPP // 256)
        ) / (SPP // 256)
        alpha = np.clip(image[..., 3:], 0, 1)
        colour = np.divide(image[..., :3], alpha, out=np.zeros_like(image[..., :3]), where=alpha > 0)  # PNG: straight
        file = write_image(folder / "images" / f"photo-{k:02d}.png", np.concatenate([colour, alpha], axis=-1))
        shots.append(Shot(file, file.stem, camera))
    capture = Capture(shots, folder)
    write_transforms(capture, folder / "transforms.json")
    write_colmap(capture, folder / "sparse" / "0")
    print(f"wrote {len(shots)} photographs of {SIZE} x {SIZE} pixels to {folder}")


def start() -> None:
    """Write the files of scene.xml."""
    from pathtracer.capture import write_image

    vertices, coordinates, faces = box()
    lines = ["ply", "format ascii 1.0", f"element vertex {len(vertices)}"]
    lines += [f"property float {name}" for name in "xyzuv"]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    rows = np.concatenate([vertices, coordinates], axis=1)
    lines += [" ".join(f"{x:.8g}" for x in row) for row in rows]
    lines += ["3 " + " ".join(map(str, face)) for face in faces]
    (FOLDER / "box.ply").write_text("\n".join(lines) + "\n", encoding="ascii")
    write_image(FOLDER / "paint.exr", np.full((2 * TEXELS, ROW * TEXELS, 3), 0.5))
    write_image(FOLDER / "sky.exr", np.full((16, 32, 3), 0.6))


def main() -> None:
    """The command line."""
    from pathtracer.runtime import activate

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=FOLDER / "photos", help="folder of the photographs")
    parser.add_argument("--start", action="store_true", help="write the files that scene.xml reads, too")
    options = parser.parse_args()
    activate()
    if options.start:
        start()
    photographs(options.output)


if __name__ == "__main__":
    main()
