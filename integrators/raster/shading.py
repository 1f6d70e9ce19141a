"""Lambertian shading by the lights of the scene, nothing in their way: the illumination model of both rasterisers.

    C(p, n) = L_e + ρ(uv) / π  Σ_lights E(p, n)

E is the irradiance of each light without visibility: point, spot and directional lights exactly, a constant
environment as if nothing stood above the horizon, area lights by a midpoint rule over their triangles.
"""

from __future__ import annotations

import drjit as dr
import mitsuba as mi

from ..errors import UnsupportedGradient
from .triangles import Corner, Row, Triangles, lamps, mix

#: An area light of more triangles costs too much per pixel.
MAX_LAMP_TRIANGLES = 64
_DELTA = ("PointLight", "SpotLight", "DirectionalEmitter")


class Shading:
    """The lights of a scene, ready to shade.

    Args:
        divisions: each edge of an emitting triangle is divided so often; a midpoint rule uses divisions² points.

    Raises:
        UnsupportedGradient: a light that cannot be shaded with.
    """

    def __init__(self, scene: mi.Scene, triangles: Triangles, name: str, divisions: int = 2) -> None:
        self.scene = scene
        self.triangles = triangles
        self.delta: list[mi.Emitter] = []
        self.ambient = mi.Color3f(0)
        for emitter in scene.emitters():
            kind = emitter.class_name()
            if kind == "AreaLight":
                continue
            if kind == "ConstantBackgroundEmitter":
                si = dr.zeros(mi.SurfaceInteraction3f)
                self.ambient = mi.Color3f(emitter.eval(si))
            elif kind in _DELTA:
                self.delta.append(emitter)
            else:
                raise UnsupportedGradient(
                    f"{name} has no formula for the light of a {kind}",
                    key=emitter.id(),
                    remedy="use point, spot, directional, constant or area lights, or edge_sampling",
                )
        self.points: list[tuple[mi.Point3f, mi.Vector3f, mi.Color3f]] = []
        for corners, normal, area, radiance in lamps(scene, name):
            if dr.width(area) > MAX_LAMP_TRIANGLES:
                raise UnsupportedGradient(
                    f"{name} samples area lights of at most {MAX_LAMP_TRIANGLES} triangles, not {dr.width(area)}",
                    remedy="use a rectangle, or edge_sampling",
                )
            self._add_lamp(corners, normal, area, radiance, divisions)

    def _add_lamp(
        self, corners: list[mi.Point3f], normal: mi.Vector3f, area: mi.Float, radiance: mi.Color3f, divisions: int
    ) -> None:
        for t in range(dr.width(area)):
            at = mi.UInt32(t)
            a, b, c = (dr.gather(mi.Point3f, p, at) for p in corners)
            n = dr.gather(mi.Vector3f, normal, at)
            power = radiance * dr.gather(mi.Float, area, at) / divisions**2
            for u, v in midpoints(divisions):
                p = mi.Point3f(mi.Vector3f(a) * (1 - u - v) + mi.Vector3f(b) * u + mi.Vector3f(c) * v)
                self.points.append((p, n, power))

    def color(self, row: Row, point: Corner, eye: mi.Vector3f, active: mi.Bool | bool = True) -> mi.Color3f:
        """The colour of a point of a triangle.

        Args:
            point: position, unnormalised shading normal, texture coordinates.
            eye: direction towards the camera, any length; decides which side is seen.
        """
        n = mi.Vector3f(point.n) * dr.rcp(dr.maximum(dr.norm(point.n), 1e-20))
        front = dr.detach(dr.dot(n, eye)) >= 0
        n = dr.select(~front & row.two_sided, -n, n)
        lit = front | row.two_sided
        irradiance = mi.Color3f(self.ambient) * dr.pi
        si = dr.zeros(mi.SurfaceInteraction3f, dr.width(point.p))
        si.p, si.n, si.sh_frame = point.p, mi.Normal3f(n), mi.Frame3f(n)
        for emitter in self.delta:
            ds, weight = emitter.sample_direction(si, mi.Point2f(0.5))
            arriving, d = mi.Color3f(weight), ds.d
            if emitter.class_name() == "PointLight":  # its position is attached in the parameter only
                to_lamp = mi.Point3f(mi.traverse(emitter)["position"]) - point.p
                square = dr.squared_norm(to_lamp)
                arriving = arriving * dr.square(ds.dist) / square
                d = to_lamp * dr.rsqrt(square)
            irradiance += arriving * dr.maximum(dr.dot(n, d), 0)
        for p, normal, power in self.points:
            d = p - point.p
            square = dr.maximum(dr.squared_norm(d), 1e-8)
            geometry = dr.maximum(dr.dot(n, d), 0) * dr.maximum(-dr.dot(normal, d), 0) / dr.square(square)
            irradiance += power * geometry
        albedo = row.albedo
        if self.triangles.textured:
            si.uv, si.wi = point.uv, mi.Vector3f(0, 0, 1)
            shape = dr.gather(mi.ShapePtr, self.scene.shapes_dr(), row.shape, active)
            albedo = mi.Color3f(shape.bsdf().eval_diffuse_reflectance(si, active))
        reflected = dr.select(lit, albedo * irradiance * dr.inv_pi, 0)
        return mi.Color3f(reflected + dr.select(front, row.emission, 0))


def midpoints(divisions: int) -> list[tuple[float, float]]:
    """Barycentric (u, v) of the centroids of the divisions² congruent parts of a triangle.

    `midpoints(1)` is the centroid.
    """
    points = []
    for i in range(divisions):
        for j in range(divisions - i):
            points.append(((i + 1 / 3) / divisions, (j + 1 / 3) / divisions))
            if i + j < divisions - 1:
                points.append(((i + 2 / 3) / divisions, (j + 2 / 3) / divisions))
    return points


def surface_point(row: Row, weights: list[mi.Float]) -> Corner:
    """The point of a triangle with the given weights in space."""
    return mix(row.corners, weights)
