"""Meshes with their materials as one glTF file, for viewers and modelling programs.

glTF knows one material, a subset of Disney's: base colour, roughness, metallic. Principled and diffuse materials have
these numbers; others are written with their colour if they have one, and said. Lights, cameras and shapes without
triangles are left out. Needs the extra `gltf` (`pip install "pathtracer[gltf]"`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pathtracer.capture.images import atomic_path, to_8bit
from pathtracer.errors import EnvironmentFault, InputError

if TYPE_CHECKING:
    from .scene import Scene

#: Names of what glTF calls base colour, the first that a material has is taken.
_COLORS = ("base_color", "reflectance", "diffuse_reflectance", "specular_reflectance")


def export_gltf(scene: Scene, values: Mapping[str, np.ndarray], path: str | Path) -> tuple[Path, list[str]]:
    """Write the meshes of a scene as binary glTF.

    Args:
        scene: the scene; it holds `values` afterwards.
        values: recovered values by key.
        path: the file, `.glb`.
    Returns:
        the file, and a sentence about everything that it lacks.
    Raises:
        EnvironmentFault: trimesh is not installed. InputError: the scene has no mesh. StorageFault: disk full.
    """
    import mitsuba as mi

    try:
        import trimesh
    except ImportError as error:
        raise EnvironmentFault("trimesh is not installed", remedy='pip install "pathtracer[gltf]"') from error
    from pathtracer.inverse.arrays import to_scene

    for key, value in values.items():
        scene.params[key] = to_scene(value, scene.params[key])
    scene.params.update()
    notes: list[str] = []
    whole = trimesh.Scene()
    for number, shape in enumerate(scene.mi.shapes()):
        name = shape.id() or f"shape-{number}"
        triangles = _triangles(mi.traverse(shape), shape.class_name())
        if triangles is None:
            notes.append(f"{name}: a {shape.class_name()} has no triangles and was left out")
            continue
        positions, faces, uv = triangles
        material = _material(trimesh, name, shape, notes)
        # in Mitsuba and in glTF v = 0 is the first row of the picture, in trimesh the last: it turns v over on export
        turned = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1) if len(uv) else None
        visual = trimesh.visual.TextureVisuals(turned, material=material)
        mesh = trimesh.Trimesh(positions, faces, visual=visual, process=False)
        whole.add_geometry(mesh, node_name=name, geom_name=name)
    if not whole.geometry:
        raise InputError("has no mesh that glTF could hold", where=scene.path or "scene")
    path = Path(path)
    data = whole.export(file_type="glb")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return path, notes


def _triangles(params: Any, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Vertices (V, 3), faces (F, 3) and texture coordinates (V or 0, 2) of a shape, None where it has none."""
    if "vertex_positions" in params and "faces" in params:
        return (
            np.array(params["vertex_positions"]).reshape(-1, 3),
            np.array(params["faces"]).reshape(-1, 3),
            np.array(params["vertex_texcoords"]).reshape(-1, 2),
        )
    if kind != "Rectangle":
        return None
    uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    corners = np.concatenate([2 * uv - 1, np.zeros((4, 1)), np.ones((4, 1))], axis=1)
    matrix = np.array(params["to_world"].matrix, np.float64).reshape(4, 4)
    return (corners @ matrix.T)[:, :3], np.array([[0, 1, 2], [0, 2, 3]]), uv


def _material(trimesh: Any, name: str, shape: Any, notes: list[str]) -> Any:
    """The glTF material of a shape: factors, or a texture with factor 1."""
    import mitsuba as mi
    from PIL import Image

    params = mi.traverse(shape.bsdf())
    found = {key: params[key] for key, _ in params}

    def entry(what: str) -> Any:
        # materials lie inside others (twosided, bumpmap): the end of the key tells
        for key, value in found.items():
            if key.rsplit(".", 1)[0].rsplit(".", 1)[-1] == what and key.rsplit(".", 1)[-1] in ("value", "data"):
                return np.array(value, np.float64)
        return None

    color = next((c for c in map(entry, _COLORS) if c is not None), None)
    if color is None:
        notes.append(f"{name}: its material has no base colour, it is written grey")
        color = np.array(0.5)
    numbers = {"roughnessFactor": entry("roughness"), "metallicFactor": entry("metallic")}
    given: dict[str, Any] = {"roughnessFactor": 1.0, "metallicFactor": 0.0}
    for factor, value in numbers.items():
        if value is not None:
            given[factor] = float(value.mean())
            if value.size > 1:
                notes.append(f"{name}: the texture of {factor.removesuffix('Factor')} is written as its mean")
    if color.ndim == 3 and color.size > 3:
        texels = np.repeat(color, 3, axis=-1) if color.shape[-1] == 1 else color[..., :3]
        given["baseColorTexture"] = Image.fromarray(to_8bit(texels.astype(np.float32)))
        given["baseColorFactor"] = [1.0, 1.0, 1.0, 1.0]
    else:
        flat = np.broadcast_to(np.clip(color.ravel(), 0, 1)[:3], (3,))
        given["baseColorFactor"] = [*map(float, flat), 1.0]
    return trimesh.visual.material.PBRMaterial(name=f"{name}-material", doubleSided=True, **given)
