"""A loaded scene: Mitsuba's objects, their parameters, and where each of them is written in the user's file."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, UsageError, nearest_names
from . import graph as scene_graph
from .graph import SceneGraph
from .parameters import ParameterInfo, discover

#: Samples per pixel of one render call; more are averaged in float64 (a single float32 sum is off by percents at 4096).
PASS_SPP = 512
#: Mitsuba's limit on pixels x samples of one call.
WAVEFRONT = 2**32 - 1


def load_scene(
    path: str | Path,
    *,
    variant: str | None = None,
    root: str | Path | None = None,
    sanitize: bool = False,
    **defines: object,
) -> Scene:
    """Load a Mitsuba 3 XML scene.

    Args:
        path: the XML file.
        variant: Mitsuba variant; None keeps the one that is set, or chooses one.
        root: folder that every file of the scene must lie in; default: the folder of `path`.
        sanitize: replace NaN, infinite and negative texels by finite, non-negative ones instead of refusing them.
        defines: values for the scene's `<default>`s.

    Raises:
        InputError: the file, or a file that it names, cannot be used.
    """
    from ..runtime import activate

    import mitsuba as mi

    if variant is not None or mi.variant() is None:
        activate(variant or "auto")
    path = Path(path)
    values = {name: str(value) for name, value in defines.items()}
    try:
        graph = scene_graph.parse(path, values)
        return Scene(graph, path=path, defines=values)
    except RuntimeError as error:
        raise InputError(str(error), where=path) from error


class Scene:
    """A Mitsuba scene whose parameters can be found, changed, rendered and written back.

    Attributes:
        mi: the `mi.Scene`; shapes are not merged, so that keys stay alive.
        params: its `mi.SceneParameters`.
        path: the XML file, None for a scene made from a dictionary.
        defines: the `-D` values that it was loaded with.
        warnings: sentences about what was found or changed while loading.
    """

    def __init__(
        self,
        graph: SceneGraph,
        *,
        path: Path | None = None,
        defines: Mapping[str, str] | None = None,
        warnings: list[str] | None = None,
    ) -> None:
        self.graph = graph
        self.path = path
        self.defines = dict(defines or {})
        self.warnings = list(warnings or [])
        self._instantiate()

    @classmethod
    def from_dict(cls, description: dict[str, Any]) -> Scene:
        """Wrap a Mitsuba scene dictionary (no file, so nothing to patch on export)."""
        import mitsuba as mi

        if mi.variant() is None:
            from ..runtime import activate

            activate()
        return cls(scene_graph.from_dict(description))

    def _instantiate(self) -> None:
        import mitsuba as mi

        folder = self.path.parent if self.path else Path.cwd()
        with scene_graph.resolving(folder):
            self.mi, self.objects = scene_graph.instantiate(self.graph)
        self.params = mi.traverse(self.mi)
        self._parameters: dict[str, ParameterInfo] | None = None

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
            what = "glob that matches no parameter" if any(c in pattern for c in "*?[") else "unknown parameter"
            raise UsageError(
                f"{what} {pattern!r}",
                where=self.path,
                nearest=nearest_names(pattern, keys),
                remedy="list them with `pathtracer params SCENE`",
            )
        return found

    def make_differentiable(self, key: str) -> str:
        """Reload what `key` stands for so that it has a derivative (8-bit textures as float); returns the key to use."""
        return key

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

    def render(
        self, spp: int, seed: int = 0, sensor: int | Any = 0, integrator: str | dict[str, Any] | Any | None = None
    ) -> np.ndarray:
        """Render to an array of shape (H, W, 3), linear RGB, float32.

        Args:
            spp: samples per pixel; large numbers are split into passes and averaged in double precision.
            seed: of the first pass; the passes use seeds derived from it.
            sensor: index or `mi.Sensor`.
            integrator: plugin name, dictionary or `mi.Integrator`; default: the scene's own.
        """
        import mitsuba as mi

        camera = self.sensor(sensor) if isinstance(sensor, int) else sensor
        if isinstance(integrator, str):
            integrator = mi.load_dict({"type": integrator, **self.default_integrator()})
        elif isinstance(integrator, dict):
            integrator = mi.load_dict(integrator)
        width, height = camera.film().crop_size()
        largest = max(1, min(PASS_SPP, WAVEFRONT // max(1, int(width) * int(height))))
        passes = -(-spp // largest)
        total: np.ndarray | None = None
        for number in range(passes):
            count = spp // passes + (number < spp % passes)
            image = mi.render(self.mi, sensor=camera, integrator=integrator, spp=count, seed=seed * 4099 + number)
            array = np.array(image, dtype=np.float64) * count
            total = array if total is None else total + array
        assert total is not None
        mean = total / spp
        if mean.shape[-1] < 3:
            mean = np.repeat(mean[..., :1], 3, axis=-1)
        return np.ascontiguousarray(mean[..., :3], dtype=np.float32)
