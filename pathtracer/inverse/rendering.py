"""One gradient step of one view as a recorded program: two primal renders, the loss, and one adjoint pass.

`dr.freeze` records the kernels that a call launches and replays them for the next call without tracing the Python code
again. Everything that differs between steps and between views of the same film is therefore an input: seeds, target,
weights, exposure, and through the scene's parameters the lights and the camera's pose. A program is recorded once per
film shape and sample count.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from integrators.errors import GradientWarning, UnsupportedGradient

from .losses import Loss
from .sights import Layer

#: Samples (pixels x spp) of one launch; more are rendered in passes so that memory stays bounded.
PASS_SAMPLES = 1 << 24


#: Cameras whose inner matrices a recording does not see (they lack `MI_TRAVERSE_CB` in Mitsuba 3.9.1).
_OPAQUE_CAMERAS = ("OrthographicCamera", "ThinLensCamera")


@dataclass(frozen=True)
class Target:
    """A view's inputs of the program, on the device.

    Attributes:
        image: (H, W, C) what was observed.
        weight: (H, W, C) weight of each value, summing to 1 over the image.
        exposure: (1, 1, C) factors on the render.
        layers: the coarser levels of a loss that has some, each the tensors of a `sights.Layer`.
    """

    image: Any
    weight: Any
    exposure: Any
    layers: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Samples:
    """Samples per pixel of a step, and the passes they are split into.

    Attributes:
        primal: of one pass of each of the two primal renders.
        adjoint: of one pass of the adjoint.
        primal_passes, adjoint_passes: passes of each, whose mean is taken.
    """

    primal: int
    adjoint: int
    primal_passes: int = 1
    adjoint_passes: int = 1

    @classmethod
    def plan(cls, primal: int, adjoint: int, pixels: int, limit: int = PASS_SAMPLES) -> Samples:
        """Halve `primal` between two independent renders and split what does not fit into `limit`.

        Passes of one kind are equal, so the numbers are rounded up: never fewer samples than asked for.
        """
        most = max(1, limit // pixels)

        def split(spp: int) -> tuple[int, int]:
            passes = -(-spp // most)
            return -(-spp // passes), passes

        primal, primal_passes = split(max(1, -(-primal // 2)))
        adjoint, adjoint_passes = split(adjoint)
        return cls(primal, adjoint, primal_passes, adjoint_passes)

    @property
    def total(self) -> int:
        """Camera paths per pixel of the whole step."""
        return 2 * self.primal * self.primal_passes + self.adjoint * self.adjoint_passes


def make_program(integrator: Any, loss: Loss, samples: Samples, coarse: bool = False) -> Callable[..., tuple[Any, ...]]:
    """The program of one step of one view; it leaves the gradient in whatever the scene's parameters are attached to.

    Its arguments are the scene, its parameters, the sensor, the parts of a `Target` with the weights and layers of this
    step, three opaque `mi.UInt32` seeds (two primal renders and the adjoint pass; passes count up from them), and the
    sensor's own fields where a recording would not see them. With `coarse` only the layers are compared, no pixels.

    Returns:
        A function that returns
        loss, `mi.Float`;
        variance of the loss, from the difference of the two renders (pixels taken as independent and their noise as
        Gaussian: well spread samples have lighter tails, and where noise outweighs the residual half of it is missed);
        non-finite pixels, which take no part;
        non-finite samples that the estimator left out of the adjoint passes;
        image (H, W, C), the mean of both renders;
        noise (H, W, C), an estimate of the image's variance from this one pair;
        derivative of the loss by the factors of `exposure` (1, 1, C).
    """
    import drjit as dr
    import mitsuba as mi

    def primal(scene: Any, sensor: Any, seed: Any) -> Any:
        total: Any = None
        for k in range(samples.primal_passes):
            image = dr.detach(integrator.render(scene, sensor=sensor, seed=seed + k, spp=samples.primal))
            total = image if total is None else total + image
        return total / samples.primal_passes

    def program(
        scene: Any,
        params: Any,
        sensor: Any,
        target: Any,
        weight: Any,
        layers: Any,
        exposure: Any,
        seeds: Any,
        fields: Any,
    ) -> tuple[Any, ...]:
        if sensor.class_name() in _OPAQUE_CAMERAS:
            # computed anew, they are part of the recording; any key but to_world, whose update reads a number
            sensor.parameters_changed(["near_clip"])
        plain_a, plain_b = primal(scene, sensor, seeds[0]), primal(scene, sensor, seeds[1])
        a, b = plain_a * exposure, plain_b * exposure
        fine = dr.isfinite(a) & dr.isfinite(b)
        mean = dr.select(fine, 0.5 * (a + b), 0)
        # what is not finite is no different from the target, whichever way it is seen
        a, b = dr.select(fine, a, target), dr.select(fine, b, target)
        seen = [Layer(*parts) for parts in layers]

        def slope_at(image: Any) -> Any:
            total = 0 if coarse else loss.slope(image, target, dr) * weight
            for layer in seen:
                total = total + layer.back(loss.slope(layer.see(image, dr), layer.target, dr) * layer.weight, dr)
            return dr.select(fine, total, 0)

        slope = slope_at(0.5 * (a + b))
        value = mi.Float(0) if coarse else dr.sum(loss.value(a, b, target, dr) * weight, axis=None)
        for layer in seen:
            both = loss.value(layer.see(a, dr), layer.see(b, dr), layer.target, dr)
            value = value + dr.sum(both * layer.weight, axis=None)
        # a pixel's channels come from the same paths, so they are summed before the square
        variance = dr.sum(dr.square(dr.sum(0.5 * slope * (a - b), axis=2)), axis=None)
        bad = dr.sum(dr.select(fine, mi.TensorXf(0.0), 1), axis=None)
        # each half with the slope of the other, so that the noise of one render does not multiply itself
        crossed = slope_at(b) * plain_a + slope_at(a) * plain_b
        by_gain = dr.sum(dr.select(fine, 0.5 * crossed, 0), axis=(0, 1))
        # only the value of the image is needed: keep the adjoint pass from holding on to how it was made
        noise = dr.square(0.5 * (a - b))
        dr.eval(value, variance, bad, mean, noise, slope, by_gain)
        adjoint = slope * exposure / samples.adjoint_passes
        dropped = mi.Float(0)
        for k in range(samples.adjoint_passes):
            integrator.render_backward(scene, params, adjoint, sensor=sensor, seed=seeds[2] + k, spp=samples.adjoint)
            # an output, because a replay does not run the Python code that sets the estimator's own attribute
            dropped += mi.Float(getattr(integrator, "dropped", 0))
        return value, variance, bad, dropped, mean, noise, by_gain

    return program


class FrozenProgram:
    """A program that is recorded at its first call; estimators that cannot be recorded are traced at every call
    instead.

    Attributes:
        frozen: whether calls replay a recording.
    """

    def __init__(
        self, integrator: Any, loss: Loss, samples: Samples, freeze: bool = True, coarse: bool = False
    ) -> None:
        import drjit as dr

        self.samples = samples
        self._integrator = integrator
        if hasattr(integrator, "dropped"):
            # the recording sees the estimator's counter as an input: let it look as it will from the second call on
            integrator.dropped = dr.opaque(type(integrator.dropped), 0)
        self._plain = make_program(integrator, loss, samples, coarse)
        self._recorded = dr.freeze(self._plain, limit=8, warn_after=64) if freeze else None
        self._proven = False

    @property
    def frozen(self) -> bool:
        return self._recorded is not None

    @property
    def recordings(self) -> int:
        """How many times the program was recorded (0 when it is traced at every call)."""
        return int(self._recorded.n_recordings) if self._recorded is not None else 0

    def __call__(self, *inputs: Any) -> tuple[float, float, int, Any, Any, Any]:
        """Run; returns (loss, variance, pixels and samples left out, image, noise, slope by gain); tensors at last."""
        value, variance, bad, dropped, image, noise, by_gain = self._run((*inputs, _fields(inputs[2])))
        return _scalar(value), _scalar(variance), round(_scalar(bad) + _scalar(dropped)), image, noise, by_gain

    def _run(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        prepare = getattr(self._integrator, "prepare_scene", None)
        if prepare is not None:
            # what an estimator does on the host cannot be part of a recording
            prepare(inputs[0], inputs[2], recorded=self.frozen)
        if self._recorded is not None:
            if not self._proven:
                # A recording looks at every object of the process: those of dead scenes must not take part
                gc.collect()
            try:
                with _no_collection():
                    result = self._recorded(*inputs)
                self._proven = True
                return result
            except UnsupportedGradient:
                raise
            except Exception as error:
                if self._proven:
                    raise
                # The same call outside a recording tells a fault of the scene from one of the recording.
                self._recorded = None
                result = self._plain(*inputs)
                warnings.warn(_not_recorded(_first_cause(error)), stacklevel=2)
                return result
        return self._plain(*inputs)


def _not_recorded(cause: str) -> GradientWarning:
    """What to say when steps are traced one by one."""
    remedy = "every step is traced again, which costs time but changes no number"
    if "no such object instance was found" in cause:
        # Virtual calls take every object of the process: measured with a material of another scene that no shape uses
        cause = "another scene alive in this process holds objects that no shape uses, such as an unused material"
        remedy = f"delete that scene or its unused objects; until then {remedy}"
    return GradientWarning("step-not-recorded", f"the estimator cannot be recorded: {cause}", remedy)


def _fields(sensor: Any) -> list[Any]:
    """The Dr.Jit fields of a camera that recordings do not see into."""
    import drjit as dr
    import mitsuba as mi

    if sensor.class_name() not in _OPAQUE_CAMERAS:
        return []
    return [value for _, value in mi.traverse(sensor) if dr.is_jit_v(value)]


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector away.

    Dr.Jit 1.5.0 aborts the process when a scene or a recorded function of an earlier estimation is destroyed while a
    function is being recorded, and scenes, being part of cycles, die whenever the collector happens to run.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _scalar(value: Any) -> float:
    return float(np.asarray(value).ravel()[0])


def _first_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip().splitlines()
    return text[-1] if text else type(error).__name__
