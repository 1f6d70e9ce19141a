"""One estimator on one subject: images at about equal time, and what they cost."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .worker import Clock, peak_memory

#: Deterministic estimators: nothing to sample, nothing to average.
DETERMINISTIC = ("soft_rasterizer", "opendr")
#: A gradient image may take these samples per pixel at most.
MAX_SPP = 4096


def reference(subject: str, spp: int, seed: int, replicates: int = 8) -> dict[str, Any]:
    """Finite differences of the subject (kept on disk between runs).

    Returns:
        images (replicates, H, W, C), corrections (the same), pilot (H, W, C), epsilon: the step.
    """
    from pathtracer.verify import Motion
    from pathtracer.verify.reference import Reference, reference_folder
    from pathtracer.verify.subject import subject_of

    from .subjects import load_subject

    scene, motion = load_subject(subject)
    checked = subject_of(scene)
    bound = Motion.parse(motion).bind(checked.scene, checked.params)
    found = Reference(bound, checked.sensor, checked.base(), replicates, seed, reference_folder())
    while found.spp < spp:
        found.grow(spp - found.spp)
    return {
        "images": found.images,
        "corrections": found.corrections,
        "pilot": found.pilot,
        "epsilon": found.epsilon,
    }


def gradients(
    subject: str, estimator: str, seconds: float, replicates: int, seed: int, backward: bool = False, spp: int = 0
) -> dict[str, Any]:
    """Gradient images of one estimator, each of about `seconds`, after the first ones were timed.

    Args:
        estimator: plugin name, or `name:property=value,...`.
        seconds: what one image should take, in processor seconds of all threads, which other programs hardly disturb.
        backward: time the backward mode too.
        spp: samples per pixel; 0 finds what fits `seconds`.

    Returns:
        images (replicates, H, W, C), spp, first and first_cpu (seconds to the first image), wall and cpu of each later
        image, memory (MiB above the loaded scene), backward_first and backward (seconds).
    """
    import drjit as dr
    import mitsuba as mi

    from integrators import GradientWarning
    from pathtracer.verify import Motion
    from pathtracer.verify.estimate import Gradient
    from pathtracer.verify.subject import load_estimator, subject_of

    from .subjects import load_subject

    warnings.simplefilter("ignore", GradientWarning)  # what an estimator leaves out is what is being measured
    mi.set_log_level(mi.LogLevel.Error)
    scene, motion = load_subject(subject)
    checked = subject_of(scene)
    bound = Motion.parse(motion).bind(checked.scene, checked.params)
    name, integrator = load_estimator(checked, estimator)
    if name == "finite_difference":
        integrator.scale = bound.scale
    gradient = Gradient(bound, checked.sensor, integrator, replicates, seed)
    dr.eval()
    before = peak_memory()
    fixed = name in DETERMINISTIC
    count = spp or (1 if fixed else 16)
    with Clock() as first:
        gradient.gradient_image(count, seed + 1)
    gradient.gradient_image(count, seed + 2)  # the second call may compile other kernels
    with Clock() as split:
        if getattr(integrator, "split", "") == "auto":
            gradient.balance(32)
    while True:
        gradient.gradient_image(count, seed + 2)  # another count may compile other kernels
        with Clock() as later:
            gradient.gradient_image(count, seed + 3)
        if fixed or spp or later.cpu > 0.6 * seconds or count >= MAX_SPP:
            break
        factor = 2 ** int(np.clip(np.round(np.log2(seconds / max(later.cpu, 1e-3))), 1, 4))
        count = min(MAX_SPP, count * factor)
    images, wall, cpu = [], [], []
    for k in range(2 if fixed else replicates):
        with Clock() as clock:
            images.append(gradient.gradient_image(count, seed + 100 + k))
        wall.append(clock.wall + split.wall / replicates)  # these few images pay for the split of samples
        cpu.append(clock.cpu + split.cpu / replicates)
    result: dict[str, Any] = {
        "images": np.stack(images),
        "spp": count,
        "first": first.wall,
        "first_cpu": first.cpu,
        "wall": wall,
        "cpu": cpu,
        "memory": max(0.0, peak_memory() - before),
        "fixed": fixed,
    }
    if backward:
        adjoint = np.ones_like(images[0])
        times = []
        for k in range(4):
            with Clock() as clock:
                gradient.backward_gradient(adjoint, count, seed + 200 + k)
            times.append(clock.wall)
        result["backward_first"], result["backward"] = times[0], float(np.median(times[1:]))
    return result


def score(answer: dict[str, Any], truth: dict[str, Any], confidence: float = 0.95) -> dict[str, Any]:
    """Bias, variance, error and efficiency of `gradients` against `reference`.

    All errors are relative to the mean square of the true derivative. The squared bias is that of images blurred by 1.5
    pixels, less what the noise of both sides gives: differences have kinks at pixel borders, which are no bias of the
    estimator.

    Returns:
        slope and slope_low, slope_high (⟨g, w⟩ / ⟨f, w⟩ with w the blurred pilot), variance, bias (root of the squared
        bias over the norm, 0 where noise explains it), mse with mse_error (one standard error), time (median wall
        seconds), time_cpu, efficiency = 1 / (mse time), efficiency_cpu.
    """
    from scipy.ndimage import gaussian_filter

    from pathtracer.verify.statistics import equivalence

    blur = lambda images: gaussian_filter(images, (0,) * (images.ndim - 3) + (1.5, 1.5, 0))
    f, g = np.asarray(truth["images"]), np.asarray(answer["images"])
    if answer["fixed"]:
        g = g[:1]
    weights = blur(truth["pilot"])
    inner = lambda images: np.sum(images * weights, axis=(1, 2, 3))
    size = float(np.mean(f.mean(0) ** 2) - np.mean(f.var(0, ddof=1)) / len(f))
    smooth_f, smooth_g = blur(f), blur(g)
    smooth_size = float(np.mean(smooth_f.mean(0) ** 2) - np.mean(smooth_f.var(0, ddof=1)) / len(f))
    spread = lambda images: float(np.mean(images.var(0, ddof=1))) if len(images) > 1 else 0.0
    # the error of f is its noise and what is left of the step size
    systematic = float(np.mean(blur(np.mean(truth["corrections"], axis=0)) ** 2))
    excess = float(np.mean((smooth_g.mean(0) - smooth_f.mean(0)) ** 2)) - spread(smooth_g) / len(g)
    doubt = spread(smooth_f) / len(f)
    # of a mean over few replicates only what is well above its own noise is called bias
    noise = 2 * (doubt + spread(smooth_g) / len(g)) / np.sqrt(min(len(f), 8)) + systematic
    bias = max(0.0, excess - doubt - noise) / max(smooth_size, 1e-30)
    variances = g.var(0, ddof=1).mean() / size if len(g) > 1 else 0.0
    per_image = np.mean((g - g.mean(0)) ** 2, axis=(1, 2, 3)) / size * len(g) / max(len(g) - 1, 1)
    mse = float(variances + bias)
    error = float(np.std(per_image, ddof=1) / np.sqrt(len(g))) if len(g) > 1 else 0.0
    if len(g) > 1:
        test = equivalence(inner(g), inner(f), relative=0.03, alpha=(1 - confidence) / 2)
        slope, low, high = test.estimate / test.reference, 1 + test.low / test.reference, 1 + test.high / test.reference
    else:
        mean = float(np.mean(inner(f)))
        half = 2 * float(np.std(inner(f), ddof=1)) / np.sqrt(len(f)) / abs(mean)
        slope = float(inner(g)[0]) / mean
        low, high = slope * (1 - half), slope * (1 + half)
    time, cpu = float(np.median(answer["wall"])), float(np.median(answer["cpu"]))
    return {
        "slope": slope,
        "slope_low": min(low, high),
        "slope_high": max(low, high),
        "variance": float(variances),
        "bias": float(np.sqrt(bias)),
        "mse": mse,
        "mse_error": error,
        "time": time,
        "time_cpu": cpu,
        "efficiency": 1 / (mse * time) if mse > 0 else float("inf"),
        "efficiency_cpu": 1 / (mse * cpu) if mse > 0 and cpu > 0 else float("inf"),
    }


def calibration(seed: int) -> dict[str, Any]:
    """Processor seconds of one fixed render by stock Mitsuba: the unit in which other machines can be compared."""
    import drjit as dr
    import mitsuba as mi

    description = mi.cornell_box()
    description["sensor"]["film"].update(width=64, height=64)
    scene = mi.load_dict(description)
    integrator = mi.load_dict({"type": "path", "max_depth": 6})
    times = []
    for k in range(6):
        with Clock() as clock:
            dr.eval(mi.render(scene, integrator=integrator, spp=64, seed=seed + k))
        times.append(clock.cpu)
    return {"cpu": float(np.median(times[1:])), "variant": mi.variant()}
