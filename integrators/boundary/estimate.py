"""Running a boundary term: samples where earlier ones found contributions (`guiding.py`), then the film."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi

from .deliver import deliver
from .distribution import Discrete
from .film import FilmSplat
from .guiding import Cells, Guide, Guiding, Numbers, film_key
from .stream import Stream

#: Share of the samples of a first call that are spent on a memory, and the least number for which that pays.
PILOT_SHARE, PILOT_LEAST = 8, 2048


@dataclass
class Contribution:
    """What one launch of a term found.

    Attributes:
        u: (N,) film positions.
        motion: (N,) attached: the derivative's first factor.
        value: (N,) spectra: its second factor.
        weight: (N,) reciprocal density of the sample; zero where there is no contribution.
        reach: (N,) how much a unit of motion counts, for the pilot; 1 unless motion is scaled.
        alpha: (N,) second factor of coverage.
        wavelengths: of the samples, in spectral variants.
        tangent: (N,) the derivative of motion, where forward mode had to find it before.
        aovs: (N,) second factor of each further channel of the film, or none of them.
    """

    u: mi.Point2f
    motion: mi.Float
    value: Any
    weight: mi.Float
    reach: mi.Float | None = None
    alpha: mi.Float | None = None
    wavelengths: Any = None
    tangent: mi.Float | None = None
    aovs: Sequence[mi.Float] = ()


Evaluate = Callable[[Numbers], Contribution]


def estimate(
    evaluate: Evaluate,
    mode: dr.ADMode,
    film: FilmSplat,
    seed: Any,
    count: int,
    where: Discrete,
    directions: bool,
    memory: tuple[str, dict[str, Guide]] | None,
    grad_in: mi.TensorXf | None,
) -> mi.TensorXf | None:
    """Estimate a boundary term with `count` samples.

    Args:
        where: the curve elements by their share.
        directions: whether the two further numbers matter.
        memory: name of the term, and the estimator's memory for guiding; None samples by the shares alone.
    """
    guiding, choice = None, None
    cells = Cells((1, 1, 1))
    if memory is not None:
        cells = Cells.of(film.pixels, where.size, directions)
        guiding = Guiding(memory[1], film_key(memory[0], film), cells, where)
        pilot = count // PILOT_SHARE
        if guiding.cold and pilot >= PILOT_LEAST:
            other = mi.sample_tea_32(seed, 0x51A7)[0]
            dr.make_opaque(other)
            numbers = cells.draw(pilot, Stream(other, dr.arange(mi.UInt32, pilot)), guiding.choice())
            guiding.learn(numbers, magnitude(evaluate(numbers)), keep=0)  # the kernels are those of the main call
        choice = guiding.choice()
    numbers = cells.draw(count, Stream(seed, dr.arange(mi.UInt32, count)), choice)
    found = evaluate(numbers)
    if guiding is not None:
        guiding.learn(numbers, magnitude(found))
    scale = found.weight / dr.opaque(mi.Float, count)
    further = found.alpha, found.wavelengths, found.tangent, found.aovs
    return deliver(mode, film, found.u, found.motion, found.value, scale, grad_in, *further)


def magnitude(found: Contribution) -> mi.Float:
    """(N,) how much each sample contributes per unit of motion; a jump of an AOV counts as a radiance, up to one."""
    size = dr.max(dr.abs(mi.unpolarized_spectrum(found.value)))
    for aov in found.aovs:
        size = dr.maximum(size, dr.minimum(dr.abs(aov), 1))
    size *= dr.abs(found.weight)
    if found.reach is not None:
        size *= found.reach
    return dr.select(found.weight != 0, size, 0)
