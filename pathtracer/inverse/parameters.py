"""What is to be found: from the keys that a user names to the flat vector of latent numbers that a solver moves.

`Parameter` is the request; `resolve` turns requests into `Unknown`s, each of which owns a piece of the latent vector
and knows how to write it into the scene: as plain values through a space, or as a rigid motion.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError, nearest_names
from . import rigid
from .arrays import as_numpy, from_flat
from .priors import make_priors
from .spaces import ELEMENTWISE, SPACE_NAMES, Space, make_space

if TYPE_CHECKING:
    from ..scenes import ParameterInfo, Scene
    from .filters import Filter
    from .priors import Prior


@dataclass(frozen=True)
class Parameter:
    """A request to find one parameter, or all that match a glob.

    Attributes:
        key: Mitsuba's key (`pathtracer params SCENE` lists them), or a glob.
        space: "log", "logit", "box", "identity", "direction", "pose"; None takes what suits the parameter.
        bounds: physical bounds (lower, upper); None takes the natural ones.
        init: start value: a number for all entries, or an array of the parameter's shape (a direction: 3 numbers; a
            pose: 6 numbers, by which the object is turned and moved from where the scene has it: a rotation vector in
            degrees and a translation in scene units; or the 4x4 matrix itself); None starts at the scene's own value.
        lr: latent step size of first-order solvers; None takes the space's own.
        group: parameters of one group share one value; poses of one group are one rigid motion of all their objects.
        factor: times the group's value is this parameter's, so that one may be tied to another in proportion.
        prior: what is known besides the images: a `Prior`, a table such as {"kind": "tv", "weight": 1e-3}, or several.
        smooth: λ of the smoothing of gradients (see `filters`), for textures, environment maps and vertices; 0 is off;
            None is 19 for vertices in the space "large-steps" and off for the rest.
        freeze_until: the step before which it stays at its start.
        truth: the known answer, for tables and tests only: an array, or "scene" for the value in the scene file.
    """

    key: str
    space: str | None = None
    bounds: tuple[float, float] | None = None
    init: Any = None
    lr: float | None = None
    group: str | None = None
    truth: Any = None
    factor: float = 1.0
    prior: Any = None
    smooth: float | None = None
    freeze_until: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "prior", make_priors(self.prior, self.key))
        if not (np.isfinite(self.factor) and self.factor != 0):
            raise UsageError(f"factor is {self.factor}, a number other than 0 was expected", where=self.key)
        if self.smooth is not None and not (np.isfinite(self.smooth) and self.smooth >= 0):
            raise UsageError(f"smooth is {self.smooth}, a number >= 0 was expected", where=self.key)
        if self.factor != 1 and self.group is None:
            raise UsageError("a factor is for members of a group", where=self.key, remedy="give it a group")
        if self.space is not None and self.space not in SPACE_NAMES:
            raise UsageError(
                f"unknown space {self.space!r}, one of {', '.join(SPACE_NAMES)}",
                where=self.key,
                nearest=nearest_names(self.space, SPACE_NAMES),
            )
        if self.lr is not None and not (np.isfinite(self.lr) and self.lr > 0):
            raise UsageError(f"lr is {self.lr}, a positive number was expected", where=self.key)


class Unknown(ABC):
    """One piece of the latent vector.

    Attributes:
        name: the key, or the group's name with its number of keys.
        keys: the scene parameters that it writes.
        space: name of its space.
        measure: how far it is from the truth: "" relative to each number, "position" a distance, "direction" an angle,
            "pose" an angle and a distance, "points" the largest distance.
        filter: smooths gradients, None for no smoothing.
        priors: penalties.
        shared: whether first-order solvers scale all its numbers alike, so that smooth gradients make smooth steps.
        vectors: its numbers are vectors in space of so many components (1: they are not).
        freeze_until: the step before which it stays at its start.
        start: latent start (n,), float64.
        lower, upper: latent bounds (n,).
        rate: latent step size of first-order solvers.
        truth: known answer in the form of `display`, or None.
    """

    name: str
    keys: tuple[str, ...]
    space: str
    measure: str = ""
    start: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    rate: float
    truth: np.ndarray | None
    filter: Filter | None = None
    priors: tuple[Prior, ...] = ()
    shared: bool = False
    vectors: int = 1
    freeze_until: int = 0

    def prepare(self, latent: np.ndarray) -> np.ndarray:
        """What `attach` takes: the latent numbers, after the filter if there is one."""
        return latent if self.filter is None else self.filter.apply(latent)

    def pull(self, gradient: np.ndarray) -> np.ndarray:
        """The gradient by the latent numbers, from the one by what `prepare` returned."""
        return gradient if self.filter is None else self.filter.apply(gradient)

    def penalty(self, latent: np.ndarray) -> tuple[float, np.ndarray]:
        """What the priors add to the loss, and its gradient by the latent numbers."""
        return 0.0, np.zeros_like(latent)

    @abstractmethod
    def attach(self, leaf: Any) -> dict[str, Any]:
        """Scene values, differentiable in the Dr.Jit array `leaf` (n prepared numbers, `mi.Float`)."""

    @abstractmethod
    def values(self, latent: np.ndarray) -> dict[str, np.ndarray]:
        """The value of every key as an array in the scene's own shape."""

    @abstractmethod
    def display(self, latent: np.ndarray) -> np.ndarray:
        """What tables show: the value, a unit direction, or the rotation vector (degrees) and translation of a pose."""


class ArrayUnknown(Unknown):
    """Numbers of any shape through an elementwise space; environment maps without their two pad columns."""

    def __init__(
        self, keys: Sequence[str], like: Any, info: ParameterInfo, request: Parameter, factors: Sequence[float] = ()
    ) -> None:
        self.keys, self.name = tuple(keys), _name(keys, request)
        self._factors = tuple(factors) or (1.0,) * len(self.keys)
        current = as_numpy(like)
        self._kind = type(like)
        self._shape = current.shape
        #: whether its numbers are triples of red, green and blue
        self.colored = info.kind in ("color", "texture", "envmap") and self._shape[-1:] == (3,)
        self._padded = info.kind == "envmap" and info.key.endswith(".data")
        if info.kind == "vector" and info.discontinuous and self._shape == (3,):
            self.measure, self.vectors = "position", 3
        self._start = _broadcast(current if request.init is None else request.init, current, keys[0], "init")
        natural = tuple(-np.inf if b is None else b for b in info.bounds[:1]) + tuple(
            np.inf if b is None else b for b in info.bounds[1:]
        )
        space = request.space or (info.space if info.space in ELEMENTWISE else "identity")
        bounds = request.bounds or (None if space == "log" and not np.isfinite(natural[1]) else natural)
        if space in ("logit", "box") and bounds is not None and not np.all(np.isfinite(bounds)):
            bounds = None
        try:
            self._space: Space = make_space(space, bounds, self._start)  # type: ignore[arg-type]
            self.start = self._space.inverse(self._strip(self._start)).ravel()
        except UsageError as error:
            raise UsageError(error.message, where=keys[0], remedy=error.remedy) from error
        self.space = self._space.name
        low, high = self._space.latent_bounds()
        self._smooth(request, keys[0])
        if self.filter is not None:
            low, high = -np.inf, np.inf  # of the smoothed variables; what they stand for is clipped
        self.lower, self.upper = np.full(self.start.size, low), np.full(self.start.size, high)
        self.freeze_until = request.freeze_until
        self.rate = request.lr or self._space.rate
        known = current if isinstance(request.truth, str) else request.truth
        self.truth = None if known is None else self._strip(_broadcast(known, current, keys[0], "truth"))

    def attach(self, leaf: Any) -> dict[str, Any]:
        import drjit as dr
        import mitsuba as mi

        flat = self._space.forward_jit(leaf)
        if self._padded:
            flat = dr.gather(mi.Float, flat, mi.UInt32(self._pad_index()))
        return {
            key: from_flat(flat if factor == 1 else factor * flat, self._kind, self._shape)
            for key, factor in zip(self.keys, self._factors, strict=True)
        }

    def values(self, latent: np.ndarray) -> dict[str, np.ndarray]:
        flat = self._space.forward(self.prepare(latent))
        if self._padded:
            flat = flat[self._pad_index()]
        return {
            key: (factor * flat).reshape(self._shape).astype(np.float32)
            for key, factor in zip(self.keys, self._factors, strict=True)
        }

    def to_latent(self, values: np.ndarray) -> np.ndarray:
        """Latent numbers (n,) of values in the order of `display`."""
        return self._space.inverse(np.asarray(values, np.float64)).ravel()

    def display(self, latent: np.ndarray) -> np.ndarray:
        return self._space.forward(self.prepare(latent)).reshape(self._stripped)

    def prepare(self, latent: np.ndarray) -> np.ndarray:
        return latent if self.filter is None else np.clip(self.filter.apply(latent), *self._space.latent_bounds())

    def penalty(self, latent: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = 0.0, np.zeros_like(latent)
        if self.priors:
            inner = self.prepare(latent)
            x = self._space.forward(inner).reshape(self._stripped)
            for prior in self.priors:
                part, slope = prior(x, self._padded)
                value += part
                gradient = gradient + slope.ravel()
            gradient = self.pull(gradient * self._space.slope(inner))
        return value, gradient

    def _smooth(self, request: Parameter, key: str) -> None:
        """Set up the filter and the priors."""
        self._stripped = self._strip(np.empty(self._shape)).shape
        self.priors = request.prior
        image = len(self._stripped) == 3
        if not image and (request.smooth or any(p.of_images for p in self.priors)):
            raise UsageError("smoothing is for textures, environment maps and vertices", where=key)
        if request.smooth:
            from .filters import GridFilter

            self.filter, self.shared = GridFilter(self._stripped, request.smooth, self._padded), True  # type: ignore[arg-type]
            self.start = self.filter.inverse(self.start)

    def _strip(self, array: np.ndarray) -> np.ndarray:
        return array[:, 1:-1] if self._padded else array

    def _pad_index(self) -> np.ndarray:
        """For each entry of the stored (H, W + 2, C) array, which entry of the (H, W, C) unknown it repeats."""
        height, width, channels = self._shape[0], self._shape[1] - 2, self._shape[2]
        index = np.arange(height * width * channels, dtype=np.uint32).reshape(height, width, channels)
        return np.concatenate([index[:, -1:], index, index[:, :1]], axis=1).ravel()


class _Body:
    """What a rigid motion carries along: a `to_world` matrix, or vertex positions."""

    def __init__(self, key: str, like: Any) -> None:
        self.kind, current = type(like), as_numpy(like)
        self.shape = current.shape
        self.vertices = None if current.shape == (4, 4) else current.reshape(-1, 3)
        if self.vertices is None and not np.allclose(current[3], (0, 0, 0, 1)):
            raise UsageError("a projective matrix is no pose", where=key)
        self.matrix = np.eye(4) if self.vertices is not None else current.astype(np.float64)

    @property
    def corners(self) -> np.ndarray:
        """Points whose bounding box is about the object (a matrix tells only its origin)."""
        return self.matrix[None, :3, 3] if self.vertices is None else self.vertices.astype(np.float64)

    def attach(self, rotation: Any, translation: Any) -> Any:
        """The scene value, moved."""
        import drjit as dr
        import mitsuba as mi

        if self.vertices is None:
            return self.kind(rigid.matrix4_jit(rotation, translation) @ mi.Matrix4f(self.matrix))
        points = mi.Point3f(self.vertices.T.astype(np.float32))
        moved = rotation @ mi.Vector3f(points) + translation
        return from_flat(dr.ravel(mi.Point3f(moved)), self.kind, self.shape)

    def value(self, motion: np.ndarray) -> np.ndarray:
        """The same as an array."""
        if self.vertices is None:
            return (motion @ self.matrix).astype(np.float32)
        return (self.vertices @ motion[:3, :3].T + motion[:3, 3]).reshape(self.shape).astype(np.float32)


class RigidUnknown(Unknown):
    """A rigid motion of `to_world` matrices and vertex positions; a direction turns without moving.

    Objects of one group are moved as one body, about the middle of all of them.

    Args:
        keys: parameters of the group; `init` and `truth` as matrices are those of the first.
        like: value of the first.
        companions: values of the others.
    """

    def __init__(
        self,
        keys: Sequence[str],
        like: Any,
        info: ParameterInfo,
        request: Parameter,
        space: str,
        size: float,
        companions: Sequence[Any] = (),
    ) -> None:
        self.keys, self.name, self.space, self.measure = tuple(keys), _name(keys, request), space, space
        self._bodies = [_Body(k, v) for k, v in zip(keys, [like, *companions], strict=True)]
        first = self._bodies[0]
        if first.vertices is not None and space == "direction":
            raise UsageError("vertex positions have no direction", where=keys[0], remedy='use space = "pose"')
        self._matrix, self._scale = first.matrix, size
        points = np.concatenate([body.corners for body in self._bodies])
        self._centre = 0.5 * (points.min(axis=0) + points.max(axis=0))
        self._direction = self._matrix[:3, 2] / np.linalg.norm(self._matrix[:3, 2])
        # columns: latent numbers; rows: rotation vector and translation
        self._basis = np.eye(6)
        if space == "direction":
            self._basis = np.zeros((6, 2))
            self._basis[:3] = rigid.tangents(self._direction).T
        n = self._basis.shape[1]
        self.vectors = 2 if n == 2 else 3
        self.lower, self.upper = np.full(n, -np.inf), np.full(n, np.inf)
        self.rate, self.freeze_until = request.lr or rigid.RATE, request.freeze_until
        self.start = np.zeros(n) if request.init is None else self._latent(request.init, keys[0], "init")
        truth = request.truth
        if truth is not None:
            truth = self.display(np.zeros(n) if isinstance(truth, str) else self._latent(truth, keys[0], "truth"))
        self.truth = truth

    def _latent(self, wanted: Any, key: str, what: str) -> np.ndarray:
        array = np.asarray(wanted, np.float64)
        if self.space == "direction":
            if array.shape != (3,) or not np.linalg.norm(array) > 0:
                raise UsageError(f"{what} of a direction is 3 numbers, not all zero", where=key)
            return rigid.direction_latent(self._direction, array)
        if array.shape == (6,):
            return np.concatenate([np.radians(array[:3]), array[3:] / self._scale])
        if array.shape != (4, 4):
            raise UsageError(
                f"{what} of a pose is 6 numbers (rotation vector in degrees, translation) or a 4x4 matrix, "
                f"not an array of shape {array.shape}",
                where=key,
            )
        motion = array @ np.linalg.inv(self._matrix)
        turn = motion[:3, :3]
        if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-4) or np.linalg.det(turn) < 0:
            raise UsageError(f"{what} is not a rigid motion of the scene's own matrix", where=key)
        return rigid.motion_latent(motion, self._centre, self._scale)

    def attach(self, leaf: Any) -> dict[str, Any]:
        import drjit as dr
        import mitsuba as mi

        latent = [dr.gather(mi.Float, leaf, i) for i in range(self._basis.shape[1])]
        # plain sums: only the entries of the basis that are not zero take part
        six = [
            sum((float(b) * u for b, u in zip(row, latent, strict=True) if b != 0), start=mi.Float(0))
            for row in self._basis
        ]
        rotation, translation = rigid.motion_jit(six, self._centre, self._scale)
        return {k: body.attach(rotation, translation) for k, body in zip(self.keys, self._bodies, strict=True)}

    def _motion(self, latent: np.ndarray) -> np.ndarray:
        return rigid.motion_matrix(self._basis @ np.asarray(latent, np.float64), self._centre, self._scale)

    def values(self, latent: np.ndarray) -> dict[str, np.ndarray]:
        motion = self._motion(latent)
        return {key: body.value(motion) for key, body in zip(self.keys, self._bodies, strict=True)}

    def display(self, latent: np.ndarray) -> np.ndarray:
        if self.space == "direction":
            return self._motion(latent)[:3, :3] @ self._direction
        six = self._basis @ np.asarray(latent, np.float64)
        return np.concatenate([np.degrees(six[:3]), six[3:] * self._scale])


def _name(keys: Sequence[str], request: Parameter) -> str:
    return keys[0] if len(keys) == 1 else f"{request.group} ({len(keys)} keys)"


def resolve(scene: Scene, requests: Sequence[Parameter]) -> list[Unknown]:
    """Turn requests into unknowns; 8-bit textures among them are reloaded as float.

    Raises:
        UsageError: no request, a key twice, a parameter that cannot be differentiated, groups that do not fit.
    """
    if not requests:
        raise UsageError("nothing to estimate", remedy="name a parameter (`pathtracer params SCENE` lists them)")
    chosen: dict[str, Parameter] = {}
    for request in requests:
        found = scene.select(request.key)
        infos = scene.parameters()
        if len(found) > 1 or found != [request.key]:
            found = [key for key in found if infos[key].differentiable] or found
        for key in found:
            if key in chosen:
                raise UsageError("named twice", where=key)
            if not infos[key].differentiable:
                raise UsageError(
                    f"cannot be differentiated: {infos[key].reason or 'nothing has a derivative for it'}",
                    where=key,
                    nearest=nearest_names(key, (k for k, i in infos.items() if i.differentiable)),
                )
            chosen[key] = request
    # reloading replaces the scene's objects, so it comes before any value is read
    chosen = {scene.make_differentiable(key): request for key, request in chosen.items()}
    infos = scene.parameters()
    groups: dict[str, list[str]] = {}
    for key, request in chosen.items():
        groups.setdefault(f"group {request.group}" if request.group else f"key {key}", []).append(key)
    return [_unknown(scene, keys, infos, chosen[keys[0]], [chosen[k].factor for k in keys]) for keys in groups.values()]


def _unknown(
    scene: Scene, keys: list[str], infos: dict[str, ParameterInfo], request: Parameter, factors: list[float]
) -> Unknown:
    info = infos[keys[0]]
    like = scene.params[keys[0]]
    space = request.space or info.space
    for key in keys[1:] if space != "pose" else ():
        other = scene.params[key]
        if type(other) is not type(like) or as_numpy(other).shape != as_numpy(like).shape:
            raise UsageError(
                f"{key} has another shape than {keys[0]}: they cannot share a value", where=f"group {request.group}"
            )
    matrix = as_numpy(like).shape == (4, 4)
    if space == "large-steps":
        if info.kind != "positions":
            raise UsageError("the space 'large-steps' is for vertex positions", where=keys[0])
        if request.prior:
            raise UsageError("vertices take no prior; their gradients are smoothed", where=keys[0])
        from .vertices import VerticesUnknown

        return VerticesUnknown(scene, keys, like, request)
    if space in ("direction", "pose"):
        for key in keys:
            if infos[key].kind not in ("transform", "positions"):
                raise UsageError(f"the space {space!r} is for `to_world` and vertex positions", where=key)
        if request.prior or request.smooth:
            raise UsageError("rigid motions take no prior and no smoothing", where=keys[0])
        if len(keys) > 1 and (space == "direction" or any(f != 1 for f in factors)):
            raise UsageError(
                "directions cannot share a value, and a common motion takes no factor", where=f"group {request.group}"
            )
        companions = [scene.params[key] for key in keys[1:]]
        return RigidUnknown(keys, like, info, request, space, scene_size(scene), companions)
    if matrix:
        raise UsageError(f"a `to_world` takes the space 'pose' or 'direction', not {space!r}", where=keys[0])
    return ArrayUnknown(keys, like, info, request, factors)


def scene_size(scene: Scene) -> float:
    """Half the diagonal of the scene's bounding box (1 for a scene without extent)."""
    box = scene.mi.bbox()
    extent = np.array(box.max, np.float64) - np.array(box.min, np.float64)
    size = 0.5 * float(np.linalg.norm(extent))
    return size if np.isfinite(size) and size > 0 else 1.0


def _broadcast(value: Any, current: np.ndarray, key: str, what: str) -> np.ndarray:
    if isinstance(value, str):
        raise UsageError(f"{what} is {value!r}, numbers were expected", where=key)
    try:
        array = np.asarray(value, np.float64)
        return np.array(np.broadcast_to(array, current.shape), np.float64)
    except ValueError as error:
        raise UsageError(f"{what} has the shape {np.shape(value)}, the parameter {current.shape}", where=key) from error
