"""Writing recovered values back: the user's own XML, patched in place, with the files that it needs.

    path = export_scene(scene, result.values, "run/result")    # run/result/scene.xml, textures/, meshes/
    verify_export(scene, path)                                   # stock Mitsuba, new process, same image

Comments, ids, order and defaults stay as the user wrote them; only the elements that define a changed parameter are
replaced. Texels become EXR files, vertices a PLY, transforms a matrix. The folder stands alone.
"""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lxml import etree

from pathtracer.errors import StorageFault, UsageError, nearest_names

from .document import Document, SceneFile
from .export_values import ValueWriter, file_label
from .parameters import as_array
from .patch import NodePatch, insert_first, serialize
from .roundtrip import ExportCheck, verify_export
from .textures import write_texels

if TYPE_CHECKING:
    from .scene import Scene

__all__ = ["ExportCheck", "export_scene", "verify_export"]


def export_scene(scene: Scene, values: Mapping[str, Any], folder: str | Path, keep_ids: bool = True) -> Path:
    """Write the scene with new parameter values.

    Args:
        scene: a loaded scene. Its file is patched; what `values` does not name stays as the file says it.
        values: new value by parameter key, in the shape that `scene.params` has (environment maps also without their
            two pad columns).
        folder: where to write; created when absent, files of the same name are overwritten.
        keep_ids: False also writes an id on every top-level object without one, so that stock Mitsuba gives its
            parameters the keys that are used here.

    Returns:
        Path of the XML file, named like the user's.

    Raises:
        UsageError: an unknown key, a value of the wrong shape, or a parameter that the XML format cannot hold.
        StorageFault: the folder cannot be written.
    """
    folder = Path(folder)
    arrays = {key: _checked(scene, key, value) for key, value in values.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if scene.source is None:
            return _export_dictionary(scene, arrays, folder, keep_ids)
        return _Export(scene, scene.source, folder).write(arrays, keep_ids)
    except OSError as error:
        raise StorageFault(f"the export cannot be written: {error.strerror or error}", where=folder) from error


def _checked(scene: Scene, key: str, value: Any) -> np.ndarray:
    """The value as an array of the parameter's shape."""
    if key not in scene.params:
        raise UsageError("unknown parameter", where=key, nearest=nearest_names(key, scene.params.keys()))
    info = scene.parameters()[key]
    array = as_array(value)
    if array is None:
        raise UsageError(f"cannot be written from a {type(value).__name__}", where=key)
    if info.stored:
        raise UsageError(
            f"the texture is stored with {info.stored.replace('-bit', '')} bits",
            where=key,
            remedy="call scene.make_differentiable(key) first",
        )
    expected = info.shape
    if info.kind == "envmap" and array.ndim == 3 and array.shape[1] == expected[1] - 2:
        expected = (expected[0], expected[1] - 2, *expected[2:])
    if info.kind in ("positions", "normals", "texcoords", "attribute"):
        array = array.reshape(-1)
    if info.kind in ("color", "scalar") and array.size == int(np.prod(expected, dtype=int)):
        array = array.reshape(expected)
    if array.shape != expected:
        raise UsageError(f"has shape {array.shape}, but the scene has {expected}", where=key)
    if not np.isfinite(array).all():
        raise UsageError(f"has {int((~np.isfinite(array)).sum())} values that are not finite", where=key)
    return array


@dataclass
class _Copy:
    """A document of the scene, its patched tree and the name that it gets."""

    document: Document
    tree: Any
    name: Path
    #: element of the user's tree -> element of the copy
    twin: dict[Any, Any] = field(default_factory=dict)


class _Export:
    """One export: copies of the trees, names for files, patches."""

    def __init__(self, scene: Scene, source: SceneFile, folder: Path) -> None:
        self.scene, self.source, self.folder = scene, source, folder
        self.taken: set[Path] = set()
        self.copies: list[_Copy] = []
        self.copied: dict[Path, Path] = {}
        self.home = Path(os.path.abspath(source.documents[0].path)).parent
        for document in source.documents:
            tree = copy.deepcopy(document.tree)
            name = self._free_name(self._relative(document.path, Path("includes")))
            twin = dict(zip(document.tree.iter(), tree.iter(), strict=True))
            self.copies.append(_Copy(document, tree, name, twin))

    def write(self, arrays: dict[str, np.ndarray], keep_ids: bool) -> Path:
        """Patch everything and write it."""
        own = {os.path.realpath(document.path) for document in self.source.documents}
        if own & {os.path.realpath(self.folder / item.name) for item in self.copies}:
            raise UsageError(
                "the export would overwrite the scene itself", where=self.folder, remedy="name a new folder"
            )
        replaced = ValueWriter(self.scene, self.node, self.write_file).write(arrays)
        self._copy_files(replaced)
        self._patch_defaults()
        self._patch_documents()
        self._patch_integrators()
        if not keep_ids:
            self._write_ids()
        for item in self.copies:
            target = self.folder / item.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(serialize(item.tree, item.document.path.read_bytes()))
        return self.folder / self.copies[0].name

    # -- names -------------------------------------------------------------------------------------------------

    def _relative(self, path: Path, fallback: Path) -> Path:
        """A file's place below the scene's folder, else inside `fallback`."""
        absolute = Path(os.path.abspath(path))
        return absolute.relative_to(self.home) if absolute.is_relative_to(self.home) else fallback / path.name

    def _free_name(self, name: Path) -> Path:
        candidate, count = name, 0
        while candidate in self.taken:
            count += 1
            candidate = name.with_name(f"{name.stem}_{count}{name.suffix}")
        self.taken.add(candidate)
        return candidate

    def node(self, index: int) -> NodePatch:
        """The patchable element of a node."""
        found = self.source.objects[index]
        for item in self.copies:
            if item.document is found.document:
                return NodePatch(item.twin[found.element], found.document.defines)
        raise AssertionError("every object lies in a document")

    # -- the documents -----------------------------------------------------------------------------------------

    def _copy_files(self, replaced: set[tuple[int, str]]) -> None:
        """Copy what the scene reads, and name the copies."""
        for (index, name), path in self.scene.files.items():
            if (index, name) in replaced:
                continue
            patch = self.node(index)
            child = patch.find(name)
            texels = self.scene.replaced.get(index)
            if texels is not None:
                name_there = Path("textures") / f"{file_label(self.scene, index)}.exr"
                written = self.write_file(name_there, partial(write_texels, data=texels))
            else:
                written = self._copy_file(path)
            if child is not None and self.source.objects[index].document.value(child, "value") != written.as_posix():
                patch.put_string(name, written.as_posix())
        for item in self.copies:
            for original, twin in item.twin.items():
                if original.tag == "spectrum" and original.get("filename") is not None:
                    name = item.document.value(original, "filename")
                    written = self._copy_file(self.source.resolve(name))
                    if written.as_posix() != name:
                        twin.set("filename", written.as_posix())

    def _copy_file(self, path: Path) -> Path:
        absolute = Path(os.path.abspath(path))
        if absolute not in self.copied:
            kind = "meshes" if path.suffix.lower() in (".ply", ".obj", ".serialized") else "textures"
            name = self._relative(path, Path(kind))
            self.copied[absolute] = self.write_file(name, partial(shutil.copyfile, absolute))
        return self.copied[absolute]

    def write_file(self, name: Path, writer: Callable[[Path], Any]) -> Path:
        """Let `writer` write a new file of this name, or of one like it that is free; returns the name."""
        name = self._free_name(name)
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        writer(target)
        return name

    def _patch_defaults(self) -> None:
        """Give the defaults the values that the scene was loaded with."""
        missing = dict(self.scene.defines)
        for item in self.copies:
            for original, twin in item.twin.items():
                if original.tag == "default":
                    name = item.document.value(original, "name")
                    if name in missing and twin.get("value") != missing[name]:
                        twin.set("value", missing[name])
                    missing.pop(name, None)
        for name, value in reversed(missing.items()):
            fresh = etree.Element("default")
            fresh.set("name", name)
            fresh.set("value", value)
            insert_first(self.copies[0].tree.getroot(), fresh)

    def _patch_documents(self) -> None:
        """Includes point at the copies; search paths are gone, because all files have their place now."""
        for item in self.copies:
            if item.document.include is not None:
                parent = next(c for c in self.copies if c.document is item.document.parent)
                twin = parent.twin[item.document.include]
                # Mitsuba looks beside the including file first.
                name = os.path.relpath(item.name, parent.name.parent)
                if item.document.parent.value(item.document.include, "filename") != name:  # type: ignore[union-attr]
                    twin.set("filename", Path(name).as_posix())
            for element in list(item.tree.getroot().iterchildren("path")):
                element.getparent().remove(element)

    def _patch_integrators(self) -> None:
        """Stock Mitsuba does not know our estimators: their image is that of `path`."""
        from integrators import ESTIMATORS

        keep = ("max_depth", "rr_depth", "hide_emitters")
        for index in range(1, len(self.scene.graph)):
            plugin = self.scene.graph.plugin(index)
            if plugin in ESTIMATORS:
                patch = self.node(index)
                patch.element.set("type", "path")
                for child in list(patch.element.iterchildren(etree.Element)):
                    if child.get("name") not in keep:
                        patch.element.remove(child)
                patch.element.addprevious(
                    etree.Comment(f" {plugin} of pathtracer in the original; the image is the same ")
                )

    def _write_ids(self) -> None:
        for index in self.scene.graph.references(0).values():
            if not self.scene.graph.ids[index]:
                self.node(index).element.set("id", self.scene.graph.labels[index])


def _export_dictionary(scene: Scene, arrays: dict[str, np.ndarray], folder: Path, keep_ids: bool) -> Path:
    """A scene without a file: Mitsuba writes the XML, then it is patched like any other."""
    import mitsuba as mi

    from .scene import load_scene

    state = mi.parser.ParserState(scene.graph.state)
    top_level = set(scene.graph.references(0).values())
    for index, node in enumerate(state.nodes):
        if index in top_level and not scene.graph.ids[index]:
            node.props.set_id(scene.graph.labels[index])
        if "filename" in node.props:
            node.props["filename"] = os.path.abspath(str(node.props["filename"]))
    with tempfile.TemporaryDirectory(prefix="pathtracer-export-") as place:
        target = Path(place) / "scene.xml"
        try:
            mi.parser.write_file(state, str(target))
        except RuntimeError as error:
            raise UsageError(f"the scene dictionary holds objects that no XML can hold: {error}") from error
        base = load_scene(target, root="/")
        assert base.source is not None
        base.graph.edits.update(scene.graph.edits)
        return _Export(base, base.source, folder).write(arrays, keep_ids)
