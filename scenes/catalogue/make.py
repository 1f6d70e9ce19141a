"""Writes the meshes, curves and textures of the catalogue: `python scenes/catalogue/make.py`, only to change them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent


def write_ply(name: str, vertices: np.ndarray, faces: Sequence[Sequence[int]] | np.ndarray) -> None:
    """A text PLY without normals: Mitsuba computes them (or uses face normals where the scene says so)."""
    lines = ["ply", "format ascii 1.0", f"element vertex {len(vertices)}"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    lines += [" ".join(f"{x:.6g}" for x in v) for v in vertices]
    lines += ["3 " + " ".join(map(str, f)) for f in faces]
    (FOLDER / name).write_text("\n".join(lines) + "\n", encoding="ascii")


def write_binary_ply(name: str, vertices: np.ndarray, faces: np.ndarray) -> None:
    """The same as a binary file, for large meshes."""
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    records = np.empty(len(faces), dtype=[("count", "u1"), ("corners", "<i4", 3)])
    records["count"], records["corners"] = 3, faces
    data = "\n".join(header).encode("ascii") + vertices.astype("<f4").tobytes() + records.tobytes()
    (FOLDER / name).write_bytes(data)


def box(low: Sequence[float], high: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Eight corners, twelve triangles that face outwards."""
    corners = np.array([[(low, high)[(i >> a) & 1][a] for a in range(3)] for i in range(8)], dtype=float)
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    faces = [t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]
    return corners, np.array(faces)


def turn(vertices: np.ndarray, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    """Rotation by angles in degrees about x, then y, then z."""
    for axis, angle in enumerate(np.radians((x, y, z))):
        c, s = np.cos(angle), np.sin(angle)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        matrix = np.eye(3)
        matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
        vertices = vertices @ matrix.T
    return vertices


def icosphere(subdivisions: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit sphere of triangles."""
    g = (1 + 5**0.5) / 2
    points = [(-1, g, 0), (1, g, 0), (-1, -g, 0), (1, -g, 0), (0, -1, g), (0, 1, g)]
    points += [(0, -1, -g), (0, 1, -g), (g, 0, -1), (g, 0, 1), (-g, 0, -1), (-g, 0, 1)]
    faces = [(0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11), (1, 5, 9), (5, 11, 4), (11, 10, 2), (10, 7, 6)]
    faces += [(7, 1, 8), (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9), (4, 9, 5), (2, 4, 11), (6, 2, 10)]
    faces += [(8, 6, 7), (9, 8, 1)]
    vertices = [np.array(p) / np.linalg.norm(p) for p in points]
    for _ in range(subdivisions):
        middle: dict[tuple[int, int], int] = {}

        def between(a: int, b: int, middle: dict[tuple[int, int], int] = middle) -> int:
            key = (min(a, b), max(a, b))
            if key not in middle:
                m = vertices[a] + vertices[b]
                vertices.append(m / np.linalg.norm(m))
                middle[key] = len(vertices) - 1
            return middle[key]

        split = []
        for a, b, c in faces:
            ab, bc, ca = between(a, b), between(b, c), between(c, a)
            split += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        faces = split
    return np.array(vertices), np.array(faces)


def main() -> None:
    """Write everything."""
    v, f = box((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5))
    write_ply("cube.ply", turn(v, 25, 35, 10), f)
    v, f = icosphere(2)
    write_ply("sphere.ply", 0.6 * turn(v, 7, 11, 13), f)
    fine, triangles = icosphere(4)
    write_binary_ply("sphere-fine.ply", 0.6 * turn(fine, 7, 11, 13), triangles)
    # An open bowl: the lower part of the sphere, turned so that the camera sees into it
    centre = v[f].mean(1)
    keep = f[centre[:, 1] < 0.2]
    used, renumbered = np.unique(keep, return_inverse=True)
    write_ply("bowl.ply", 0.7 * turn(v[used], 35, 0, 12), renumbered.reshape(keep.shape))
    quad = np.array([(-0.5, -0.4, 0), (0.5, -0.4, 0), (0.5, 0.4, 0), (-0.5, 0.4, 0)])
    write_ply("quad.ply", turn(quad, 20, 25, 12), [(0, 1, 2), (0, 2, 3)])
    write_ply("blocker.ply", 0.6 * turn(quad, -90, 20, 0) + [0.0, 0.9, 0.0], [(0, 1, 2), (0, 2, 3)])
    # A step, one mesh: its tall part shades its low part
    low, fl = box((-0.7, -0.4, -0.4), (0.7, -0.15, 0.4))
    tall, ft = box((-0.6, -0.15, -0.3), (-0.2, 0.6, 0.3))
    write_ply("step.ply", turn(np.concatenate([low, tall]), 0, -25, 0), np.concatenate([fl, ft + 8]))
    curve = [(-1.6, -0.9, 0.0), (-0.9, -0.5, 0.1), (-0.2, 0.6, 0.0), (0.5, -0.2, -0.1)]
    curve += [(1.0, 0.5, 0.0), (1.7, 0.9, 0.1)]
    lines = [" ".join(f"{x:g}" for x in (*p, 0.12)) for p in curve]
    (FOLDER / "curve.txt").write_text("\n".join(lines) + "\n", encoding="ascii")
    write_textures()


def write_textures() -> None:
    """8 × 8 smooth colours, a 4 × 4 cut-out, a normal map and a sky, as EXR (linear, no 8-bit rounding)."""
    import mitsuba as mi

    mi.set_variant("llvm_ad_rgb")
    rng = np.random.default_rng(5)

    def write(name: str, pixels: np.ndarray) -> None:
        mi.Bitmap(pixels.astype(np.float32)).write(str(FOLDER / name))

    write("texels.exr", rng.uniform(0.15, 0.85, (8, 8, 3)))
    cut = np.ones((4, 4, 1))
    cut[1, 1:3] = cut[2, 2] = 0
    write("cutout.exr", cut)
    write("soft.exr", rng.uniform(0.2, 0.8, (4, 4, 1)))  # opacities away from 0 and 1, where Mitsuba clamps
    y, x = np.mgrid[0:8, 0:8] / 8 * 2 * np.pi
    normal = np.stack([0.25 * np.sin(x), 0.25 * np.cos(y), np.ones_like(x)], axis=-1)
    write("normals.exr", 0.5 + 0.5 * normal / np.linalg.norm(normal, axis=-1, keepdims=True))
    rows, columns = np.mgrid[0:8, 0:16]
    sky = 0.3 + 0.2 * rng.uniform(size=(8, 16, 3))
    sky += 4 * np.exp(-((rows - 2.5) ** 2 + (columns - 6) ** 2) / 3)[..., None] * [1.0, 0.8, 0.5]
    write("sky.exr", sky)


if __name__ == "__main__":
    main()
