"""Boundary term of the curves along which surfaces pass through each other, as the camera sees them.

Such a curve is an edge of neither surface, so it is looked for: short segments at random places of the film, in random
directions, are traced at both ends; where those meet different surfaces, bisection finds the point u at which the
nearer surface changes, and that is a crossing if there the tangent planes of both meet and both surfaces go on behind
each other. By Crofton's formula the number
of crossings measures the length of the curve: for segments of length ℓ, one per p(u) pixels² and uniform in direction,

    ∫_Γ g dl = E[ Σ_crossings  π g / (2 ℓ p) ] ,                                                          (E13)

The curve lies in both surfaces. With q_A = n_A · (x_A − x) for the material points x_A and x_B next to a curve point x,

    ẋ = a q̇_A + b q̇_B ,   n_A · a = n_B · b = 1 ,   n_A · b = n_B · a = 0 ,   a, b ⟂ n_A × n_B             (E14)

and (E4) holds with g = h_j ΔL n · u̇.

Source: design of this project. Crofton: Santaló 1976, *Integral geometry and geometric probability*, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi

from .camera import FilmMap
from .curve_point import CONTACT
from .deliver import tangent_of
from .distribution import Discrete, stratified
from .estimate import Contribution, estimate
from .film import FilmSplat
from .guiding import Numbers
from .layers import behind, missed, transparent
from .primary import Beside, jump_across, side_distance
from .silhouettes import GAP, GAP_SMOOTH, Silhouettes
from .stream import Stream
from .tables import MESH, QUADRIC

#: Length of a segment in pixels, and its parts, each of which shows at most one crossing; halvings of a part until the
#: tangent planes take over; how far outside of what is left they may meet, as a fraction of it.
LENGTH, PARTS, HALVINGS, SLACK = 1.0, 4, 7, 0.5
#: Where surfaces meet, Mitsuba's rays start within the other one, and the picture is dark as far as they start above
#: their own (some ray epsilons): the sides are looked at from so many times that.
BEYOND_DARK = 4
#: Segments that find out whether there is a crossing at all.
PROBES = 1 << 14


@dataclass
class Crossings:
    """Points at which the nearer of two surfaces changes along a segment on the film.

    Attributes:
        u: (N,) film positions.
        p: (N,) the points; detached.
        near, far: (N,) what is hit on the first and on the last part of the segment.
        p_near, p_far: (N,) where; detached.
        n_near, n_far: (N,) normals there.
        valid: (N,) whether there is such a point.
        count: (N,) how many parts of the segment may have one; the point is of one of them, each as likely.
    """

    u: mi.Point2f
    p: mi.Point3f
    near: mi.PreliminaryIntersection3f
    far: mi.PreliminaryIntersection3f
    p_near: mi.Point3f
    p_far: mi.Point3f
    n_near: mi.Vector3f
    n_far: mi.Vector3f
    valid: mi.Bool
    count: mi.UInt32


def plane_distance(ray: mi.Ray3f, p: mi.Point3f, n: mi.Vector3f) -> mi.Float:
    """Distance along a ray to the plane through p with normal n."""
    return dr.dot(n, mi.Vector3f(p - ray.o)) / dr.dot(n, ray.d)


class Probe:
    """A camera that looks along segments on the film, straight through a number of layers in front.

    Args:
        curves: whose surfaces are told apart.
        hide_emitters: whether emitters are layers, like masks and panes.
        number: (N,) random number that picks how many layers: one half of the lanes none, a quarter one, and so on.

    Attributes:
        see_through: whether there are layers.
        layers: (N,) how many are looked through; what is in front of fewer is not seen.
        share: (N,) probability of that number.
    """

    def __init__(
        self, scene: mi.Scene, curves: Silhouettes, camera: FilmMap, hide_emitters: bool, number: mi.Float
    ) -> None:
        self.scene, self.curves, self.camera = scene, curves, camera
        self.hide_emitters = hide_emitters
        self.see_through = transparent(scene) or hide_emitters
        self.layers, self.share = mi.UInt32(0), mi.Float(1)
        if self.see_through:
            self.layers = mi.UInt32(-dr.log2(1 - number))
            self.share = dr.power(0.5, mi.Float(self.layers + 1))

    def ray(self, u: mi.Point2f, lens: mi.Point2f | None) -> mi.Ray3f:
        """The detached camera ray of a film position."""
        ray, _ = self.camera.ray(u, lens)
        return mi.Ray3f(dr.detach(ray))

    def trace(self, ray: mi.Ray3f, active: mi.Bool) -> tuple[mi.PreliminaryIntersection3f, mi.Point3f, mi.Vector3f]:
        """What a ray meets behind the layers, where, and the normal there."""
        if self.see_through:
            ray, active = behind(self.scene, ray, self.layers, self.hide_emitters, active)
        hit = self.scene.ray_intersect_preliminary(ray, coherent=True, active=active)
        si = hit.compute_surface_interaction(ray, mi.RayFlags.Minimal, active & hit.is_valid())
        return hit, mi.Point3f(si.p), mi.Vector3f(si.n)

    @dr.syntax
    def changes(
        self, start: mi.Point2f, end: mi.Point2f, lens: mi.Point2f | None, number: mi.Float, active: mi.Bool
    ) -> tuple[mi.UInt32, mi.UInt32]:
        """In how many parts of a segment one surface gives way to another, and one of these parts.

        Args:
            number: (N,) random number that picks it.
        """
        number = mi.Float(number)
        last, _, _ = self.trace(self.ray(start, lens), active)
        before = self.curves.surface(last, active)
        seen = last.is_valid()
        count, part, k = mi.UInt32(0), mi.UInt32(0), mi.UInt32(0)
        while dr.hint(active & (k < PARTS), label="Segment"):
            at = mi.Point2f(dr.lerp(start, end, mi.Float(k + 1) / PARTS))
            hit, _, _ = self.trace(self.ray(at, lens), active)
            surface = self.curves.surface(hit, active)
            change = seen & hit.is_valid() & (surface != before)
            count += dr.select(change, 1, 0)
            share = dr.rcp(mi.Float(dr.maximum(count, 1)))
            take = change & (number < share)
            part = dr.select(take, k, part)
            # what is left of the number picks among the parts to come
            number = dr.select(change, dr.select(take, number / share, (number - share) / (1 - share)), number)
            before, seen = mi.UInt32(surface), hit.is_valid()
            k += 1
        return count, part

    @dr.syntax
    def search(
        self, start: mi.Point2f, end: mi.Point2f, lens: mi.Point2f | None, number: mi.Float, active: mi.Bool
    ) -> Crossings:
        """A crossing on each segment, if there is one; see `changes` for the arguments."""
        count, part = self.changes(start, end, lens, number, active)
        low = mi.Float(part) / PARTS
        high = mi.Float(part + 1) / PARTS
        valid = active & (count > 0)
        near, p_near, n_near = self.trace(self.ray(mi.Point2f(dr.lerp(start, end, low)), lens), valid)
        far, p_far, n_far = self.trace(self.ray(mi.Point2f(dr.lerp(start, end, high)), lens), valid)
        first_surface, other_surface = (self.curves.surface(x, valid) for x in (near, far))
        valid &= near.is_valid() & far.is_valid() & (first_surface != other_surface)
        k = mi.UInt32(0)
        going = mi.Bool(valid)
        while dr.hint(going, label="Bisection"):
            s = 0.5 * (low + high)
            ray = self.ray(mi.Point2f(dr.lerp(start, end, s)), lens)
            hit, p, n = self.trace(ray, going)
            surface = self.curves.surface(hit, going)
            as_near, as_far = surface == first_surface, surface == other_surface
            t = dr.dot(mi.Vector3f(p - ray.o), ray.d)
            closer = dr.abs(t - plane_distance(ray, p_near, n_near)) < dr.abs(t - plane_distance(ray, p_far, n_far))
            first = dr.select(as_near == as_far, closer, as_near)
            valid &= hit.is_valid()
            near[first] = hit
            far[~first] = hit
            first_surface = dr.select(first, surface, first_surface)
            other_surface = dr.select(first, other_surface, surface)
            p_near = mi.Point3f(dr.select(first, mi.Vector3f(p), mi.Vector3f(p_near)))
            n_near = dr.select(first, n, n_near)
            p_far = mi.Point3f(dr.select(first, mi.Vector3f(p_far), mi.Vector3f(p)))
            n_far = dr.select(first, n_far, n)
            low = dr.select(first, s, low)
            high = dr.select(first, high, s)
            k += 1
            going &= valid & (k < HALVINGS)

        # How far the first surface lies behind the second: below zero where the first is seen, above where it is not;
        # the other way round behind one of two layers that pass through each other
        at_low = self.ray(mi.Point2f(dr.lerp(start, end, low)), lens)
        at_high = self.ray(mi.Point2f(dr.lerp(start, end, high)), lens)
        f_low = plane_distance(at_low, p_near, n_near) - plane_distance(at_low, p_far, n_far)
        f_high = plane_distance(at_high, p_near, n_near) - plane_distance(at_high, p_far, n_far)
        root = f_low / (f_low - f_high)
        valid &= (f_high > f_low) & (root > -SLACK) & (root < 1 + SLACK)
        u = mi.Point2f(dr.lerp(start, end, dr.lerp(low, high, root)))
        ray = self.ray(u, lens)
        t = 0.5 * (plane_distance(ray, p_near, n_near) + plane_distance(ray, p_far, n_far))
        p = ray(t)
        # Along the ray it is off by the round-off of t; in both planes, by that of its coordinates
        a, b = dual(n_near, n_far)
        p = mi.Point3f(p + a * dr.dot(n_near, mi.Vector3f(p_near - p)) + b * dr.dot(n_far, mi.Vector3f(p_far - p)))
        valid &= (t > 0) & dr.all(dr.isfinite(p))
        return Crossings(u, p, near, far, p_near, p_far, n_near, n_far, valid, count)

    def goes_on(
        self,
        x: Crossings,
        lens: mi.Point2f | None,
        front: tuple[mi.Point3f, mi.Vector3f],
        hit: mi.PreliminaryIntersection3f,
        back: tuple[mi.Point3f, mi.Vector3f],
        active: mi.Bool,
    ) -> mi.Bool:
        """Whether a surface goes on behind the other.

        If it ends there, its edge is a silhouette of (E4): rays beside those begin `CONTACT` gaps in front of them.

        Args:
            front, back: point and normal of the surface in front, and of the one that ought to be behind.
            hit: the latter.
        """
        d = self.ray(x.u, lens).d
        depth = CONTACT * rim_gap(self.curves, hit, x.p, active)
        across = dr.normalize(dr.cross(back[1], dr.cross(front[1], back[1])))
        sine, slope = dr.dot(front[1], across), dr.dot(front[1], d)
        step = mi.Vector3f(across * (depth * slope / sine))
        end = mi.Point3f(x.p + step)
        active = active & dr.all(dr.isfinite(end))
        reached = reaches(self.curves, hit, end, active)
        # Another face of the same surface may be there
        beyond = mi.Ray3f(mi.Point3f(end - 0.6 * depth * d), d, 2.6 * depth, 0, [])
        return active & (reached | self.scene.ray_test(beyond, active & ~reached))

    def look(
        self,
        film: FilmSplat,
        item: mi.UInt32,
        inside: mi.Float,
        lens: mi.Point2f | None,
        random: Stream,
        active: mi.Bool,
    ) -> tuple[Crossings, mi.Vector2f]:
        """A segment in each pixel of `film_cells`: what it crosses, and the normal of that curve on the film.

        Args:
            item: (N,) pixel.
            inside: (N,) in [0, 1), where the segment's middle lies along the pixel's row.
        """
        columns = dr.opaque(mi.UInt32, int(film.size[0]) + 2 * film.border + 2)
        row = item // columns
        corner = mi.Point2f(mi.Float(item - row * columns), mi.Float(row)) + film.low - 1
        middle = mi.Point2f(corner + mi.Vector2f(inside, random.next_1d()))
        sin, cos = dr.sincos(dr.two_pi * random.next_1d())
        half = 0.5 * LENGTH * mi.Vector2f(cos, sin)
        x = self.search(mi.Point2f(middle - half), mi.Point2f(middle + half), lens, random.next_1d(), active)

        du = self.camera.project_tangent(x.p, dr.cross(x.n_near, x.n_far), lens)
        normal = dr.normalize(mi.Vector2f(du.y, -du.x))
        near, far = (x.p_near, x.n_near), (x.p_far, x.n_far)
        x.valid &= film.inside(x.u) & self.camera.in_front(x.p) & dr.isfinite(normal.x) & dr.isfinite(normal.y)
        x.valid &= self.goes_on(x, lens, far, x.near, near, x.valid)
        x.valid &= self.goes_on(x, lens, near, x.far, far, x.valid)
        return x, normal


def crossing_term(
    integrator: Any,
    mode: dr.ADMode,
    scene: mi.Scene,
    curves: Silhouettes,
    sensor: mi.Sensor,
    seed: Any,
    spp: int,
    grad_in: mi.TensorXf | None,
) -> mi.TensorXf | None:
    """One launch of (E13) and (E14).

    Args:
        spp: segments per pixel of the crop.
        grad_in: adjoint image in backward mode.

    Returns:
        The derivative image in forward mode.
    """
    film, camera = FilmSplat(sensor, integrator.aovs.names), FilmMap(sensor)

    def evaluate(numbers: Numbers) -> Contribution:
        item, inside, probability = where.sample(numbers.place)
        random = numbers.random
        lens = mi.warp.square_to_uniform_disk_concentric(random.next_2d()) if camera.needs_aperture else None
        probe = Probe(scene, curves, camera, integrator.hide_emitters, random.next_1d())
        x, normal = probe.look(film, item, inside, lens, random, probability > 0)
        active = x.valid
        with dr.resume_grad():
            p = meeting_point(curves, x, active)
            drift = integrator.film_velocity(scene, sensor, x.u, lens, random)
            motion = dr.dot(normal, mi.Vector2f(camera.project(p, lens)) - drift)
            motion = dr.select(active & dr.isfinite(motion), motion, 0)
        u = at = x.u
        if probe.see_through:
            most, hidden = integrator.max_depth, integrator.hide_emitters
            miss, _ = missed(scene, probe.ray(u, lens), x.p, most, hidden, active)
            at = mi.Point2f(u + camera.project_tangent(x.p, miss, lens))
        weight = 0.5 * dr.pi * mi.Float(x.count) / (LENGTH * probability * probe.share * numbers.density)
        weight = dr.select(active, weight, 0)
        tangent = tangent_of(mode, motion)
        dr.eval(u, at, normal, weight, active, numbers.cell, random, tangent)
        across = dr.normalize(dr.cross(dr.cross(x.n_near, x.n_far), probe.ray(u, lens).d))
        dark = BEYOND_DARK * mi.math.RayEpsilon * (1 + dr.max(dr.abs(x.p)))
        dark = dr.norm(camera.project_tangent(x.p, across * dark, lens))
        dark = dr.select(dr.isfinite(dark), dark, 0)
        sides = Beside.neither(normal, dr.maximum(side_distance(film), dark))
        jump = jump_across(integrator, scene, camera, at, lens, sides, random, active)
        return Contribution(u, motion, weight=weight, tangent=tangent, **jump)

    with dr.suspend_grad():
        where = Discrete(dr.ones(mi.Float, film_cells(film)))
        memory = integrator.memory("crossing")
        return estimate(evaluate, mode, film, seed, film.pixels * spp, where, False, memory, grad_in)


def film_cells(film: FilmSplat) -> int:
    """Number of the pixels in which the middle of a segment may lie that crosses a curve on the film."""
    width, height = (int(n) + 2 * film.border + 2 for n in film.size)
    return width * height


def seen(scene: mi.Scene, curves: Silhouettes, sensor: mi.Sensor, hide_emitters: bool) -> bool:
    """Whether the camera sees surfaces pass through each other, as far as `PROBES` segments find out; on the host."""
    film, camera = FilmSplat(sensor), FilmMap(sensor)
    with dr.suspend_grad():
        random = Stream(0, dr.arange(mi.UInt32, PROBES))
        lens = mi.Point2f(0) if camera.needs_aperture else None
        place = stratified(PROBES, random.next_1d()) * film_cells(film)
        item = mi.UInt32(place)
        inside = mi.Float(place - mi.Float64(item))
        probe = Probe(scene, curves, camera, hide_emitters, random.next_1d())
        x, _ = probe.look(film, item, inside, lens, random, mi.Bool(True))
        return bool(dr.any(x.valid))


def dual(n_a: mi.Vector3f, n_b: mi.Vector3f) -> tuple[mi.Vector3f, mi.Vector3f]:
    """a and b of (E14)."""
    tangent = dr.cross(n_a, n_b)
    across_a, across_b = dr.cross(n_a, tangent), dr.cross(n_b, tangent)
    return mi.Vector3f(across_b / dr.dot(n_a, across_b)), mi.Vector3f(across_a / dr.dot(n_b, across_a))


def meeting_point(curves: Silhouettes, x: Crossings, active: mi.Bool) -> mi.Point3f:
    """The point of the curve, attached to both surfaces by (E14)."""
    a, b = dual(x.n_near, x.n_far)
    q_near = dr.dot(x.n_near, mi.Vector3f(curves.follow(x.near, x.p_near, active) - x.p))
    q_far = dr.dot(x.n_far, mi.Vector3f(curves.follow(x.far, x.p_far, active) - x.p))
    return mi.Point3f(x.p + a * q_near + b * q_far)


def rim_gap(curves: Silhouettes, hit: mi.PreliminaryIntersection3f, p: mi.Point3f, active: mi.Bool) -> mi.Float:
    """Distance at which rays pass an edge near p of the shape that was hit."""
    gap = GAP * dr.norm(p)
    if curves.quadrics is None:
        return gap
    index, family = curves.owner(hit, active)
    radius = dr.gather(mi.Float, curves.quadrics.bounds()[1], index, active & (family == QUADRIC))
    return gap + GAP_SMOOTH * radius


def reaches(curves: Silhouettes, hit: mi.PreliminaryIntersection3f, p: mi.Point3f, active: mi.Bool) -> mi.Bool:
    """Whether the face that was hit, or a shape that has no faces, reaches as far as p in its plane."""
    active = active & hit.is_valid()
    index, family = curves.owner(hit, active)
    result = active & (family != MESH)
    if curves.has_edges:
        on_mesh = active & (family == MESH)
        corner = 3 * (index + hit.prim_index)
        v = [curves.vertex(dr.gather(mi.UInt32, curves.topology.faces, corner + i, on_mesh), on_mesh) for i in range(3)]
        e1, e2, to_p = mi.Vector3f(v[1] - v[0]), mi.Vector3f(v[2] - v[0]), mi.Vector3f(p - v[0])
        n = dr.cross(e1, e2)
        b1, b2 = dr.dot(dr.cross(to_p, e2), n), dr.dot(dr.cross(e1, to_p), n)
        result |= on_mesh & (b1 > 0) & (b2 > 0) & (b1 + b2 < dr.squared_norm(n))
    if curves.quadrics is not None:
        result &= (family != QUADRIC) | curves.quadrics.reaches(index, p, active & (family == QUADRIC))
    return result
