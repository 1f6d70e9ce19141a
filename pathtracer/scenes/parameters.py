"""Which parameters a scene has, what each of them is, and who can differentiate it.

Mitsuba's `ParamFlags` are advisory: camera poses and light positions are flagged as not differentiable although they
are, materials are flagged as discontinuous although nothing jumps. What a derivative is made of is derived here from
what the parameter moves: a vertex moves silhouettes, shadows and what is seen in them; a colour moves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .bindings import Binding, parents, role, used_nodes, words

if TYPE_CHECKING:
    from .scene import Scene

Bounds = tuple[float | None, float | None]

_UNIT = words(
    "reflectance diffuse_reflectance specular_reflectance specular_transmittance transmittance base_color "
    "albedo opacity weight metallic sheen sheen_tint spec_tint spec_trans clearcoat clearcoat_gloss "
    "anisotropic flatness specular color0 color1 normalmap"
)
_ROUGHNESS = words("alpha alpha_u alpha_v roughness longitudinal_roughness azimuthal_roughness")
_POSITIVE = words(
    "radiance intensity irradiance scale k sun_scale sky_scale texture sigma_t temperature cutoff_angle "
    "beam_width turbidity"
)
#: Properties that may be a colour where the file has a number.
COLOR_ROLES = words(
    "reflectance diffuse_reflectance specular_reflectance specular_transmittance transmittance base_color "
    "albedo color0 color1 radiance intensity irradiance"
)
_SPECULAR_PLUGINS = words("dielectric thindielectric conductor plastic pplastic")
_DELTA_LIGHTS = words("point spot directional projector")
_ENVIRONMENTS = words("envmap constant sunsky timed_sunsky")


@dataclass(frozen=True)
class ParameterInfo:
    """One parameter of a scene.

    Attributes:
        key: Mitsuba's own key (`mi.traverse`).
        kind: "color", "scalar", "spectrum", "texture", "envmap", "volume", "positions", "normals", "texcoords",
            "faces", "attribute", "transform", "vector" or "setting".
        owner: plugin name of the node that defines it.
        shape: of the value as an array, () for a number.
        range: smallest and largest current value, None when it has none.
        bounds: natural bounds, either side may be None.
        space: the space to optimise it in: "logit", "log", "box", "identity", "direction", "pose", "large-steps".
        differentiable: whether any estimator has a derivative for it.
        discontinuous: whether it moves geometry, so that visibility changes with it.
        reason: why it is not differentiable, "" when it is.
        needs: phenomena (keys of `integrators.PHENOMENA`) that its derivative is made of.
        note: what the user should know: a texture is reloaded as float, nothing uses the material.
        stored: "8-bit" or "16-bit" for textures that have to be reloaded as float, else "".
        role: property of the material, light, ... that it feeds, e.g. "reflectance" for a bitmap's texels.
        attachable: whether its value can carry a tangent, so that at least differences of images see it.
    """

    key: str
    kind: str
    owner: str
    shape: tuple[int, ...]
    range: tuple[float, float] | None = None
    bounds: Bounds = (None, None)
    space: str = "identity"
    differentiable: bool = True
    discontinuous: bool = False
    reason: str = ""
    needs: frozenset[str] = frozenset()
    note: str = ""
    stored: str = ""
    role: str = ""
    attachable: bool = True

    def estimators(self) -> dict[str, str]:
        """Every estimator's answer for this parameter: "" when it handles it, else why not."""
        from integrators import ESTIMATORS, PHENOMENA

        answers = {}
        for name, row in ESTIMATORS.items():
            missing = [p for p in PHENOMENA if p in self.needs - row.handles]
            by_values = row.handles >= set(PHENOMENA) and not row.unbiased  # differences of whole images
            if not self.differentiable:
                answers[name] = "" if by_values and self.attachable else self.reason
            else:
                answers[name] = f"leaves out {', '.join(missing)}" if missing else ""
        return answers


def discover(scene: Scene) -> dict[str, ParameterInfo]:
    """Every parameter of a scene, in Mitsuba's order."""
    bindings = scene.bindings()
    users = parents(scene.graph)
    phenomena = _phenomena(scene)
    used = used_nodes(scene.graph, scene.objects)
    unused = {key for key, binding in bindings.items() if binding.node not in used}
    return {
        key: _describe(scene, key, bindings.get(key), users, phenomena, key in unused)
        for key in scene.params.keys()  # noqa: SIM118
    }


def _describe(
    scene: Scene,
    key: str,
    binding: Binding | None,
    users: dict[int, list[tuple[int, str]]],
    moving: frozenset[str],
    unused: bool,
) -> ParameterInfo:
    value = scene.params[key]
    plugin = scene.graph.plugin(binding.node) if binding else _owner_class(scene, key)
    user, name = role(scene.graph, binding, users) if binding else (plugin, key.rsplit(".", 1)[-1])
    array = as_array(value)
    kind = _kind(key, value, plugin, array)
    bounds, space = _domain(kind, user, name, array)
    discontinuous = _moves(scene, key, kind, plugin)
    reason = _refusal(scene, key, kind, value, user, name)
    stored = _stored(kind, value)
    needs = frozenset({"interior"})
    if discontinuous:
        needs |= _needs_of_motion(scene, key, plugin, moving)
    numbers = array if array is not None and array.size and kind not in ("transform", "faces") else None
    return ParameterInfo(
        key=key,
        kind=kind,
        owner=plugin,
        shape=tuple(array.shape) if array is not None else (),
        range=None if numbers is None else (float(numbers.min()), float(numbers.max())),
        bounds=bounds,
        space=space,
        differentiable=not reason,
        discontinuous=discontinuous,
        reason=reason,
        needs=frozenset() if reason else needs,
        note="nothing in the scene uses it, its derivative is 0" if unused else _note(stored),
        stored=stored,
        role=name,
        attachable=kind not in ("setting", "faces") and not stored,
    )


# -- what it is ------------------------------------------------------------------------------------------------


def as_array(value: Any) -> np.ndarray | None:
    """The value as an array: () for a number, (3,) for a colour, (4, 4) for a transform, None for anything else."""
    import drjit as dr

    if isinstance(value, bool | int | float):
        return np.asarray(float(value))
    if isinstance(value, np.ndarray | list | tuple):
        return np.asarray(value, dtype=np.float64)
    if "Transform" in type(value).__name__:
        matrix = np.array(value.matrix, dtype=np.float64)
        return matrix.reshape(matrix.shape[:2])
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if dr.is_tensor_v(value):
        return array
    if dr.is_vector_v(value) or dr.depth_v(value) > 1:
        return array.reshape(-1)
    return array.reshape(()) if array.size == 1 else array.reshape(-1)


def _kind(key: str, value: Any, plugin: str, array: np.ndarray | None) -> str:
    import drjit as dr

    name = key.rsplit(".", 1)[-1]
    if isinstance(value, bool | int | float) or array is None:
        return "setting"
    if "Transform" in type(value).__name__:
        return "transform" if dr.is_jit_v(value.matrix) else "setting"
    if not dr.is_jit_v(value):
        return "setting"
    if dr.is_tensor_v(value):
        return {"envmap": "envmap", "bitmap": "texture"}.get(plugin, "volume")
    mesh = {
        "vertex_positions": "positions",
        "positions": "positions",
        "vertex_normals": "normals",
        "vertex_texcoords": "texcoords",
        "faces": "faces",
        "control_points": "positions",
    }
    if name in mesh:
        return mesh[name]
    if name.startswith(("vertex_", "face_")):
        return "attribute"
    if name in ("values", "wavelengths"):
        return "spectrum"
    if type(value).__name__.startswith("Color") or "Spectrum" in type(value).__name__:
        return "color"
    if array.shape == ():
        return "scalar"
    return "vector" if dr.depth_v(value) > 1 else ("scalar" if array.size == 1 else "vector")


def _domain(kind: str, user: str, name: str, array: np.ndarray | None) -> tuple[Bounds, str]:
    """Natural bounds and the space to optimise in."""
    if kind == "transform":
        return (None, None), "direction" if user == "directional" else "pose"
    if kind == "positions" and name != "control_points":
        return (None, None), "large-steps"
    if kind in ("positions", "normals", "texcoords", "faces", "setting"):
        return (None, None), "identity"
    if kind == "attribute":
        return (0.0, None), "box"
    if kind == "envmap" or (kind == "texture" and name in _POSITIVE):
        return (0.0, None), "log"
    if name in _ROUGHNESS:
        return (0.001, 1.0), "logit"
    if name in ("eta", "int_ior"):
        if user in ("conductor", "roughconductor"):
            return (0.0, None), "log" if _positive(array) else "box"
        above = array is None or not array.size or float(array.min()) >= 1
        return ((1.0001, 4.0) if above else (0.25, 0.9999)), "box"
    if name == "x_fov":
        return (1.0, 179.0), "box"
    if name == "diff_trans":
        return (0.0, 2.0), "box"
    if name in ("normalmap", "nested_texture"):
        return ((0.0, 1.0) if name == "normalmap" else (None, None)), "box" if name == "normalmap" else "identity"
    if name in _UNIT:
        return (0.0, 1.0), "logit"
    if name in _POSITIVE:
        return (0.0, None), "log" if _positive(array) else "box"
    if name == "g":
        return (-0.999, 0.999), "box"
    return (None, None), "identity"


def _positive(array: np.ndarray | None) -> bool:
    return array is not None and array.size > 0 and float(array.min()) > 0


def _stored(kind: str, value: Any) -> str:
    stored = type(value).__name__
    if kind != "texture" or stored.endswith("Xf"):
        return ""
    return "8-bit" if stored.endswith("u8") else "16-bit"


def _note(stored: str) -> str:
    return f"{stored} texture, reloaded as float when it is optimised" if stored else ""


def _owner_class(scene: Scene, key: str) -> str:
    owner = scene.params.properties[key][2]
    return str(owner.class_name()) if hasattr(owner, "class_name") else type(owner).__name__


# -- what it moves ---------------------------------------------------------------------------------------------


def _phenomena(scene: Scene) -> frozenset[str]:
    """What a moving surface of this scene can change."""
    graph = scene.graph
    plugins = {graph.plugin(i) for i in range(1, len(graph))}
    found = {"primary", "indirect"}
    if plugins & {"area", "directionalarea"}:
        found.add("shadow-area")
    if plugins & _ENVIRONMENTS:
        found.add("shadow-environment")
    if plugins & _DELTA_LIGHTS:
        found.add("shadow-delta")
    if plugins & _SPECULAR_PLUGINS:
        found.add("specular-chain")
    depth = scene.default_integrator()["max_depth"]
    if 0 <= depth <= 2:
        found.discard("indirect")
    return frozenset(found)


def _moves(scene: Scene, key: str, kind: str, plugin: str) -> bool:
    """Whether changing the parameter moves something that hides or is hidden."""
    if kind == "positions":
        return True
    if kind == "transform":
        return plugin not in ("envmap", "constant")
    name = key.rsplit(".", 1)[-1]
    if plugin in _DELTA_LIGHTS:
        return name == "position"
    return name in ("x_fov", "principal_point_offset_x", "principal_point_offset_y") and _is_sensor(scene, key)


def _is_sensor(scene: Scene, key: str) -> bool:
    import mitsuba as mi

    return isinstance(scene.params.properties[key][2], mi.Sensor)


def _needs_of_motion(scene: Scene, key: str, plugin: str, moving: frozenset[str]) -> frozenset[str]:
    if _is_sensor(scene, key):
        return frozenset({"camera"}) | (moving & {"specular-chain"})
    if plugin in _DELTA_LIGHTS:
        return frozenset({"shadow-delta"})
    return moving


# -- why not ---------------------------------------------------------------------------------------------------


def _refusal(scene: Scene, key: str, kind: str, value: Any, user: str, role_name: str) -> str:
    """Why nothing can differentiate a parameter, "" when something can."""
    import mitsuba as mi

    from integrators.support import refusal

    flags = scene.params.flags(key)
    if flags & mi.ParamFlags.ReadOnly:
        return "Mitsuba computes it and does not let it be set"
    why = refusal(scene.params, key)
    if kind == "setting":
        plain = "it is a setting, no quantity that Mitsuba tracks derivatives of"
        return why[0] if why is not None else plain
    if kind == "faces":
        return "it is a list of indices"
    if "Transform" in type(value).__name__ and np.array(value.matrix).shape[0] != 4:
        return "texture transforms are plain numbers in Mitsuba"
    if why is not None:
        return f"{why[0]} ({why[1]})"
    if (user, role_name) == ("spot", "texture") and kind != "texture":
        return "the spot light has no texture, so Mitsuba does not use it"
    owner = scene.params.properties[key][2]
    name = key.rsplit(".", 1)[-1]
    if flags & mi.ParamFlags.NonDifferentiable and not _differentiable_anyway(owner, name, kind):
        return "Mitsuba has no derivative for it"
    return ""


def _differentiable_anyway(owner: Any, name: str, kind: str) -> bool:
    """Flagged as not differentiable by Mitsuba, but handled by the estimators of this project."""
    import mitsuba as mi

    if kind == "texture":
        return True  # stored with 8 or 16 bits; reloaded as float
    if isinstance(owner, mi.Sensor):
        return name in ("to_world", "x_fov", "principal_point_offset_x", "principal_point_offset_y")
    if isinstance(owner, mi.Emitter):
        return name in ("to_world", "position")
    return False
