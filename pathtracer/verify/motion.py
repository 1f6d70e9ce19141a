"""One-parameter families of scenes: what moves, and how, as a function of a scalar θ with θ = 0 the scene itself.

A `Motion` is text that a user can type (`cube.vertex_positions translate:x`). Bound to a scene it becomes a function
of θ that writes the moved values into the scene. The same function serves finite differences (θ a plain number) and
automatic differentiation (θ an attached `mi.Float`), so that both sides of a check mean the same derivative.

    kind        argument                         θ is
    translate   axis or vector (default x)       a distance in scene units
    rotate      axis or vector (default y)       an angle in radians, about the object's own centre
    scale       nothing, or an axis              relative growth about the object's own centre: factor 1 + θ
    value       nothing, or one number a channel the parameter's own unit: p + θ d (default: all channels)
    random      seed (default 0)                 the parameter's own unit, along a fixed random direction of unit RMS

Centre: the box of a mesh or curve, the origin of a `to_world`. Another one is given as `rotate:y@0,1,0`.
Several motions joined by ` + ` happen together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pathtracer.errors import UsageError, nearest_names

from .saved import Saved, copy_of

KINDS = ("translate", "rotate", "scale", "value", "random")
_AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}
#: Leaf names of parameters that are lists of points, with the number of floats per point.
_POINTS = {"vertex_positions": 3, "control_points": 4}


@dataclass(frozen=True)
class Step:
    """One key moved in one way.

    Attributes:
        key: parameter key of `mi.traverse`.
        kind: one of `KINDS`.
        argument: direction, axis, channel weights, or the seed of `random`.
        centre: fixed point of a rotation or scaling; None means the object's own centre.
    """

    key: str
    kind: str
    argument: tuple[float, ...] = ()
    centre: tuple[float, ...] | None = None

    def __str__(self) -> str:
        text = f"{self.key} {self.kind}"
        if self.argument:
            axis = next((a for a, v in _AXES.items() if v == self.argument and self.kind != "value"), None)
            text += ":" + (axis or ",".join(f"{v:g}" for v in self.argument))
        if self.centre is not None:
            text += "@" + ",".join(f"{v:g}" for v in self.centre)
        return text


@dataclass(frozen=True)
class Motion:
    """Several steps that happen together, driven by one θ."""

    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, key: str, spec: str | None = None) -> Motion:
        """Read a motion: `parse("cube.vertex_positions", "translate:x")`, or all in one string, steps joined by ` + `.

        Without a kind the natural one for the key is taken when the motion is bound (see `natural_kind`).

        Raises:
            UsageError: unknown kind, bad axis or number.
        """
        if spec is not None:
            return cls((_parse_step(key.strip(), spec.strip()),))
        steps = []
        for part in key.split(" + "):
            words = part.split()
            if not 1 <= len(words) <= 2:
                raise UsageError(
                    f"{part!r} is not 'KEY' or 'KEY MOTION'", remedy="for example 'cube.to_world rotate:y'"
                )
            steps.append(_parse_step(words[0], words[1] if len(words) == 2 else ""))
        return cls(tuple(steps))

    def __add__(self, other: Motion) -> Motion:
        return Motion(self.steps + other.steps)

    def __str__(self) -> str:
        return " + ".join(str(step) for step in self.steps)

    @property
    def keys(self) -> list[str]:
        """The keys that move."""
        return [step.key for step in self.steps]

    def bind(self, scene: Any, params: Any) -> BoundMotion:
        """Attach the motion to a loaded `mi.Scene` and its `mi.traverse` parameters."""
        return BoundMotion(self, scene, params)


def _parse_step(key: str, spec: str) -> Step:
    head, _, centre_text = spec.partition("@")
    kind, _, argument_text = head.partition(":")
    if kind and kind not in KINDS:
        raise UsageError(f"unknown motion {kind!r}", where=key, nearest=nearest_names(kind, KINDS))
    argument: tuple[float, ...] = ()
    if argument_text:
        sign, name = (-1.0, argument_text[1:]) if argument_text[0] == "-" else (1.0, argument_text)
        argument = tuple(sign * v for v in _AXES[name]) if name in _AXES else _numbers(argument_text, key)
    centre = _numbers(centre_text, key) if centre_text else None
    if kind in ("translate", "rotate") and argument and len(argument) != 3:
        raise UsageError(f"{kind} needs an axis x, y, z or three numbers, not {argument_text!r}", where=key)
    if centre is not None and len(centre) != 3:
        raise UsageError(f"a centre is three numbers, not {centre_text!r}", where=key)
    return Step(key, kind, argument, centre)


def _numbers(text: str, key: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"{text!r} is neither an axis nor numbers separated by commas", where=key) from None


def natural_kind(key: str, value: Any) -> str:
    """The kind of motion that a key has when none is given: rigid things translate, textures go at random."""
    leaf = key.rsplit(".", 1)[-1]
    if leaf in _POINTS or leaf == "position":
        return "translate"
    if leaf == "to_world":
        return "translate"
    shape = getattr(value, "shape", ())
    return "random" if int(np.prod(shape)) > 4 else "value"


class BoundMotion:
    """θ ↦ scene. Writes into the scene it was bound to; `restore` (or the context `attached`) puts the start back.

    Attributes:
        scale: a θ that makes a visible but small change; finite differences start their search for a step there.
    """

    def __init__(self, motion: Motion, scene: Any, params: Any) -> None:
        steps = (_resolved(s, params[s.key]) if s.key in params else s for s in motion.steps)
        self.motion = motion = Motion(tuple(steps))
        self.scene = scene
        self.params = params
        self._written: list[_Write] = []
        for step in motion.steps:
            self._written.append(_bind_step(step, scene, params))
        self.scale = min(w.scale for w in self._written)
        self._saved = Saved(params, motion.keys)

    def values(self, theta: Any) -> dict[str, Any]:
        """The moved values, key by key, without writing them; attached where θ is."""
        import drjit as dr
        import mitsuba as mi

        # Opaque, so that another step size is data and not another kernel.
        theta = theta if isinstance(theta, mi.Float) else dr.opaque(mi.Float, float(theta))
        moved: dict[str, Any] = {}
        for write in self._written:
            moved[write.key] = write.move(moved.get(write.key, write.start), theta)
        return moved

    def apply(self, theta: Any) -> None:
        """Move the scene to θ, a number or an (attached) `mi.Float` of width one."""
        for key, value in self.values(theta).items():
            self.params[key] = value
        self.params.update()

    def restore(self) -> None:
        """Put the values back that the scene had when the motion was bound, bit for bit."""
        self._saved.restore()

    @contextmanager
    def attached(self, forward: bool) -> Iterator[Any]:
        """A context in which the scene depends on an attached θ = 0 (yielded), ready for one pass.

        Args:
            forward: push dθ = 1 into the scene, for `render_forward`; else leave the graph for `render_backward`.
        """
        import drjit as dr
        import mitsuba as mi

        theta = mi.Float(0.0)
        dr.enable_grad(theta)
        level = mi.log_level()
        try:
            # Mitsuba logs a warning for keys it flags as not differentiable (cameras, point lights): whether the
            # gradient is right all the same is what is being checked.
            mi.set_log_level(mi.LogLevel.Error)
            self.apply(theta)
            mi.set_log_level(level)
            if forward:
                dr.forward(theta, dr.ADFlag.ClearEdges)
            yield theta
        finally:
            mi.set_log_level(level)
            self.restore()


def _resolved(step: Step, value: Any) -> Step:
    """The step with everything said that was left to defaults."""
    kind = step.kind or natural_kind(step.key, value)
    argument = step.argument
    if kind in ("translate", "rotate"):
        argument = _axis(step, kind)
    elif kind == "random":
        argument = argument or (0.0,)
    return replace(step, kind=kind, argument=argument)


@dataclass
class _Write:
    """How one step computes its value: `move(start, theta)`."""

    key: str
    start: Any
    move: Any
    scale: float


def _bind_step(step: Step, scene: Any, params: Any) -> _Write:
    if step.key not in params:
        raise UsageError(
            f"the scene has no parameter {step.key!r}",
            nearest=nearest_names(step.key, params.keys()),
            remedy="`pathtracer params SCENE` lists them",
        )
    import drjit as dr
    import mitsuba as mi

    start = copy_of(params[step.key])
    is_transform = isinstance(start, mi.Transform4f)
    numbers = start.matrix if is_transform else start
    if not dr.is_jit_v(numbers) or dr.is_integral_v(numbers):
        raise UsageError(f"{step.key!r} is a {type(start).__name__} and cannot move continuously")
    kind = step.kind
    leaf = step.key.rsplit(".", 1)[-1]
    rigid = kind in ("translate", "rotate", "scale")
    if rigid and is_transform:
        return _bind_transform(step, kind, start, scene)
    if rigid and (leaf in _POINTS or isinstance(start, (mi.Point3f, mi.Vector3f, mi.Normal3f))):
        return _bind_points(step, kind, start, _POINTS.get(leaf, 0), scene)
    if rigid or is_transform:
        raise UsageError(
            f"{step.key!r} cannot {kind}",
            remedy="use value or random for numbers, translate, rotate or scale for poses",
        )
    if kind == "random" and leaf in _POINTS:
        return _bind_random_points(step, start, _POINTS[leaf], scene)
    return _bind_numbers(step, kind, start)


def _axis(step: Step, kind: str) -> tuple[float, ...]:
    if step.argument:
        return step.argument
    return (0.0, 1.0, 0.0) if kind == "rotate" else (1.0, 0.0, 0.0)


def _rigid_transform(kind: str, step: Step, theta: Any, centre: Sequence[float]) -> Any:
    import drjit as dr
    import mitsuba as mi

    transform = mi.Transform4f()
    if kind == "translate":
        return transform.translate(mi.Vector3f(*_axis(step, kind)) * theta)
    pivot = mi.Vector3f(*(float(c) for c in centre))
    if kind == "rotate":
        axis = dr.normalize(mi.Vector3f(*_axis(step, kind)))
        inner = mi.Transform4f().rotate(axis, theta * (180.0 / np.pi))
    else:
        along = mi.Vector3f(*(step.argument or (1.0, 1.0, 1.0)))
        inner = mi.Transform4f().scale(1.0 + along * theta)
    return mi.Transform4f().translate(pivot) @ inner @ mi.Transform4f().translate(-pivot)


def _extent(scene: Any) -> float:
    """Diagonal of the scene's bounding box."""
    box = scene.bbox()
    diagonal = float(np.linalg.norm(np.asarray(box.max).ravel() - np.asarray(box.min).ravel())) if box.valid() else 1.0
    return diagonal if np.isfinite(diagonal) and diagonal > 0 else 1.0


def _rigid_scale(kind: str, step: Step, extent: float) -> float:
    if kind == "translate":
        return 0.01 * extent / float(np.linalg.norm(_axis(step, kind)))
    return 0.04


def _bind_transform(step: Step, kind: str, start: Any, scene: Any) -> _Write:
    centre = (
        step.centre if step.centre is not None else tuple(np.asarray(start.matrix, dtype=float).reshape(4, 4)[:3, 3])
    )

    def move(value: Any, theta: Any) -> Any:
        return _rigid_transform(kind, step, theta, centre) @ value

    return _Write(step.key, start, move, _rigid_scale(kind, step, _extent(scene)))


def _bind_points(step: Step, kind: str, start: Any, stride: int, scene: Any) -> _Write:
    import drjit as dr
    import mitsuba as mi

    values = np.asarray(start, dtype=float)
    points = values.reshape(-1, stride)[:, :3] if stride else values.reshape(1, 3)
    centre = step.centre if step.centre is not None else tuple(0.5 * (points.min(0) + points.max(0)))

    def move(value: Any, theta: Any) -> Any:
        transform = _rigid_transform(kind, step, theta, centre)
        if not stride:
            return type(start)(transform @ mi.Point3f(value))
        if stride == 3:
            return dr.ravel(mi.Point3f(transform @ mi.Point3f(dr.unravel(mi.Point3f, value))))
        wide = dr.unravel(mi.Vector4f, value)  # a curve's control points carry their radius
        moved = transform @ mi.Point3f(wide.x, wide.y, wide.z)
        radius = wide.w * (1 + theta) if kind == "scale" and not step.argument else wide.w
        return dr.ravel(mi.Vector4f(moved.x, moved.y, moved.z, radius))

    return _Write(step.key, start, move, _rigid_scale(kind, step, _extent(scene)))


def _bind_random_points(step: Step, start: Any, stride: int, scene: Any) -> _Write:
    import mitsuba as mi

    points = np.asarray(start, dtype=float).reshape(-1, stride)
    # Vertices that coincide (seams) must move as one, or the surface tears.
    size = float(np.ptp(points[:, :3], axis=0).max()) or 1.0
    _, group = np.unique(np.round(points[:, :3] / (1e-5 * size)), axis=0, return_inverse=True)
    group = group.reshape(-1)
    rng = np.random.default_rng(int(step.argument[0]) if step.argument else 0)
    direction = np.zeros_like(points)
    direction[:, :3] = rng.standard_normal((group.max() + 1, 3))[group]
    direction /= np.sqrt(np.mean(np.sum(direction**2, axis=1)))
    tangent = mi.Float(direction.ravel().astype(np.float32))
    return _Write(step.key, start, lambda value, theta: value + tangent * theta, 0.01 * _extent(scene))


def _bind_numbers(step: Step, kind: str, start: Any) -> _Write:
    values = np.asarray(start, dtype=float)
    if kind == "random":
        rng = np.random.default_rng(int(step.argument[0]) if step.argument else 0)
        direction = rng.standard_normal(values.shape)
        direction /= np.sqrt(np.mean(direction**2))
    else:
        direction = np.ones(values.shape)
        if step.argument:
            try:
                # One number a channel; a trailing axis of texels broadcasts
                channels = np.asarray(step.argument)
                direction = np.broadcast_to(
                    channels if values.ndim == 3 else channels.reshape((-1,) + (1,) * (values.ndim - 1)), values.shape
                )
            except ValueError:
                raise UsageError(
                    f"{len(step.argument)} numbers do not fit a parameter of shape {values.shape}", where=step.key
                ) from None
    tangent = _like(start, direction)
    return _Write(step.key, start, lambda value, theta: value + tangent * theta, _number_scale(values, direction))


def _number_scale(values: np.ndarray, direction: np.ndarray) -> float:
    """A step of 5 % that stays on this side of 0 and 1 where the value does (albedos, roughness, opacity)."""
    reach = np.abs(direction)
    moving = reach > 0
    v, d = values[moving], reach[moving]
    if v.size == 0:
        raise UsageError("the direction of the motion is zero")
    largest = float(np.max(np.abs(v)))
    scale = 0.05 * max(largest, 0.2) / float(np.sqrt(np.mean(d**2)))
    for room in (v, 1 - v):
        inside = (room > 0) & (v <= 1)
        if np.any(inside):
            scale = min(scale, 0.25 * float(np.min(room[inside] / d[inside])))
    # texels that all but touch a bound must not shrink the step to nothing
    return max(scale, 1e-3 * max(largest, 0.2))


def _like(start: Any, values: np.ndarray) -> Any:
    """`values` as an array of the type of `start`."""
    import drjit as dr
    import mitsuba as mi

    values = values.astype(np.float32)
    if dr.is_tensor_v(start):
        return type(start)(np.ascontiguousarray(values))
    if dr.depth_v(start) == 1:
        return mi.Float(values.ravel())
    return type(start)(*[mi.Float(row) for row in values.reshape(dr.size_v(start), -1)])
