"""What the rasterisers share as Mitsuba integrators: what they refuse, and the image as a tensor."""

from __future__ import annotations

import warnings
from typing import Any

import drjit as dr
import mitsuba as mi
from mitsuba.python.ad.integrators.common import ADIntegrator

from ..attached import scene_bsdfs
from ..errors import GradientWarning, UnsupportedGradient
from ..support import attached_keys, require_supported, type_name
from .shading import Shading
from .triangles import Triangles, require_drawable

#: Parameters that a rasteriser's image depends on: class of the owner -> leaf names.
_KNOWN: dict[str, frozenset[str]] = {
    "PerspectiveCamera": frozenset({"to_world", "x_fov", "principal_point_offset_x", "principal_point_offset_y"}),
    "OrthographicCamera": frozenset({"to_world"}),
    "Rectangle": frozenset({"to_world"}),
    "PointLight": frozenset({"position"}),
    "SpotLight": frozenset({"to_world"}),
    "DirectionalEmitter": frozenset({"to_world", "direction"}),
}
_MESH = frozenset({"vertex_positions", "vertex_normals"})
#: Names of textures and spectra, whose own leaf is "value" or "data".
_TEXTURES = frozenset({"reflectance", "radiance", "intensity", "irradiance"})


class Rasterizer(ADIntegrator):
    """An image without light transport, and its derivatives; subclasses say which image.

    Deterministic: `seed` and `spp` are ignored. `max_depth` and `rr_depth` are accepted so that a scene's settings can
    be handed on, and ignored; `hide_emitters` hides a constant environment.

    Raises (when rendered):
        UnsupportedGradient: a shape, light, sensor or film that cannot be drawn, or an attached parameter that the
            image does not depend on.
    """

    #: Name of the plugin in messages.
    name = "rasterizer"

    def __init__(self, props: mi.Properties) -> None:
        if not mi.is_rgb or mi.is_polarized:
            raise ValueError(f"{props.plugin_name()} draws RGB images; use the variant llvm_ad_rgb or cuda_ad_rgb")
        super().__init__(props)
        self.hide_emitters = bool(props.get("hide_emitters", False))
        self.light_divisions = int(props.get("light_divisions", 2))
        self._warned = False

    # -------------------------------------------------------------- what can be drawn

    def require(self, scene: mi.Scene, params: Any = None) -> None:
        """Raise for what cannot be drawn or differentiated; say once what is drawn as something else."""
        for shape in scene.shapes():
            require_drawable(shape, self.name)
            bsdf = shape.bsdf()
            if bsdf is not None and mi.has_flag(bsdf.flags(), mi.BSDFFlags.Null):
                raise UnsupportedGradient(
                    f"{self.name} draws solid surfaces, without cut-outs",
                    key=bsdf.id(),
                    remedy="model the outline as a mesh, or use edge_sampling",
                )
        lobes = int(mi.BSDFFlags.DiffuseReflection)
        varied = [b for b in scene_bsdfs(scene) if (int(b.flags()) & int(mi.BSDFFlags.All)) & ~lobes]
        if varied and not self._warned:
            self._warned = True
            warnings.warn(
                GradientWarning(
                    "lambertian-only",
                    f"{self.name} draws the {type_name(varied[0])} as a matte surface of its diffuse reflectance",
                    "use path_replay or edge_sampling for gloss, mirrors and glass",
                ),
                stacklevel=3,
            )
        if params is None:
            return
        require_supported(scene, params, self)
        for key in attached_keys(params):
            if not self._depends_on(params, key):
                raise UnsupportedGradient(
                    f"the image of {self.name} does not depend on it",
                    key=key,
                    remedy="use path_replay or edge_sampling, or check with finite_difference",
                )

    def _depends_on(self, params: mi.SceneParameters, key: str) -> bool:
        owner = params.properties[key][2]
        words = key.split(".")
        if words[-1] in ("value", "data"):
            return len(words) > 1 and words[-2] in _TEXTURES
        known = _KNOWN.get(type_name(owner), _MESH if isinstance(owner, mi.Mesh) else frozenset())
        return words[-1] in known

    # -------------------------------------------------------------- what is drawn

    def prepare_scene(self, scene: mi.Scene, sensor: mi.Sensor) -> tuple[Triangles, Shading]:
        """Triangles and lights, attached to whatever carries derivatives."""
        triangles = Triangles(scene, sensor, self.name)
        return triangles, Shading(scene, triangles, self.name, self.light_divisions)

    def background(self, shading: Shading) -> mi.Color3f:
        """The colour where nothing is hit."""
        return mi.Color3f(0) if self.hide_emitters else shading.ambient

    def film_shape(self, sensor: mi.Sensor) -> tuple[int, int, int]:
        """(height, width, channels) of the image; four channels where the film has alpha."""
        film = sensor.film()
        if mi.has_flag(film.flags(), mi.FilmFlags.Special):
            raise UnsupportedGradient(
                f"{self.name} cannot fill a {film.class_name()}", key=film.id(), remedy="use an hdrfilm"
            )
        size = film.crop_size()
        return int(size[1]), int(size[0]), 4 if mi.has_flag(film.flags(), mi.FilmFlags.Alpha) else 3

    def render(
        self,
        scene: mi.Scene,
        sensor: int | mi.Sensor = 0,
        seed: Any = 0,
        spp: int = 0,
        develop: bool = True,
        evaluate: bool = True,
    ) -> mi.TensorXf:
        """The image, (height, width, channels) linear; `seed` and `spp` are ignored."""
        sensor = scene.sensors()[sensor] if isinstance(sensor, int) else sensor
        self.require(scene)
        with dr.suspend_grad():
            return self.draw(scene, sensor)

    def draw(self, scene: mi.Scene, sensor: mi.Sensor) -> mi.TensorXf:
        """The image without derivatives."""
        raise NotImplementedError


def pixel_centres(sensor: mi.Sensor, divisions: int = 1) -> mi.Point2f:
    """Film positions in pixels of the centres of divisions x divisions parts of each pixel, part after part.

    Returns:
        (divisions² x height x width,) positions; the parts of a pixel are height x width entries apart.
    """
    width, height = (int(v) for v in sensor.film().crop_size())
    pixels = width * height
    index = dr.arange(mi.UInt32, pixels * divisions**2)
    part, pixel = index // dr.opaque(mi.UInt32, pixels), index % dr.opaque(mi.UInt32, pixels)
    x, y = pixel % dr.opaque(mi.UInt32, width), pixel // dr.opaque(mi.UInt32, width)
    offset = sensor.film().crop_offset()
    step = 1 / divisions
    return mi.Point2f(
        mi.Float(x) + (mi.Float(part % divisions) + 0.5) * step + dr.opaque(mi.Float, offset[0]),
        mi.Float(y) + (mi.Float(part // divisions) + 0.5) * step + dr.opaque(mi.Float, offset[1]),
    )
