"""A loaded scene: Mitsuba's objects, their parameters, and where each of them is written in the user's file."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, UsageError, nearest_names
from ..runtime.threads import file_threads
from . import graph as scene_graph
from .bindings import Binding, find_bindings
from .checks import SceneReport, check_scene, translate_error
from .document import SceneFile, read_scene_file
from .graph import SceneGraph
from .parameters import COLOR_ROLES, ParameterInfo, as_array, discover
from .passes import average_passes


def load_scene(
    path: str | Path,
    *,
    variant: str | None = None,
    root: str | Path | None = None,
    sanitize: bool = False,
    **defines: object,
) -> Scene:
    """Load a Mitsuba 3 XML scene after looking at everything in it that could go wrong.

    Args:
        path: the XML file.
        variant: Mitsuba variant; None keeps the one that is set, or chooses one.
        root: folder that every file of the scene must lie in, "/" for no limit; default: the folder of `path`.
        sanitize: replace NaN, infinite and negative texels by 0 instead of refusing them.
        defines: values for the scene's `<default>`s.

    Raises:
        InputError: the file, or a file that it names, cannot be used; says where.
        UsageError: a name in `defines` that the scene does not know.
    """
    checked = inspect_scene(path, variant=variant, root=root, sanitize=sanitize, **defines)
    if checked.report.errors:
        raise checked.report.errors[0]
    return build(checked)


@dataclass
class CheckedScene:
    """A scene that was parsed and checked but not created.

    Attributes:
        path: the XML file.
        defines: `-D` values as text.
        report: errors and warnings.
        graph: its nodes, None when the file could not even be parsed.
        source: its XML.
    """

    path: Path
    defines: dict[str, str]
    report: SceneReport
    graph: SceneGraph | None = None
    source: SceneFile | None = None


def inspect_scene(
    path: str | Path,
    *,
    variant: str | None = None,
    root: str | Path | None = None,
    sanitize: bool = False,
    **defines: object,
) -> CheckedScene:
    """All checks of `load_scene`, with every error instead of the first one.

    Raises:
        UsageError: a name in `defines` that the scene does not know.
    """
    from ..runtime import activate, active_variant

    if variant is not None or active_variant() is None:
        activate(variant or "auto")  # finds LLVM, so it comes before Mitsuba is imported
    import mitsuba as mi

    if "polarized" in str(mi.variant()):
        raise UsageError(f"the polarised variant {mi.variant()!r} is not supported", remedy="use llvm_ad_rgb")
    path = Path(path)
    checked = CheckedScene(path, {name: str(value) for name, value in defines.items()}, SceneReport())
    report = checked.report
    folder = Path(os.path.realpath(path.parent if root is None else root))
    try:
        source = read_scene_file(path, None if str(root) == "/" else folder, checked.defines)
        graph = scene_graph.parse(path, checked.defines)
    except InputError as error:
        report.errors.append(error)
        return checked
    except RuntimeError as error:
        report.errors.append(translate_error(error, path))
        return checked
    if len(source.objects) != len(graph):
        raise AssertionError(f"{path}: {len(source.objects)} elements but {len(graph)} nodes")
    checked.source, checked.graph = source, graph
    checked.report = check_scene(graph, source, sanitize=sanitize)
    checked.report.warnings += [f"{path}: -D {name} is defined but nowhere used" for name in source.unused]
    for (index, name), file in checked.report.files.items():
        graph.edits[index, name] = str(file)
    for index, texels in checked.report.replaced.items():
        graph.edits[index, "filename"] = None
        graph.edits[index, "bitmap"] = mi.Bitmap(texels)
    return checked


def build(checked: CheckedScene) -> Scene:
    """Create the objects of a scene that passed its checks.

    Raises:
        InputError: what only the plugins themselves find, such as unknown properties.
    """
    assert checked.graph is not None
    return Scene(
        checked.graph,
        path=checked.path,
        defines=checked.defines,
        warnings=checked.report.warnings,
        source=checked.source,
        files=checked.report.files,
        replaced=checked.report.replaced,
    )


class Scene:
    """A Mitsuba scene whose parameters can be found, changed, rendered and written back.

    Attributes:
        mi: the `mi.Scene`; shapes are not merged, so that keys stay alive.
        params: its `mi.SceneParameters`.
        path: the XML file, None for a scene made from a dictionary.
        defines: the `-D` values that it was loaded with.
        warnings: sentences about what was found or changed while loading.
        graph: the parsed nodes.
        source: the XML files, None for a scene made from a dictionary.
        files: the file behind (node, property).
        replaced: sanitised texels by node.
    """

    def __init__(
        self,
        graph: SceneGraph,
        *,
        path: Path | None = None,
        defines: Mapping[str, str] | None = None,
        warnings: list[str] | None = None,
        source: SceneFile | None = None,
        files: Mapping[tuple[int, str], Path] | None = None,
        replaced: Mapping[int, np.ndarray] | None = None,
    ) -> None:
        self.graph = graph
        self.source = source
        self.files = dict(files or {})
        self.replaced = dict(replaced or {})
        self.path = path
        self.defines = dict(defines or {})
        self.warnings = list(warnings or [])
        self._instantiate()

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> Scene:
        """Wrap a Mitsuba scene dictionary (no file, so nothing to patch on export)."""
        from ..runtime import activate, active_variant

        if active_variant() is None:
            activate()
        return cls(scene_graph.from_dict(description))

    def fresh(self) -> Scene:
        """The same scene with the values of the file; what was set in `params` is gone, reloaded textures stay."""
        return Scene(
            self.graph,
            path=self.path,
            defines=self.defines,
            warnings=self.warnings,
            source=self.source,
            files=self.files,
            replaced=self.replaced,
        )

    def _instantiate(self) -> None:
        import mitsuba as mi

        folder = self.path.parent if self.path else Path.cwd()
        try:
            with scene_graph.resolving(folder), file_threads():
                self.mi, self.objects = scene_graph.instantiate(self.graph)
        except RuntimeError as error:
            raise translate_error(error, self.path) from error
        self.params = mi.traverse(self.mi)
        self._parameters: dict[str, ParameterInfo] | None = None
        self._bindings: dict[str, Binding] | None = None

    # -- parameters -------------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, ParameterInfo]:
        """Every parameter of the scene, by key."""
        if self._parameters is None:
            self._parameters = discover(self)
        return self._parameters

    def select(self, pattern: str) -> list[str]:
        """The keys that a key or glob stands for.

        Raises:
            UsageError: nothing matches; names the nearest keys.
        """
        keys = list(self.params.keys())
        if pattern in keys:
            return [pattern]
        found = fnmatch.filter(keys, pattern)
        if not found:
            raise self._unknown(pattern)
        return found

    def make_differentiable(self, key: str, *, color: bool = False) -> str:
        """Reload what `key` stands for so that it has a derivative.

        Textures stored with 8 or 16 bits are reloaded as float, which `warnings` says. This creates the scene anew:
        `mi` and `params` are other objects afterwards (changed values are carried over).

        Args:
            key: a parameter key.
            color: turn a grey value into a colour (see `make_color`).

        Returns:
            The key, which stays the same.

        Raises:
            UsageError: the key is unknown, or nothing can differentiate it; says why.
        """
        info = self._info(key)
        if not info.differentiable:
            raise UsageError(f"cannot be differentiated: {info.reason}", where=key)
        if info.stored:
            binding = self.bindings()[key]
            self._edit(binding.node, "format", "variant")
            self.warnings.append(f"{key}: the {info.stored} texture was reloaded as float")
        if color:
            self.make_color(key)
        return key

    def make_color(self, key: str) -> str:
        """Turn a grey number (`<float name="reflectance"/>`, or one left at its default) into an RGB colour.

        Raises:
            UsageError: the key is unknown, or stands for no colour.
        """
        info = self._info(key)
        if info.kind == "color":
            return key
        binding = self.bindings()[key]
        if info.kind != "scalar" or binding.leaf != "value" or info.role not in COLOR_ROLES:
            raise UsageError(f"is a {info.kind}, which has no colour", where=key)
        import mitsuba as mi

        level = float(np.array(self.params[key]).ravel()[0])
        self._edit(binding.node, binding.property, mi.ScalarColor3d(level))
        return key

    def bindings(self) -> dict[str, Binding]:
        """The node and property that define each parameter."""
        if self._bindings is None:
            self._bindings = find_bindings(self.graph, self.params, self.objects)
        return self._bindings

    def _info(self, key: str) -> ParameterInfo:
        if key not in self.params:
            raise self._unknown(key)
        return self.parameters()[key]

    def _unknown(self, pattern: str) -> UsageError:
        what = "glob that matches no parameter" if any(c in pattern for c in "*?[") else "unknown parameter"
        return UsageError(
            f"{what} {pattern!r}",
            where=self.path,
            nearest=nearest_names(pattern, self.params.keys()),
            remedy="list them with `pathtracer params SCENE`",
        )

    def _edit(self, node: int, name: str, value: Any) -> None:
        """Change a property of a node and create the scene anew, carrying over changed values."""
        before = self.params
        self.graph.edits[node, name] = value
        self._instantiate()
        for key in self.params.keys():  # noqa: SIM118
            if key not in before or type(before[key]) is not type(self.params[key]):
                continue
            then, now = as_array(before[key]), as_array(self.params[key])
            if then is not None and now is not None and not np.array_equal(then, now, equal_nan=True):
                self.params[key] = before[key]
        self.params.update()

    def facts(self) -> dict[str, int]:
        """How many shapes, triangles, emitters, sensors and parameters there are."""
        import mitsuba as mi

        meshes = [shape for shape in self.mi.shapes() if isinstance(shape, mi.Mesh)]
        return {
            "shapes": len(self.mi.shapes()),
            "triangles": sum(int(mesh.face_count()) for mesh in meshes),
            "emitters": len(self.mi.emitters()),
            "sensors": len(self.mi.sensors()),
            "parameters": sum(info.differentiable for info in self.parameters().values()),
        }

    # -- rendering --------------------------------------------------------------------------------------------------

    def sensor(self, index: int = 0) -> Any:
        """The `index`-th sensor of the file.

        Raises:
            UsageError: there is no such sensor.
        """
        sensors = self.mi.sensors()
        if not 0 <= index < len(sensors):
            raise UsageError(f"sensor {index} does not exist: the scene has {len(sensors)}", where=self.path)
        return sensors[index]

    def default_integrator(self) -> dict[str, Any]:
        """The scene file's `max_depth`, `rr_depth` and `hide_emitters`, for estimators to inherit."""
        settings: dict[str, Any] = {"max_depth": -1, "rr_depth": 5, "hide_emitters": False}
        import mitsuba as mi

        for index in range(1, len(self.graph)):
            if self.graph.state.nodes[index].type != mi.ObjectType.Integrator and self.path is not None:
                continue
            props = self.graph.props(index)
            if self.path is None and not any(name in props for name in settings):
                continue
            if self.graph.plugin(index) == "direct":
                settings["max_depth"] = 2
            for name in settings:
                if name in props:
                    settings[name] = props[name]
        return settings

    def aovs(self) -> str:
        """The variables of the scene file's `aov` integrator ("dd:depth,nn:sh_normal"); "" without one."""
        plugins = range(1, len(self.graph))
        return next((self.graph.props(k)["aovs"] for k in plugins if self.graph.plugin(k) == "aov"), "")

    def render(
        self, spp: int, seed: int = 0, sensor: int | Any = 0, integrator: str | dict[str, Any] | Any | None = None
    ) -> np.ndarray:
        """Render to an array of shape (H, W, 3), linear RGB, float32.

        Args:
            spp: samples per pixel; large numbers are split into equal passes (rounded up) that are averaged in double
                precision, because one float32 sum of thousands of samples is off by percents.
            seed: of the first pass; the others use seeds that follow from it.
            sensor: index or `mi.Sensor`.
            integrator: plugin name, dictionary or `mi.Integrator`; default: the scene's own.
        """
        import mitsuba as mi

        camera = self.sensor(sensor) if isinstance(sensor, int) else sensor
        if isinstance(integrator, str):
            integrator = mi.load_dict({"type": integrator, **self.default_integrator()})
        elif isinstance(integrator, dict):
            integrator = mi.load_dict(integrator)
        elif integrator is None and self.mi.integrator() is None:
            integrator = mi.load_dict({"type": "path", **self.default_integrator()})
        width, height = camera.film().crop_size()

        def one_pass(pass_seed: int, count: int) -> np.ndarray:
            return np.array(mi.render(self.mi, sensor=camera, integrator=integrator, spp=count, seed=pass_seed))

        mean = average_passes(one_pass, spp, int(width) * int(height), seed).mean
        if mean.shape[-1] < 3:
            mean = np.repeat(mean[..., :1], 3, axis=-1)
        return np.ascontiguousarray(mean[..., :3], dtype=np.float32)
