"""Points of the film at which one surface passes through another: a search along short segments.

Traced at their ends and a few points between; where those meet different surfaces, bisection finds the point at which
the nearer surface changes, and that is a crossing if there the tangent planes of both meet and both surfaces go on
behind each other. What is done with them: `crossings`.
"""

from __future__ import annotations

from dataclasses import dataclass

import drjit as dr
import mitsuba as mi

from .camera import FilmMap
from .curve_point import CONTACT
from .film import FilmSplat
from .layers import behind, transparent
from .silhouettes import GAP, GAP_SMOOTH, Silhouettes
from .stream import Stream
from .tables import MESH, QUADRIC

#: Length of a segment in pixels, and its parts, each of which shows at most one crossing; halvings of a part until the
#: tangent planes take over; how far outside of what is left they may meet, as a fraction of it.
LENGTH, PARTS, HALVINGS, SLACK = 1.0, 4, 7, 0.5


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
        hit = self.scene.ray_intersect_preliminary(ray, coherent=False, active=active)
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

    def distance(self, x: Crossings, lens: mi.Point2f | None) -> mi.Float:
        """From the camera to a crossing, along the way that its ray takes."""
        return dr.norm(mi.Vector3f(self.ray(x.u, lens).o - x.p))

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
        middle: mi.Point2f,
        lens: mi.Point2f | None,
        random: Stream,
        active: mi.Bool,
    ) -> Crossings:
        """What a segment about a point of the film crosses."""
        sin, cos = dr.sincos(dr.two_pi * random.next_1d())
        half = 0.5 * LENGTH * mi.Vector2f(cos, sin)
        x = self.search(mi.Point2f(middle - half), mi.Point2f(middle + half), lens, random.next_1d(), active)

        near, far = (x.p_near, x.n_near), (x.p_far, x.n_far)
        x.valid &= film.inside(x.u)
        x.valid &= self.goes_on(x, lens, far, x.near, near, x.valid)
        x.valid &= self.goes_on(x, lens, near, x.far, far, x.valid)
        return x


def dual(n_a: mi.Vector3f, n_b: mi.Vector3f) -> tuple[mi.Vector3f, mi.Vector3f]:
    """a and b of (E14)."""
    tangent = dr.cross(n_a, n_b)
    across_a, across_b = dr.cross(n_a, tangent), dr.cross(n_b, tangent)
    return mi.Vector3f(across_b / dr.dot(n_a, across_b)), mi.Vector3f(across_a / dr.dot(n_b, across_a))


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


def film_cells(film: FilmSplat) -> int:
    """Number of the pixels in which the middle of a segment may lie that crosses a curve on the film."""
    width, height = (int(n) + 2 * film.border + 2 for n in film.size)
    return width * height


def middle_of(film: FilmSplat, item: mi.UInt32, inside: mi.Float, across: mi.Float) -> mi.Point2f:
    """A point of one of the `film_cells`, by two numbers in [0, 1)."""
    columns = dr.opaque(mi.UInt32, int(film.size[0]) + 2 * film.border + 2)
    row = item // columns
    corner = mi.Point2f(mi.Float(item - row * columns), mi.Float(row)) + film.low - 1
    return mi.Point2f(corner + mi.Vector2f(inside, across))
