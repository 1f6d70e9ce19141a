"""Leaving out camera samples that meet nothing.

Where neither the camera nor the sky has derivatives, a camera ray that leaves the scene has none: before a bare sky an
object may cover a tenth of the film, and nine tenths of the walks would be for nothing. Which samples those are is
found by tracing their first segment alone; whether that pays, by one ray per pixel. Values do not change by it: the
samples that are left go on with the numbers that they would have had.
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi

from .boundary.device import recording
from .sampling import ScrambledSobol

#: Fewer lanes are walked as they are: looking costs more than it saves.
WORTH_LOOKING = 2**13
#: Likewise where more than this share of the film shows something.
MOSTLY = 0.7


class Lanes:
    """Some lanes of a wavefront.

    Args:
        index: which, or None for all.
        width: lanes of the wavefront.
    """

    def __init__(self, index: mi.UInt32 | None, width: int) -> None:
        self.index, self.width = index, width

    def pick(self, value: Any) -> Any:
        """The chosen lanes of a value with the width of the wavefront."""
        return value if self.index is None else dr.gather(type(value), value, self.index)

    def pick_ray(self, ray: mi.Ray3f) -> mi.Ray3f:
        """The chosen lanes of rays without derivatives."""
        return ray if self.index is None else _gathered(ray, self.index)

    def pick_sampler(self, sampler: Any) -> Any:
        """A sampler whose lanes go on as the chosen ones."""
        return sampler if self.index is None else sampler.gather(self.index)

    def spread(self, value: Any) -> Any:
        """The wavefront with `value` in the chosen lanes and zero elsewhere."""
        if self.index is None:
            return value
        result = dr.zeros(type(value), self.width)
        dr.scatter(result, value, self.index, mode=dr.ReduceMode.NoConflicts)
        dr.eval(result)
        return result


def lanes_that_hit(scene: mi.Scene, sampler: Any, ray: mi.Ray3f) -> Lanes:
    """The lanes whose ray meets a surface, or all where that does not pay or cannot be had.

    Args:
        ray: camera rays of all samples, those of a pixel side by side.
    """
    width = dr.width(ray)
    everything = Lanes(None, width)
    # the number of lanes may not depend on what is traced inside of a recording
    if recording() or width < WORTH_LOOKING or not isinstance(sampler, ScrambledSobol):
        return everything
    ray = dr.detach(ray)
    dr.eval(ray, sampler.order, sampler.key)
    first = dr.arange(mi.UInt32, width // sampler.spp) * sampler.spp
    if dr.count(scene.ray_test(_gathered(ray, first)))[0] > MOSTLY * dr.width(first):
        return everything
    index = dr.compress(scene.ray_test(ray))
    return Lanes(index, width) if dr.width(index) else everything


def _gathered(ray: mi.Ray3f, index: mi.UInt32) -> mi.Ray3f:
    pick = lambda value: dr.gather(type(value), value, index)
    result = mi.Ray3f(pick(ray.o), pick(ray.d), pick(ray.time), pick(ray.wavelengths))
    result.maxt = pick(ray.maxt)
    return result


def sky_attached(scene: mi.Scene) -> bool:
    """Whether anything of the environment carries derivatives."""
    sky = scene.environment()
    return sky is not None and any(dr.grad_enabled(value) for _, value in mi.traverse(sky))
