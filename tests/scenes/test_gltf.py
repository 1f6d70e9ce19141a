"""glTF export: triangles, texture coordinates and materials as Mitsuba has them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pathtracer.errors import EnvironmentFault, InputError
from pathtracer.scenes import Scene, load_scene
from pathtracer.scenes.gltf import export_gltf


@pytest.fixture
def trimesh():
    return pytest.importorskip("trimesh", reason='needs trimesh: pip install "pathtracer[gltf]"')


def test_without_its_package_it_says_what_to_install(repository: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "trimesh", None)
    scene = load_scene(repository / "scenes" / "painted-wall" / "scene.xml")
    with pytest.raises(EnvironmentFault, match=r"pathtracer\[gltf\]"):
        export_gltf(scene, {}, tmp_path / "x.glb")


def test_a_painted_wall_keeps_its_corners_its_colours_and_which_way_up_it_is(
    trimesh, repository: Path, tmp_path: Path
) -> None:
    scene = load_scene(repository / "scenes" / "painted-wall" / "scene.xml")
    texels = np.zeros((16, 16, 3), np.float32)
    texels[0] = [1, 0, 0]  # the first row is at v = 0, the lower edge of the rectangle
    path, notes = export_gltf(scene, {"wall.bsdf.reflectance.data": texels}, tmp_path / "wall.glb")
    assert notes == []
    image = scene.render(spp=16)
    assert image[-3:, :, 0].max() > 0.1 and image[4:16].max() < 0.01, "Mitsuba shows the first row at the bottom"
    wall = trimesh.load(path).geometry["wall"]
    assert {tuple(p) for p in wall.vertices.tolist()} == {(x, y, 0.0) for x in (-1.0, 1.0) for y in (-1.0, 1.0)}
    picture = np.asarray(wall.visual.material.baseColorTexture.convert("RGB"))
    assert (picture[0] == [255, 0, 0]).all() and not picture[1:].any()
    # trimesh counts v from the last row: the lower corners lie at the first one
    for corner, (_, v) in zip(wall.vertices, wall.visual.uv, strict=True):
        assert v == pytest.approx(1.0 if corner[1] < 0 else 0.0)


def test_a_principled_material_keeps_its_numbers_and_what_is_left_out_is_said(trimesh, tmp_path: Path) -> None:
    color = {"type": "rgb", "value": [0.8, 0.4, 0.2]}
    inner = {"type": "principled", "base_color": color, "roughness": 0.3, "metallic": 0.9}
    description = {
        "type": "scene",
        "sky": {"type": "constant"},
        "box": {"type": "cube", "bsdf": {"type": "twosided", "bsdf": inner}},
        "ball": {"type": "sphere"},
    }
    path, notes = export_gltf(Scene.from_dict(description), {}, tmp_path / "box.glb")
    assert len(notes) == 1 and "Sphere has no triangles" in notes[0]
    box = trimesh.load(path).geometry["box"]
    assert len(box.vertices) == 24 and len(box.faces) == 12
    material = box.visual.material
    np.testing.assert_allclose(np.array(material.baseColorFactor)[:3] / 255, [0.8, 0.4, 0.2], atol=0.01)
    assert material.roughnessFactor == pytest.approx(0.3) and material.metallicFactor == pytest.approx(0.9)


def test_a_scene_without_meshes_is_refused(trimesh, tmp_path: Path) -> None:
    scene = Scene.from_dict({"type": "scene", "sky": {"type": "constant"}, "ball": {"type": "sphere"}})
    with pytest.raises(InputError, match="no mesh"):
        export_gltf(scene, {}, tmp_path / "x.glb")
