"""Scene values as NumPy arrays and back: numbers, colours, points, transforms, tensors."""

from __future__ import annotations

from typing import Any

import numpy as np


def is_transform(kind: type) -> bool:
    """Whether a scene value is a transform (attribute access cannot tell: Dr.Jit arrays swizzle any name)."""
    return "Transform" in kind.__name__


def as_numpy(value: Any) -> np.ndarray:
    """A scene value as an array: () for a number, (3,) for a colour or point, (4, 4) for a transform, else as it is."""
    import drjit as dr

    if isinstance(value, int | float):
        return np.asarray(float(value))
    if is_transform(type(value)):
        matrix = np.array(value.matrix, np.float64)
        return matrix.reshape(4, 4)
    array = np.array(value)
    if dr.is_tensor_v(value):
        return array
    if dr.depth_v(value) == 1:  # a JIT array: a number when it holds one
        return array.reshape(()) if array.size == 1 else array
    return array.reshape(array.shape[0]) if array.size == array.shape[0] else array


def from_flat(flat: Any, kind: type, shape: tuple[int, ...]) -> Any:
    """A scene value of type `kind` from the flat Dr.Jit array of its entries."""
    import drjit as dr

    if dr.is_tensor_v(kind):
        return kind(flat, shape)
    if dr.depth_v(kind) == 1:
        return kind(flat)
    return dr.unravel(kind, flat)


def to_device(array: np.ndarray, kind: type) -> Any:
    """A Dr.Jit array or tensor of type `kind` in memory of its own.

    An array made from NumPy keeps using NumPy's memory, which may be aligned or not; a recorded function is recorded
    again whenever that changes.
    """
    import drjit as dr

    value = kind(np.ascontiguousarray(array, np.float32))
    value = value + dr.opaque(dr.array_t(kind) if dr.is_tensor_v(kind) else kind, 0)
    dr.eval(value)
    return value


def to_scene(array: np.ndarray, like: Any) -> Any:
    """A detached scene value of the type of `like` from an array in the form of `as_numpy`."""
    import mitsuba as mi

    if is_transform(type(like)):
        return type(like)(np.asarray(array, np.float64))
    flat = to_device(np.asarray(array).ravel(), mi.Float)
    return from_flat(flat, type(like), array.shape)
