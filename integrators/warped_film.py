"""The film under a warp: camera samples at moving positions, smooth and box filters, the frame (W8, W9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi
from mitsuba.python.ad.integrators.common import ADIntegrator

from .sampling import ScrambledSobol


@dataclass
class FilmPoints:
    """Positions on the film with what else defines their camera ray.

    Attributes:
        u: position in pixels of the whole film.
        time, wavelength, aperture: the other arguments of `sample_ray`.
    """

    u: mi.Point2f
    time: Any
    wavelength: Any
    aperture: mi.Point2f

    def at(self, u: mi.Point2f) -> FilmPoints:
        """The same with another position."""
        return FilmPoints(u, self.time, self.wavelength, self.aperture)

    def gather(self, lane: mi.UInt32) -> FilmPoints:
        """The entries `lane`."""
        pick = lambda x: dr.gather(type(x), x, lane) if dr.width(x) > 1 else x
        return FilmPoints(*(pick(x) for x in (self.u, self.time, self.wavelength, self.aperture)))


def sample_film(sensor: mi.Sensor, sampler: mi.Sampler) -> tuple[FilmPoints, mi.Point2i]:
    """Draw camera samples as `ADIntegrator.sample_rays` does: (points, their pixels)."""
    film = sensor.film()
    size, border = mi.ScalarVector2u(film.crop_size()), film.rfilter().border_size()
    if film.sample_border():
        size += 2 * border
    width = dr.opaque(mi.UInt32, int(size[0]))
    index = dr.arange(mi.UInt32, int(size[0]) * int(size[1]) * sampler.sample_count())
    index //= dr.opaque(mi.UInt32, sampler.sample_count())
    row = index // width
    pixel = mi.Point2i(mi.Int32(index - row * width), mi.Int32(row))
    if film.sample_border():
        pixel -= border
    pixel += mi.Point2i(film.crop_offset())
    return complete_points(sensor, sampler, mi.Point2f(pixel) + sampler.next_2d()), pixel


def complete_points(sensor: mi.Sensor, sampler: Any, u: mi.Point2f) -> FilmPoints:
    """Draw aperture, time and wavelength for film positions."""
    aperture = sampler.next_2d() if sensor.needs_aperture_sample() else mi.Point2f(0.5)
    time = mi.Float(sensor.shutter_open())
    if sensor.shutter_open_time() > 0:
        time += sampler.next_1d() * sensor.shutter_open_time()
    wavelength = sampler.next_1d() if mi.is_spectral else mi.Float(0)
    return FilmPoints(mi.Point2f(u), time, wavelength, mi.Point2f(aperture))


def camera_ray(sensor: mi.Sensor, points: FilmPoints) -> tuple[mi.Ray3f, mi.Spectrum]:
    """Camera rays, attached to the camera and to the film position, with their weights."""
    film = sensor.film()
    scale = mi.Vector2f(*(dr.opaque(mi.Float, 1 / int(n)) for n in film.crop_size()))
    sample = mi.Point2f((points.u - mi.Vector2f(film.crop_offset())) * scale)
    ray, weight = sensor.sample_ray(points.time, points.wavelength, sample, points.aperture)
    return mi.Ray3f(ray), weight


class FilmLines:
    """Samples on lines of the film where the filter, or the set of samples, jumps: pixel sides, or the frame (W9).

    Attributes:
        points: positions on the lines.
        normal: unit vector across the line, towards larger coordinates.
        gains, loses: film position that the light which moves along `normal` enters, and leaves.
        value, wavelengths: radiance that arrives at the points, after `trace`, and where in the spectrum.
    """

    def __init__(self, sensor: mi.Sensor, seed: mi.UInt32, spp: int, box: bool) -> None:
        film = sensor.film()
        width, height = (int(n) for n in film.crop_size())
        self.box = box
        self.per_side = max(1, spp // 2) if box else spp
        self.scale = dr.opaque(mi.Float, spp / self.per_side)
        columns = width + 1 if box else 2
        rows = height + 1 if box else 2
        vertical, horizontal = columns * height, rows * width
        lane = dr.arange(mi.UInt32, (vertical + horizontal) * self.per_side)
        index = lane // dr.opaque(mi.UInt32, self.per_side)
        upright = index < vertical
        k = dr.select(upright, index, index - vertical)
        count = dr.select(upright, mi.UInt32(columns), mi.UInt32(rows))
        along, line = k // count, k % count
        # The two sides of a pixel draw the same numbers: what flows in on one and out on the other differs by little,
        # and so should their noise
        row = along + dr.select(upright, mi.UInt32(0), mi.UInt32(height))
        sequences = ScrambledSobol(seed, (width + height) * self.per_side, self.per_side)
        per_side = dr.opaque(mi.UInt32, self.per_side)
        self.sampler = sequences.gather(row * per_side + lane % per_side)
        if not box:
            line = line * dr.select(upright, mi.UInt32(width), mi.UInt32(height))
        self.last = line > 0
        x, y = mi.Float(line), mi.Float(along) + self.sampler.next_1d()
        offset = mi.Vector2f(film.crop_offset())
        u = mi.Point2f(dr.select(upright, x, y), dr.select(upright, y, x)) + offset
        self.normal = mi.Vector2f(dr.select(upright, mi.Float(1), 0), dr.select(upright, mi.Float(0), 1))
        self.points = complete_points(sensor, self.sampler, mi.Point2f(u))
        # Box: the pixels on both sides. Otherwise: the inside of the frame, whatever side that is
        half = 0.5 * self.normal
        self.gains = mi.Point2f(dr.floor(u + half)) if box else mi.Point2f(u)
        self.loses = mi.Point2f(dr.floor(u - half)) if box else mi.Point2f(u)
        self.value, self.wavelengths = mi.Spectrum(0), mi.Color0f()

    def trace(self, integrator: Any, scene: mi.Scene, sensor: mi.Sensor, sky: Any) -> None:
        """Estimate the radiance at the points with `integrator.radiance`, less that of the sky behind everything."""
        ray, weight = camera_ray(sensor, self.points)
        L, _ = integrator.radiance(scene, self.sampler, ray)
        self.value = dr.detach(weight * (L - sky.radiance(ray.d, ray.wavelengths))) * self.scale
        self.wavelengths = ray.wavelengths

    def splat(self, put: Any, across: mi.Float, level: PixelLevel | None) -> None:
        """Move light across the lines: `put(position, value, weight, wavelengths)`."""
        moved = self.value * across
        if self.box:
            each = across * self.scale
            levels = [mi.Spectrum(0) if level is None else level.at(where) for where in (self.gains, self.loses)]
            put(self.gains, moved - each * levels[0], mi.Float(0), self.wavelengths)
            put(self.loses, each * levels[1] - moved, mi.Float(0), self.wavelengths)
        else:
            sign = dr.select(self.last, mi.Float(-1), mi.Float(1))
            put(self.gains, moved * sign, across * sign * self.scale, self.wavelengths)


class PixelLevel:
    """Mean radiance of every pixel: what flows through its sides in excess of this is all that counts (W13).

    The two halves of a pixel's samples are independent of each other, and each takes the mean of the other one; the
    sides, which are independent of both, take the mean of all.

    Args:
        value: of every sample; those of a pixel lie side by side, an even number.
    """

    def __init__(self, film: mi.Film, value: mi.Spectrum) -> None:
        size = mi.ScalarVector2u(film.crop_size())
        border = film.rfilter().border_size() if film.sample_border() else 0
        self.corner = mi.ScalarPoint2i(film.crop_offset()) - border
        self.size = mi.ScalarVector2i(size + 2 * border)
        pixels = int(self.size[0]) * int(self.size[1])
        half = dr.width(value) // (2 * pixels)
        self.half = dr.arange(mi.UInt32, dr.width(value)) // dr.opaque(mi.UInt32, half)
        self.mean = dr.zeros(mi.Spectrum, 2 * pixels)
        dr.scatter_add(self.mean, value * dr.opaque(mi.Float, 1 / half), self.half)

    def at(self, position: mi.Point2f) -> mi.Spectrum:
        """The mean of the pixel at `position`; 0 outside of the film."""
        place = mi.Vector2i(position) - self.corner
        inside = dr.all((place >= 0) & (place < self.size))
        first = 2 * mi.UInt32(place.y * dr.opaque(mi.Int32, int(self.size[0])) + place.x)
        return 0.5 * sum(dr.gather(mi.Spectrum, self.mean, first + k, inside) for k in (0, 1))

    def of_others(self) -> mi.Spectrum:
        """For every sample the mean of the other half of its pixel."""
        return dr.gather(mi.Spectrum, self.mean, self.half ^ 1)


class FilmSamples:
    """Splatting and developing as a function of value, shift and stretch of every sample, with its two derivatives.

    Args:
        halves: whether the first and the second half of each pixel's samples are independent of each other.
    """

    def __init__(
        self,
        film: mi.Film,
        points: FilmPoints,
        pixel: mi.Point2i,
        value: mi.Spectrum,
        lines: FilmLines | None,
        wavelengths: Any,
        halves: bool,
    ) -> None:
        self.film, self.points, self.pixel, self.lines = film, points, pixel, lines
        self.wavelengths = wavelengths
        self.level = PixelLevel(film, value) if halves and film.rfilter().is_box_filter() else None
        self.inputs = (
            value if self.level is None else value - self.level.of_others(),
            dr.zeros(mi.Vector2f, dr.width(points.u)),
            dr.zeros(mi.Float, dr.width(points.u)),
            dr.zeros(mi.Float, 1 if lines is None else dr.width(lines.points.u)),
        )

    def _develop(self, value: mi.Spectrum, shift: mi.Vector2f, stretch: mi.Float, across: mi.Float) -> mi.TensorXf:
        film = self.film
        box = film.rfilter().is_box_filter()
        block = film.create_block()
        block.set_coalesce(False)

        def put(position: mi.Point2f, value: mi.Spectrum, weight: mi.Float, wavelengths: Any) -> None:
            ADIntegrator._splat_to_block(block, film, position, value, weight, mi.Float(1), [], wavelengths)

        # A box sees positions as pixels: what moves between pixels is counted on their sides
        position = mi.Point2f(self.pixel) if box else mi.Point2f(self.points.u + shift)
        put(position, value * (1 + stretch), mi.Float(1) if box else 1 + stretch, self.wavelengths)
        if self.lines is not None:
            self.lines.splat(put, across, self.level)
        film.put_block(block)
        return film.develop()

    def tangent(self, *tangents: Any) -> mi.TensorXf:
        """Derivative image along tangents of (value, shift, stretch, across)."""
        with dr.resume_grad():
            dr.enable_grad(*self.inputs)
            for leaf, tangent in zip(self.inputs, tangents, strict=True):
                dr.set_grad(leaf, dr.select(dr.isfinite(tangent), tangent, 0))
            return dr.forward_to(self._develop(*self.inputs))

    def adjoint(self, grad_in: mi.TensorXf) -> tuple[Any, ...]:
        """Adjoints of (value, shift, stretch, across) for an adjoint image."""
        with dr.resume_grad():
            dr.enable_grad(*self.inputs)
            image = self._develop(*self.inputs)
            dr.set_grad(image, grad_in)
            dr.enqueue(dr.ADMode.Backward, image)
            dr.traverse(dr.ADMode.Backward)
            adjoints = tuple(dr.grad(leaf) for leaf in self.inputs)
        self.film.clear()
        return adjoints
