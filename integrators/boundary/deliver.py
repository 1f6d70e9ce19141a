"""The last step of every boundary term: a motion, what it is worth, and the film."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import drjit as dr
import mitsuba as mi

from .film import FilmSplat


def nothing(film: FilmSplat, mode: dr.ADMode) -> mi.TensorXf | None:
    """The answer of a term in which nothing moves: a black image in forward mode."""
    if mode != dr.ADMode.Forward:
        return None
    return film.image(mi.Point2f(0), mi.Spectrum(0), mi.Float(0), dr.zeros(mi.Ray3f).wavelengths)


def tangent_of(mode: dr.ADMode, motion: mi.Float) -> mi.Float | None:
    """The derivative of an attached motion in forward mode, None if there is none.

    Terms evaluate it in one kernel with what it is made of, instead of making that again for the film.
    """
    with dr.resume_grad():
        if mode != dr.ADMode.Forward or not dr.grad_enabled(motion):
            return None
        return mi.Float(dr.detach(dr.forward_to(motion, flags=dr.ADFlag.ClearInterior)))


def deliver(
    mode: dr.ADMode,
    film: FilmSplat,
    u: mi.Point2f,
    motion: mi.Float,
    value: Any,
    scale: mi.Float,
    grad_in: mi.TensorXf | None,
    alpha: mi.Float | None = None,
    wavelengths: Any = None,
    tangent: mi.Float | None = None,
    aovs: Sequence[mi.Float] = (),
) -> mi.TensorXf | None:
    """Splat value · scale · (derivative of motion), or propagate its adjoint into motion.

    Args:
        u: (N,) film positions.
        motion: (N,) attached; only its derivative matters.
        value: (N,) spectra.
        scale: (N,) what all channels are multiplied with, zero for lanes that do not count.
        grad_in: adjoint image in backward mode.
        alpha: (N,) the same as value for coverage.
        tangent: (N,) the derivative of motion in forward mode, if it is known already.
        aovs: (N,) the same as value for each further channel of the film, or none of them.

    Returns:
        The derivative image in forward mode.
    """
    if mode == dr.ADMode.Forward:
        tangent = tangent_of(mode, motion) if tangent is None else tangent
        moves = tangent is not None
    else:
        with dr.resume_grad():
            moves = dr.grad_enabled(motion)
    if not moves:
        return nothing(film, mode)
    alpha = mi.Float(0) if alpha is None else alpha
    wavelengths = dr.zeros(mi.Ray3f).wavelengths if wavelengths is None else wavelengths
    if mode == dr.ADMode.Forward:
        weight = scale * tangent
        δvalue = value * weight
        fine = dr.all(dr.isfinite(δvalue)) & (weight != 0)
        rest = [dr.select(fine & dr.isfinite(aov), aov * weight, 0) for aov in aovs]
        return film.image(u, dr.select(fine, δvalue, 0), dr.select(fine, alpha * weight, 0), wavelengths, rest)
    adjoint, δalpha, δaovs = film.adjoint(u, wavelengths, grad_in)
    weight = dr.sum(adjoint * value) + δalpha * alpha
    if aovs:
        weight += sum(δ * dr.select(dr.isfinite(aov), aov, 0) for δ, aov in zip(δaovs, aovs, strict=True))
    weight *= scale
    weight = dr.select(dr.isfinite(weight) & (scale != 0), weight, 0)
    with dr.resume_grad():
        dr.backward_from(motion * weight, flags=dr.ADFlag.ClearInterior)
    return None
