"""Gradient images and gradients of the mean image, averaged over passes, with warnings about what they leave out."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from integrators import ESTIMATORS, GradientWarning
from pathtracer.errors import UsageError, nearest_names
from pathtracer.scenes.passes import Passes, average_passes
from pathtracer.verify.motion import Motion
from pathtracer.verify.saved import Saved, copy_of

if TYPE_CHECKING:
    from pathtracer.scenes import ParameterInfo, Scene

#: The estimator of last resort: it handles everything, slowly.
REFERENCE = "finite_difference"


@dataclass
class GradientImage:
    """The derivative of an image along one motion.

    Attributes:
        passes: mean and variance, (H, W, C).
        motion: what moved, with the kind that was chosen.
        estimator: name of the estimator.
        dropped: samples that were left out because they were not finite.
    """

    passes: Passes
    motion: str
    estimator: str
    dropped: int


def choose_estimator(name: str | None, infos: Sequence[ParameterInfo], strict: bool = False) -> str:
    """The estimator to use for these parameters, with a warning when it leaves out a part of the derivative.

    Args:
        name: what the user asked for; None takes the unbiased estimator that accounts for most.
        infos: the parameters that will be attached.
        strict: raise instead of warning.
    Raises:
        UsageError: unknown name, a parameter that nothing differentiates, or (strict) an incomplete derivative.
    """
    if name is not None and name not in ESTIMATORS:
        raise UsageError(
            f"unknown estimator {name!r}, one of {', '.join(ESTIMATORS)}", nearest=nearest_names(name, ESTIMATORS)
        )
    needs: set[str] = set()
    for info in infos:
        needs |= info.needs
        if not info.differentiable and name != REFERENCE:
            raise UsageError(
                f"cannot be differentiated: {info.reason or 'it has no derivative'}",
                where=info.key,
                remedy=f"--estimator {REFERENCE} differentiates whatever can be set to a number",
            )
    if name is None:
        candidates = [e for e in ESTIMATORS.values() if e.unbiased]
        name = max(candidates, key=lambda e: (len(needs & e.handles), -len(e.handles))).name
    missing = needs - ESTIMATORS[name].handles
    if missing:
        able = [e.name for e in ESTIMATORS.values() if needs <= e.handles]
        keys = ", ".join(i.key for i in infos if i.needs & missing)
        message = f"{name} leaves out {', '.join(sorted(missing))} for {keys}"
        remedy = f"use --estimator {' or '.join(able)}" if able else "no estimator accounts for all of it"
        if strict:
            raise UsageError(message, remedy=remedy)
        warnings.warn(GradientWarning("visibility-ignored", message, remedy), stacklevel=2)
    return name


def load_estimator(scene: Scene, name: str, properties: dict[str, Any] | None = None) -> Any:
    """The estimator as a Mitsuba integrator with the depth settings of the scene file."""
    import mitsuba as mi

    return mi.load_dict({"type": name, **scene.default_integrator(), **(properties or {})})


def gradient_image(
    scene: Scene,
    motion: Motion,
    estimator: str,
    spp: int,
    seed: int = 0,
    sensor: int = 0,
    variance: bool = False,
    progress: Callable[[int, int | None, float], None] | None = None,
) -> GradientImage:
    """d(image)/dθ at θ = 0 along a motion, in forward mode.

    Returns:
        (H, W, C) in linear RGB per unit of θ (scene units, radians, or the parameter's own unit).
    """
    gc.collect()  # virtual calls look at every object of the process, attached ones of dead scenes too
    bound = motion.bind(scene.mi, scene.params)
    integrator = load_estimator(scene, estimator, {"scale": bound.scale} if estimator == REFERENCE else None)
    camera = scene.sensor(sensor)
    dropped = 0

    def render(pass_seed: int, share: int) -> np.ndarray:
        nonlocal dropped
        with bound.attached(forward=True):
            image = np.array(
                integrator.render_forward(scene.mi, scene.params, sensor=camera, seed=pass_seed, spp=share)
            )
        dropped += _dropped(integrator)
        return image

    pixels = int(np.prod(camera.film().crop_size()))
    passes = average_passes(render, spp, pixels, seed, variance=variance, progress=progress)
    _warn_of_dropped(dropped)
    _warn_of_broken([passes.mean], str(bound.motion))
    _warn_of_zero([passes.mean], str(bound.motion))
    return GradientImage(passes, str(bound.motion), estimator, dropped)


def gradient_of_mean(
    scene: Scene, keys: Sequence[str], estimator: str, spp: int, seed: int = 0, sensor: int = 0
) -> tuple[dict[str, np.ndarray], float, Passes]:
    """Gradient of J = mean of all pixels and channels of the image, in backward mode.

    Returns:
        (dJ/d(key) in the parameter's own shape, J itself, passes over the concatenated gradients).
    """
    import drjit as dr
    import mitsuba as mi

    integrator = load_estimator(scene, estimator)
    camera = scene.sensor(sensor)
    dropped = 0
    shapes: dict[str, tuple[int, ...]] = {}
    value = float(np.mean(scene.render(max(1, min(spp, 64)), seed=seed % 2**20, sensor=sensor)))
    saved = Saved(scene.params, keys)

    def render(pass_seed: int, share: int) -> np.ndarray:
        try:
            return differentiate(pass_seed, share)
        finally:
            saved.restore()

    def differentiate(pass_seed: int, share: int) -> np.ndarray:
        nonlocal dropped
        leaves = {}
        for key in keys:
            leaf = copy_of(saved.values[key])
            dr.enable_grad(leaf.matrix if isinstance(leaf, mi.Transform4f) else leaf)
            scene.params[key] = leaf
            leaves[key] = leaf
        scene.params.update()
        width, height = (int(v) for v in camera.film().crop_size())
        channels = camera.film().base_channels_count()
        adjoint = dr.full(mi.TensorXf, 1 / (width * height * channels), (height, width, channels))
        integrator.render_backward(scene.mi, scene.params, adjoint, sensor=camera, seed=pass_seed, spp=share)
        flat = []
        for key, leaf in leaves.items():
            # not hasattr(): a colour answers to any name that swizzles, `matrix` too
            numbers = leaf.matrix if isinstance(leaf, mi.Transform4f) else leaf
            array = np.array(dr.grad(numbers), dtype=np.float64)
            array = array[..., 0] if dr.depth_v(numbers) > 1 and array.shape[-1] == 1 else array
            shapes[key] = array.shape
            flat.append(array.ravel())
        dropped += _dropped(integrator)
        return np.concatenate(flat)[None, :, None]

    pixels = int(np.prod(camera.film().crop_size()))
    passes = average_passes(render, spp, pixels, seed, variance=True)
    gradients, at = {}, 0
    flat = passes.mean.ravel()
    for key in keys:
        size = int(np.prod(shapes[key], dtype=int))
        gradients[key] = flat[at : at + size].reshape(shapes[key])
        at += size
    _warn_of_dropped(dropped)
    for key in keys:
        _warn_of_broken([gradients[key]], key)
        _warn_of_zero([gradients[key]], key)
    return gradients, value, passes


def _dropped(integrator: Any) -> int:
    counter = getattr(integrator, "dropped", None)
    return 0 if counter is None else int(np.sum(np.asarray(counter)))


def _warn_of_dropped(count: int) -> None:
    if count:
        message = f"{count} samples were left out because they were not finite"
        warnings.warn(
            GradientWarning("dropped-samples", message, "a few are harmless, many point to a degenerate scene"),
            stacklevel=3,
        )


def _warn_of_broken(arrays: Sequence[np.ndarray], what: str) -> None:
    count = sum(int(np.sum(~np.isfinite(a))) for a in arrays)
    if count:
        warnings.warn(
            GradientWarning(
                "not-finite",
                f"the derivative with respect to {what} has {count} values that are not finite",
                "take another --estimator, and report it if the scene is sound (`pathtracer validate`)",
            ),
            stacklevel=3,
        )


def _warn_of_zero(arrays: Sequence[np.ndarray], what: str) -> None:
    if not any(np.any(a) for a in arrays):
        warnings.warn(
            GradientWarning(
                "zero-gradient",
                f"the derivative with respect to {what} is exactly zero everywhere",
                "the camera does not see its effect, or the estimator has no term for it",
            ),
            stacklevel=3,
        )
