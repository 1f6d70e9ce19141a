"""Path replay under a warped-area reparametrisation: visibility as an area integral, without a single edge sample.

With u ↦ u + V(u) on the film, V continuous and equal to the velocity of what is visible at every silhouette,

    dI/dθ = ∫ h ∂f(u + θV)/∂θ + f ∇h·V + h f div V du,

an integral of continuous functions (docs/theory/warped_area.md). The camera ray of every sample becomes attached to the
warped film position; path replay does the rest. Shares no boundary code with `edge_sampling`, so that the two can be
held against each other.

Consistent, not unbiased: the bias comes from silhouettes that curve, cross or follow each other within the width of the
kernel, and falls with that width, while the variance grows as its reciprocal.

Sources: Bangaru, Li, Durand 2020, Unbiased Warped-Area Sampling; Loubet, Holzschuh, Jakob 2019; Xu et al. 2023.
"""

from __future__ import annotations

import warnings
from typing import Any

import drjit as dr
import mitsuba as mi

from .attached import SceneTraits
from .errors import GradientWarning, UnsupportedGradient
from .path_replay import PathReplay
from .support import warn_of_hidden_motion
from .warp import Kernel, Silhouettes, direction_field, hit_points
from .warped_film import FilmLines, FilmPoints, FilmSamples, camera_ray, sample_film
from .warped_head import warped_head

#: Auxiliary rays of one kernel launch; each takes some dozen floats.
WARP_LANES = 2**25


def _warn(code: str, message: str) -> None:
    remedy = "use edge_sampling or finite_difference" + (", or raise warp_depth" if code == "warp-depth" else "")
    warnings.warn(GradientWarning(code, message, remedy), stacklevel=3)


class WarpedArea(PathReplay):
    """Mitsuba plugin `warped_area`: path replay whose camera rays move with what they see.

    Properties (besides those of `path_replay`):
        warp_rays: auxiliary rays N of one ring; two mirrored rings are traced per camera sample.
        warp_width: radius of the kernel, in pixels.
        warp_reach: distance from a silhouette, in radii of the kernel, over which points next to it are preferred.
        warp_exponent: how strongly.
        warp_depth: vertices of the path whose outgoing directions are warped too (shadows, indirect visibility);
            0 by default: the bias of shadows under small lights was 0 to 15 % in measurements.
        warp_angle: radius of the kernel there, in radians.

    Reference: Bangaru, Li, Durand 2020, Unbiased Warped-Area Sampling for Differentiable Rendering, ACM TOG 39(6).
    """

    def __init__(self, props: mi.Properties) -> None:
        super().__init__(props)
        self.warp_width = float(props.get("warp_width", 0.25))
        self.warp_angle = float(props.get("warp_angle", 0.01))
        self.warp_depth = int(props.get("warp_depth", 0))
        self.kernel = Kernel(
            rays=int(props.get("warp_rays", 6)),
            reach=float(props.get("warp_reach", 10.0)),
            exponent=float(props.get("warp_exponent", 3.0)),
        )
        self._silhouettes: tuple[mi.Scene, Silhouettes] | None = None

    def silhouettes(self, scene: mi.Scene) -> Silhouettes:
        """Tables for the distance to silhouettes, built once per scene."""
        if self._silhouettes is None or self._silhouettes[0] is not scene:
            self._silhouettes = (scene, Silhouettes(scene))
        self._silhouettes[1].refresh()
        return self._silhouettes[1]

    def _say_what_is_missing(self, scene: mi.Scene) -> None:
        """Refuse, or warn of, what a warp of the first vertices cannot account for when things move."""
        if self.hide_emitters:
            raise UnsupportedGradient(
                "warped_area does not look through hidden emitters", remedy="use edge_sampling or finite_difference"
            )
        warn_of_hidden_motion(scene)
        traits = SceneTraits(scene)
        if self.max_depth > 1 and traits.has_delta_emitters:
            _warn(
                "delta-shadow",
                "the hard shadows of point, spot, directional and projector lights are no area integral: "
                "their motion is left out",
            )
        if traits.has_delta_lobes:
            _warn(
                "specular-visibility",
                "silhouettes seen in perfect mirrors, through smooth glass or through the holes of a mask are left out",
            )
        if self.max_depth > self.warp_depth + 1:
            _warn(
                "warp-depth",
                f"shadows and occlusion are followed at the first {self.warp_depth} vertices of paths with up to "
                f"{self.max_depth - 1}"
                if self.warp_depth
                else "shadows and occlusion between surfaces are left out",
            )

    def _direction_warp(self, scene: mi.Scene, sampler: mi.Sampler) -> Any:
        """The field of directions at a surface point, as a function of (si, directions, active)."""
        radius = dr.opaque(mi.Float, self.warp_angle)
        silhouettes = self.silhouettes(scene)

        def field(si: mi.SurfaceInteraction3f, d: mi.Vector3f, active: mi.Bool) -> tuple[mi.Vector3f, mi.Float]:
            seed = mi.UInt32(sampler.next_1d() * 2.0**24)
            return direction_field(scene, silhouettes, self.kernel, radius, seed, si, d, active)

        return field

    def film_field(
        self, scene: mi.Scene, sensor: mi.Sensor, sampler: mi.Sampler, points: FilmPoints
    ) -> tuple[mi.Vector2f, mi.Float]:
        """Velocity of the film at `points`, in pixels, and its divergence; both have value zero and derivatives."""
        silhouettes = self.silhouettes(scene)
        radius = dr.opaque(mi.Float, self.warp_width)
        seed = mi.UInt32(sampler.next_1d() * 2.0**24)
        lane, centre, rest, offset = self.kernel.pattern(dr.width(points.u), seed)
        near = points.gather(lane)
        near = near.at(mi.Point2f(near.u + radius * (centre + offset)))
        attached, _ = camera_ray(sensor, near)
        ray = mi.Ray3f(dr.detach(attached))
        with dr.resume_grad():
            hit, shift, t, distance = hit_points(scene, silhouettes, ray)
            # How far the point seen leaves the attached camera ray; things at infinity have a direction only
            on_ray = dr.select(hit, mi.Vector3f(attached.o), 0) + t * attached.d
            shift = shift - mi.Vector3f(on_ray - dr.detach(on_ray))
        with dr.suspend_grad():
            x, y = (self._footprint(sensor, near, ray, axis, hit, t) for axis in (0, 1))
            xx, xy, yy = dr.dot(x, x), dr.dot(x, y), dr.dot(y, y)
            inverse = dr.rcp(xx * yy - xy * xy)
            to_x, to_y = (yy * x - xy * y) * inverse, (xx * y - xy * x) * inverse
            w = self.kernel.weight(distance / (dr.sqrt(dr.maximum(xx, yy)) * radius))
        with dr.resume_grad():
            velocity = mi.Vector2f(dr.dot(to_x, shift), dr.dot(to_y, shift))
            return self.kernel.mean(w, 4 * centre / (radius * rest), velocity)

    def _footprint(
        self, sensor: mi.Sensor, points: FilmPoints, ray: mi.Ray3f, axis: int, hit: mi.Bool, t: mi.Float
    ) -> mi.Vector3f:
        """How the point seen moves, across the ray, as the film position moves by one pixel along `axis`."""
        half = mi.Vector2f(0.5, 0) if axis == 0 else mi.Vector2f(0, 0.5)
        (after, _), (before, _) = (camera_ray(sensor, points.at(mi.Point2f(points.u + s * half))) for s in (1, -1))
        step = dr.select(hit, mi.Vector3f(after.o - before.o), 0) + t * (after.d - before.d)
        return step - ray.d * dr.dot(ray.d, step)

    # ----------------------------------------------------------- derivative

    def passes(self, sensor: mi.Sensor, seed: Any, spp: int) -> list[tuple[Any, int]]:
        """As in the base class, with room for the auxiliary rays."""
        spp = spp or sensor.sampler().sample_count()
        size = sensor.film().crop_size()
        most = max(1, WARP_LANES // (2 * self.kernel.rays * int(size[0]) * int(size[1])))
        if spp <= most:
            return super().passes(sensor, seed, spp)
        count = -(-spp // most)
        return [(seed if i == 0 else mi.sample_tea_32(seed, i)[0], -(-spp // count)) for i in range(count)]

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
            sampler, spp = self.prepare(sensor, seed, spp, self.aov_names())
            points, pixel = sample_film(sensor, sampler)
            with dr.resume_grad():
                ray, weight = camera_ray(sensor, points)
                geometry = self.geometry_attached(scene, params) or dr.grad_enabled(ray.o, ray.d)
            if not geometry:
                return super().interior_term(mode, scene, params, sensor, seed, spp, grad_in)
            self._say_what_is_missing(scene)
            lines = self.film_lines(sensor, seed, spp)

            with dr.resume_grad():
                shift, stretch = self.film_field(scene, sensor, sampler, points)
                warped = points.at(mi.Point2f(points.u + shift))
                ray, weight = camera_ray(sensor, warped)
                head = self.camera_head(scene, sampler, ray, geometry)
                if self.warp_depth > 0 and self.max_depth > 1:
                    head = warped_head(
                        scene, sampler, head, self.warp_depth, self.max_depth, self._direction_warp(scene, sampler)
                    )
                offset = head.emitted * weight
                weight = head.weight * weight
                across = mi.Float(0)
                if lines is not None:
                    across = dr.dot(self.film_field(scene, sensor, lines.sampler, lines.points)[0], lines.normal)
                if not backward:
                    flags = dr.ADFlag.ClearEdges | dr.ADFlag.AllowNoGrad
                    dr.forward_to(head.ray.o, head.ray.d, weight, offset, shift, stretch, across, flags=flags)

            walk = {"scene": scene, "ray": head.ray, "depth": head.length, "active": head.active}
            L, _, _, state = self.sample(mode=dr.ADMode.Primal, sampler=sampler.clone(), **walk)
            L = dr.detach(L)
            value = dr.detach(weight) * L + dr.detach(offset)
            if lines is not None:
                lines.trace(self, scene, sensor)
            samples = FilmSamples(film, points, pixel, value, lines, head.ray.wavelengths)

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

    def film_lines(self, sensor: mi.Sensor, seed: Any, spp: int) -> FilmLines | None:
        """Points on the lines of the film across which the warp carries light, if there are any (W6)."""
        film = sensor.film()
        box = film.rfilter().is_box_filter()
        if film.sample_border() and not box:
            return None
        return FilmLines(sensor, mi.sample_tea_32(mi.UInt32(seed), 0x5EED)[0], spp, box)
