"""Path replay plus boundary sampling: the derivative of a path-traced image, whatever moves.

    dI_j = interior (path_replay)
         + primary    silhouettes, creases and rims on the film                               (E4)
         + crossing   curves on the film along which surfaces pass through each other         (E13)
         + horizon    curves on the film where interpolated normals turn away from the eye    (E16)
         + specular   the same in perfect mirrors and through smooth glass                    (E12)
         + shadow     edges of shadows on receivers that the camera sees, as curves on the film (E7)
         + indirect   segments between surfaces further along the path                   (E8, E8b)

Each term covers the discontinuities of one kind of path segment, so nothing is counted twice: the camera segment; the
segment from a directly seen receiver to a light; every other segment. Boundary and interior use one parametrisation:
film coordinates are fixed, the first hit slides along its camera ray, all later vertices and light samples keep their
place on their surface. Silhouettes of static shapes take part, because a segment moves with its ends.

Unbiased up to offsets that are small against a pixel (of rays from the curves that they pass; of `near`); they are
named in docs/theory/edge_sampling.md, which has the derivation. Not covered, and said so by an error or a warning: see
`boundary/limits.py`.

Sources: Li, Aittala, Durand, Lehtinen 2018; Zhang, Miller, Yan, Gkioulekas, Zhao 2020 (path-space boundary integral).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np

from .base import camera_attached, geometry_moves
from .boundary.budget import Pilot, measure, shares
from .boundary.camera import FilmMap
from .boundary.chain import ChainTables
from .boundary.contact import touching
from .boundary.crossing_search import film_cells
from .boundary.crossings import crossing_term, seen
from .boundary.deliver import nothing
from .boundary.device import arrays, recording, upload
from .boundary.film import FilmSplat
from .boundary.guiding import Cells, Guide, blank, film_key
from .boundary.horizons import Horizons, SmoothFaces, horizon_term, smooth_meshes
from .boundary.indirect import indirect_shadow_term, indirect_term
from .boundary.layers import transparent
from .boundary.lights import AREA, DELTA, SKY, Lights, LightTables, light_key, scene_extent
from .boundary.limits import CROSSING_INDIRECT, Limit, boundary_limits
from .boundary.primary import WORTH_GUIDING, primary_term
from .boundary.receivers import receiver_term
from .boundary.shadow import break_at_terminators, shadow_term
from .boundary.silhouettes import Silhouettes, scene_key
from .boundary.sky import SKY_SHADOW, sky_share, sky_term
from .boundary.specular import specular_term
from .boundary.specular_crossings import specular_crossing_term
from .boundary.stream import Stream
from .boundary.tables import SceneTables
from .errors import GradientWarning, UnsupportedGradient
from .path_replay import PathReplay
from .specular_chain import purely_specular

#: Kinds of arrays in a checkpoint, before the name of the term.
_KINDS = ("share ", "mean ", "cumulative ")
#: Samples of a term over those of the call, where they are fewer: a segment on the film that finds nothing is cheap;
#: behind mirrors it takes twenty chains
_SHARES = {"crossing": 0.125, "specular crossing": 1 / 32, "horizon": 0.25, "sky shadow": SKY_SHADOW}


class EdgeSampling(PathReplay):
    """Mitsuba plugin `edge_sampling`: a path tracer whose derivatives include visibility.

    Properties (besides those of `path_replay`), samples per pixel of the crop, spread over curves instead of pixels;
    0 takes the `spp` of the call:
        primary_spp: for what the camera sees directly.
        shadow_spp: for shadow edges on receivers that the camera sees; of lights, and as many again of the sky.
        indirect_spp: for visibility further along the path, for each of its three ways of sampling.
        guiding: whether what earlier samples found directs the next, where that pays (default true): from call to call,
            in the first by a pilot with an eighth of the samples.
        primary, shadow, indirect: whether the term is estimated at all (default true).
        split: "equal" gives every term without samples of its own as many as the call says; "auto" lets `balance`,
            which whoever optimises calls once, split them by variance and cost.

    Raises (when differentiated):
        UnsupportedGradient: geometry moves in a scene with a shape, sensor or light whose boundaries are not known.
    """

    def __init__(self, props: mi.Properties) -> None:
        super().__init__(props)
        self.primary_spp = int(props.get("primary_spp", 0))
        self.shadow_spp = int(props.get("shadow_spp", 0))
        self.indirect_spp = int(props.get("indirect_spp", 0))
        self.primary = bool(props.get("primary", True))
        self.shadow = bool(props.get("shadow", True))
        self.indirect = bool(props.get("indirect", True))
        self.guiding = bool(props.get("guiding", True))
        self.split = str(props.get("split", "equal"))
        if self.split not in ("equal", "auto"):
            raise ValueError(f"split is {self.split!r}, equal or auto was expected")
        #: samples of each term over those of an equal split
        self.shares: dict[str, float] = {}
        self._topology: SceneTables | None = None
        self._lights: LightTables | None = None
        self._chains: ChainTables | None = None
        self._touching = False
        self._visits = 0
        self._smooth: SmoothFaces | None = None
        self._extent = dr.opaque(mi.Float, 0)
        #: Every array of the tables: `dr.freeze` looks for the inputs of a recording among the attributes
        self._arrays: list[Any] = []
        self._warned: set[str] = set()
        self._memory: dict[str, Guide] = {}
        self._restored: dict[str, Guide] = {}

    def state(self) -> dict[str, np.ndarray]:
        """What later calls take over from earlier ones, for checkpoints: the memory of guiding and the split."""
        found = {f"share {name}": np.array([share]) for name, share in self.shares.items()}
        for name, guide in self._memory.items():
            found |= {f"mean {name}": np.array(guide.mean), f"cumulative {name}": np.array(guide.cumulative)}
        return found

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from `state`, before the first call."""
        parts = {kind: {k[len(kind) :]: v for k, v in state.items() if k.startswith(kind)} for kind in _KINDS}
        shares, means, cumulative = (parts[kind] for kind in _KINDS)
        self.shares = {name: float(value[0]) for name, value in shares.items()}
        self._restored = {
            name: Guide(upload(mi.Float, mean), upload(mi.Float64, cumulative[name])) for name, mean in means.items()
        }

    def prepare_scene(self, scene: mi.Scene, sensor: mi.Sensor, recorded: bool = False) -> None:
        """Bring up to date what is made on the host; inside a recorded step (`dr.freeze`) that is not possible.

        Whoever records a step calls this before every call of the recording, with the parameters attached.

        Args:
            recorded: whether what follows is part of a recording.

        Raises:
            UnsupportedGradient: something moves in a scene with a shape or light whose boundaries are not known, or
                in a spectral variant.
        """
        if not camera_attached(sensor) and not geometry_moves(scene):
            return
        if mi.is_spectral:
            raise UnsupportedGradient(
                f"edge_sampling has no wavelengths in its boundary terms, which {mi.variant()} would need",
                remedy="use a variant with rgb or mono colours, or finite_difference",
            )
        # of the shapes as they stand now: read inside a recording it would be a number of the first step
        self._extent = scene_extent(scene)
        topology, lights = self._topology, self._lights
        if topology is None or lights is None or topology.key != scene_key(scene) or lights.key != light_key(scene):
            with dr.suspend_grad():
                self._topology = topology = Silhouettes(scene, topology).topology
                self._lights = lights = Lights(scene, self._extent, lights).tables
            self._memory, self._restored = self._restored, {}
            self._touching, self._visits = False, 0
            smooth = smooth_meshes(scene)
            self._smooth = SmoothFaces(smooth) if smooth else None
            self._say(boundary_limits(scene, topology.lines.skipped, self.max_depth))
        # once bodies have touched they are watched, or a recorded step would be recorded anew whenever they part
        if self.primary and not self._touching and touching(scene, camera_attached(sensor), topology.parts):
            self._touching = True
        if self._touching and self.max_depth > 2 and CROSSING_INDIRECT[0] not in self._warned:
            # bodies that rest on each other may sink in later: looked at again at the 2nd, 4th, 8th, ... call
            self._visits += 1
            if self._visits & (self._visits - 1) == 0 and seen(
                scene, Silhouettes(scene, topology), sensor, self.hide_emitters
            ):
                self._say([CROSSING_INDIRECT])
        if recorded:
            self._find_chains(scene, sensor, topology)
        self._arrays = arrays([table for table in (topology, lights, self._chains, self._smooth) if table is not None])
        # a recording without these terms has fewer arrays
        chains = self._chains is not None and self._chains.size > 0
        self._arrays += [dr.opaque(mi.Float, 1) for term in (self._touching, chains) if term]
        if recorded and self.guiding:
            self._remember(scene, sensor, topology, lights)

    def _find_chains(self, scene: mi.Scene, sensor: mi.Sensor, topology: SceneTables) -> None:
        """Which specular chains the film shows now."""
        bounces = min(self.specular_depth, self.max_depth - 1)
        if not self.primary or bounces < 1 or not purely_specular(scene):
            self._chains = None
            return
        with dr.suspend_grad():
            self._chains = ChainTables(scene, Silhouettes(scene, topology), sensor, bounces)
        self._say(self._chains.limits())

    def _remember(self, scene: mi.Scene, sensor: mi.Sensor, topology: SceneTables, tables: LightTables) -> None:
        """Blank memories for a recording, which cannot make them itself."""
        film, size = FilmSplat(sensor), topology.curves
        beyond = transparent(scene)
        directions = AREA in tables.kinds or (beyond and SKY in tables.kinds)
        elements = {"shadow": (size * len(tables.kinds), directions)}
        if SKY in tables.kinds and not beyond:
            elements["sky"] = (size, True)
            elements["sky shadow"] = (size * len(tables.kinds), True)
        if size + topology.lines.size >= WORTH_GUIDING:
            elements["primary"] = (size + topology.lines.size, False)
        if self.indirect and self.max_depth >= 3:
            elements["receivers"] = (size, True)
        if self._chains is not None and self._chains.size:
            elements["specular"] = (self._chains.padded * size, False)
            if self._touching:
                elements["specular crossing"] = (self._chains.padded, True)
        if self._touching:
            elements["crossing"] = (film_cells(film), False)
        if self._smooth is not None:
            elements["horizon"] = (self._smooth.size, False)
        for name, (count, further) in elements.items():
            key = film_key(name, film)
            if count and key not in self._memory:
                self._memory[key] = blank(Cells.of(film.pixels, count, further), count)

    def film_velocity(
        self, scene: mi.Scene, sensor: mi.Sensor, u: mi.Point2f, lens: mi.Point2f | None, random: Stream
    ) -> mi.Vector2f:
        """Velocity with which the interior term moves film positions; speeds of curves are relative to it.

        Args:
            u: (N,) film positions in pixels.
            lens: (N,) points of the unit disc, with a thin lens.

        Returns:
            Value zero; here without derivatives, as the interior term keeps film coordinates fixed.
        """
        return mi.Vector2f(0)

    def memory(self, name: str) -> tuple[str, dict[str, Guide]] | None:
        """The name of a term and where its memory is kept; None without guiding."""
        return (name, self._memory) if self.guiding else None

    def _say(self, limits: list[Limit]) -> None:
        for code, message, remedy in limits:
            if code not in self._warned:
                self._warned.add(code)
                warnings.warn(GradientWarning(code, message, remedy), stacklevel=3)

    def derivative_terms(self, params: Any) -> list[tuple[Any, int | float]]:
        """Interior and boundary terms that are on; see `ReplayIntegrator.derivative_terms`."""
        return [
            (term, max(1, round(own * _SHARES.get(name, 1))) if own else self.shares.get(name, _SHARES.get(name, 0)))
            for name, term, own in self._named_terms()
        ]

    def _named_terms(self) -> list[tuple[str, Any, int]]:
        terms: list[tuple[str, Any, int]] = []
        if self.interior:
            terms.append(("interior", self.interior_term, self.interior_spp))
        if self.primary:
            terms.append(("primary", self._boundary(self._primary), self.primary_spp))
            terms.append(("horizon", self._boundary(self._horizon), self.primary_spp))
            terms.append(("crossing", self._boundary(self._crossing), self.primary_spp))
            terms.append(("specular", self._boundary(self._specular, attached=False), self.primary_spp))
        if self.shadow and self.max_depth >= 2:
            terms.append(("shadow", self._boundary(self._shadow), self.shadow_spp))
            terms.append(("sky", self._boundary(self._sky), self.shadow_spp))
            terms.append(("sky shadow", self._boundary(self._sky_shadow), self.shadow_spp))
        if self.indirect and self.max_depth >= 3:
            terms.append(("indirect shadow", self._boundary(self._indirect_shadow), self.indirect_spp))
            terms.append(("indirect", self._boundary(self._indirect), self.indirect_spp))
            terms.append(("receivers", self._boundary(self._receivers), self.indirect_spp))
        return terms

    def balance(
        self, scene: mi.Scene, params: Any, sensor: mi.Sensor, attach: Callable[[], Any], spp: int, seed: int = 0
    ) -> dict[str, float]:
        """Split the samples among the terms by a pilot of each, for all calls from now on.

        Args:
            attach: sets the parameters with tangents; called before every derivative image of the pilot.
            spp: samples per pixel of a pilot's image.

        Returns:
            Samples of each term over those of an equal split of the same cost. Terms with samples of their own keep
            them.
        """
        self.shares = {}
        pilots: dict[str, Pilot] = {}
        for name, term, own in self._named_terms():

            def image(k: int, term: Any = term) -> np.ndarray:
                attach()
                self.dropped = mi.UInt32(0)
                self.begin(scene, params, sensor)
                number = dr.opaque(mi.UInt32, seed + k)  # a literal would be compiled for every image
                return np.array(term(dr.ADMode.Forward, scene, params, sensor, number, spp, None))

            if not own:
                pilots[name] = measure(image, spp)
        self.shares = shares(pilots)
        return self.shares

    def _boundary(self, term: Any, attached: bool = True) -> Any:
        """Wrap a boundary term: skipped while nothing moves, refused where its geometry is not known.

        Args:
            attached: whether the curves that the term is given carry derivatives.
        """

        def guarded(
            mode: dr.ADMode,
            scene: mi.Scene,
            params: Any,
            sensor: mi.Sensor,
            seed: Any,
            spp: int,
            grad_in: mi.TensorXf | None,
        ) -> mi.TensorXf | None:
            if not camera_attached(sensor) and not geometry_moves(scene):
                return nothing(FilmSplat(sensor), mode)
            self.aovs.require_known_jumps(scene)
            if not recording():
                self.prepare_scene(scene, sensor)
            elif self._topology is None:
                raise RuntimeError("edge_sampling.prepare_scene(scene, sensor) comes before a step is recorded")
            with contextlib.nullcontext() if attached else dr.suspend_grad():
                curves = Silhouettes(scene, self._topology)
            if curves.size == 0:
                return nothing(FilmSplat(sensor), mode)
            return term(mode, scene, curves, sensor, seed, spp, grad_in)

        return guarded

    # Each term draws its own numbers: correlated terms would not be wrong, but their noise would add up.

    def _primary(self, mode: Any, scene: Any, curves: Any, sensor: Any, seed: Any, *rest: Any) -> Any:
        if self.max_depth >= 2:
            break_at_terminators(curves, Lights(scene, self._extent, self._lights))
        return primary_term(self, mode, scene, curves, sensor, _mix(seed, 1), *rest)

    def _crossing(self, mode: Any, scene: Any, curves: Any, sensor: Any, seed: Any, *rest: Any) -> Any:
        if not self._touching:
            return nothing(FilmSplat(sensor), mode)
        return crossing_term(self, mode, scene, curves, sensor, _mix(seed, 7), *rest)

    def _horizon(self, mode: Any, scene: Any, curves: Any, sensor: Any, seed: Any, *rest: Any) -> Any:
        if self._smooth is None:
            return nothing(FilmSplat(sensor), mode)
        horizons = Horizons(smooth_meshes(scene), self._smooth)
        return horizon_term(self, mode, scene, horizons, sensor, _mix(seed, 8), *rest)

    def _specular(self, mode: Any, scene: Any, curves: Any, sensor: Any, seed: Any, *rest: Any) -> Any:
        if not recording():
            self._find_chains(scene, sensor, curves.topology)
        if self._chains is None or self._chains.size == 0:
            return nothing(FilmSplat(sensor), mode)
        break_at_terminators(curves, Lights(scene, self._extent, self._lights))
        spp, grad_in = rest
        image = specular_term(self, mode, scene, curves, self._chains, sensor, _mix(seed, 6), spp, grad_in)
        if self._touching:
            spp = max(1, round(_SHARES["specular crossing"] * spp))
            more = specular_crossing_term(self, mode, scene, curves, self._chains, sensor, _mix(seed, 11), spp, grad_in)
            image = more if image is None else image + more
        return image

    def _shadow(self, mode: Any, scene: Any, curves: Any, sensor: Any, seed: Any, *rest: Any) -> Any:
        lights = Lights(scene, self._extent, self._lights)
        kinds = (DELTA, AREA, SKY) if transparent(scene) else (DELTA, AREA)  # (E7) looks through masks
        if not any(kind in kinds for kind in lights.kinds):
            return nothing(FilmSplat(sensor), mode)
        spp, grad_in = rest
        return shadow_term(self, mode, scene, curves, lights, sensor, _mix(seed, 2), spp, grad_in, kinds)

    def _sky(self, mode: Any, scene: Any, curves: Any, sensor: Any, seed: Any, *rest: Any) -> Any:
        if scene.environment() is None or transparent(scene):  # then (E7) takes it all
            return nothing(FilmSplat(sensor), mode)
        return sky_term(self, mode, scene, curves, self._extent, sensor, _mix(seed, 5), *rest)

    def _sky_shadow(self, mode: Any, scene: Any, curves: Any, sensor: Any, seed: Any, *rest: Any) -> Any:
        if scene.environment() is None or transparent(scene):
            return nothing(FilmSplat(sensor), mode)
        lights = Lights(scene, self._extent, self._lights)
        left = partial(sky_share, FilmMap(sensor), FilmSplat(sensor), scene.environment())
        spp, grad_in = rest
        return shadow_term(self, mode, scene, curves, lights, sensor, _mix(seed, 10), spp, grad_in, (SKY,), left)

    def _indirect_shadow(self, mode: Any, scene: Any, curves: Any, sensor: Any, seed: Any, *rest: Any) -> Any:
        lights = Lights(scene, self._extent, self._lights)
        if lights.size == 0:
            return nothing(FilmSplat(sensor), mode)
        return indirect_shadow_term(self, mode, scene, curves, lights, sensor, _mix(seed, 3), *rest)

    def _indirect(self, mode: Any, scene: Any, curves: Any, sensor: Any, seed: Any, *rest: Any) -> Any:
        return indirect_term(self, mode, scene, curves, self._extent, sensor, _mix(seed, 4), *rest)

    def _receivers(self, mode: Any, scene: Any, curves: Any, sensor: Any, seed: Any, *rest: Any) -> Any:
        lights = Lights(scene, self._extent, self._lights)
        if lights.size == 0:
            return nothing(FilmSplat(sensor), mode)
        return receiver_term(self, mode, scene, curves, lights, sensor, _mix(seed, 9), *rest)


def _mix(seed: Any, term: int) -> mi.UInt32:
    """A seed of its own for each term; in memory, or every seed would compile kernels of its own."""
    seed = seed if dr.is_jit_v(seed) else dr.opaque(mi.UInt32, seed)
    mixed = mi.sample_tea_32(mi.UInt32(seed), dr.opaque(mi.UInt32, 0x9E3779B9 * term & 0xFFFFFFFF))[0]
    dr.make_opaque(mixed)
    return mixed
