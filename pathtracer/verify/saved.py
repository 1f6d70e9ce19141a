"""Parameter values kept for putting back, bit for bit, with the vertex normals that writing positions recomputes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Saved:
    """What some parameters of a scene were when this was made.

    Attributes:
        values: by key, copies of their own: what `params[key]` returns is a reference that later writes change.
    """

    def __init__(self, params: Any, keys: Iterable[str]) -> None:
        keys = list(dict.fromkeys(keys))
        normals = [k.removesuffix("vertex_positions") + "vertex_normals" for k in keys if _is_positions(k)]
        #: put back after the update of their vertices, which recomputes them
        self._late = [k for k in normals if k in params and len(params[k]) > 0]
        self._params = params
        self.values = {key: copy_of(params[key]) for key in [*keys, *(k for k in self._late if k not in keys)]}

    def restore(self) -> None:
        """Put everything back, detached."""
        for key in self.values.keys() - set(self._late):
            self._params[key] = self.values[key]
        self._params.update()
        for key in self._late:
            self._params[key] = self.values[key]
        if self._late:
            self._params.update()


def copy_of(value: Any) -> Any:
    """A handle of its own."""
    return type(value)(value)


def _is_positions(key: str) -> bool:
    return key.rsplit(".", 1)[-1] == "vertex_positions"
