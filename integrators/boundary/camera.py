"""Where a point of the world lands on the film, with derivatives with respect to the camera.

Every camera handled here maps homogeneous world points linearly to homogeneous film points, once the point of the
aperture is fixed: a straight edge stays straight on the film, and the film velocity of a moving point is one quotient
rule away. (E3) in docs/theory/edge_sampling.md.
"""

from __future__ import annotations

import drjit as dr
import mitsuba as mi

from ..errors import UnsupportedGradient
from .stream import Stream
from .view import View

KNOWN = ("PerspectiveCamera", "ThinLensCamera", "OrthographicCamera")


class FilmMap:
    """World to film, attached to the sensor's parameters; film positions in pixels of the whole film.

    Args:
        sensor: a perspective, thin-lens or orthographic camera.

    Raises:
        UnsupportedGradient: another sensor.
    """

    def __init__(self, sensor: mi.Sensor) -> None:
        self.kind = sensor.class_name()
        if self.kind not in KNOWN:
            raise UnsupportedGradient(
                f"edge sampling cannot project onto the film of a {self.kind}",
                key=sensor.id(),
                remedy="use a perspective, thinlens or orthographic sensor, or the estimator finite_difference",
            )
        film = sensor.film()
        parameters = mi.traverse(sensor)
        self.sensor = sensor
        self.crop_size = mi.Vector2f(dr.opaque(mi.Float, film.crop_size().x), dr.opaque(mi.Float, film.crop_size().y))
        self.crop_offset = mi.Vector2f(
            dr.opaque(mi.Float, film.crop_offset().x), dr.opaque(mi.Float, film.crop_offset().y)
        )
        self.near = dr.opaque(mi.Float, sensor.near_clip())
        self.shift = mi.Vector2f(0)
        if self.kind == "PerspectiveCamera":
            whole = mi.ScalarVector2f(film.size()) / mi.ScalarVector2f(film.crop_size())
            self.shift = mi.Vector2f(
                parameters["principal_point_offset_x"] * whole.x, parameters["principal_point_offset_y"] * whole.y
            )
        self.needs_aperture = sensor.needs_aperture_sample()
        if self.needs_aperture:
            self.aperture_radius = mi.Float(parameters["aperture_radius"])
            self.focus = mi.Float(parameters["focus_distance"])
        self.to_world = sensor.world_transform()
        self.to_camera = self.to_world.inverse()
        self.projection = sensor.projection_transform().matrix

    def lens(self, random: Stream) -> mi.Point2f | None:
        """(N,) random points of the unit disc, with a thin lens."""
        return mi.warp.square_to_uniform_disk_concentric(random.next_2d()) if self.needs_aperture else None

    def moves(self) -> bool:
        """Whether the camera's parameters carry derivatives."""
        with dr.resume_grad():
            own = [self.to_world.matrix, self.projection, self.shift]
            if self.needs_aperture:
                own += [self.aperture_radius, self.focus]
            return dr.grad_enabled(*own)

    def _film(self, point: mi.Point4f | mi.Vector4f) -> tuple[mi.Float, mi.Float, mi.Float]:
        m = self.projection
        row = lambda i: m[i, 0] * point[0] + m[i, 1] * point[1] + m[i, 2] * point[2] + m[i, 3] * point[3]
        w = row(3)
        x = (row(0) - self.shift.x * w) * self.crop_size.x + self.crop_offset.x * w
        y = (row(1) - self.shift.y * w) * self.crop_size.y + self.crop_offset.y * w
        return x, y, w

    def _through_lens(self, x: mi.Float, y: mi.Float, z: mi.Float, one: float, aperture: mi.Point2f) -> mi.Vector4f:
        if not self.needs_aperture:
            return mi.Vector4f(x, y, z, one)
        a = mi.Point2f(
            aperture * self.aperture_radius
        )  # the line through the aperture point, where it meets the focal plane
        return mi.Vector4f(
            a.x * z + (x - one * a.x) * self.focus, a.y * z + (y - one * a.y) * self.focus, z * self.focus, z
        )

    def homogeneous(self, p: mi.Point3f, aperture: mi.Point2f | None = None) -> tuple[mi.Float, mi.Float, mi.Float]:
        """Film position of a world point times w, and w.

        Args:
            p: (N,) world points.
            aperture: (N,) points of the unit disc; needed by a thin lens only.
        """
        c = mi.Point3f(self.to_camera @ mi.Point3f(p))
        return self._film(self._through_lens(c.x, c.y, c.z, 1.0, aperture))

    def project(self, p: mi.Point3f, aperture: mi.Point2f | None = None) -> mi.Point2f:
        """Film position of a world point, in pixels, attached to the point and to the camera."""
        x, y, w = self.homogeneous(p, aperture)
        return mi.Point2f(x / w, y / w)

    def project_tangent(self, p: mi.Point3f, v: mi.Vector3f, aperture: mi.Point2f | None = None) -> mi.Vector2f:
        """How the film position changes as the world point moves by v (a directional derivative; no gradients)."""
        with dr.suspend_grad():
            x, y, w = self.homogeneous(p, aperture)
            c = mi.Vector3f(self.to_camera @ mi.Vector3f(v))
            dx, dy, dw = self._film(self._through_lens(c.x, c.y, c.z, 0.0, aperture))
            return mi.Vector2f((dx - x / w * dw) / w, (dy - y / w * dw) / w)

    def film_area(self, p: mi.Point3f, n: mi.Normal3f, aperture: mi.Point2f | None = None) -> mi.Float:
        """Pixels that a unit of area at p with normal n covers on the film."""
        s, t = mi.coordinate_system(mi.Vector3f(dr.detach(n)))
        a, b = self.project_tangent(p, s, aperture), self.project_tangent(p, t, aperture)
        return dr.abs(a.x * b.y - a.y * b.x)

    def in_front(self, p: mi.Point3f) -> mi.Bool:
        """Whether a point lies beyond the near plane."""
        with dr.suspend_grad():
            return mi.Point3f(self.to_camera @ mi.Point3f(p)).z > self.near

    def view(self, aperture: mi.Point2f | None = None) -> View:
        """From where the film looks at the world: a point, or a direction for an orthographic camera; detached."""
        with dr.suspend_grad():
            view = self.attached_view(aperture)
            return View(dr.detach(view.p), view.far)

    def attached_view(self, aperture: mi.Point2f | None = None) -> View:
        """The same, attached to the camera."""
        if self.kind == "OrthographicCamera":
            return View(mi.Point3f(-dr.normalize(self.to_world @ mi.Vector3f(0, 0, 1))), mi.Bool(True))
        local = mi.Point3f(0)
        if self.needs_aperture:
            a = aperture * self.aperture_radius
            local = mi.Point3f(a.x, a.y, 0)
        return View(mi.Point3f(self.to_world @ local), mi.Bool(False))

    def ray(self, u: mi.Point2f, aperture: mi.Point2f | None = None) -> tuple[mi.Ray3f, mi.Spectrum]:
        """The camera ray of a film position, attached to the camera, and its weight.

        Args:
            u: (N,) film position in pixels.
            aperture: (N,) point of the unit disc.
        """
        sample = mi.Point2f((u - self.crop_offset) / self.crop_size)
        lens = mi.Point2f(0.5)
        if self.needs_aperture:
            lens = mi.warp.uniform_disk_to_square_concentric(aperture)
        return self.sensor.sample_ray_differential(self.sensor.shutter_open(), 0.5, sample, lens)
