"""Mitsuba's path tracer with well spread random numbers: what finite differences render with.

The walk is that of Mitsuba's `prb`, whose images equal those of its `path` number for number; only the sampler is
another. Differences need many samples, and the more there are the more it matters that they are well spread.
"""

from __future__ import annotations

from typing import Any

import mitsuba as mi
from mitsuba.python.ad.integrators.prb import PRBIntegrator

from .attached import scene_bsdfs
from .sampling import spread_over


class SpreadPath(PRBIntegrator):
    """`prb` for images, with `sampling.ScrambledSobol` whatever sampler the scene asks for."""

    def prepare(self, sensor: mi.Sensor, seed: Any = 0, spp: int = 0, aovs: Any = ()) -> tuple[Any, int]:
        """Sampler of one image, seeded, and its samples per pixel; the film is made ready."""
        spp = spp or sensor.sampler().sample_count()
        sensor.film().prepare(list(aovs))
        return spread_over(sensor.film(), seed, spp), spp


def spread_path(**settings: Any) -> SpreadPath:
    """A `SpreadPath` with the settings of `prb`: max_depth, rr_depth, hide_emitters."""
    props = mi.Properties("prb")
    for key, value in settings.items():
        props[key] = value
    return SpreadPath(props)


def primal_plugin(scene: mi.Scene) -> str:
    """Name of the stock integrator that renders `scene` right: `path`, or `prb` where rays pass through surfaces.

    `path` blackens rays that met only null lobes, together with what emitter sampling gave them on the way, unless the
    scene has a visible environment: a mask of opacity 0.4 under a lamp shows 0.4² of its light.
    """
    return "prb" if any(mi.has_flag(bsdf.flags(), mi.BSDFFlags.Null) for bsdf in scene_bsdfs(scene)) else "path"
