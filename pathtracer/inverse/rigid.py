"""Rigid motions as unknowns: six numbers for a pose, two for a direction, both relative to where the object starts.

A motion M(ω, τ) = T(c + s τ) exp([ω]×) T(-c) turns by the rotation vector ω (radians) about the object's centre c and
moves by s τ, where s is the size of the scene: one latent step means about the same in the picture for either. The
exponential map is Rodrigues' formula; its coefficients are even in |ω| and evaluated by their series near 0, where the
closed form has no derivative.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: Latent steps of a first-order solver: radians, and fractions of the scene's size.
RATE = 0.01
_SMALL = 1e-4


def rotation_matrix(omega: np.ndarray) -> np.ndarray:
    """The 3x3 rotation exp([ω]×) of a rotation vector (3,), in float64."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(np.asarray(omega, np.float64)).as_matrix()


def motion_matrix(latent: np.ndarray, centre: np.ndarray, scale: float) -> np.ndarray:
    """The 4x4 matrix of the motion with latent numbers (ω, τ) (6,) about `centre` (3,)."""
    latent = np.asarray(latent, np.float64)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_matrix(latent[:3])
    matrix[:3, 3] = centre + scale * latent[3:] - matrix[:3, :3] @ centre
    return matrix


def motion_latent(matrix: np.ndarray, centre: np.ndarray, scale: float) -> np.ndarray:
    """The latent numbers (6,) of a rigid 4x4 motion: the inverse of `motion_matrix`."""
    from scipy.spatial.transform import Rotation

    matrix = np.asarray(matrix, np.float64)
    omega = Rotation.from_matrix(matrix[:3, :3]).as_rotvec()
    tau = (matrix[:3, 3] - centre + matrix[:3, :3] @ centre) / scale
    return np.concatenate([omega, tau])


def motion_jit(latent: list[Any], centre: np.ndarray, scale: float) -> tuple[Any, Any]:
    """The motion as a Dr.Jit 3x3 matrix and a translation vector, differentiable in the six latent `mi.Float`s.

    Returns:
        (R, t): a point x moves to R x + t.
    """
    import drjit as dr
    import mitsuba as mi

    x, y, z = latent[:3]
    square = x * x + y * y + z * z
    near = square < _SMALL
    # Both branches of a select are differentiated: keep the closed form away from 0/0.
    safe = dr.select(near, 1, square)
    angle = dr.sqrt(safe)
    sine = dr.select(near, 1 - square / 6, dr.sin(angle) / angle)
    versine = dr.select(near, 0.5 - square / 24, (1 - dr.cos(angle)) / safe)
    cosine = 1 - versine * square
    rotation = mi.Matrix3f(
        [cosine + versine * x * x, versine * x * y - sine * z, versine * x * z + sine * y],
        [versine * x * y + sine * z, cosine + versine * y * y, versine * y * z - sine * x],
        [versine * x * z - sine * y, versine * y * z + sine * x, cosine + versine * z * z],
    )
    c = mi.Vector3f(*(float(v) for v in centre))
    translation = c + scale * mi.Vector3f(*latent[3:]) - rotation @ c
    return rotation, translation


def matrix4_jit(rotation: Any, translation: Any) -> Any:
    """The Dr.Jit `mi.Matrix4f` of (R, t)."""
    import mitsuba as mi

    rows = [[rotation[i, j] for j in range(3)] + [translation[i]] for i in range(3)]
    return mi.Matrix4f(*rows, [0, 0, 0, 1])


def tangents(direction: np.ndarray) -> np.ndarray:
    """Two unit vectors (2, 3) perpendicular to `direction` (3,) and each other: the axes a direction turns about."""
    d = np.asarray(direction, np.float64)
    d = d / np.linalg.norm(d)
    first = np.cross(d, np.eye(3)[np.argmin(np.abs(d))])
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(d, first)])


def direction_latent(start: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The two latent numbers (radians about `tangents(start)`) that turn direction `start` into `wanted`."""
    a = np.asarray(start, np.float64) / np.linalg.norm(start)
    b = np.asarray(wanted, np.float64) / np.linalg.norm(wanted)
    axis = np.cross(a, b)
    sine, cosine = np.linalg.norm(axis), float(a @ b)
    if sine < 1e-12:
        return np.array([0.0 if cosine > 0 else np.pi, 0.0])
    return tangents(start) @ (axis / sine * np.arctan2(sine, cosine))
