"""A pose or a direction as an unknown: one rigid motion of all that belongs together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from . import rigid
from .arrays import as_numpy, from_flat
from .unknowns import Unknown, name_of

if TYPE_CHECKING:
    from ..scenes import ParameterInfo, Scene
    from .parameters import Parameter


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
        self.keys, self.name, self.space, self.measure = tuple(keys), name_of(keys, request), space, space
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


def scene_size(scene: Scene) -> float:
    """Half the diagonal of the scene's bounding box (1 for a scene without extent)."""
    box = scene.mi.bbox()
    extent = np.array(box.max, np.float64) - np.array(box.min, np.float64)
    size = 0.5 * float(np.linalg.norm(extent))
    return size if np.isfinite(size) and size > 0 else 1.0
