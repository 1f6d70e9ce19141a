"""Creases of finely tessellated, flat-shaded surfaces."""

from __future__ import annotations

from pathlib import Path

import mitsuba as mi
import numpy as np
import pytest

from pathtracer.scenes import Scene
from pathtracer.verify.estimate import Gradient
from pathtracer.verify.motion import Motion

T = mi.ScalarTransform4f


def uneven_floor(folder: Path, cells: int = 48, height: float = 2e-4) -> Scene:
    """A floor of small faces that are not quite in one plane, under a lamp close by."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, cells + 1)] * 2)
    z = height * np.random.default_rng(0).standard_normal(x.shape)
    corner = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).ravel()
    up = corner + cells + 1
    faces = np.concatenate([np.stack([corner, corner + 1, up + 1], -1), np.stack([corner, up + 1, up], -1)])
    mesh = mi.Mesh("floor", x.size, len(faces))
    params = mi.traverse(mesh)
    params["vertex_positions"], params["faces"] = np.stack([x, y, z], -1).ravel(), faces.ravel()
    params.update()
    mesh.write_ply(str(folder / "floor.ply"))
    film = {"type": "hdrfilm", "width": 12, "height": 12, "rfilter": {"type": "box"}, "pixel_format": "rgb"}
    look = T().look_at([0, 0.4, 4], [0, 0, 0], [0, 1, 0])
    return Scene.from_dict(
        {
            "type": "scene",
            "integrator": {"type": "path", "max_depth": 2},
            "camera": {"type": "perspective", "fov": 20, "to_world": look, "film": film},
            "floor": {"type": "ply", "filename": str(folder / "floor.ply"), "face_normals": True},
            "lamp": {"type": "point", "position": [0.1, 0, 0.4], "intensity": {"type": "rgb", "value": 1.0}},
        }
    )


@pytest.mark.parametrize(
    "motion",
    ["floor.vertex_positions translate:1,0.3,0 + lamp.position translate:1,0.3,0", "camera.to_world translate:1,0.3,0"],
)
def test_shading_that_changes_across_small_faces_is_no_jump(tmp_path: Path, motion: str) -> None:
    """The interior term has it already; between the two sides of each of many creases it would count again."""
    scene = uneven_floor(tmp_path)
    bound = Motion.parse(motion).bind(scene.mi, scene.params)
    integrator = mi.load_dict({"type": "edge_sampling", "max_depth": 2})
    found = Gradient(bound, scene.mi.sensors()[0], integrator, 1, 0)
    path, step, sides = mi.load_dict({"type": "path", "max_depth": 2}), 5e-3, []
    for θ in (step, -step):
        bound.apply(θ)
        images = [np.array(mi.render(scene.mi, integrator=path, seed=i, spp=256), np.float64) for i in range(8)]
        sides.append(np.mean(images, axis=0))
    bound.restore()
    reference = (sides[0] - sides[1]) / (2 * step)
    norm = np.sum(reference**2)
    slopes = [np.sum(found.gradient_image(128, seed) * reference) / norm for seed in range(4)]
    assert np.mean(slopes) == pytest.approx(1, abs=0.01)
    backward = [found.backward_gradient(reference, 128, 20 + seed) / norm for seed in range(4)]
    assert np.mean(backward) == pytest.approx(1, abs=0.01)
