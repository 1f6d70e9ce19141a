"""Splatting boundary contributions on the film, and the adjoint of that.

A pixel is a weighted mean over the film domain, I_j = ∫ h_j L / ∫ h_j. The numerator's derivative is splatted with the
film's reconstruction filter; the denominator does not depend on the scene and is integrated here numerically over the
part of the domain where camera samples fall: the crop, plus the filter's border if the film asks for `sample_border`.
Neither the number of lanes nor the size of the border enters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
from mitsuba.python.ad.integrators.common import ADIntegrator

from ..errors import UnsupportedGradient

#: Points of the numerical integral of a filter.
_QUADRATURE = 512


class FilmSplat:
    """The film of a sensor as a linear map from splats to the image, and its transpose.

    Args:
        sensor: whose film it is.
        aovs: names of the channels behind the colours.

    Raises:
        UnsupportedGradient: a film that stores something other than colours.
    """

    def __init__(self, sensor: mi.Sensor, aovs: Sequence[str] = ()) -> None:
        film = sensor.film()
        self.aovs = list(aovs)
        if mi.has_flag(film.flags(), mi.FilmFlags.Special):
            raise UnsupportedGradient(
                f"edge sampling cannot splat on a {film.class_name()}", key=film.id(), remedy="use an hdrfilm"
            )
        self.film = film
        self.border = int(film.rfilter().border_size()) if film.sample_border() else 0
        self.offset = np.array(film.crop_offset(), dtype=np.float64)
        self.size = np.array(film.crop_size(), dtype=np.int64)
        low, high = self.offset - self.border, self.offset + self.size + self.border
        self.low = mi.Point2f(dr.opaque(mi.Float, low[0]), dr.opaque(mi.Float, low[1]))
        self.high = mi.Point2f(dr.opaque(mi.Float, high[0]), dr.opaque(mi.Float, high[1]))

    def inside(self, u: mi.Point2f) -> mi.Bool:
        """Whether camera samples fall at a film position."""
        return (u.x >= self.low.x) & (u.x < self.high.x) & (u.y >= self.low.y) & (u.y < self.high.y)

    @property
    def pixels(self) -> int:
        """Number of pixels of the crop."""
        return int(self.size[0] * self.size[1])

    def _weights(self) -> list[mi.Float]:
        """∫ h_j over the domain, for each column and each row; on the device, for steps that are recorded."""
        rfilter = self.film.rfilter()
        if rfilter.is_box_filter():
            return [dr.ones(mi.Float, int(n)) for n in self.size]
        radius = float(rfilter.radius())
        result = []
        for axis in (0, 1):
            n = int(self.size[axis])
            lane = dr.arange(mi.UInt32, n * _QUADRATURE)
            centre = mi.Float(lane // _QUADRATURE) + 0.5
            low = dr.maximum(centre - radius, -self.border)
            high = dr.minimum(centre + radius, n + self.border)
            x = dr.lerp(low, high, (mi.Float(lane % _QUADRATURE) + 0.5) / _QUADRATURE)
            result.append(dr.block_sum(rfilter.eval(x - centre) * (high - low) / _QUADRATURE, _QUADRATURE))
        return result

    def _develop(
        self, u: mi.Point2f, value: Any, alpha: mi.Float, wavelengths: Any, aovs: list[mi.Float]
    ) -> mi.TensorXf:
        film = self.film
        # Lanes without a contribution may have no position; zero times the filter's weight there would be NaN
        placed = dr.isfinite(u.x) & dr.isfinite(u.y)
        u = mi.Point2f(dr.select(placed, u, self.low))
        film.prepare(self.aovs)
        block = film.create_block()
        block.set_coalesce(False)
        ADIntegrator._splat_to_block(
            block, film, u, value=value, weight=0.0, alpha=alpha, aovs=aovs, wavelengths=wavelengths
        )
        film.put_block(block)

        columns, rows = self._weights()
        width, height, channels = int(self.size[0]), int(self.size[1]), block.channel_count()
        lane = dr.arange(mi.UInt32, width * height * channels)
        pixel = lane // channels
        row = pixel // dr.opaque(mi.UInt32, width)
        denominator = dr.gather(mi.Float, rows, row) * dr.gather(mi.Float, columns, pixel - row * width)
        weight = 4 if mi.has_flag(film.flags(), mi.FilmFlags.Alpha) else 3
        denominator = mi.TensorXf(dr.select(lane % channels == weight, denominator, 0), (height, width, channels))
        weights = mi.ImageBlock(
            denominator, mi.ScalarPoint2i(*(int(x) for x in self.offset)), film.rfilter(), border=False
        )
        film.put_block(weights)
        return film.develop()

    def image(
        self, u: mi.Point2f, value: Any, alpha: mi.Float, wavelengths: Any, aovs: Sequence[mi.Float] = ()
    ) -> mi.TensorXf:
        """Sum of the splats as an image of the film's format.

        Args:
            u: (N,) film positions in pixels.
            value: (N,) spectra; for a density over the film, divided by the number of samples.
            alpha: (N,) the same for the alpha channel.
            aovs: (N,) the same for each of the other channels; none is zero.
        """
        image = self._develop(u, value, alpha, wavelengths, list(aovs) or [mi.Float(0)] * len(self.aovs))
        self.film.clear()
        return image

    def adjoint(
        self, u: mi.Point2f, wavelengths: Any, grad_in: mi.TensorXf
    ) -> tuple[mi.Spectrum, mi.Float, list[mi.Float]]:
        """d<grad_in, image>/d(value), /d(alpha) and /d(AOV) of each splat; further channels of grad_in are ignored."""
        with dr.resume_grad():
            # The map is linear, so any value would do; but products with a literal zero would be optimised away
            value = dr.full(mi.Spectrum, 1.0, dr.width(u))
            alpha = dr.full(mi.Float, 1.0, dr.width(u))
            aovs = [dr.full(mi.Float, 1.0, dr.width(u)) for _ in self.aovs]
            dr.enable_grad(value, alpha, *aovs)
            image = self._develop(u, value, alpha, wavelengths, aovs)
            dr.set_grad(image, grad_in[:, :, : image.shape[2]])
            dr.enqueue(dr.ADMode.Backward, image)
            dr.traverse(dr.ADMode.Backward)
            result = dr.grad(value), dr.grad(alpha), [dr.grad(aov) for aov in aovs]
        self.film.clear()
        return result
