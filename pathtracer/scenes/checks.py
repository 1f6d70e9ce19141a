"""Every node of a parsed scene looked at before Mitsuba creates an object: plugins, numbers, films, files, emitters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pathtracer.errors import InputError, nearest_names

from .document import SceneFile, check_inside
from .graph import SceneGraph
from .mesh_files import MeshArrays, check_mesh, check_serialized
from .meshes import inspect_mesh
from .plugins import is_plugin, plugin_names, property_names
from .textures import check_texture

#: Squares of larger numbers overflow in single precision.
HUGE = 1e18
#: Films with more pixels (16384 x 16384) are refused: 4 GiB and more of image.
MAX_FILM_PIXELS = 2**28

_MESH_PLUGINS = ("ply", "obj")
_IMAGE_PLUGINS = ("bitmap", "envmap")
#: Scalars that must be larger than zero, by plugin ("" = any).
_POSITIVE = {
    "": ("fov", "near_clip", "far_clip", "focal_length", "sample_count", "int_ior", "ext_ior", "temperature"),
    "sphere": ("radius",),
    "cylinder": ("radius",),
    "thinlens": ("aperture_radius", "focus_distance"),
}
#: Scalars that may not be negative.
_NOT_NEGATIVE = (
    "alpha",
    "alpha_u",
    "alpha_v",
    "roughness",
    "scale",
    "intensity",
    "radiance",
    "irradiance",
    "sampling_weight",
)
#: Properties for which a huge number only means "far".
_MAY_BE_HUGE = ("far_clip", "focus_distance")


@dataclass
class SceneReport:
    """What the checks of a scene found.

    Attributes:
        errors: everything that keeps the scene from loading.
        warnings: what the user should know.
        files: absolute path of every file that a node names: (node, property) -> path.
        replaced: sanitised images: node -> texels (H, W, C).
    """

    errors: list[InputError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    files: dict[tuple[int, str], Path] = field(default_factory=dict)
    replaced: dict[int, Any] = field(default_factory=dict)

    def attempt(self, check: Callable[..., None], *arguments: Any) -> None:
        """Run a check and keep its error."""
        try:
            check(*arguments)
        except InputError as error:
            self.errors.append(error)


def check_scene(graph: SceneGraph, source: SceneFile | None, *, sanitize: bool = False) -> SceneReport:
    """Check all nodes of a scene.

    Args:
        graph: the parsed scene.
        source: its files, None for a scene from a dictionary.
        sanitize: replace bad texels instead of refusing them.
    """
    report = SceneReport()
    checker = _Checker(graph, source, report, sanitize)
    for index in range(len(graph)):
        report.attempt(checker.check_plugin, index)
        for name, value in checker.values(index):
            report.attempt(checker.check_number, index, name, value)
        report.attempt(checker.check_film, index)
        report.attempt(checker.check_file, index)
    checker.check_emitters()
    return report


class _Checker:
    def __init__(self, graph: SceneGraph, source: SceneFile | None, report: SceneReport, sanitize: bool) -> None:
        self.graph, self.source, self.report, self.sanitize = graph, source, report, sanitize
        self.checked: dict[tuple[Path, str], MeshArrays] = {}

    def where(self, index: int) -> str:
        """Place and name of a node."""
        place = node_place(self.graph, self.source, index)
        name = self.graph.ids[index]
        kind = self.kind(index) or "object"
        return f"{place}: {kind} {name!r}" if name else f"{place}: {kind} of type {self.graph.plugin(index)!r}"

    def kind(self, index: int) -> str:
        if self.source is not None:
            tag = str(self.source.objects[index].element.tag)
            return "texture" if tag == "spectrum" else tag
        kind = str(self.graph.state.nodes[index].type).rsplit(".", 1)[-1].lower()
        return "" if kind == "unknown" else kind

    def values(self, index: int) -> Iterator[tuple[str, Any]]:
        props = self.graph.props(index)
        for name in props.keys():  # noqa: SIM118
            yield name, props[name]

    def check_plugin(self, index: int) -> None:
        import mitsuba as mi

        plugin = self.graph.plugin(index)
        if plugin == "blackbody" and "spectral" not in str(mi.variant()):
            raise InputError(
                f"a 'blackbody' spectrum needs a spectral variant, Mitsuba cannot render it in {mi.variant()!r}",
                where=self.where(index),
                remedy="use -m llvm_ad_spectral, or write the colour as <rgb>",
            )
        if is_plugin(plugin):
            return
        kind = self.kind(index)
        raise InputError(
            f"unknown {kind} plugin {plugin!r}".replace("  ", " "),
            where=node_place(self.graph, self.source, index),
            nearest=nearest_names(plugin, plugin_names()),
        )

    def check_number(self, index: int, name: str, value: Any) -> None:
        numbers = _numbers(value)
        if numbers is None:
            return
        where = self.where(index)
        if not np.isfinite(numbers).all():
            raise InputError(f"{name!r} is not finite ({_short(numbers)})", where=where)
        if np.abs(numbers).max(initial=0) > HUGE and name not in _MAY_BE_HUGE:
            raise InputError(f"{name!r} is too large for single precision ({_short(numbers)})", where=where)
        if _is_transform(value):
            self._check_transform(value, name, where)
        elif numbers.size == 1:
            number = float(numbers.flat[0])
            if name in _POSITIVE[""] or name in _POSITIVE.get(self.graph.plugin(index), ()):
                if number <= 0:
                    raise InputError(f"{name!r} is {number:g}, it must be larger than 0", where=where)
                if name == "fov" and number >= 180:
                    raise InputError(f"'fov' is {number:g} degrees, it must be smaller than 180", where=where)
            elif name in _NOT_NEGATIVE and number < 0:
                raise InputError(f"{name!r} is {number:g}, it must not be negative", where=where)

    def _check_transform(self, value: Any, name: str, where: str) -> None:
        matrix = np.array(value.matrix, dtype=np.float64)
        linear = matrix[:-1, :-1]
        lengths = np.linalg.norm(linear, axis=0)
        if np.any(lengths == 0) or abs(np.linalg.det(linear / np.where(lengths == 0, 1, lengths))) < 1e-12:
            raise InputError(f"the transform {name!r} flattens space (a scale of 0?)", where=where)

    def check_film(self, index: int) -> None:
        if not self.graph.plugin(index).endswith("film"):
            return
        props = self.graph.props(index)
        size = {"width": 768, "height": 576}
        for name in size:
            if name in props:
                size[name] = int(props[name])
            if size[name] < 1:
                raise InputError(f"the film's {name} is {size[name]}, it must be at least 1", where=self.where(index))
        if size["width"] * size["height"] > MAX_FILM_PIXELS:
            raise InputError(
                f"the film has {size['width']} x {size['height']} pixels, "
                f"more than the {MAX_FILM_PIXELS} that are accepted",
                where=self.where(index),
                remedy="render crops of it, or a smaller image",
            )

    def check_file(self, index: int) -> None:
        props, plugin = self.graph.props(index), self.graph.plugin(index)
        if "filename" not in props or plugin.endswith("film"):
            return
        name, where = str(props["filename"]), self.where(index)
        path = Path(name)
        if self.source is not None:
            path = self.source.resolve(name)
            check_inside(path, name, where, self.source.root)
        path = Path(path).absolute()
        if plugin in _IMAGE_PLUGINS:
            raw = "raw" in props and bool(props["raw"])
            found = check_texture(path, where, sanitize=self.sanitize, color=not raw)
            self.report.warnings += found.notes
            if found.replaced is not None:
                self.report.replaced[index] = found.replaced
            if plugin == "envmap" and found.black:
                self.report.warnings.append(f"{where}: every texel of the environment map is zero, it emits nothing")
        elif plugin in _MESH_PLUGINS or plugin == "serialized":
            self.check_mesh_file(index, path, where)
        elif not path.is_file():
            folder = path.parent
            names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
            raise InputError(f"no such file {name!r}", where=where, nearest=nearest_names(path.name, names))
        self.report.files[index, "filename"] = path

    def check_mesh_file(self, index: int, path: Path, where: str) -> None:
        props, plugin = self.graph.props(index), self.graph.plugin(index)
        number = int(props["shape_index"]) if "shape_index" in props else 0
        if (path, str(number)) in self.checked:
            return
        mesh = check_serialized(path, where, number) if plugin == "serialized" else check_mesh(path, where)
        self.checked[path, str(number)] = mesh
        sentence = inspect_mesh(mesh.vertices, mesh.faces).sentence()
        if sentence:
            self.report.warnings.append(f"{where}: the mesh {path.name!r} has {sentence}")

    def check_emitters(self) -> None:
        import mitsuba as mi

        emitting = mi.ObjectType.Emitter
        for index in range(1, len(self.graph)):
            plugin = self.graph.plugin(index)
            if self.graph.state.nodes[index].type == emitting or self.kind(index) == "emitter":
                return
            try:
                if mi.PluginManager.instance().plugin_type(plugin) == emitting:
                    return
            except RuntimeError:
                continue  # an unknown plugin, reported elsewhere
        place = self.source.documents[0].path if self.source is not None else "scene"
        self.report.warnings.append(f"{place}: the scene has no emitter, every image of it is black")


def node_place(graph: SceneGraph, source: SceneFile | None, index: int) -> str:
    """File, line and column of a node."""
    if source is not None and index < len(source.objects):
        found = source.objects[index]
        return found.document.where(found.element)
    return graph.where(index)


def _is_transform(value: Any) -> bool:
    # Not by attribute: `.matrix` of a vector is a swizzle.
    return "Transform" in type(value).__name__


def _numbers(value: Any) -> np.ndarray | None:
    """The numbers of a property's value as an array, None when it has none."""
    if isinstance(value, (str, bool)):
        return None
    if isinstance(value, (int, float)):
        return np.array([value], dtype=np.float64)
    if _is_transform(value):
        return np.array(value.matrix, dtype=np.float64)
    if hasattr(value, "is_uniform"):
        return np.array(value.values, dtype=np.float64)
    kind = type(value).__name__
    if kind.startswith(("ScalarColor", "Array", "ScalarPoint", "ScalarVector")):
        return np.array(value, dtype=np.float64)
    return None


def _short(numbers: np.ndarray) -> str:
    flat = numbers.ravel()
    bad = flat[~np.isfinite(flat)]
    return f"{bad[0]:g}" if bad.size else f"{flat[np.argmax(np.abs(flat))]:g}"


# -- what Mitsuba says -----------------------------------------------------------------------------

_UNREFERENCED = re.compile(
    r'Found (\d+) unreferenced propert\w+ in (\w+) plugin of type "([^"]+)":\s*((?:\s*- .*\n?)+)'
)
_PLACE = re.compile(
    r"(?:While loading|Error while loading|At)\s+(?:XML file )?\"?(.+?)\"?\s*\(line (\d+), col (\d+)\):?\s*"
)


def translate_error(error: Exception, path: Path | None) -> InputError:
    """One sentence from what Mitsuba's parser or a plugin's constructor says."""
    text = str(error)
    place = _PLACE.search(text)
    where = f"{place.group(1)}, line {place.group(2)}, column {place.group(3)}" if place else path
    unknown = _UNREFERENCED.search(text)
    if unknown:
        kind, plugin = unknown.group(2), unknown.group(3)
        names = re.findall(r'- \w+ "([^"]+)"', unknown.group(4))
        valid = property_names(plugin, kind)
        nearest = [close for name in names for close in nearest_names(name, valid, 1)]
        listed = " and ".join(repr(n) for n in names)
        children = all(name.startswith("_arg_") for name in names)
        return InputError(
            f"the {kind} plugin {plugin!r} takes no nested object here"
            if children
            else f"the {kind} plugin {plugin!r} has no propert{'y' if len(names) == 1 else 'ies'} {listed}",
            where=where,
            nearest=nearest,
            remedy=None if nearest or not valid else "it has " + ", ".join(valid),
        )
    return InputError(_clean(text, place), where=where)


def _clean(text: str, place: re.Match[str] | None) -> str:
    """Mitsuba's message without source lines, place and line breaks."""
    if place:
        text = text[place.end() :]
    text = re.sub(r"\[[\w.]+\.(?:cpp|h):\d+\]\s*", "", text)
    text = re.sub(r"\s*\n\s*", " ", text).strip().rstrip("!.")
    return text[:1].lower() + text[1:] if text[:1].isupper() and not text[:2].isupper() else text
