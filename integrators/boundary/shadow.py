"""Boundary term of light that arrives directly at what the camera sees: the edges of shadows, as curves on the film.

Fix a point y of a light. The direct light that y alone contributes is a function on the film that jumps where the
line from y touches a silhouette x_B and continues to the receiver X. As θ changes, that curve moves over the film,
whoever moved: occluder, receiver, light or camera.

    X(t, θ)  = line y(θ) x_B(t, θ)  ∩  tangent plane of the receiver at X, following it                  (E6)
    dI_j     = ∫ dy ∫ h_j(u) [C_y(u − εn) − C_y(u + εn)] n·u̇ |du| ,   u = film position of X              (E7)

C_y(u) is the contribution of y alone to the camera ray through u, with its shadow ray. Delta lights have one y, area
lights are sampled by area, environments by direction. Unbiased up to ε; one-dimensional, hence of low variance, for
delta lights.

Source: design of this project; the planar special case is in Loubet et al. 2019, section 3.2 (there by
    reparametrisation).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any

import drjit as dr
import mitsuba as mi

from .camera import FilmMap
from .curve_point import CurvePoint, pick
from .deliver import tangent_of
from .distribution import Discrete
from .estimate import Contribution, estimate
from .film import FilmSplat
from .frames import Frames
from .guiding import Numbers
from .layers import missed, transparent
from .lights import AREA, DELTA, SKY, Lights, LightVertex, arriving, reached, unshadowed
from .primary import side_distance, visible
from .silhouettes import Silhouettes, classify
from .tables import NON_MANIFOLD, OPEN, SMOOTH


class ShadowCurves:
    """Which (light, curve element) to sample: every light gets the same share, elements by their apparent length.

    Args:
        curves: the boundary curves of the scene.
        lights: the lights.
        kinds: of the lights that take part.
    """

    def __init__(self, curves: Silhouettes, lights: Lights, kinds: Container[int] = (DELTA, AREA, SKY)) -> None:
        self.curves, self.frames = curves, Frames(lights)
        shares = []
        with dr.suspend_grad():
            for number in range(lights.size):
                parts = []
                if curves.has_edges:
                    parts.append(self._edges(curves, lights, number))
                if curves.smooth is not None:
                    parts.append(self._smooth(curves, lights, number))
                if self.frames.size:
                    parts.append(self.frames.lengths(number))
                weights = mi.Float64(parts[0] if len(parts) == 1 else dr.concat(parts))
                total = dr.sum(weights)
                drawn = total > 0 if lights.kinds[number] in kinds else mi.Bool(False)
                shares.append(dr.select(drawn, weights / total, 0))
            self.choice = Discrete(shares[0] if len(shares) == 1 else dr.concat(shares))
        self.elements = curves.size + self.frames.size

    @staticmethod
    def _edges(curves: Silhouettes, lights: Lights, number: int) -> mi.Float:
        a, e, c0, c1, flags = curves.all_edges()
        seen = lights.viewpoint(number)
        always = (flags & (OPEN | NON_MANIFOLD)) != 0
        n0, n1 = dr.cross(e, c0), dr.cross(c1, e)
        length = dr.norm(e)
        if seen is None:  # environment: the share of directions from which this edge is a silhouette
            bend = dr.atan2(dr.norm(dr.cross(n0, n1)), dr.dot(n0, n1)) / dr.pi
            return length * dr.select(always, 1, bend)
        view, radius = seen
        if radius is None:
            d = view.toward(a)
            silhouette, _ = classify(d, e, c0, c1, flags)
            angle = dr.norm(dr.cross(e, d)) / dr.squared_norm(d)
            return dr.select(silhouette, dr.minimum(angle, length / dr.norm(d) * 4), 0)
        # A face plane that no point of the light can cross shows the same side to all of it
        d = view.toward(a)
        s0, s1 = dr.dot(n0, d) / dr.norm(n0), dr.dot(n1, d) / dr.norm(n1)
        reach = radius * 1.0001
        same = ((s0 > reach) & (s1 > reach)) | ((s0 < -reach) & (s1 < -reach))
        return dr.select(same & ~always, 0, length / (dr.norm(d + 0.5 * e) + radius))

    @staticmethod
    def _smooth(curves: Silhouettes, lights: Lights, number: int) -> mi.Float:
        assert curves.smooth is not None
        centre, radius = curves.smooth.bounds()
        seen = lights.viewpoint(number)
        if seen is None:
            return dr.two_pi * radius
        view, spread = seen
        distance = dr.norm(view.toward(centre)) + (0 if spread is None else spread)
        return dr.two_pi * radius / dr.maximum(distance, radius)

    def sample(self, number: mi.Float64) -> tuple[mi.UInt32, mi.UInt32, mi.Float, mi.Float]:
        """Draw (light, element, curve parameter, probability of light and element)."""
        item, t, probability = self.choice.sample(number)
        light = item // self.elements
        return light, item - light * self.elements, t, probability

    def point(self, light: mi.UInt32, index: mi.UInt32, t: mi.Float, y: LightVertex) -> CurvePoint:
        """The attached curve point of what was drawn."""
        if not self.frames.size:
            return self.curves.sample(index, t, y.view())
        framed = mi.Bool(index >= self.curves.size)
        other = self.curves.sample(dr.select(framed, 0, index), t, y.view())
        frame = self.frames.sample(light, dr.select(framed, index - self.curves.size, 0), t, framed)
        return pick(~framed, other, frame)


def break_at_terminators(curves: Silhouettes, lights: Lights) -> None:
    """Let the camera see jumps across edges of smoothly shaded meshes that have a light behind one of their faces.

    A face that is turned away from a light lies in its own body's shadow, however bright its interpolated normals: the
    light ends at the edge. It is the mesh's edge that moves, on the film, like any crease. Lamps are taken for their
    centres: edges that only a part of a lamp sees from both sides are many on a fine mesh, and show next to no jump.
    """
    if not curves.topology.any_smooth:
        return
    with dr.suspend_grad():
        a, e, c0, c1, flags = curves.all_edges()
        for number in range(lights.size):
            seen = lights.viewpoint(number)
            if seen is None:  # what an edge's two faces hide of an even sky is the same; an uneven one is a limit
                continue
            ends, _ = classify(seen[0].toward(a), e, c0, c1, flags)
            curves.flags = dr.select(ends, curves.flags & ~mi.UInt32(SMOOTH), curves.flags)


def shadow_term(
    integrator: Any,
    mode: dr.ADMode,
    scene: mi.Scene,
    curves: Silhouettes,
    lights: Lights,
    sensor: mi.Sensor,
    seed: Any,
    spp: int,
    grad_in: mi.TensorXf | None,
    kinds: Sequence[int] = (DELTA, AREA),
    share: Callable[..., mi.Float] | None = None,
) -> mi.TensorXf | None:
    """One launch of the boundary term of directly lit receivers that the camera sees directly.

    Args:
        spp: samples per pixel of the crop; they are spread over lights and curves.
        grad_in: adjoint image in backward mode.
        kinds: of the lights that take part.
        share: (receiver, its normal, curve point, direction from one to the other, aperture, active) -> the share of
            the sky's light that another term takes.

    Returns:
        The derivative image in forward mode.
    """
    film, camera = FilmSplat(sensor), FilmMap(sensor)
    see_through = transparent(scene) or integrator.hide_emitters

    def evaluate(numbers: Numbers) -> Contribution:
        light, index, t, probability = where.sample(numbers.place)
        random = numbers.random
        aperture = camera.lens(random)
        active = probability > 0
        with dr.resume_grad():
            y = lights.sample(light, numbers.other, active)
            point = where.point(light, index, t, y)
        active &= point.silhouette & (y.density > 0)

        # The receiver behind the curve point, found by a ray that clears the occluder
        p_B, p_y = dr.detach(mi.Point3f(point.p)), dr.detach(mi.Point3f(y.p))
        d = dr.select(y.far, -mi.Vector3f(p_y), dr.normalize(mi.Vector3f(p_B - p_y)))
        ray = mi.Ray3f(point.beside(point.outward(d)), d)
        active &= reached(scene, y, ray.o, size, active)
        hit = scene.ray_intersect_preliminary(ray, coherent=False, active=active)
        active &= hit.is_valid()
        receiver = hit.compute_surface_interaction(ray, mi.RayFlags.Minimal, active)
        n = mi.Vector3f(receiver.n)
        with dr.resume_grad():
            X = project_through(y, point.p, curves.follow(hit, receiver.p, active), n)
            u_attached = camera.project(X, aperture)
        x, u = mi.Point3f(dr.detach(X)), mi.Point2f(dr.detach(u_attached))
        slide = mi.Vector3f(point.tangent - d * (dr.dot(n, point.tangent) / dr.dot(n, d)))
        slide *= dr.select(y.far, 1, dr.norm(x - p_y) / dr.norm(p_B - p_y))
        du = camera.project_tangent(x, slide, aperture)
        perp = mi.Vector2f(du.y, -du.x)
        with dr.resume_grad():
            drift = integrator.film_velocity(scene, sensor, u, aperture, random)
            motion = dr.dot(perp, mi.Vector2f(u_attached) - drift)
            motion = dr.select(active & dr.isfinite(motion), motion, 0)
        normal = dr.normalize(perp)
        active &= film.inside(u) & camera.in_front(x) & dr.isfinite(normal.x) & dr.isfinite(normal.y)
        at = u
        to_x, _ = camera.ray(u, aperture)
        if see_through:
            miss, _ = missed(scene, mi.Ray3f(to_x), x, integrator.max_depth, integrator.hide_emitters, active)
            at = mi.Point2f(u + camera.project_tangent(x, miss, aperture))
        else:
            active &= visible(scene, mi.Ray3f(to_x), x, False, active)
        part = mi.Float(1)
        if share is not None:
            part -= share(x, receiver.n, p_B, -d, aperture, active)
        weight = dr.select(active, part * dr.rcp(probability * numbers.density), 0)
        tangent = tangent_of(mode, motion)
        dr.eval(u, at, normal, perp, weight, active, numbers.cell, dr.detach(y), hit, tangent)
        jump, wavelengths = direct_jump(integrator, scene, camera, film, at, normal, aperture, y, size, active)
        return Contribution(u, motion, jump, weight, dr.norm(perp), None, wavelengths, tangent)

    with dr.suspend_grad():
        size = lights.extent
        spread = any(kind in kinds for kind in lights.kinds if kind != DELTA)
        where = ShadowCurves(curves, lights, kinds)
        memory = integrator.memory("shadow" if share is None else "sky shadow")
        return estimate(evaluate, mode, film, seed, film.pixels * spp, where.choice, spread, memory, grad_in)


def project_through(y: LightVertex, p_B: mi.Point3f, receiver: mi.Point3f, n: mi.Vector3f) -> mi.Point3f:
    """(E6): the attached shadow point; a rotation of the receiver about the point itself does not move it."""
    toward = dr.select(y.far, -mi.Vector3f(y.p), mi.Vector3f(p_B - y.p))
    base = mi.Point3f(dr.select(y.far, mi.Vector3f(p_B), mi.Vector3f(y.p)))
    return mi.Point3f(base + toward * (dr.dot(n, mi.Vector3f(receiver - base)) / dr.dot(n, toward)))


def direct_jump(
    integrator: Any,
    scene: mi.Scene,
    camera: FilmMap,
    film: FilmSplat,
    u: mi.Point2f,
    normal: mi.Vector2f,
    aperture: mi.Point2f | None,
    y: LightVertex,
    size: mi.Float,
    active: mi.Bool,
) -> tuple[mi.Spectrum, Any]:
    """C_y(u − εn) − C_y(u + εn), with the sensor's weight; the two sides are lanes 2i and 2i + 1 of one launch."""
    count = dr.width(u)
    lane = dr.arange(mi.UInt32, 2 * count)
    pair, far_side = lane >> 1, (lane & 1) == 1
    ε = side_distance(film)
    at, n = dr.gather(mi.Point2f, u, pair), dr.gather(mi.Vector2f, normal, pair)
    lens = None if aperture is None else dr.gather(mi.Point2f, aperture, pair)
    both = dr.gather(mi.Bool, active, pair)
    light = dr.gather(LightVertex, dr.detach(y), pair)
    ray, weight = camera.ray(mi.Point2f(at + dr.select(far_side, ε, -ε) * n), lens)
    onward = mi.RayDifferential3f(dr.detach(ray))
    C = direct_contribution(integrator, scene, onward, light, size, both, transparent(scene))
    C = dr.select(both & dr.all(dr.isfinite(C)), C * dr.detach(weight), 0)
    dr.eval(C)
    first = 2 * dr.arange(mi.UInt32, count)
    return dr.gather(mi.Spectrum, C, first) - dr.gather(mi.Spectrum, C, first + 1), ray.wavelengths


def first_surface(
    integrator: Any, scene: mi.Scene, ray: mi.RayDifferential3f, active: mi.Bool
) -> tuple[mi.PreliminaryIntersection3f, mi.SurfaceInteraction3f]:
    """What the camera sees along a ray, behind emitters if those are hidden."""
    hit = scene.ray_intersect_preliminary(ray, coherent=True, active=active)
    if integrator.hide_emitters:
        skip = hit.is_valid() & (hit.shape.emitter() != None) & active  # noqa: E711
        at_emitter = hit.compute_surface_interaction(ray, mi.RayFlags.Minimal, skip)
        hit[skip] = integrator.skip_area_emitters(scene, at_emitter.spawn_ray(ray.d), True, skip)
    return hit, hit.compute_surface_interaction(ray, mi.RayFlags.All, active)


@dr.syntax
def direct_contribution(
    integrator: Any,
    scene: mi.Scene,
    ray: mi.RayDifferential3f,
    y: LightVertex,
    size: mi.Float,
    active: mi.Bool,
    through: bool = False,
) -> mi.Spectrum:
    """C_y: radiance that leaves the first surface along a camera ray backwards because of y alone.

    Args:
        through: whether to go on behind surfaces that let a part of the light pass straight on.
    """
    _, si = first_surface(integrator, scene, ray, active)
    active = active & si.is_valid()
    if dr.hint(not through, mode="scalar"):
        return reflected(scene, si, y, size, active)
    value, T = mi.Spectrum(0), mi.Spectrum(1)
    depth = mi.UInt32(1)
    while dr.hint(active, label="Layers in front of a receiver"):
        value += T * reflected(scene, si, y, size, active)
        T *= si.bsdf().eval_null_transmission(si, active)
        depth += 1
        active &= dr.any(T != 0) & (depth < integrator.max_depth)
        si = scene.ray_intersect(si.spawn_ray(ray.d), active)
        active &= si.is_valid()
    return value


def reflected(
    scene: mi.Scene, si: mi.SurfaceInteraction3f, y: LightVertex, size: mi.Float, active: mi.Bool
) -> mi.Spectrum:
    """What a surface point reflects of the light of y, with its shadow."""
    bsdf = si.bsdf()
    active = active & mi.has_flag(bsdf.flags(), mi.BSDFFlags.Smooth)
    light, d = arriving(y, si, active)
    value = bsdf.eval(mi.BSDFContext(), si, si.to_local(d), active) * light
    active &= dr.any(value != 0)
    active &= unshadowed(scene, y, si.p, size, active)
    return dr.select(active, value, 0)
