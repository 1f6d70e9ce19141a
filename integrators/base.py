"""What every estimator shares: explicit sample budgets, passes, film adjoints and the check of what is asked for.

A gradient image is estimated in three steps that `ReplayIntegrator` wires for its subclasses: draw camera rays
(attached to the camera), walk paths in `sample` (Primal, then Forward or Backward with the same random numbers), splat
on the film.
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
from mitsuba.python.ad.integrators.common import ADIntegrator

from .aovs import Aovs, widened
from .lanes import Lanes, lanes_that_hit, sky_attached
from .near_field import NearField
from .sampling import spread_over
from .specular_chain import SpecularChain, purely_specular, trace_specular_chain
from .support import foreign_derivatives, release_frames, require_supported, warn_of_hidden_motion

#: Samples per pixel of one kernel launch of an image. Sums of more samples lose digits in float32 (4096 bias a small
#: finite difference by 4 %), and every lane of a launch costs memory for its random number generator.
PASS_SPP = 512
PASS_LANES = 2**28
#: Derivatives, whose noise is far above those digits, take more in one launch as long as they are few: tracing a launch
#: costs as much as 2^18 lanes, and numbers are the better spread the more there are.
DERIVATIVE_SPP = 4096
DERIVATIVE_LANES = 2**21
#: Pixels within which light between surfaces is left out of derivatives.
NEAR = 0.5


class ReplayIntegrator(ADIntegrator):
    """A differentiable integrator with one budget per term.

    Properties (besides Mitsuba's `max_depth`, `rr_depth`, `hide_emitters`):
        primal_spp: samples per pixel of the image; 0 takes the `spp` of the call, or else of the scene's sampler.
        interior_spp: samples per pixel of the interior derivative; 0 likewise.
        specular_depth: perfectly specular bounces between the camera and the first other surface through which motion
            is followed (default 3).
        interior: whether the interior term is estimated at all (default true).
        spread: whether camera paths take numbers that are well spread over each pixel (`sampling.ScrambledSobol`) where
            the scene asks for no sampler but `independent` (default true).
        near: light between surfaces that are closer than this many pixels is left out of derivatives by moving geometry
            (`NearField`; default 0.5, 0 for nothing).
        aovs: further channels of the image, as of Mitsuba's `aov` integrator ("dd:depth,nn:sh_normal"; `Aovs`).

    Attributes:
        dropped: samples left out of the last derivative, all its terms and launches, because they were not finite (a
            Dr.Jit `UInt32`).
    """

    def __init__(self, props: mi.Properties) -> None:
        if mi.is_polarized:
            raise ValueError(
                f"{props.plugin_name()} does not handle polarised light; use a variant without 'polarized'"
            )
        super().__init__(props)
        self.primal_spp = int(props.get("primal_spp", 0))
        self.interior_spp = int(props.get("interior_spp", 0))
        self.specular_depth = int(props.get("specular_depth", 3))
        self.interior = bool(props.get("interior", True))
        self.spread = bool(props.get("spread", True))
        self.near = float(props.get("near", NEAR))
        if not 0 <= self.near < np.inf:
            raise ValueError(f"near is {self.near}, a number of pixels from 0 on was expected")
        #: that of the derivative that is being estimated, None outside of one
        self.near_field: NearField | None = None
        self.aovs = Aovs(str(props.get("aovs", "")))
        self.dropped = mi.UInt32(0)

    def aov_names(self) -> list[str]:
        """Names of the channels behind the colours."""
        return list(self.aovs.names)

    # ------------------------------------------------------------------ film

    def passes(self, sensor: mi.Sensor, seed: Any, spp: int, image: bool = False) -> list[tuple[Any, int]]:
        """Split `spp` into launches of bounded size.

        Args:
            image: of an image, or else of a derivative.

        Returns:
            (seed, samples per pixel) of every launch; the first launch keeps `seed` itself.
        """
        film = sensor.film()
        spp = spp or sensor.sampler().sample_count()
        size = film.crop_size()
        if film.sample_border():
            size += 2 * film.rfilter().border_size()
        pixels = int(size[0]) * int(size[1])
        most = PASS_SPP if image else max(PASS_SPP, min(DERIVATIVE_SPP, DERIVATIVE_LANES // pixels))
        most = max(1, min(most, PASS_LANES // pixels))
        count = -(-spp // most)
        # Equal launches: they average without weights, and they share one kernel. The total is rounded up.
        share = -(-spp // count)
        return [(seed if i == 0 else mi.sample_tea_32(seed, i)[0], share) for i in range(count)]

    def prepare(self, sensor: mi.Sensor, seed: Any = 0, spp: int = 0, aovs: Any = ()) -> tuple[Any, int]:
        """Sampler of one launch, seeded, and its samples per pixel; the film is made ready."""
        own = sensor.sampler()
        if not self.spread or own.class_name() != "IndependentSampler":
            return super().prepare(sensor, seed, spp, list(aovs))
        spp = spp or own.sample_count()
        sensor.film().prepare(list(aovs))
        return spread_over(sensor.film(), seed, spp), spp

    def _splat(
        self, film: mi.Film, pos: mi.Point2f, value: Any, ray: mi.Ray3f, valid: Any, spp: int, aovs: list[mi.Float]
    ) -> mi.TensorXf:
        """Accumulate one value per camera sample and develop the film."""
        block = film.create_block()
        block.set_coalesce(block.coalesce() and spp >= 4)
        alpha = dr.select(valid, mi.Float(1), mi.Float(0))
        ADIntegrator._splat_to_block(
            block, film, pos, value=value, weight=1.0, alpha=alpha, aovs=aovs, wavelengths=ray.wavelengths
        )
        film.put_block(block)
        return film.develop()

    def render(
        self,
        scene: mi.Scene,
        sensor: int | mi.Sensor = 0,
        seed: Any = 0,
        spp: int = 0,
        develop: bool = True,
        evaluate: bool = True,
    ) -> mi.TensorXf:
        """The image, (height, width, channels) linear; see `mitsuba.Integrator.render`."""
        sensor = scene.sensors()[sensor] if isinstance(sensor, int) else sensor
        launches = self.passes(sensor, seed, self.primal_spp or spp, image=True)
        if len(launches) == 1:
            return super().render(scene, sensor, launches[0][0], launches[0][1], develop, evaluate)
        total: Any = None
        for pass_seed, pass_spp in launches:
            image = super().render(scene, sensor, pass_seed, pass_spp, develop, evaluate)
            dr.eval(image)
            total = image if total is None else total + image
        return total / len(launches)

    # ----------------------------------------------------------- derivatives

    def render_forward(
        self, scene: mi.Scene, params: Any, sensor: int | mi.Sensor = 0, seed: Any = 0, spp: int = 0
    ) -> mi.TensorXf:
        """The derivative image along the tangents that `params` carry, (height, width, channels).

        Raises:
            UnsupportedGradient: a parameter with a tangent is beyond this estimator.
        """
        sensor = scene.sensors()[sensor] if isinstance(sensor, int) else sensor
        require_supported(scene, params, self)
        self.dropped = mi.UInt32(0)
        self.begin(scene, params, sensor)
        terms = self.derivative_terms(params)
        channels = sensor.film().base_channels_count() + len(self.aovs.names)
        total = None
        for term, spp_term in terms:
            launches = self.passes(sensor, seed, self.samples_of(spp_term, spp, sensor))
            for pass_seed, pass_spp in launches:
                try:
                    image: Any = term(dr.ADMode.Forward, scene, params, sensor, pass_seed, pass_spp, None)
                except RuntimeError as error:
                    foreign = foreign_derivatives(error)
                    if foreign is None:
                        raise
                    # What its frames hold would look like another live derivative to the next call
                    release_frames(error)
                    raise foreign from error
                image = widened(image, channels) / len(launches)
                if len(terms) * len(launches) > 1:
                    dr.eval(image)
                total = image if total is None else total + image
        self.near_field = None
        if total is None:
            raise ValueError("every term of the derivative is switched off")
        return total

    def render_backward(
        self,
        scene: mi.Scene,
        params: Any,
        grad_in: mi.TensorXf,
        sensor: int | mi.Sensor = 0,
        seed: Any = 0,
        spp: int = 0,
    ) -> None:
        """Accumulate the gradient of <grad_in, image> into the attached parameters.

        Args:
            grad_in: adjoint image, (height, width, channels).

        Raises:
            UnsupportedGradient: an attached parameter is beyond this estimator.
        """
        sensor = scene.sensors()[sensor] if isinstance(sensor, int) else sensor
        require_supported(scene, params, self)
        self.dropped = mi.UInt32(0)
        self.begin(scene, params, sensor)
        terms = self.derivative_terms(params)
        if not terms:
            raise ValueError("every term of the derivative is switched off")
        for term, spp_term in terms:
            launches = self.passes(sensor, seed, self.samples_of(spp_term, spp, sensor))
            for pass_seed, pass_spp in launches:
                term(dr.ADMode.Backward, scene, params, sensor, pass_seed, pass_spp, grad_in / len(launches))
                dr.eval()
        self.near_field = None

    def begin(self, scene: mi.Scene, params: Any, sensor: mi.Sensor) -> None:
        """What all terms of a derivative share; before the first of them."""
        with dr.resume_grad():
            moves = self.geometry_attached(scene, params) or camera_attached(sensor)
        self.near_field = NearField(sensor, self.near) if moves and self.near > 0 else None

    @staticmethod
    def samples_of(own: int | float, spp: int, sensor: mi.Sensor) -> int:
        """Samples per pixel of a term: its own, or its share (a float) of those of the call."""
        if isinstance(own, float):
            return max(1, round(own * (spp or sensor.sampler().sample_count())))
        return own or spp

    def derivative_terms(self, params: Any) -> list[tuple[Any, int | float]]:
        """The terms that are on, as (function, own samples per pixel; or 0; or a share of the call's, as a float).

        A term is called as `term(mode, scene, params, sensor, seed, spp, grad_in)`; in forward mode it returns a
        derivative image, in backward mode it accumulates into the attached parameters.
        """
        return [(self.interior_term, self.interior_spp)] if self.interior else []

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
        """Interior derivative by replay: a primal walk, then the same walk with derivatives."""
        film = sensor.film()
        backward = mode == dr.ADMode.Backward
        with dr.suspend_grad():
            sampler, spp = self.prepare(sensor, seed, spp, self.aov_names())
            ray, weight, pos = self.sample_rays(scene, sensor, sampler)
            with dr.resume_grad():  # nothing counts as attached while derivatives are suspended
                geometry = self.geometry_attached(scene, params) or dr.grad_enabled(ray.o, ray.d)
                if geometry:
                    self.aovs.require_known_jumps(scene)
                aovs = self.aovs.values(scene, ray, ray.o)
                # What happens to a sample before replay starts: the response of the sensor, the specular chain
                head = self.camera_head(scene, sampler, ray, geometry)
                # Samples that show nothing but a sky without derivatives have none themselves
                hits_alone = head.ray is ray and not dr.grad_enabled(ray.o, ray.d, weight) and not sky_attached(scene)
                offset = head.emitted * weight
                weight = head.weight * weight
                if not backward:
                    # The edges must go: replay propagates from the same parameters and may not meet them again
                    flags = dr.ADFlag.ClearEdges | dr.ADFlag.AllowNoGrad
                    dr.forward_to(head.ray.o, head.ray.d, weight, offset, *aovs, flags=flags)
            if geometry:
                warn_of_hidden_motion(scene)
            walk = {"scene": scene, "ray": head.ray, "depth": head.length, "active": head.active}
            walk |= {"near": self.near_field if geometry else None, "coherent": head.ray is ray}
            lanes = lanes_that_hit(scene, sampler, ray) if hits_alone else Lanes(None, dr.width(pos))
            walk["ray"], sampler = lanes.pick_ray(head.ray), lanes.pick_sampler(sampler)
            L, _, _, state = self.sample(mode=dr.ADMode.Primal, sampler=sampler.clone(), **walk)
            # Needed for what happens before the walk, and nothing of that has derivatives where samples are left out
            L = dr.detach(L) if lanes.index is None else mi.Spectrum(0)

            if backward:
                δimage, δaovs = self._film_adjoint(film, pos, ray, spp, grad_in)
                self.sample(
                    mode=mode,
                    sampler=sampler,
                    δL=lanes.pick(δimage * dr.detach(weight)),
                    state_in=state,
                    geometry=geometry,
                    **walk,
                )
                with dr.resume_grad():
                    total = dr.sum(δimage * (L * weight + offset))
                    total += sum((δ * aov for δ, aov in zip(δaovs, aovs, strict=True)), mi.Float(0))
                    if dr.grad_enabled(total):
                        dr.backward_from(total, flags=dr.ADFlag.ClearInterior)
                return None

            δL, _, _, _ = self.sample(mode=mode, sampler=sampler, state_in=state, geometry=geometry, **walk)
            δL = lanes.spread(δL)
            with dr.resume_grad():
                δhead = L * dr.grad(weight) + dr.grad(offset)
                δaovs = [dr.select(dr.isfinite(dr.grad(x)), dr.grad(x), 0) for x in aovs]
            value = δL * dr.detach(weight) + dr.select(dr.isfinite(δhead), δhead, 0)
            # What a ray hits does not change while visibility is fixed: the interior term has no part in alpha
            return self._splat(film, pos, value, ray, mi.Bool(False), spp, δaovs)

    def camera_head(self, scene: mi.Scene, sampler: mi.Sampler, ray: mi.Ray3f, geometry: bool) -> SpecularChain:
        """Camera rays behind their perfectly specular bounces, which matter only where something moves."""
        if not geometry or self.specular_depth == 0 or not purely_specular(scene):
            return SpecularChain(ray, mi.Spectrum(1), mi.Spectrum(0), mi.UInt32(0), mi.Bool(True))
        return trace_specular_chain(scene, sampler, ray, self.specular_depth, self.max_depth)

    def _film_adjoint(
        self, film: mi.Film, pos: mi.Point2f, ray: mi.Ray3f, spp: int, grad_in: mi.TensorXf
    ) -> tuple[mi.Spectrum, list[mi.Float]]:
        """Adjoint of splatting and developing: d<grad_in, image>/d(value of each camera sample), and of its AOVs."""
        with dr.resume_grad():
            value = dr.full(mi.Spectrum, 1.0, dr.width(pos))
            aovs = [dr.full(mi.Float, 1.0, dr.width(pos)) for _ in self.aovs.names]
            dr.enable_grad(value, *aovs)
            image = self._splat(film, pos, value, ray, mi.Bool(True), spp, aovs)
            dr.set_grad(image, grad_in)
            dr.enqueue(dr.ADMode.Backward, image)
            dr.traverse(dr.ADMode.Backward)
            result = dr.grad(value), [dr.grad(aov) for aov in aovs]
        film.clear()
        return result

    @staticmethod
    def geometry_attached(scene: mi.Scene, params: Any) -> bool:
        """Whether anything that positions a path vertex carries derivatives (shapes, normals, texture coordinates)."""
        if any(shape.parameters_grad_enabled() for shape in scene.shapes()):
            return True
        if not hasattr(params, "keys"):
            return False
        return any(
            key.rsplit(".", 1)[-1] in ("vertex_normals", "vertex_texcoords") and dr.grad_enabled(params[key])
            for key in params.keys()  # mi.SceneParameters iterates over items
        )


def camera_attached(sensor: mi.Sensor) -> bool:
    """Whether the sensor's own parameters carry derivatives (its film apart)."""
    values = mi.traverse(sensor)
    own = (key for key in values.keys() if not key.startswith("film."))
    return any(dr.grad_enabled(values[key]) for key in own)


def geometry_moves(scene: mi.Scene) -> bool:
    """Whether a shape, or the place of a delta light, carries derivatives."""
    if any(shape.parameters_grad_enabled() for shape in scene.shapes()):
        return True
    delta = (e for e in scene.emitters() if mi.has_flag(e.flags(), mi.EmitterFlags.Delta))
    places = (
        values[key] for e in delta for values in [mi.traverse(e)] for key in ("position", "to_world") if key in values
    )
    return any(dr.grad_enabled(place) for place in places)
