"""Writes the problem "which shape is this?": sixteen pictures of the low-resolution Stanford bunny, and a job that
starts from a sphere.

    python scenes/sphere-to-bunny/make.py BUNNY.ply OUT && pathtracer estimate OUT/job.toml
    python scenes/sphere-to-bunny/make.py BUNNY.ply OUT --compare RUN      # Chamfer distances, before and after
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

VIEWS, SIZE = 16, 48
#: Of the sphere, which has edges of a pixel's length (level 4): longer ones cannot grow ears.
RADIUS = 0.8
SCENE = """<scene version="3.0.0">
  <!-- A grey body under coloured lamps from three sides, so that shading tells which way the surface faces. -->
  <default name="mesh" value="sphere.ply"/>
  <integrator type="path"><integer name="max_depth" value="2"/></integrator>
  <sensor type="perspective">
    <float name="fov" value="38"/>
    <transform name="to_world"><lookat origin="0,0,4" target="0,0,0" up="0,1,0"/></transform>
    <film type="hdrfilm"><integer name="width" value="48"/><integer name="height" value="48"/>
      <string name="pixel_format" value="rgb"/><rfilter type="box"/></film>
  </sensor>
  <emitter type="constant"><rgb name="radiance" value="0.05"/></emitter>
  <emitter type="directional" id="red"><vector name="direction" x="-1" y="-0.6" z="-0.4"/>
    <rgb name="irradiance" value="2.4,0.4,0.2"/></emitter>
  <emitter type="directional" id="green"><vector name="direction" x="0.9" y="-0.5" z="-0.8"/>
    <rgb name="irradiance" value="0.3,2.4,0.4"/></emitter>
  <emitter type="directional" id="blue"><vector name="direction" x="0.1" y="0.4" z="1"/>
    <rgb name="irradiance" value="0.3,0.4,2.4"/></emitter>
  <shape type="ply" id="body">
    <string name="filename" value="$mesh"/>
    <bsdf type="twosided"><bsdf type="diffuse"><rgb name="reflectance" value="0.7"/></bsdf></bsdf>
  </shape>
</scene>
"""
JOB = """# The vertices of a sphere move until sixteen pictures fit.

[scene]
file = "scene.xml"

[views]
images = [
{images}
]
batch = 4

[[parameter]]
key = "body.vertex_positions"
space = "large-steps"
smooth = 6.0
lr = 0.1

[estimator]
name = "edge_sampling"
spp = 8

[solver]
name = "adam"
iterations = 420
stop = "never"

[report]
spp = 32
"""


def icosphere(level: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) on the unit sphere, faces (F, 3): an icosahedron, each triangle split in four `level` times."""
    g = (1 + 5**0.5) / 2
    v = [(-1, g, 0), (1, g, 0), (-1, -g, 0), (1, -g, 0), (0, -1, g), (0, 1, g), (0, -1, -g), (0, 1, -g)]
    points = [np.array(p) / np.hypot(1, g) for p in [*v, (g, 0, -1), (g, 0, 1), (-g, 0, -1), (-g, 0, 1)]]
    text = (
        "0 11 5 0 5 1 0 1 7 0 7 10 0 10 11 1 5 9 5 11 4 11 10 2 10 7 6 7 1 8 3 9 4 3 4 2 3 2 6 3 6 8 3 8 9 4 9 5 2 4 11"
    )
    faces = np.array([int(n) for n in (text + " 6 2 10 8 6 7 9 8 1").split()]).reshape(-1, 3)
    for _ in range(level):
        middles: dict[tuple[int, int], int] = {}

        def middle(a: int, b: int, known: dict[tuple[int, int], int] = middles) -> int:
            edge = (min(a, b), max(a, b))
            if edge not in known:
                known[edge] = len(points)
                points.append((points[a] + points[b]) / np.linalg.norm(points[a] + points[b]))
            return known[edge]

        split = [(a, b, c, middle(a, b), middle(b, c), middle(c, a)) for a, b, c in faces]
        faces = np.array([t for a, b, c, d, e, f in split for t in ((a, d, f), (b, e, d), (c, f, e), (d, e, f))])
    return np.array(points), faces


def write_ply(path: Path, points: np.ndarray, faces: np.ndarray) -> None:
    """A text PLY."""
    head = (
        f"ply\nformat ascii 1.0\nelement vertex {len(points)}\nproperty float x\nproperty float y\nproperty float z\n"
    )
    head += f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    rows = [" ".join(f"{x:.6g}" for x in p) for p in points] + [f"3 {a} {b} {c}" for a, b, c in faces]
    path.write_text(head + "\n".join(rows) + "\n")


def read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and faces (F, 3) of a PLY."""
    import mitsuba as mi

    params = mi.traverse(mi.load_dict({"type": "ply", "filename": str(path)}))
    return np.array(params["vertex_positions"]).reshape(-1, 3), np.array(params["faces"]).reshape(-1, 3)


def surface_points(points: np.ndarray, faces: np.ndarray, count: int = 200_000, seed: int = 0) -> np.ndarray:
    """Points (count, 3) uniformly on a mesh."""
    rng = np.random.default_rng(seed)
    a, b, c = (points[faces[:, k]].astype(np.float64) for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = rng.choice(len(faces), count, p=area / area.sum())
    s, t = np.sqrt(rng.random(count)), rng.random(count)
    a, b, c = a[chosen], b[chosen], c[chosen]
    return a + (s * (1 - t))[:, None] * (b - a) + (s * t)[:, None] * (c - a)


def chamfer(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], count: int = 200_000) -> float:
    """Mean distance from each surface to the nearest point of the other, averaged over both directions.

    Args:
        first, second: vertices and faces.
        count: points on each surface; equal surfaces of area 10 come out as about 1.6 / sqrt(count) apart.
    """
    from scipy.spatial import cKDTree

    a, b = surface_points(*first, count, seed=0), surface_points(*second, count, seed=1)
    few = len(a) // 10  # the nearest point wants a dense set, the mean over places does not
    return 0.5 * float(cKDTree(b).query(a[:few])[0].mean() + cKDTree(a).query(b[:few])[0].mean())


def directions(count: int) -> np.ndarray:
    """Unit vectors (count, 3) spread over the sphere (Fibonacci's spiral)."""
    k = np.arange(count) + 0.5
    z, turn = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(turn), z, r * np.sin(turn)], axis=1)


def make(bunny: Path, out: Path, size: int = SIZE, views: int = VIEWS, level: int = 4) -> Path:
    """Write scene, meshes, pictures and job into `out`; returns the job."""
    import mitsuba as mi

    from pathtracer.capture import write_image
    from pathtracer.scenes import load_scene

    out.mkdir(parents=True, exist_ok=True)
    points, faces = read_mesh(bunny)
    centre = 0.5 * (points.min(axis=0) + points.max(axis=0))
    points = (points - centre) / (0.5 * np.ptp(points, axis=0).max())
    write_ply(out / "bunny.ply", points, faces)
    ball, ball_faces = icosphere(level)
    write_ply(out / "sphere.ply", RADIUS * ball, ball_faces)
    (out / "scene.xml").write_text(SCENE.replace('value="48"', f'value="{size}"'))
    scene = load_scene(out / "scene.xml", mesh="bunny.ply")
    lines = []
    film = {"type": "hdrfilm", "width": size, "height": size, "pixel_format": "rgb", "rfilter": {"type": "box"}}
    for number, direction in enumerate(directions(views)):
        pose = mi.ScalarTransform4f().look_at(origin=(4 * direction).tolist(), target=[0, 0, 0], up=[0, 1, 0])
        camera = {"type": "perspective", "fov": 38.0, "to_world": np.array(pose.matrix).tolist()}
        sensor = mi.load_dict({**camera, "to_world": pose, "film": film})
        write_image(out / f"view-{number:02d}.exr", scene.render(spp=256, seed=1000 + number, sensor=sensor))
        pairs = ", ".join(f"{key} = {json.dumps(value)}" for key, value in camera.items())
        lines.append(f'  {{file = "view-{number:02d}.exr", camera = {{{pairs}}}}},')
    (out / "job.toml").write_text(JOB.replace("{images}", "\n".join(lines)))
    return out / "job.toml"


def compare(out: Path, values: Path) -> tuple[float, float]:
    """Chamfer distance to the bunny of the sphere and of the recovered mesh, in units of half the bunny's longest side.

    Args:
        out: what `make` wrote.
        values: `result/values.safetensors` of a run.
    """
    from safetensors.numpy import load_file

    bunny, (ball, faces) = read_mesh(out / "bunny.ply"), read_mesh(out / "sphere.ply")
    found = load_file(values)["body.vertex_positions"].reshape(-1, 3)
    return chamfer((ball, faces), bunny), chamfer((found, faces), bunny)


def main() -> None:
    """See the module's docstring."""
    from pathtracer.runtime import activate

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bunny", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--compare", type=Path, metavar="RUN")
    given = parser.parse_args()
    activate()
    if given.compare is None:
        print(make(given.bunny, given.out))
        return
    before, after = compare(given.out, given.compare / "result" / "values.safetensors")
    print(f"Chamfer distance {before:.4f} -> {after:.4f}, down by {before / after:.1f}x")


if __name__ == "__main__":
    main()
