"""Interior (continuous) derivative of path-traced radiance by path replay.

Estimates, for every camera ray, L = ∫ f(x̄) dx̄ and ∂L/∂θ = ∫ ∂f(x̄, θ)/∂θ dx̄ over light paths x̄ = x₀ x₁ x₂ …
The random walk is sampled without derivatives (detached). The first walk stores the radiance L of every path; the second
repeats it with the same random numbers, subtracts what each vertex contributed, and therefore holds, at vertex k, the
radiance that arrives from the rest of the path. Nothing else is stored: memory does not grow with depth.

Unbiased for everything that is continuous in θ; visibility changes are the business of `edge_sampling` and `warped_area`.

Parametrisation (docs/theory/path_replay.md): film coordinates are fixed and x₁ slides along the attached camera ray; later
vertices and emitter samples keep their place on their surface, so that moving geometry enters through the attached
positions of three consecutive vertices, the geometric term and the stretch of the surface (E3). Delta and null lobes
enter through the attached lobe weight (E5).

Sources: Vicini, Speierer, Jakob 2021 (path replay); Zeltner, Speierer, Georgiev, Jakob 2021 (detached sampling).
"""

from __future__ import annotations  # Delayed parsing of type annotations

from typing import Any

import drjit as dr
import mitsuba as mi
from mitsuba.ad.integrators.common import mis_weight

from .base import ReplayIntegrator

#: Cosine below which a surface counts as seen edge-on.
GRAZING = 1e-3
FOLLOW = mi.RayFlags.All | mi.RayFlags.FollowShape


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
        **_: Any,
    ) -> tuple[mi.Spectrum, mi.Bool, list, mi.Spectrum]:
        """Walk one path per lane; the contract of `mitsuba.ad.integrators.common.ADIntegrator.sample`.

        Args:
            ray: camera rays; their origin and direction may carry derivatives.
            depth: path segments already used before `ray`.
            δL: adjoint (Backward) radiance of every ray.
            state_in: what the primal walk returned as its state.
            geometry: whether vertices can move (differential walks); materials and lights alone are cheaper.

        Returns:
            (L or δL, whether the ray hit a surface, no AOVs, L as the state of the differential walk).
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
                dr.forward_to(ray.o, ray.d, flags=dr.ADFlag.ClearNone | dr.ADFlag.AllowNoGrad)
                δo = mi.Vector3f(dr.grad(ray.o))
                δd = mi.Vector3f(dr.grad(ray.d))

        # --------------------------- loop state ---------------------------
        attached_ray = ray
        ray = mi.Ray3f(camera)                            # Current ray
        first_depth = mi.UInt32(depth)                    # Depth at which the camera segment starts
        depth = mi.UInt32(depth)                          # Depth of the current vertex
        L = mi.Spectrum(0 if primal else state_in)        # Radiance: accumulated (primal), or still to come
        δL = mi.Spectrum(δL if δL is not None else 0)     # Adjoint or tangent radiance
        β = mi.Spectrum(1)                                # Throughput
        η = mi.Float(1)                                   # Relative index of refraction
        active = mi.Bool(active)                          # Lanes still walking
        dropped = mi.UInt32(0)                            # Non-finite contributions
        pi = scene.ray_intersect_preliminary(ray, coherent=True, reorder=False, active=active)
        ray_prev = mi.Ray3f(ray)
        pi_prev = dr.zeros(mi.PreliminaryIntersection3f)
        si_prev = dr.zeros(mi.SurfaceInteraction3f)
        pdf_prev = mi.Float(1)
        delta_prev = mi.Bool(True)

        if dr.hint(self.hide_emitters, mode="scalar"):
            skip = pi.is_valid() & (pi.shape.emitter() != None) & active  # noqa: E711
            si_skip = pi.compute_surface_interaction(ray, mi.RayFlags.Minimal, skip)
            pi[skip] = self.skip_area_emitters(scene, si_skip.spawn_ray(ray.d), True, skip)

        while dr.hint(active, max_iterations=self.max_depth, label=f"Path replay ({mode.name})"):
            active_next = mi.Bool(active)
            first = depth == first_depth

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
                    si = pi.compute_surface_interaction(camera_ray, mi.RayFlags.All, active & first)
                    si[~first] = pi.compute_surface_interaction(ray, FOLLOW, active & ~first)
                    si.wi = dr.select(first, si.wi, mi.Vector3f(0))
                    second = depth == first_depth + 1
                    p_prev = mi.Point3f(0)
                    p_prev[second] = pi_prev.compute_surface_interaction(
                        camera_ray, mi.RayFlags.Minimal, active & second).p
                    later = ~first & ~second
                    p_prev[later] = pi_prev.compute_surface_interaction(
                        ray_prev, mi.RayFlags.Minimal | mi.RayFlags.FollowShape, active & later).p
                    # Attached incident direction: both ends of the segment may move
                    wi = si.to_local(dr.normalize(p_prev - si.p))
                    wi = dr.replace_grad(si.to_local(-ray.d), wi)
                    si.wi = dr.select(first | ~si.is_valid(), dr.select(si.is_valid(), si.wi, -ray.d), wi)
                else:
                    si = pi.compute_surface_interaction(ray, mi.RayFlags.All, active)
            bsdf = si.bsdf(ray)

            # --------------------------- emission at x ---------------------------
            if dr.hint(self.hide_emitters, mode="scalar"):
                active_next &= ~((depth == 0) & ~si.is_valid())
            ds = mi.DirectionSample3f(scene, si=dr.detach(si), ref=si_prev)
            mis = mis_weight(pdf_prev, scene.pdf_emitter_direction(si_prev, ds, ~delta_prev))
            with dr.resume_grad(when=not primal):
                Le = β * mis * ds.emitter.eval(si, active_next)

            # -------------------------- emitter sampling --------------------------
            active_next &= (depth + 1 < self.max_depth) & si.is_valid()
            active_em = active_next & mi.has_flag(bsdf.flags(), mi.BSDFFlags.Smooth)
            u_em = sampler.next_2d()
            ds, em_weight = scene.sample_emitter_direction(dr.detach(si), u_em, True, active_em)
            active_em &= ds.pdf != 0
            with dr.resume_grad(when=not primal):
                if dr.hint(not primal, mode="scalar"):
                    ds, em_weight = attach_emitter_sample(scene, traits, si, ds, em_weight, u_em, active_em, moving)
                wo = si.to_local(ds.d)
                u1, u2 = sampler.next_1d(), sampler.next_2d()
                if dr.hint(primal, mode="scalar"):
                    # One dispatch for evaluation and sampling; the attached evaluation below needs its own
                    bsdf_em, pdf_em, bs, bsdf_weight = bsdf.eval_pdf_sample(ctx, si, wo, u1, u2, active_next)
                else:
                    bsdf_em, pdf_em = bsdf.eval_pdf(ctx, si, wo, active_em)
                mis_em = dr.detach(dr.select(ds.delta, 1, mis_weight(ds.pdf, pdf_em)))
                Lr_dir = dr.select(active_em, β * mis_em * bsdf_em * em_weight, 0)

            # --------------------------- BSDF sampling ---------------------------
            if dr.hint(not primal, mode="scalar"):
                bs, bsdf_weight = bsdf.sample(ctx, dr.detach(si), u1, u2, active_next)
            L = (L + Le + Lr_dir) if primal else (L - dr.detach(Le) - dr.detach(Lr_dir))
            ray_next = dr.detach(si).spawn_ray(dr.detach(si).to_world(bs.wo))
            η *= bs.eta
            β *= bsdf_weight
            delta = mi.has_flag(bs.sampled_type, mi.BSDFFlags.Delta)

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
                        si_next = pi_next.compute_surface_interaction(ray_next, FOLLOW, active_next)
                        hit = active_next & si_next.is_valid()
                        to_next = si_next.p - si.p
                        wo_next = dr.replace_grad(ray_next.d, dr.select(hit, dr.normalize(to_next), ray_next.d))
                        wo = si.to_local(wo_next)
                        J = dr.select(hit & ~delta, geometric_term(to_next, si_next), 1)      # (E3)
                    bsdf_value = bsdf.eval(ctx, si, wo, active_next)
                    if dr.hint(traits.has_delta_lobes, mode="scalar"):
                        lobe = lobe_value(traits, bsdf, ctx, si, u1, u2, bs, active_next & delta)  # (E5)
                        bsdf_value = dr.select(delta, lobe, bsdf_value)
                    Lr_ind = L * dr.relative_grad(bsdf_value) * dr.relative_grad(J)
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
                            δLo = dr.forward_to(Lo)
                            fine &= dr.all(dr.isfinite(δLo))
                            δL += dr.select(fine, δLo, 0)
                dropped[active & ~fine] += 1

            # --------------------------- next iteration ---------------------------
            si_prev = dr.detach(si, True)
            pdf_prev = bs.pdf
            delta_prev = delta
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
            self.dropped = dr.sum(dropped)
            if dr.hint(moving_camera and mode == dr.ADMode.Backward, mode="scalar"):
                with dr.resume_grad():
                    dr.backward_from(
                        dr.dot(mi.Vector3f(attached_ray.o), δo) + dr.dot(attached_ray.d, δd),
                        flags=dr.ADFlag.ClearInterior | dr.ADFlag.AllowNoGrad,
                    )

        return L if primal else δL, depth != first_depth, [], L

    def radiance(
        self, scene: mi.Scene, sampler: mi.Sampler, ray: mi.Ray3f, depth: mi.UInt32 | int = 0, active: Any = True
    ) -> tuple[mi.Spectrum, mi.Bool]:
        """Incident radiance along `ray`, without derivatives.

        Args:
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
            )
        return L, valid


class SceneTraits:
    """What a scene contains that needs code of its own in the kernel (known when it is traced)."""

    def __init__(self, scene: mi.Scene) -> None:
        flags = [emitter.flags() for emitter in scene.emitters()]
        delta = mi.EmitterFlags.Delta
        self.has_delta_emitters = any(mi.has_flag(f, delta) for f in flags)
        self.has_other_emitters = any(not mi.has_flag(f, delta) for f in flags)
        shapes = scene.shapes()
        self.emitters_move = any(s.is_emitter() and s.parameters_grad_enabled() for s in shapes)
        bsdfs = [s.bsdf() for s in shapes if s.bsdf() is not None]
        lobes = mi.BSDFFlags.Delta | mi.BSDFFlags.Null
        self.has_delta_lobes = any(mi.has_flag(b.flags(), lobes) for b in bsdfs)
        self.masks = [b for b in bsdfs if b.class_name() == "MaskBSDF" and mi.has_flag(b.flags(), mi.BSDFFlags.Delta)]
        plastics = [b for b in bsdfs if b.class_name() == "SmoothPlastic"]
        self.plastics = [(b, mi.traverse(b)["eta"]) for b in plastics]
        self.resample_lobes = any(mi.has_flag(b.flags(), mi.BSDFFlags.Delta) and b not in plastics for b in bsdfs)


def geometric_term(to_point: mi.Vector3f, si: mi.SurfaceInteraction3f) -> mi.Float:
    """dω/du of a point that keeps its place on its surface, up to a constant (E3).

    |cos θ| / r² times the stretch |∂p/∂u × ∂p/∂v| of the surface's own coordinates.
    """
    return projected_solid_angle(to_point, si.n) * relative_stretch(si)


def projected_solid_angle(to_point: mi.Vector3f, n: mi.Normal3f) -> mi.Float:
    """|cos θ| / r² of a surface element with normal `n`.

    Within `GRAZING` of the limb of a curved surface cos θ is mostly round-off, and so would be its relative derivative,
    which grows as 1/cos θ: there the value is kept and the derivative left out (a share of `GRAZING` of the flux).
    """
    r2 = dr.squared_norm(to_point)
    inv_r = dr.rsqrt(r2)
    cos_theta = dr.abs_dot(n, to_point) * inv_r
    value = cos_theta * dr.square(inv_r)
    return dr.select(dr.detach(cos_theta) > GRAZING, value, dr.detach(value))


def relative_stretch(si: mi.SurfaceInteraction3f) -> mi.Float:
    """Value one, with the relative derivative of the area that the surface's own coordinates span."""
    area = dr.norm(dr.cross(si.dp_du, si.dp_dv))
    return dr.select(dr.detach(area) > 0, dr.relative_grad(area), 1)


def attach_emitter_sample(
    scene: mi.Scene,
    traits: SceneTraits,
    si: mi.SurfaceInteraction3f,
    ds: mi.DirectionSample3f,
    weight: mi.Spectrum,
    u: mi.Point2f,
    active: mi.Bool,
    moving: bool,
) -> tuple[mi.DirectionSample3f, mi.Spectrum]:
    """The same emitter sample with derivatives: of the light, of its position, and of the shading point.

    Args:
        si: attached shading point.
        ds, weight: the detached sample and its weight (radiance / density).
        u: the random numbers that drew it.

    Returns:
        (ds with an attached direction, attached weight).
    """
    d = ds.d
    value = mi.Spectrum(weight)
    if traits.has_other_emitters:
        J = mi.Float(1)
        if moving:
            surface = active & mi.has_flag(ds.emitter.flags(), mi.EmitterFlags.Surface)
            y, n = mi.Point3f(ds.p), mi.Normal3f(ds.n)
            stretch = mi.Float(1)
            if traits.emitters_move:
                # Find the sample again as a point of its shape, to let it follow the shape
                with dr.suspend_grad():
                    ray = dr.detach(si).spawn_ray_to(ds.p)
                    ray.o = dr.fma(ray.d, ray.maxt, ray.o)
                    ray.maxt = dr.largest(ray.maxt)
                    pi_y = scene.ray_intersect_preliminary(ray, coherent=False, active=surface)
                si_y = pi_y.compute_surface_interaction(ray, FOLLOW, surface)
                found = surface & si_y.is_valid()
                y = mi.Point3f(dr.replace_grad(y, dr.select(found, si_y.p, y)))
                n = mi.Normal3f(dr.replace_grad(n, dr.select(found, si_y.n, n)))
                stretch = dr.select(found, relative_stretch(si_y), 1)
            to_y = y - si.p
            J = dr.select(surface, dr.relative_grad(projected_solid_angle(to_y, n)) * stretch, 1)
            d = dr.replace_grad(d, dr.select(surface, dr.normalize(to_y), d))
        ds.d = d
        Le = scene.eval_emitter_direction(si, ds, active & ~ds.delta)
        attached = Le * dr.select(ds.pdf != 0, dr.rcp(ds.pdf), 0) * J
        value = dr.replace_grad(value, dr.select(ds.delta, value, attached))
    if traits.has_delta_emitters:
        # A delta light is drawn the same way every time: sampling it again attached differentiates everything
        ds_delta, w_delta = scene.sample_emitter_direction(si, u, False, active & ds.delta)
        value = dr.replace_grad(value, dr.select(ds.delta, w_delta, value))
        d = dr.replace_grad(d, dr.select(ds.delta, ds_delta.d, d))
    ds.d = d
    return ds, value


def lobe_value(
    traits: SceneTraits,
    bsdf: mi.BSDFPtr,
    ctx: mi.BSDFContext,
    si: mi.SurfaceInteraction3f,
    u1: mi.Float,
    u2: mi.Point2f,
    bs: mi.BSDFSample3f,
    active: mi.Bool,
) -> mi.Spectrum:
    """Attached intensity of the delta or null lobe that was sampled (E5), up to a constant.

    `eval` of such a lobe is zero, so its derivative has to come from the sampling weight: weight times selection
    probability is the lobe itself, whatever the probability depends on.
    """
    null = active & mi.has_flag(bs.sampled_type, mi.BSDFFlags.Null)
    lobe = weight = mi.Spectrum(1)
    if traits.resample_lobes:
        again, weight = bsdf.sample(ctx, si, u1, u2, active & ~null)
        lobe = weight * again.pdf
    for plastic, eta in traits.plastics:
        # Its selection probability carries derivatives that cancel here, but that Dr.Jit 1.5 cannot propagate forward
        coat = mi.Spectrum(1)
        if "specular_reflectance" in str(mi.traverse(plastic)):
            coat = bsdf.eval_attribute("specular_reflectance", si, active)
        coat *= mi.fresnel(dr.abs(mi.Frame3f.cos_theta(si.wi)), eta)[0]
        lobe = dr.select(bsdf == mi.BSDFPtr(plastic), coat, lobe)
    for mask in traits.masks:
        # Mask divides by a detached opacity, hence probability and weight both carry its derivative
        lobe = dr.select(bsdf == mi.BSDFPtr(mask), weight, lobe)
    return dr.select(null, bsdf.eval_null_transmission(si, null), lobe)
