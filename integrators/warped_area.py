"""Path replay under a warped-area reparametrisation: visibility as an area integral, without a single edge sample.

With u ↦ u + V(u) on the film, V continuous and equal to the velocity of what is visible at every silhouette,

    dI/dθ = ∫ h ∂f(u + θV)/∂θ + f ∇h·V + h f div V du,

an integral of continuous functions (docs/theory/warped_area.md). The camera ray of every sample becomes attached to the
warped film position; path replay does the rest. Of what `edge_sampling` is made of it shares the
welded list of mesh edges alone, unless asked for `hybrid`, so that the two can be held against each other.

Consistent, not unbiased: the bias comes from silhouettes that curve, cross or follow each other within the width of the
kernel, and falls with that width, while the variance grows as its reciprocal.

Sources: Bangaru, Li, Durand 2020, Unbiased Warped-Area Sampling; Loubet, Holzschuh, Jakob 2019; Xu et al. 2023.
"""

from __future__ import annotations

import warnings
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np

from .attached import SPECULAR, SceneTraits, scene_bsdfs
from .base import camera_attached, geometry_moves
from .boundary.contact import touching
from .boundary.crossings import seen
from .boundary.device import arrays, recording, upload
from .boundary.silhouettes import Silhouettes
from .contours import Contours, contours_key
from .errors import GradientWarning, UnsupportedGradient
from .path_replay import PathReplay
from .sampling import ScrambledSobol
from .support import warn_of_hidden_motion
from .warp import Kernel, Looks, direction_field, film_field
from .warped_film import FilmLines, FilmPoints, FilmSamples, camera_ray, sample_film
from .warped_head import Sky, even_sky, warped_head
from .warped_hybrid import LeftToEdges

#: Auxiliary rays of one kernel launch; each takes some dozen floats.
WARP_LANES = 2**24
#: Radii of the kernel of directions when it is chosen automatically, radians: for lamps, and for the environment alone.
NARROWEST, WIDEST, SKY = 0.002, 0.03, 0.02


@dr.syntax
def _smallest_angle(spheres: mi.Float, count: mi.UInt32, p: mi.Point3f) -> mi.Float:
    """Least apparent radius of bounding spheres (x, y, z, radius one after the other) as seen from p."""
    angle, k = mi.Float(dr.inf), mi.UInt32(0)
    while k < count:
        centre = mi.Point3f(*(dr.gather(mi.Float, spheres, 4 * k + i) for i in range(3)))
        angle = dr.minimum(angle, dr.gather(mi.Float, spheres, 4 * k + 3) * dr.rcp(dr.norm(centre - p)))
        k += 1
    return angle


def lamp_spheres(scene: mi.Scene) -> mi.Float:
    """Bounding spheres of the luminous shapes: x, y, z, radius one after the other."""
    boxes = [shape.bbox() for shape in scene.shapes() if shape.is_emitter()]
    return upload(mi.Float, np.ravel([(*np.asarray(b.center()), 0.5 * np.linalg.norm(b.extents())) for b in boxes]))


def _warn(code: str, message: str, remedy: str = "use edge_sampling or finite_difference") -> None:
    warnings.warn(GradientWarning(code, message, remedy), stacklevel=4)


#: What to do about what `hybrid` adds.
_HYBRID = "set hybrid=true, which takes it from edge sampling, or use edge_sampling"


class WarpedArea(PathReplay):
    """Mitsuba plugin `warped_area`: path replay whose camera rays move with what they see.

    Properties (besides those of `path_replay`):
        warp_rays: auxiliary rays N of one ring.
        warp_pairs: pairs of mirrored rings, turned against each other by equal angles (default 2).
        warp_width: radius of the kernel, in pixels (default 0.125).
        warp_ridge: weight of a ring's mean velocity next to the velocities across silhouettes.
        warp_debias: extrapolate to kernels without width, for five times the variance (default false).
        warp_depth: vertices of the path whose outgoing directions are warped too (default 2: shadows on what the camera
            sees, and on what that reflects).
        warp_angle: radius of the kernel there, in radians; 0 (default) chooses it at every point.
        warp_share: that radius as a share of the apparent radius of the smallest light.
        hybrid: take what a warp does not follow from edge sampling: hard shadows of delta lights on what the camera
            sees, silhouettes in perfect mirrors and through smooth glass, curves along which surfaces pass through each
            other, horizons of interpolated normals (default false); with the budgets of `edge_sampling`.

    Reference: Bangaru, Li, Durand 2020, Unbiased Warped-Area Sampling for Differentiable Rendering, ACM TOG 39(6).
    """

    def __init__(self, props: mi.Properties) -> None:
        super().__init__(props)
        self.warp_width = float(props.get("warp_width", 0.125))
        self.warp_angle = float(props.get("warp_angle", 0.0))
        self.warp_share = float(props.get("warp_share", 0.15))
        self.warp_depth = int(props.get("warp_depth", 2))
        self.kernel = Kernel(
            rays=int(props.get("warp_rays", 6)),
            ridge=float(props.get("warp_ridge", 1e-3)),
            debias=bool(props.get("warp_debias", False)),
            pairs=int(props.get("warp_pairs", 2)),
        )
        self._refuse_values()
        self.edges = LeftToEdges(props, self.film_field) if bool(props.get("hybrid", False)) else None
        self._contours: tuple[Contours, bool] | None = None
        #: Arrays of the silhouettes, at last the lamps' spheres: where `dr.freeze` looks for the inputs of a recording
        self._arrays: list[Any] = []
        self._crossed: mi.Scene | None = None

    def _refuse_values(self) -> None:
        """Rings of fewer than three rays, or of no size, meet no silhouette: the answer would be a silent zero."""
        kernel = self.kernel
        for name, count, least in (("warp_rays", kernel.rays, 3), ("warp_pairs", kernel.pairs, 1)):
            if count < least:
                raise ValueError(f"{name} is {count}, {least} or more were expected")
        positive = ("warp_width", self.warp_width), ("warp_share", self.warp_share), ("warp_ridge", kernel.ridge)
        for name, value in positive:
            if not 0 < value < np.inf:
                raise ValueError(f"{name} is {value}, a positive number was expected")
        for name, value in (("warp_angle", self.warp_angle), ("warp_depth", self.warp_depth)):
            if not 0 <= value < np.inf:
                raise ValueError(f"{name} is {value}, a number from 0 on was expected")

    def contours(self, scene: mi.Scene) -> Contours:
        """The silhouettes of the scene, its tables built once for a list of shapes and faces."""
        contours = self._tables(scene)
        contours.refresh()
        return contours

    def _read(self, scene: mi.Scene) -> None:
        """What is read on the host: topology once, the lamps' places as they are now."""
        tables = self._tables(scene)
        self._arrays = arrays([tables.kind, tables.first, tables.faces, tables.twin, tables.jump])
        self._arrays.append(lamp_spheres(scene))

    def _tables(self, scene: mi.Scene) -> Contours:
        if self._contours is None or not (recording() or self._contours[0].key == contours_key(scene)):
            with dr.suspend_grad():
                self._contours = (Contours(scene), even_sky(scene))
        return self._contours[0]

    def say_what_is_missing(self, scene: mi.Scene, sensor: mi.Sensor) -> None:
        """Refuse, or warn of, what a warp of the first vertices cannot account for when things move."""
        if self.hide_emitters:
            raise UnsupportedGradient(
                "warped_area does not look through hidden emitters", remedy="use edge_sampling or finite_difference"
            )
        if self.aovs.names:
            raise UnsupportedGradient("warped_area moves colours, no AOVs", remedy="use edge_sampling")
        warn_of_hidden_motion(scene)
        self._say_what_edges_add(scene, sensor)
        if self.max_depth > self.warp_depth + 1:
            _warn(
                "warp-depth",
                f"shadows and occlusion are followed at the first {self.warp_depth} vertices of paths with up to "
                f"{self.max_depth - 1}"
                if self.warp_depth
                else "shadows and occlusion between surfaces are left out",
                "use edge_sampling or finite_difference, or raise warp_depth",
            )

    def _say_what_edges_add(self, scene: mi.Scene, sensor: mi.Sensor) -> None:
        """Warn of what takes samples on curves, as far as `hybrid` does not add it."""
        hybrid = self.edges is not None
        traits = SceneTraits(scene)
        if traits.has_delta_emitters and self.max_depth > (2 if hybrid else 1):
            where = " on what the camera does not see directly" if hybrid else ""
            _warn(
                "delta-shadow",
                f"the hard shadows of point, spot, directional and projector lights{where} are no area integral: "
                "their motion is left out",
                *(() if hybrid else (_HYBRID,)),
            )
        if any(int(bsdf.flags()) & SPECULAR for bsdf in scene_bsdfs(scene)) and not hybrid:
            _warn(
                "specular-visibility",
                "silhouettes seen in perfect mirrors or through smooth glass are left out",
                _HYBRID,
            )
        if any(mi.has_flag(bsdf.flags(), mi.BSDFFlags.Null) for bsdf in scene_bsdfs(scene)):
            _warn("mask-visibility", "silhouettes seen through masks or thin panes are left out")
        if not hybrid and not recording() and self._crossed is not scene and self._touching(scene, sensor):
            self._crossed = scene  # one look; a recorded step has none
            with dr.suspend_grad():
                crossed = seen(scene, Silhouettes(scene), sensor, False)
            if crossed:
                _warn(
                    "crossing",
                    "surfaces pass through each other, and the curve along which the camera sees them do so moves as "
                    "neither of them does: its motion is left out",
                    _HYBRID,
                )

    def _touching(self, scene: mi.Scene, sensor: mi.Sensor) -> bool:
        return touching(scene, camera_attached(sensor), self._tables(scene).parts)

    def _direction_warp(self, scene: mi.Scene, sampler: mi.Sampler) -> Any:
        """The field of directions at a surface point, a function of (si, directions, hits, direct, active)."""
        contours = self.contours(scene)
        radius = self._angle(scene)

        def field(
            si: mi.SurfaceInteraction3f,
            d: mi.Vector3f,
            pi: mi.PreliminaryIntersection3f,
            direct: mi.Bool,
            active: mi.Bool,
        ) -> tuple[mi.Vector3f, mi.Float]:
            seed = mi.UInt32(sampler.next_1d() * 2.0**24)
            with dr.suspend_grad():
                origin, n = mi.Point3f(dr.detach(si).spawn_ray(d).o), mi.Vector3f(dr.detach(si.n))
                every = dr.full(mi.Bool, True, dr.width(d))
                wide = mi.Float(radius(si)) + dr.zeros(mi.Float, dr.width(d))
            with dr.resume_grad():
                looks = Looks(mi.Point3f(si.p), origin, n, d, pi, wide, seed, direct & every, active & every)
            return direction_field(scene, contours, self.kernel, looks)

        return field

    def _angle(self, scene: mi.Scene) -> Any:
        """Radius of the kernel of directions at a point: a share of the angle under which it sees the smallest light.

        It may depend on the point but not on the direction, or on how the direction was drawn (section 5).
        """
        fixed = dr.opaque(mi.Float, self.warp_angle if self.warp_angle > 0 else SKY)
        if self.warp_angle > 0:
            return lambda si: fixed
        data = self._arrays[-1]
        count = dr.opaque(mi.UInt32, dr.width(data) // 4)

        def angle(si: mi.SurfaceInteraction3f) -> mi.Float:
            if dr.width(data) == 0:
                return fixed
            with dr.suspend_grad():
                return dr.clip(self.warp_share * _smallest_angle(data, count, dr.detach(si.p)), NARROWEST, WIDEST)

        return angle

    def film_field(
        self, scene: mi.Scene, sensor: mi.Sensor, sampler: Any, points: FilmPoints, even: bool = False
    ) -> tuple[mi.Vector2f, mi.Float]:
        """Velocity of the film at `points`, in pixels, and its divergence; both have value zero and derivatives.

        Args:
            even: whether the velocity alone matters; see `Kernel.rings`.
        """
        radius = dr.opaque(mi.Float, self.warp_width)
        seed = mi.UInt32(sampler.next_1d() * 2.0**24)
        return film_field(scene, self.contours(scene), self.kernel, radius, seed, sensor, points, even)

    # ----------------------------------------------------------- derivative

    def begin(self, scene: mi.Scene, params: Any, sensor: mi.Sensor) -> None:
        """What all terms share, those of edge sampling too."""
        super().begin(scene, params, sensor)
        if self.edges is not None:
            self.edges.near_field = self.near_field

    def derivative_terms(self, params: Any) -> list[tuple[Any, int | float]]:
        """The warped interior; asked for `hybrid`, what edge sampling adds."""
        return super().derivative_terms(params) + ([] if self.edges is None else self.edges.curve_terms())

    def prepare_scene(self, scene: mi.Scene, sensor: mi.Sensor, recorded: bool = False) -> None:
        """Before a step is recorded; see `EdgeSampling.prepare_scene`."""
        try:
            self._read(scene)
        except UnsupportedGradient:
            if camera_attached(sensor) or geometry_moves(scene):
                raise
        if self.edges is not None:
            self.edges.prepare_scene(scene, sensor, recorded)

    def passes(self, sensor: mi.Sensor, seed: Any, spp: int, image: bool = False) -> list[tuple[Any, int]]:
        """As in the base class, with room for the auxiliary rays."""
        spp = spp or sensor.sampler().sample_count()
        size = sensor.film().crop_size()
        most = max(2, WARP_LANES // (2 * self.kernel.pairs * self.kernel.rays * int(size[0]) * int(size[1])))
        if image or spp <= most:
            return super().passes(sensor, seed, spp, image)
        count = -(-spp // most)
        share = -(-spp // count)
        share += share % 2  # whose halves know each other's level (W13)
        return [(seed if i == 0 else mi.sample_tea_32(seed, i)[0], share) for i in range(count)]

    def interior_term(
        self,
        mode: dr.ADMode,
        scene: mi.Scene,
        params: Any,
        sensor: mi.Sensor,
        seed: Any,
        spp: int,
        grad_in: mi.TensorXf | None,
    ) -> mi.TensorXf | None:
        """Derivative by replay of paths that start on the warped film."""
        film = sensor.film()
        backward = mode == dr.ADMode.Backward
        with dr.suspend_grad():
            sampler, spp, halves = self._in_halves(sensor, seed, spp)
            points, pixel = sample_film(sensor, sampler)
            with dr.resume_grad():
                ray, unmoved = camera_ray(sensor, points)
                geometry = self.geometry_attached(scene, params) or dr.grad_enabled(ray.o, ray.d)
            if not geometry:
                return super().interior_term(mode, scene, params, sensor, seed, spp, grad_in)
            self.say_what_is_missing(scene, sensor)
            if not recording():
                self._read(scene)
            lines = self.film_lines(sensor, seed, spp)

            with dr.resume_grad():
                sky = Sky(scene if self._contours is not None and self._contours[1] else None)
                backdrop = unmoved * sky.radiance(ray.d, ray.wavelengths)
                shift, stretch = self.film_field(scene, sensor, sampler, points)
                warped = points.at(mi.Point2f(points.u + shift))
                ray, weight = camera_ray(sensor, warped)
                head = self.camera_head(scene, sampler, ray, geometry)
                vertices = min(self.warp_depth, self.max_depth - 1)
                if vertices > 0:
                    warp = self._direction_warp(scene, sampler)
                    head = warped_head(scene, sampler, head, vertices, self.max_depth, warp, sky, self.near_field)
                # A sky that nothing hides moves as it is seen, and needs no warp
                behind = weight * sky.radiance(ray.d, ray.wavelengths)
                offset = head.emitted * weight + backdrop - behind
                weight = head.weight * weight
                across = mi.Float(0)
                if lines is not None:
                    across = dr.dot(self.film_field(scene, sensor, lines.sampler, lines.points, True)[0], lines.normal)
                if not backward:
                    flags = dr.ADFlag.ClearEdges | dr.ADFlag.AllowNoGrad
                    dr.forward_to(head.ray.o, head.ray.d, weight, offset, shift, stretch, across, flags=flags)

            walk = {"scene": scene, "ray": head.ray, "depth": head.length, "active": head.active}
            walk |= {"near": self.near_field, "coherent": False}
            L, _, _, state = self.sample(mode=dr.ADMode.Primal, sampler=sampler.clone(), **walk)
            L = dr.detach(L)
            value = dr.detach(weight) * L + dr.detach(offset - backdrop)
            if lines is not None:
                lines.trace(self, scene, sensor, sky)
            samples = FilmSamples(film, points, pixel, value, lines, head.ray.wavelengths, halves)

            if backward:
                δvalue, δshift, δstretch, δacross = samples.adjoint(grad_in)
                self.sample(
                    mode=mode, sampler=sampler, δL=δvalue * dr.detach(weight), state_in=state, geometry=True, **walk
                )
                with dr.resume_grad():
                    scalar = dr.sum(δvalue * (L * weight + offset)) + dr.dot(δshift, shift) + δstretch * stretch
                    dr.backward_from(scalar, flags=dr.ADFlag.ClearInterior | dr.ADFlag.AllowNoGrad)
                    if lines is not None:
                        dr.backward_from(δacross * across, flags=dr.ADFlag.ClearInterior | dr.ADFlag.AllowNoGrad)
                return None

            δL, _, _, _ = self.sample(mode=mode, sampler=sampler, state_in=state, geometry=True, **walk)
            with dr.resume_grad():
                δvalue = δL * dr.detach(weight) + L * dr.grad(weight) + dr.grad(offset)
                tangents = (δvalue, dr.grad(shift), dr.grad(stretch), dr.grad(across))
            return samples.tangent(*tangents)

    def _in_halves(self, sensor: mi.Sensor, seed: Any, spp: int) -> tuple[Any, int, bool]:
        """Sampler and samples per pixel as from `prepare`; whether a pixel's halves are independent of each other."""
        sampler, spp = self.prepare(sensor, seed, spp, self.aov_names())
        if spp % 2 == 1:
            return sampler, spp, False
        if isinstance(sampler, ScrambledSobol):  # a sequence for each half
            sampler = ScrambledSobol(seed, dr.width(sampler.order), spp // 2)
            sampler.spp = spp
            return sampler, spp, True
        return sampler, spp, sampler.class_name() == "IndependentSampler"

    def film_lines(self, sensor: mi.Sensor, seed: Any, spp: int) -> FilmLines | None:
        """Points on the lines of the film across which the warp carries light, if there are any (W9)."""
        film = sensor.film()
        box = film.rfilter().is_box_filter()
        if film.sample_border() and not box:
            return None
        return FilmLines(sensor, mi.sample_tea_32(mi.UInt32(seed), 0x5EED)[0], spp, box)
