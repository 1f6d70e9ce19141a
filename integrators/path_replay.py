"""Interior (continuous) derivative of path-traced radiance by path replay.

Estimates, for every camera ray, L = ∫ f(x̄) dx̄ and ∂L/∂θ = ∫ ∂f(x̄, θ)/∂θ dx̄ over light paths x̄ = x₀ x₁ x₂ …
The random walk is sampled without derivatives (detached). The first walk yields the radiance L of every path; the
second repeats it with the same random numbers, subtracts what each vertex contributed, and therefore holds, at vertex
k, the radiance that arrives from the rest of the path. Nothing else is stored: memory does not grow with depth.

Unbiased for everything that is continuous in θ, but for light from within `near` pixels; visibility is the business of
`edge_sampling` and `warped_area`.

Parametrisation (docs/theory/path_replay.md): film coordinates are fixed and x₁ slides along the attached camera ray;
later vertices and emitter samples keep their place on their surface, so that moving geometry enters through the
attached positions of three consecutive vertices, the geometric term and the stretch of the surface (E3). Delta and
null lobes enter through the attached lobe weight (E5).

Sources: Vicini, Speierer, Jakob 2021 (path replay); Zeltner, Speierer, Georgiev, Jakob 2021 (detached sampling).
"""

from __future__ import annotations  # Delayed parsing of type annotations

from typing import Any

import drjit as dr
import mitsuba as mi
from mitsuba.python.ad.integrators.common import mis_weight

from .attached import (
    FOLLOW,
    FOLLOW_END,
    GRAZING,
    SceneTraits,
    attach_emitter_sample,
    geometric_term,
    lobe_value,
    still_at_limb,
)
from .base import ReplayIntegrator
from .near_field import NearField, near_weight


class PathReplay(ReplayIntegrator):
    """Mitsuba plugin `path_replay`: a path tracer with emitter sampling, and its interior derivative.

    Reference: Vicini et al. 2021, Path Replay Backpropagation, ACM TOG 40(4).
    """

    @dr.syntax
    def sample(
        self,
        mode: dr.ADMode,
        scene: mi.Scene,
        sampler: mi.Sampler,
        ray: mi.Ray3f,
        depth: mi.UInt32 = 0,
        δL: mi.Spectrum | None = None,
        state_in: mi.Spectrum | None = None,
        active: mi.Bool = True,
        geometry: bool = True,
        near: NearField | None = None,
        start: mi.Point3f | None = None,
        coherent: bool = True,
        **_: Any,
    ) -> tuple[mi.Spectrum, mi.Bool, list, mi.Spectrum]:
        """Walk one path per lane; the contract of `mitsuba.ad.integrators.common.ADIntegrator.sample`.

        Args:
            ray: camera rays; their origin and direction may carry derivatives (in Forward mode, tangents that have
                already been propagated to them).
            depth: path segments already used before `ray`.
            δL: adjoint (Backward) radiance of every ray.
            state_in: what the primal walk returned as its state.
            geometry: whether vertices can move (differential walks); materials and lights alone are cheaper.
            near: weighs the segments between surfaces, for walks that belong to a derivative.
            start: the surface point at which the first segment begins, if that is no camera ray (primal walks).
            coherent: whether rays begin at the camera. Embree's packets of such rays miss flat shapes within some 1e-5
                of where they begin.

        Returns:
            (L or δL, whether the ray hit a surface, the AOVs (primal), L as the state of the differential walk).
        """
        primal = mode == dr.ADMode.Primal
        moving = not primal and geometry
        ctx = mi.BSDFContext()
        with dr.resume_grad(when=not primal):  # nothing counts as attached while derivatives are suspended
            traits = SceneTraits(scene)
            # The camera ray becomes leaf variables inside the loop: their adjoints (tangents) are carried through it
            moving_camera = moving and dr.grad_enabled(ray.o, ray.d)
        camera = mi.Ray3f(dr.detach(ray))
        δo, δd = mi.Vector3f(0), mi.Vector3f(0)
        if dr.hint(moving_camera and mode == dr.ADMode.Forward, mode="scalar"):
            with dr.resume_grad():
                δo = mi.Vector3f(dr.grad(ray.o))
                δd = mi.Vector3f(dr.grad(ray.d))

        # --------------------------- loop state ---------------------------
        attached_ray = ray
        ray = mi.Ray3f(camera)  # Current ray
        first_depth = mi.UInt32(depth)  # Depth at which the camera segment starts
        depth = mi.UInt32(depth)  # Depth of the current vertex
        L = mi.Spectrum(0 if primal else state_in)  # Radiance: accumulated (primal), or still to come
        δL = mi.Spectrum(δL if δL is not None else 0)  # Adjoint or tangent radiance
        β = mi.Spectrum(1)  # Throughput
        η = mi.Float(1)  # Relative index of refraction
        active = mi.Bool(active)  # Lanes still walking
        dropped = mi.UInt32(0)  # Non-finite contributions
        pi = scene.ray_intersect_preliminary(ray, coherent=coherent, reorder=False, active=active)
        ray_prev = mi.Ray3f(ray)
        pi_prev = dr.zeros(mi.PreliminaryIntersection3f)
        si_prev = dr.zeros(mi.SurfaceInteraction3f)
        scattered = mi.Bool(start is not None)  # Whether the segment to this vertex began where light is scattered
        if dr.hint(start is not None, mode="scalar"):
            si_prev.p = mi.Point3f(start)
        pdf_prev = mi.Float(1)
        delta_prev = mi.Bool(True)
        # The camera segment goes straight on through null lobes: its vertices slide along the camera ray
        first, second = mi.Bool(True), mi.Bool(False)  # On the camera segment; one vertex behind it
        run = mi.Float(0)  # Length of the camera segment so far

        if dr.hint(self.hide_emitters, mode="scalar"):
            skip = pi.is_valid() & (pi.shape.emitter() != None) & active & (depth == 0)  # noqa: E711
            si_skip = pi.compute_surface_interaction(ray, mi.RayFlags.Minimal, skip)
            pi[skip] = self.skip_area_emitters(scene, si_skip.spawn_ray(ray.d), True, skip)

        while dr.hint(active, max_iterations=self.max_depth, label=f"Path replay ({mode.name})"):
            active_next = mi.Bool(active)

            # ------------- current vertex, attached to what moves it -------------
            with dr.resume_grad(when=moving):
                if dr.hint(moving, mode="scalar"):
                    o = mi.Point3f(camera.o)
                    d = mi.Vector3f(camera.d)
                    if dr.hint(moving_camera, mode="scalar"):
                        dr.enable_grad(o, d)
                        if dr.hint(mode == dr.ADMode.Forward, mode="scalar"):
                            dr.set_grad(o, δo)
                            dr.set_grad(d, δd)
                    camera_ray = mi.Ray3f(camera)
                    camera_ray.o = o
                    camera_ray.d = d
                    pi_first = mi.PreliminaryIntersection3f(pi)
                    pi_first.t += run
                    si = pi_first.compute_surface_interaction(camera_ray, mi.RayFlags.All, active & first)
                    si = still_at_limb(si, camera.d)
                    si[~first] = pi.compute_surface_interaction(ray, FOLLOW, active & ~first)
                    si.wi = dr.select(first, si.wi, mi.Vector3f(0))
                    p_prev = mi.Point3f(0)
                    pi_second = mi.PreliminaryIntersection3f(pi_prev)
                    pi_second.t += run
                    p_prev[second] = pi_second.compute_surface_interaction(
                        camera_ray, mi.RayFlags.Minimal, active & second
                    ).p
                    grazed = second & (dr.abs_dot(si_prev.n, camera.d) < GRAZING)
                    p_prev = dr.select(grazed, dr.detach(p_prev), p_prev)
                    later = ~first & ~second
                    p_prev[later] = pi_prev.compute_surface_interaction(
                        ray_prev, mi.RayFlags.Minimal | mi.RayFlags.FollowShape, active & later
                    ).p
                    # Attached incident direction: both ends of the segment may move
                    wi = si.to_local(dr.normalize(p_prev - si.p))
                    wi = dr.replace_grad(si.to_local(-ray.d), wi)
                    beyond = dr.select(first, -camera_ray.d, -ray.d)  # the sky in this direction
                    si.wi = dr.select(first | ~si.is_valid(), dr.select(si.is_valid(), si.wi, beyond), wi)
                else:
                    si = pi.compute_surface_interaction(ray, mi.RayFlags.All, active)
            bsdf = si.bsdf(ray)

            # ------------- weight of the segment that ends here (E6) -------------
            w = mi.Float(1)
            if dr.hint(near is not None, mode="scalar"):
                with dr.resume_grad(when=moving):
                    origin = p_prev if moving else mi.Point3f(si_prev.p)
                    w = dr.select(scattered & si.is_valid(), near_weight(near, origin, si.p), 1)

            # --------------------------- emission at x ---------------------------
            if dr.hint(self.hide_emitters, mode="scalar"):
                active_next &= ~((depth == 0) & ~si.is_valid())
            ds = mi.DirectionSample3f(scene, si=dr.detach(si), ref=si_prev)
            mis = mis_weight(pdf_prev, scene.pdf_emitter_direction(si_prev, ds, ~delta_prev))
            with dr.resume_grad(when=not primal):
                Le = β * mis * w * ds.emitter.eval(si, active_next)

            # -------------------------- emitter sampling --------------------------
            active_next &= (depth + 1 < self.max_depth) & si.is_valid()
            active_em = active_next & mi.has_flag(bsdf.flags(), mi.BSDFFlags.Smooth)
            u_em = sampler.next_2d()
            ds, em_weight = scene.sample_emitter_direction(dr.detach(si), u_em, True, active_em)
            active_em &= ds.pdf != 0
            with dr.resume_grad(when=not primal):
                if dr.hint(not primal, mode="scalar"):
                    ds, em_weight = attach_emitter_sample(scene, traits, si, ds, em_weight, u_em, active_em, moving)
                if dr.hint(near is not None, mode="scalar"):
                    lamp = active_em & ~ds.delta & mi.has_flag(ds.emitter.flags(), mi.EmitterFlags.Surface)
                    em_weight *= dr.select(lamp, near_weight(near, si.p, ds.p), 1)  # (E6)
                wo = si.to_local(ds.d)
                u1, u2 = sampler.next_1d(), sampler.next_2d()
                if dr.hint(primal, mode="scalar"):
                    # One dispatch for evaluation and sampling; the attached evaluation below needs its own
                    bsdf_em, pdf_em, bs, bsdf_weight = bsdf.eval_pdf_sample(ctx, si, wo, u1, u2, active_next)
                else:
                    bsdf_em, pdf_em = bsdf.eval_pdf(ctx, si, wo, active_em)
                mis_em = dr.detach(dr.select(ds.delta, 1, mis_weight(ds.pdf, pdf_em)))
                Lr_dir = dr.select(active_em, β * mis_em * w * bsdf_em * em_weight, 0)

            # --------------------------- BSDF sampling ---------------------------
            if dr.hint(not primal, mode="scalar"):
                bs, bsdf_weight = bsdf.sample(ctx, dr.detach(si), u1, u2, active_next)
            L = (L + Le + Lr_dir) if primal else (L - dr.detach(Le) - dr.detach(Lr_dir))
            ray_next = dr.detach(si).spawn_ray(dr.detach(si).to_world(bs.wo))
            η *= bs.eta
            β *= bsdf_weight
            delta = mi.has_flag(bs.sampled_type, mi.BSDFFlags.Delta)  # null lobes included
            β *= dr.select(delta, 1, dr.detach(w))

            # Russian roulette, on the throughput without the η² of refraction
            β_max = dr.max(mi.unpolarized_spectrum(β))
            active_next &= β_max != 0
            rr_prob = dr.minimum(β_max * η**2, 0.95)
            rr_active = depth >= self.rr_depth
            β[rr_active] *= dr.rcp(rr_prob)
            active_next &= ~rr_active | (sampler.next_1d() < rr_prob)

            pi_next = scene.ray_intersect_preliminary(ray_next, coherent=False, reorder=False, active=active_next)

            # ------------------------- derivatives at x -------------------------
            if dr.hint(not primal, mode="scalar"):
                with dr.resume_grad():
                    wo = si.to_local(ray_next.d)
                    J = mi.Float(1)
                    if dr.hint(moving, mode="scalar"):
                        si_next = pi_next.compute_surface_interaction(ray_next, FOLLOW_END, active_next)
                        hit = active_next & si_next.is_valid()
                        to_next = si_next.p - si.p
                        wo_next = dr.replace_grad(ray_next.d, dr.select(hit, dr.normalize(to_next), ray_next.d))
                        wo = si.to_local(wo_next)
                        J = dr.select(hit & ~delta, geometric_term(to_next, si_next), 1)  # (E3)
                    bsdf_value = bsdf.eval(ctx, si, wo, active_next)
                    if dr.hint(traits.has_delta_lobes, mode="scalar"):
                        lobe = lobe_value(traits, bsdf, ctx, si, u1, u2, bs, active_next & delta)  # (E5)
                        bsdf_value = dr.select(delta, lobe, bsdf_value)
                    Lr_ind = L * dr.relative_grad(bsdf_value) * dr.relative_grad(J)
                    if dr.hint(near is not None, mode="scalar"):
                        Lr_ind *= dr.select(delta | (w <= 0), 1, dr.relative_grad(w))
                    Lo = Le + Lr_dir + dr.select(active_next, Lr_ind, 0)

                    # One non-finite sample must not spoil the image (or the parameter): leave it out and count it
                    fine = dr.all(dr.isfinite(Lo))
                    Lo = dr.select(fine, Lo, 0)
                    if dr.hint(dr.grad_enabled(Lo), mode="scalar"):
                        if dr.hint(mode == dr.ADMode.Backward, mode="scalar"):
                            dr.backward_from(δL * Lo)
                            if dr.hint(moving_camera, mode="scalar"):
                                δo_k, δd_k = mi.Vector3f(dr.grad(o)), mi.Vector3f(dr.grad(d))
                                fine &= dr.all(dr.isfinite(δo_k)) & dr.all(dr.isfinite(δd_k))
                                δo += dr.select(fine, δo_k, 0)
                                δd += dr.select(fine, δd_k, 0)
                        else:
                            δLo = mi.Spectrum(dr.forward_to(Lo))
                            fine &= dr.all(dr.isfinite(δLo))
                            δL += dr.select(fine, δLo, 0)
                dropped[active & ~fine] += 1

            # --------------------------- next iteration ---------------------------
            straight = first & mi.has_flag(bs.sampled_type, mi.BSDFFlags.Null)
            run = dr.select(straight, dr.norm(dr.detach(si.p) - camera.o), run)
            second = first & ~straight
            first = straight
            si_prev = dr.detach(si, True)
            pdf_prev = bs.pdf
            delta_prev = delta
            scattered = ~delta
            hint = dr.reinterpret_array(mi.UInt32, pi_next.shape)
            hint = (hint << 1) | dr.select(active_next, 1, 0)
            depth = dr.reorder_threads(hint, 16, depth)
            depth[si.is_valid()] += 1
            active = active_next
            pi_prev = pi
            pi = pi_next
            ray_prev = ray
            ray = ray_next

        if dr.hint(not primal, mode="scalar"):
            dr.schedule(δL, dropped)  # the sum is evaluated at once: both out of one kernel
            self.dropped += dr.sum(dropped)  # of one launch of many
            if dr.hint(moving_camera and mode == dr.ADMode.Backward, mode="scalar"):
                with dr.resume_grad():
                    dr.backward_from(
                        dr.dot(mi.Vector3f(attached_ray.o), δo) + dr.dot(attached_ray.d, δd),
                        flags=dr.ADFlag.ClearInterior | dr.ADFlag.AllowNoGrad,
                    )

        aovs = self.aovs.values(scene, camera, camera.o) if primal else []
        return L if primal else δL, depth != first_depth, aovs, L

    def radiance(
        self,
        scene: mi.Scene,
        sampler: mi.Sampler,
        ray: mi.Ray3f,
        depth: mi.UInt32 | int = 0,
        active: Any = True,
        start: mi.Point3f | None = None,
    ) -> tuple[mi.Spectrum, mi.Bool]:
        """Incident radiance along `ray`, without derivatives; in a derivative with the weights of its `near_field`.

        Args:
            start: the surface point that receives it, if that is not the camera.
            depth: path segments used before `ray`; with `depth = max_depth` nothing is left but zero.

        Returns:
            (one sample of the radiance, whether the ray hit a surface).
        """
        with dr.suspend_grad():
            active = mi.Bool(active) & (mi.UInt32(depth) < self.max_depth)
            L, valid, _, _ = self.sample(
                mode=dr.ADMode.Primal,
                scene=scene,
                sampler=sampler,
                ray=mi.Ray3f(dr.detach(ray)),
                depth=mi.UInt32(depth),
                active=active,
                near=self.near_field,
                start=start,
                coherent=False,
            )
        return L, valid
