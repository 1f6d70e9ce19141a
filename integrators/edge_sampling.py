"""Path replay plus boundary sampling: the derivative of path-traced images whatever moves."""

from __future__ import annotations

from typing import Any

import mitsuba as mi

from .boundary.indirect import indirect_shadow_term, indirect_term
from .boundary.lights import Lights
from .boundary.primary import primary_term
from .boundary.shadow import shadow_term
from .boundary.silhouettes import Silhouettes, Topology
from .path_replay import PathReplay


class EdgeSampling(PathReplay):
    """Mitsuba plugin `edge_sampling`."""

    def __init__(self, props: mi.Properties) -> None:
        super().__init__(props)
        self.primary_spp = int(props.get("primary_spp", 0))
        self.primary = bool(props.get("primary", True))
        self.shadow_spp = int(props.get("shadow_spp", 0))
        self.shadow = bool(props.get("shadow", True))
        self.indirect_spp = int(props.get("indirect_spp", 0))
        self.indirect = bool(props.get("indirect", True))
        self._topology: Topology | None = None

    def derivative_terms(self, params: Any) -> list[tuple[Any, int]]:
        terms = super().derivative_terms(params)
        if self.primary:
            terms.append((self.primary_boundary, self.primary_spp))
        if self.shadow and self.max_depth >= 2:
            terms.append((self.shadow_boundary, self.shadow_spp))
        if self.indirect and self.max_depth >= 3:
            terms.append((self.indirect_shadow_boundary, self.indirect_spp))
            terms.append((self.indirect_boundary, self.indirect_spp))
        return terms

    def curves(self, scene: mi.Scene) -> Silhouettes:
        curves = Silhouettes(scene, self._topology)
        self._topology = curves.topology
        return curves

    def primary_boundary(self, mode, scene, params, sensor, seed, spp, grad_in):
        return primary_term(self, mode, scene, self.curves(scene), sensor, seed, spp, grad_in)

    def shadow_boundary(self, mode, scene, params, sensor, seed, spp, grad_in):
        return shadow_term(self, mode, scene, self.curves(scene), Lights(scene), sensor, seed, spp, grad_in)

    def indirect_shadow_boundary(self, mode, scene, params, sensor, seed, spp, grad_in):
        return indirect_shadow_term(self, mode, scene, self.curves(scene), Lights(scene), sensor, seed, spp, grad_in)

    def indirect_boundary(self, mode, scene, params, sensor, seed, spp, grad_in):
        return indirect_term(self, mode, scene, self.curves(scene), sensor, seed, spp, grad_in)
