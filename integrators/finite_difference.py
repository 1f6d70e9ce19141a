"""Derivatives by central differences: slow, obvious, the reference of every other estimator.

    D(ε) = (I(θ + ε) − I(θ − ε)) / 2ε = I'(θ) + c₂ ε² + c₄ ε⁴ + …                                      (E1)
    D*   = (4 D(ε/2) − D(ε)) / 3       = I'(θ) + O(ε⁴)                                   Richardson    (E2)

Both sides use the same seeds, so that what does not move cancels. Bias: the step size's, estimated by the last
correction of the Richardson table and reported beside the standard error; variance: falls with samples, grows as 1/ε
where something discontinuous moves. Images are accumulated in float64 over passes of at most 512 samples per pixel
(float32 sums of more would bias a small difference by per cents). The step is chosen on a ladder of trial steps by the
sum of both errors. Derivation and choices: docs/theory/finite_difference.md. Richardson 1911; Fischer and Ritschel
2023, section 3, for the use of differences as an estimator in inverse rendering.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
from mitsuba.python.ad.integrators.common import ADIntegrator

from .errors import UnsupportedGradient
from .spread_path import spread_path

#: Samples per pixel of one render; float32 films lose digits beyond.
MAX_PASS_SPP = 512
#: Rays of one render; keeps the memory of a wavefront near a gigabyte.
MAX_PASS_RAYS = 1 << 22

Render = Callable[[float, int], np.ndarray]


def pass_seeds(seed: int, count: int) -> list[int]:
    """`count` independent 32-bit seeds that follow from `seed`."""
    return [int(s) for s in np.random.SeedSequence(seed & 0xFFFFFFFF).generate_state(count)]


def render_mean(scene: mi.Scene, sensor: mi.Sensor, integrator: mi.Integrator, spp: int, seed: int) -> np.ndarray:
    """Mean image of `spp` samples per pixel in passes of at most 512, accumulated in float64.

    Returns:
        (H, W, C) float64.
    """
    size = sensor.film().crop_size()
    pixels = int(size[0]) * int(size[1])
    most = max(1, min(MAX_PASS_SPP, MAX_PASS_RAYS // max(pixels, 1)))
    passes = -(-spp // most)
    share = -(-spp // passes)
    total: np.ndarray | None = None
    for pass_seed in pass_seeds(seed, passes):
        with dr.suspend_grad():
            image = integrator.render(scene, sensor, seed=dr.opaque(mi.UInt32, pass_seed), spp=share)
        array = np.asarray(image, dtype=np.float64)
        total = array if total is None else total + array
    assert total is not None
    return total / passes


def central_differences(render: Render, steps: Sequence[float], seed: int) -> np.ndarray:
    """(E1) for each step size, both sides and all steps with the same seed.

    Args:
        render: (θ, seed) to image, (H, W, C) float64.
        steps: step sizes ε > 0, in units of θ.

    Returns:
        (len(steps), H, W, C) derivative images.
    """
    return np.stack([(render(+step, seed) - render(-step, seed)) / (2 * step) for step in steps])


def richardson(differences: np.ndarray, ratio: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """(E2), repeated for as many steps as there are: the extrapolated derivative and its last correction.

    Args:
        differences: (n, ...) central differences at ε, ε/ratio, ε/ratio², …; n >= 2.

    Returns:
        Value and correction, each (...). The correction is the error of the best value *before* the last extrapolation,
        hence a cautious bound of the step-size bias after it.
    """
    table = list(differences)
    correction = np.zeros_like(table[0])
    order = 1
    while len(table) > 1:
        weight = ratio ** (2 * order)
        correction = (table[-1] - table[-2]) / (weight - 1)
        table = [(weight * fine - coarse) / (weight - 1) for coarse, fine in pairwise(table)]
        order += 1
    return table[0], correction


@dataclass(frozen=True)
class StepChoice:
    """What the search for a step size found.

    Attributes:
        epsilon: the larger of the two steps to use.
        pilot: (H, W, C) derivative image at that step, noisy and independent of later seeds.
        ladder: rows (ε, noise, bias): RMS over the blurred image, noise scaled to the final sample count.
    """

    epsilon: float
    pilot: np.ndarray
    ladder: tuple[tuple[float, float, float], ...]


def choose_step(
    render: Render, scale: float, seed: int, replicates: int = 3, gain: float = 16.0, ratio: int = 2
) -> StepChoice:
    """Pick ε among 8, 4, 2, 1, 1/2, 1/4 × `scale` by squared noise plus squared bias.

    Noise is that of (4 D(ε/ratio) − D(ε)) / 3, and that minus D(ε/ratio) the least that counts as bias: for ratio 2 the
    second-order extrapolation (E2), for ratio 4 the extrapolation for an error that falls in proportion to ε.

    Args:
        render: (θ, seed) to image; a pilot at a modest sample count.
        scale: a step that changes the image a little.
        replicates: independent repetitions that separate noise from bias.
        gain: how many times more samples the final run has than the pilot.
        ratio: 2 or 4, the larger of the two steps to use over the smaller.
    """
    apart = {2: 1, 4: 2}[ratio]
    candidates = 6
    steps = [scale * 2.0 ** (3 - k) for k in range(candidates + apart)]
    runs = np.stack([central_differences(render, steps, s) for s in pass_seeds(seed, replicates)])  # (R, n, H, W, C)
    fine = (4 * runs[:, apart:] - runs[:, :-apart]) / 3
    smooth = _smooth(fine)
    ladder = []
    for k in range(candidates):
        noise = _variance_of_mean(smooth[:, k]) / gain
        # Its own last correction, which is what the error bar will say; and the distance to finer steps, since steps
        # that are far too large agree with each other (Lepski's rule). Twice the noise is subtracted, so that the
        # noise of the fine steps does not pass for bias of the coarse ones.
        distances = [smooth[:, k] - smooth[:, j] for j in range(k + 1, min(k + 4, candidates))]
        distances.append(_smooth(runs[:, k + apart] - runs[:, k]) / 3)
        bias = max(max(float(np.mean(d.mean(0) ** 2)) - 2 * _variance_of_mean(d), 0.0) for d in distances)
        ladder.append((steps[k], float(np.sqrt(noise)), float(np.sqrt(bias))))
    # Errors far below what matters count the same, and of equals the smallest step is best: bias that the pilot cannot
    # see falls with ε⁴.
    enough = 0.01 * float(np.sqrt(np.mean(smooth.mean((0, 1)) ** 2)))
    costs = np.array([max(noise, enough) ** 2 + bias**2 for _, noise, bias in ladder])
    best = int(np.flatnonzero(costs <= 1.5 * costs.min()).max())
    return StepChoice(steps[best], fine[:, best].mean(0), tuple(ladder))


def _smooth(images: np.ndarray) -> np.ndarray:
    """Blur (..., H, W, C) by about 1.5 pixels, two binomial kernels: kinks at pixel borders are no bias of the step."""
    for axis in (-3, -2):
        for _ in range(2):
            pad = [(0, 0)] * images.ndim
            pad[axis] = (2, 2)
            wide = np.moveaxis(np.pad(images, pad), axis, 0)
            n = images.shape[axis]
            images = np.moveaxis(
                np.stack([c / 16 * wide[k : k + n] for k, c in enumerate((1, 4, 6, 4, 1))]).sum(0), 0, axis
            )
    return images


def _variance_of_mean(samples: np.ndarray) -> float:
    return float(np.mean(np.var(samples, axis=0, ddof=1)) / samples.shape[0])


class FiniteDifference(ADIntegrator):
    """Plugin `finite_difference`: the derivative along the tangents attached to `params`.

    Properties:
        base: the integrator that is differentiated, a plugin name or a nested integrator (default: `SpreadPath`, the
            path tracer of Mitsuba's `prb` with well spread numbers).
        max_depth, rr_depth, hide_emitters: handed to `base` when that is a name.
        epsilon: step size in units of the tangent; 0 (default) searches for one from `scale`.
        scale: where the search starts, in units of the tangent; 0 (default) for 2 % of the parameter's size.
        steps: number of step sizes of the Richardson table (default 2).
        replicates: independent repetitions that give the standard error (default 4).
        primal_spp: samples per pixel of the primal image, 0 for what the call says.
        coordinates: `render_backward` takes that many scalar parameters at most (default 16).

    A forward pass renders 2 · steps · replicates images. Afterwards `standard_error` and `step_bias`, (H, W, C), are
    the two parts of its error bar and `epsilon_used` the step.
    """

    def __init__(self, props: mi.Properties) -> None:
        super().__init__(props)
        self.hide_emitters = props.get("hide_emitters", False)
        base = props.get("base", "")
        self.base = self._load_base(base) if isinstance(base, str) else base
        self.epsilon = float(props.get("epsilon", 0.0))
        self.scale = float(props.get("scale", 0.0))
        self.steps = int(props.get("steps", 2))
        self.replicates = int(props.get("replicates", 4))
        self.primal_spp = int(props.get("primal_spp", 0))
        self.coordinates = int(props.get("coordinates", 16))
        if self.steps < 2 or self.replicates < 2:
            raise ValueError("finite_difference: steps and replicates must be at least 2, or there is no error bar")
        self.standard_error: np.ndarray | None = None
        self.step_bias: np.ndarray | None = None
        self.epsilon_used = 0.0

    def _load_base(self, name: str) -> mi.Integrator:
        depth = -1 if self.max_depth == 0xFFFFFFFF else self.max_depth
        settings = {"max_depth": depth, "rr_depth": self.rr_depth, "hide_emitters": self.hide_emitters}
        return mi.load_dict({"type": name, **settings}) if name else spread_path(**settings)

    def render(
        self,
        scene: mi.Scene,
        sensor: int | mi.Sensor = 0,
        seed: Any = 0,
        spp: int = 0,
        develop: bool = True,
        evaluate: bool = True,
    ) -> mi.TensorXf:
        """The primal image of the base integrator."""
        return self.base.render(
            scene, sensor, seed=seed, spp=self.primal_spp or spp, develop=develop, evaluate=evaluate
        )

    def render_forward(
        self, scene: mi.Scene, params: Any, sensor: int | mi.Sensor = 0, seed: Any = 0, spp: int = 0
    ) -> mi.TensorXf:
        """The derivative image along the tangents that `params` carries.

        Raises:
            UnsupportedGradient: no parameter carries a tangent.
        """
        start = {key: _copy(params[key]) for key in params.keys()}
        tangents = {key: t for key, value in start.items() if (t := _tangent(value)) is not None}
        if not tangents:
            raise UnsupportedGradient(
                "no parameter carries a tangent",
                remedy="attach one with dr.enable_grad and dr.forward(theta, dr.ADFlag.ClearEdges) before this call",
            )
        image = self._difference(scene, params, start, tangents, sensor, _integer(seed), spp)
        return mi.TensorXf(image.astype(np.float32))

    def render_backward(
        self,
        scene: mi.Scene,
        params: Any,
        grad_in: mi.TensorXf,
        sensor: int | mi.Sensor = 0,
        seed: Any = 0,
        spp: int = 0,
    ) -> None:
        """One forward pass a coordinate, ⟨grad_in, ∂I/∂p_i⟩ accumulated into the parameters.

        Raises:
            UnsupportedGradient: more than `coordinates` scalars are attached.
        """
        start = {key: _copy(params[key]) for key in params.keys()}
        attached = {key: v for key, v in start.items() if dr.is_jit_v(_numbers(v)) and dr.grad_enabled(_numbers(v))}
        count = sum(np.asarray(_numbers(v)).size for v in attached.values())
        if count > self.coordinates:
            raise UnsupportedGradient(
                f"finite differences would need {count} forward passes, the limit is {self.coordinates}",
                key=next(iter(attached)),
                remedy="use forward mode along a direction, raise the property 'coordinates', or use 'path_replay'",
            )
        adjoint = np.asarray(grad_in, dtype=np.float64)
        for key, value in attached.items():
            shape = np.asarray(_numbers(value)).shape
            gradient = np.zeros(shape)
            for index in np.ndindex(*shape):
                unit = np.zeros(shape)
                unit[index] = 1.0
                image = self._difference(scene, params, start, {key: unit}, sensor, _integer(seed), spp)
                gradient[index] = float(np.sum(adjoint * image))
            numbers = _numbers(value)
            dr.accum_grad(numbers, _array_like(numbers, gradient))
            dr.enqueue(dr.ADMode.Backward, numbers)
        dr.traverse(dr.ADMode.Backward)

    def _difference(
        self,
        scene: mi.Scene,
        params: Any,
        start: dict[str, Any],
        tangents: dict[str, np.ndarray],
        sensor: int | mi.Sensor,
        seed: int,
        spp: int,
    ) -> np.ndarray:
        """Mean over replicates of the extrapolated difference; fills in the error bar; leaves `params` as they were."""
        sensor = scene.sensors()[sensor] if isinstance(sensor, int) else sensor
        spp = spp or sensor.sampler().sample_count()
        cameras = {key: isinstance(params.properties[key][2], mi.Sensor) for key in tangents}

        def render_at(samples: int) -> Render:
            def render(theta: float, pass_seed: int) -> np.ndarray:
                with dr.suspend_grad():
                    for key, tangent in tangents.items():
                        params[key] = _moved(start[key], tangent, theta, cameras[key])
                    params.update()
                return render_mean(scene, sensor, self.base, samples, pass_seed)

            return render

        level = mi.log_level()
        normals = {key: value for key, value in start.items() if key.endswith("vertex_normals") and key not in tangents}
        try:
            mi.set_log_level(mi.LogLevel.Error)  # single coordinates of a transform shear; Mitsuba warns at every one
            epsilon = self.epsilon
            if epsilon == 0:
                pilot_spp = max(16, spp // 8)
                gain = spp * self.replicates / (3 * pilot_spp)
                scale = self.scale or _natural_scale(start, tangents)
                epsilon = choose_step(render_at(pilot_spp), scale, seed ^ 0x5EED, gain=gain).epsilon
            ladder = [epsilon * 0.5**k for k in range(self.steps)]
            tables = [central_differences(render_at(spp), ladder, s) for s in pass_seeds(seed, self.replicates)]
        finally:
            for key in tangents:
                params[key] = start[key]
            params.update()
            for key, value in normals.items():  # recomputed by the update of their vertices
                params[key] = value
            params.update()
            mi.set_log_level(level)
        images, corrections = zip(*(richardson(table) for table in tables), strict=True)
        self.epsilon_used = epsilon
        self.standard_error = np.std(images, axis=0, ddof=1) / np.sqrt(self.replicates)
        self.step_bias = np.abs(np.mean(corrections, axis=0))
        return np.mean(images, axis=0)

    def to_string(self) -> str:
        return f"FiniteDifference[epsilon = {self.epsilon or 'auto'}, steps = {self.steps}, base = {self.base}]"


def _integer(seed: Any) -> int:
    return int(seed) if isinstance(seed, int) else int(seed[0])


def _copy(value: Any) -> Any:
    """A handle of its own: what `params[key]` returns is a reference that later writes change."""
    return type(value)(value)


def _numbers(value: Any) -> Any:
    return value.matrix if isinstance(value, mi.Transform4f) else value


def _tangent(value: Any) -> np.ndarray | None:
    """The forward gradient attached to a parameter, None where there is none or it is zero."""
    numbers = _numbers(value)
    if not dr.is_jit_v(numbers) or not dr.is_float_v(numbers) or not dr.grad_enabled(numbers):
        return None
    tangent = np.asarray(dr.grad(numbers), dtype=np.float64)
    return tangent if np.any(tangent != 0) else None


def _array_like(numbers: Any, values: np.ndarray) -> Any:
    """Values as an array of the type of `numbers`; numpy's axes are (components, lanes), as `np.asarray` gives them."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    return (
        mi.Float(values.ravel()) if dr.depth_v(numbers) == 1 and not dr.is_tensor_v(numbers) else type(numbers)(values)
    )


def _natural_scale(start: dict[str, Any], tangents: dict[str, np.ndarray]) -> float:
    """2 % of the size of the parameter that moves most, at least of 0.2."""
    sizes = {key: np.abs(np.asarray(_numbers(start[key]), dtype=np.float64)).max() for key in tangents}
    return 0.02 * min(max(sizes[key], 0.2) / np.abs(tangent).max() for key, tangent in tangents.items())


def _moved(start: Any, tangent: np.ndarray, theta: float, camera: bool) -> Any:
    """The parameter at θ: a straight line for numbers, exp(θ Ṁ M⁻¹) M for transforms, so that turns stay turns."""
    if not isinstance(start, mi.Transform4f):
        return _array_like(start, np.asarray(start, dtype=np.float64) + theta * tangent)
    matrix = np.asarray(start.matrix, dtype=np.float64).reshape(4, 4)
    generator = tangent.reshape(4, 4) @ np.linalg.inv(matrix)
    if camera:  # cameras refuse scale and shear: what is left of the direction is its turn
        generator[:3, :3] = 0.5 * (generator[:3, :3] - generator[:3, :3].T)
    return type(start)(mi.Matrix4f(_exponential(theta * generator) @ matrix))


def _exponential(matrix: np.ndarray) -> np.ndarray:
    """exp of a 4 × 4 matrix by halving until small, a Taylor series, and squaring."""
    halvings = max(0, int(np.ceil(np.log2(max(np.abs(matrix).sum(), 1e-30)))) + 2)
    term = total = np.eye(4)
    for k in range(1, 12):
        term = term @ (matrix / 2.0**halvings) / k
        total = total + term
    return np.linalg.matrix_power(total, 2**halvings)
