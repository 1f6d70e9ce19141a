"""Path replay plus boundary sampling: the derivative of path-traced images whatever moves."""

from __future__ import annotations

from typing import Any

import mitsuba as mi

from .boundary.primary import primary_term
from .boundary.silhouettes import MeshTopology, Silhouettes
from .path_replay import PathReplay


class EdgeSampling(PathReplay):
    """Mitsuba plugin `edge_sampling`."""

    def __init__(self, props: mi.Properties) -> None:
        super().__init__(props)
        self.primary_spp = int(props.get("primary_spp", 0))
        self.primary = bool(props.get("primary", True))
        self._topology: MeshTopology | None = None

    def derivative_terms(self, params: Any) -> list[tuple[Any, int]]:
        terms = super().derivative_terms(params)
        if self.primary:
            terms.append((self.primary_boundary, self.primary_spp))
        return terms

    def curves(self, scene: mi.Scene) -> Silhouettes:
        curves = Silhouettes(scene, self._topology)
        self._topology = curves.topology
        return curves

    def primary_boundary(self, mode, scene, params, sensor, seed, spp, grad_in):
        return primary_term(self, mode, scene, self.curves(scene), sensor, seed, spp, grad_in)
