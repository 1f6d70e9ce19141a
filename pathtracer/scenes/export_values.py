"""Which XML holds the value of a parameter, and how it is written there.

Most parameters are a `<float>`, `<rgb>` or `<transform>` of the same name. The others are spelled differently in the
file (`x_fov` is `fov` along an axis, `eta` the ratio of two indices, a named metal stands for `eta` and `k`) or are
files.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lxml import etree

from pathtracer.errors import UsageError

from .bindings import Binding, words
from .meshes import write_mesh
from .parameters import as_array
from .patch import NodePatch, insert_first
from .textures import strip_pad_columns, write_texels

if TYPE_CHECKING:
    from .scene import Scene

#: Mesh arrays, which are written together as one PLY.
_MESH_ARRAYS = words("vertex_positions positions vertex_normals normals vertex_texcoords texcoords faces")
#: Properties of mesh plugins that a PLY in world space does not have any more.
_MESH_PROPERTIES = ("filename", "shape_index", "flip_tex_coords", "to_world")
#: Plugins whose `eta` is the ratio of an interior and an exterior index.
_RATIO_ETA = words("dielectric thindielectric roughdielectric plastic roughplastic pplastic")
#: Spectra, which become a constant colour.
_SPECTRA = words("uniform srgb rgb spectrum d65 regular irregular blackbody rawconstant")


def file_label(scene: Scene, index: int) -> str:
    """A file name for what belongs to a node."""
    label = scene.graph.labels[index] or f"{scene.graph.plugin(index)}_{index}"
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in label)


class ValueWriter:
    """Writes parameter values into the patchable elements of a scene.

    Args:
        scene: the scene.
        node: the element of a node.
        write_file: writes a new file in the export folder, returns the name that it got.
    """

    def __init__(
        self,
        scene: Scene,
        node: Callable[[int], NodePatch],
        write_file: Callable[[Path, Callable[[Path], Any]], Path],
    ) -> None:
        self.scene, self.node, self.write_file = scene, node, write_file

    def write(self, arrays: dict[str, np.ndarray]) -> set[tuple[int, str]]:
        """Patch every parameter; returns the (node, property) whose file was replaced."""
        bindings = self.scene.bindings()
        replaced: set[tuple[int, str]] = set()
        meshes: dict[int, dict[str, np.ndarray]] = {}
        for key, array in arrays.items():
            binding = bindings.get(key)
            if binding is None:
                raise UsageError("cannot be written: no node of the file defines it", where=key)
            kind = self.scene.parameters()[key].kind
            if kind in ("positions", "normals", "texcoords", "faces", "attribute"):
                if not _is_mesh(self.scene, binding):
                    raise UsageError(f"cannot be written: a {self._plugin(binding)} is no mesh", where=key)
                meshes.setdefault(binding.node, {})[binding.property] = array
            elif kind in ("texture", "envmap"):
                self._patch_image(binding, kind, array)
                replaced.add((binding.node, "filename"))
            else:
                self._patch_property(binding, kind, array)
        for index, parts in meshes.items():
            self._patch_mesh(index, parts)
            replaced.add((index, "filename"))
        return replaced

    def _plugin(self, binding: Binding) -> str:
        return self.scene.graph.plugin(binding.node)

    def _patch_image(self, binding: Binding, kind: str, array: np.ndarray) -> None:
        if binding.property != "data" or self._plugin(binding) not in ("bitmap", "envmap"):
            raise UsageError(f"cannot be written: a {self._plugin(binding)} is no image", where=binding.key)
        patch = self.node(binding.node)
        padded = self.scene.parameters()[binding.key].shape[1]
        if kind == "envmap" and array.shape[1] == padded:
            array = strip_pad_columns(array)
        wanted = Path("textures") / f"{file_label(self.scene, binding.node)}.exr"
        name = self.write_file(wanted, partial(write_texels, data=array))
        patch.put_string("filename", name.as_posix())
        if kind == "texture":
            patch.remove("format")
            if array.min() < 0 or array.max() > 1:
                patch.put_boolean("raw", True)  # a texture of colours would be expected in [0, 1]

    def _patch_mesh(self, index: int, parts: dict[str, np.ndarray]) -> None:
        patch, props = self.node(index), self.scene.graph.props(index)
        wanted = Path("meshes") / f"{file_label(self.scene, index)}.ply"
        prefix = next(b.prefix for b in self.scene.bindings().values() if b.node == index)
        face_normals = "face_normals" in props and bool(props["face_normals"])
        name = self.write_file(wanted, lambda path: write_mesh(path, self.scene.params, prefix, parts, face_normals))
        patch.remove(*_MESH_PROPERTIES)
        patch.element.set("type", "ply")
        patch.put_string("filename", name.as_posix())

    def _patch_property(self, binding: Binding, kind: str, array: np.ndarray) -> None:
        patch, plugin, name = self.node(binding.node), self._plugin(binding), binding.property
        if "." in binding.leaf.replace("value.value", "value"):  # a medium wraps its colours in a volume
            self._patch_default_material(patch, binding, array)
        elif name == "value" and plugin in _SPECTRA:
            _put_spectrum(patch.element, array)
        elif kind == "transform":
            patch.remove("center", "radius", "p0", "p1", "position", "direction")
            patch.put_matrix(name, array)
        elif name in ("x_fov", "position", "eta", "k", "cutoff_angle", "size", "crop_size", "crop_offset"):
            self._patch_special(patch, binding, array)
        elif (plugin, name) == ("spot", "texture"):
            raise UsageError("cannot be written: the spot light has no texture", where=binding.key)
        elif kind == "color":
            patch.put_rgb(name, array)
        elif kind == "vector" and array.size == 3:
            patch.put_vector(name, array, "vector")
        elif kind in ("scalar", "setting") and array.size == 1 and name != "allow_thread_reordering":
            value = self.scene.params[binding.key]
            if isinstance(value, bool):
                patch.put_boolean(name, bool(array))
            elif isinstance(value, int):
                patch.put_integer(name, int(array))
            else:
                patch.put_float(name, float(array.reshape(-1)[0]))
        else:
            raise UsageError(f"cannot be written: no XML element holds the {kind} of a {plugin}", where=binding.key)

    def _patch_special(self, patch: NodePatch, binding: Binding, array: np.ndarray) -> None:
        """Parameters that the file spells otherwise."""
        plugin, name = self._plugin(binding), binding.property
        if name == "x_fov":
            patch.remove("focal_length")
            patch.put_float("fov", float(array))
            patch.put_string("fov_axis", "x")
        elif name == "position":
            patch.remove("to_world")
            patch.put_vector("position", array)
        elif name == "cutoff_angle":
            patch.put_float(name, float(array))
            if patch.find("beam_width") is None:  # its default follows the cut-off
                patch.put_float("beam_width", self._current(binding, "beam_width"))
        elif name == "size":
            patch.put_integer("width", array[0])
            patch.put_integer("height", array[1])
        elif name in ("crop_size", "crop_offset"):
            names = ("crop_width", "crop_height") if name == "crop_size" else ("crop_offset_x", "crop_offset_y")
            for which, value in zip(names, array, strict=True):
                patch.put_integer(which, value)
        elif name == "eta" and plugin in _RATIO_ETA:
            patch.put_float("int_ior", float(array))
            patch.put_float("ext_ior", 1.0)
        elif plugin in ("conductor", "roughconductor"):
            patch.remove("material")
            _put_number_or_color(patch, name, array)
            other = "k" if name == "eta" else "eta"
            if patch.find(other) is None:  # was part of the material
                current = as_array(self.scene.params[f"{binding.prefix}.{other}.value"])
                assert current is not None
                _put_number_or_color(patch, other, current)
        else:
            patch.remove("specular")
            _put_number_or_color(patch, name, array)

    def _current(self, binding: Binding, name: str) -> float:
        return float(np.array(self.scene.params[f"{binding.prefix}.{name}"]).ravel()[0])

    def _patch_default_material(self, patch: NodePatch, binding: Binding, array: np.ndarray) -> None:
        """The diffuse material that a shape without one has."""
        if binding.property != "bsdf" or binding.leaf != "reflectance.value":
            raise UsageError("cannot be written: the file does not define it", where=binding.key)
        material = etree.Element("bsdf")
        material.set("type", "diffuse")
        insert_first(patch.element, material)
        _put_number_or_color(NodePatch(material, {}), "reflectance", array)


def _put_number_or_color(patch: NodePatch, name: str, array: np.ndarray) -> None:
    if array.size == 1:
        patch.put_float(name, float(array.reshape(-1)[0]))
    else:
        patch.put_rgb(name, array)


def _put_spectrum(element: Any, array: np.ndarray) -> None:
    """Turn an element that stands for a spectrum into a constant colour of the same name."""
    for child in list(element):
        element.remove(child)
    element.set("type", "rawconstant")
    element.text = None
    patch = NodePatch(element, {})
    _put_number_or_color(patch, "value", array)


def _is_mesh(scene: Scene, binding: Binding) -> bool:
    import mitsuba as mi

    return isinstance(scene.objects.get(binding.node), mi.Mesh) and (
        binding.property in _MESH_ARRAYS or binding.property.startswith(("vertex_", "face_"))
    )
