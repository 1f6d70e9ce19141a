"""Rendering as a PyTorch function: scene values in, picture out, gradients back.

    render = TorchRender(scene, ["wall.bsdf.reflectance.data"], spp=16)
    image = render({"wall.bsdf.reflectance.data": network(z)})      # (H, W, 3), linear
    torch.nn.functional.mse_loss(image, photo).backward()

Values are physical, in the scene's own units: what keeps them in their range (a sigmoid, an exponential) belongs into
the network. Picture and gradient draw their own random numbers, as gradients of a loss would be biased otherwise.
Built on `drjit.wrap`; needs the extra `torch` (`pip install "pathtracer[torch]"`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import EnvironmentFault, UsageError, nearest_names

if TYPE_CHECKING:
    import torch

    from .scenes import Scene


class TorchRender:
    """A differentiable renderer of one scene for PyTorch.

    Args:
        scene: the scene; calls change its parameters. 8-bit textures among `keys` are reloaded as float.
        keys: the parameters that calls give (`pathtracer params SCENE` lists them), or globs.
        sensor: number of the scene's sensor, or an `mi.Sensor`.
        estimator: who computes gradients: a name of `integrators.ESTIMATORS` or a Mitsuba dictionary.
        spp: samples per pixel of the picture.
        grad_spp: samples per pixel of the gradient; default as many.
        seed: of the first call; every call without a seed of its own takes the next one.
    Attributes:
        keys: what the globs stood for.
        shapes: the shape that each value has: () for numbers, (3,) for colours, (H, W, C) for textures and
            environment maps (without Mitsuba's pad columns), (V, 3) for vertices, (4, 4) for poses.
    Raises:
        EnvironmentFault: PyTorch is not installed, or lacks CUDA where the scene is on a GPU.
        UsageError: unknown keys, parameters that nothing can differentiate.
    """

    def __init__(
        self,
        scene: Scene,
        keys: Sequence[str] | str,
        *,
        sensor: int | Any = 0,
        estimator: str | Mapping[str, Any] = "path_replay",
        spp: int = 16,
        grad_spp: int | None = None,
        seed: int = 0,
    ) -> None:
        try:
            import torch
        except ImportError as error:
            raise EnvironmentFault("PyTorch is not installed", remedy='pip install "pathtracer[torch]"') from error
        import drjit as dr
        import mitsuba as mi

        on_gpu = mi.variant().startswith("cuda")
        if on_gpu and not torch.cuda.is_available():
            remedy = 'install a PyTorch with CUDA, or load the scene with variant="llvm_ad_rgb"'
            raise EnvironmentFault("the scene is on a GPU, which this PyTorch cannot use", remedy=remedy)
        self._device = torch.device("cuda" if on_gpu else "cpu")  # `dr.wrap` takes the values as they lie

        from .inverse.arrays import as_numpy

        self.scene, self.spp, self.grad_spp, self.seed = scene, spp, grad_spp or spp, seed
        asked = [keys] if isinstance(keys, str) else list(keys)
        found = list(dict.fromkeys(k for key in asked for k in scene.select(key)))
        infos = scene.parameters()
        for key in found:
            if not infos[key].differentiable:
                raise UsageError(f"cannot be differentiated: {infos[key].reason}", where=key)
        self.keys = [scene.make_differentiable(key) for key in found]
        infos = scene.parameters()
        self._padded = {k for k in self.keys if infos[k].kind == "envmap" and k.endswith(".data")}
        self._stored = {k: as_numpy(scene.params[k]).shape for k in self.keys}
        self._kinds = {k: type(scene.params[k]) for k in self.keys}
        self.shapes = {k: self._shape(k, infos[k].kind) for k in self.keys}
        self._sensor = scene.sensor(sensor) if isinstance(sensor, int) else sensor
        settings = {"type": estimator} if isinstance(estimator, str) else dict(estimator)
        if "aovs" in settings:
            raise UsageError("pictures in PyTorch have no aovs", where="estimator", remedy="leave them out")
        warn_of_missing(str(settings["type"]), {k: infos[k].needs for k in self.keys})
        self._integrator = mi.load_dict({**scene.default_integrator(), **settings})
        self._wrapped = dr.wrap(source="torch", target="drjit")(self._render)

    def value(self, key: str) -> torch.Tensor:
        """The scene's present value of a parameter, float32, in the shape that calls expect."""
        import torch

        from .inverse.arrays import as_numpy

        array = as_numpy(self.scene.params[key])
        if key in self._padded:
            array = array[:, 1:-1]
        return torch.tensor(array, dtype=torch.float32).reshape(self.shapes[key])

    def __call__(self, values: Mapping[str, torch.Tensor], seed: int | None = None) -> torch.Tensor:
        """Render.

        Args:
            values: a tensor per key; keys that are left out keep what the scene has.
            seed: of this call; calls with one seed give one picture.
        Returns:
            (H, W, 3) linear radiance, float32, on the device of the values (of the processor without values);
            (H, W, 1) from a grey film.
        Raises:
            UsageError: a key that was not announced, a wrong shape.
        """
        import torch

        given = {}
        for key, value in values.items():
            if key not in self.shapes:
                raise UsageError("is not among the keys of this renderer", key, nearest=nearest_names(key, self.shapes))
            if tuple(value.shape) != self.shapes[key]:
                raise UsageError(f"has the shape {tuple(value.shape)}, {self.shapes[key]} was expected", key)
            # Dr.Jit has no tensors of rank 0 in PyTorch's sense, and takes over memory as it lies
            given[key] = value.to(self._device, torch.float32).reshape(-1).contiguous()
        if seed is None:
            seed, self.seed = self.seed, self.seed + 1
        image: torch.Tensor = self._wrapped(given, seed)
        return image.to(next((value.device for value in values.values()), "cpu"))

    def _shape(self, key: str, kind: str) -> tuple[int, ...]:
        shape = self._stored[key]
        if key in self._padded:
            return (shape[0], shape[1] - 2, shape[2])
        return (shape[0] // 3, 3) if kind in ("positions", "normals") and len(shape) == 1 else shape

    def _render(self, values: dict[str, Any], seed: int) -> Any:
        import mitsuba as mi

        for key, value in values.items():
            self.scene.params[key] = self._to_scene(key, value)
        self.scene.params.update()
        image = mi.render(
            self.scene.mi,
            self.scene.params,
            sensor=self._sensor,
            integrator=self._integrator,
            spp=self.spp,
            spp_grad=self.grad_spp,
            seed=_hash(seed, 0),
            seed_grad=_hash(seed, 1),
        )
        return image[..., :3] if image.shape[-1] > 3 else image

    def _to_scene(self, key: str, value: Any) -> Any:
        import drjit as dr
        import mitsuba as mi

        from .inverse.arrays import from_flat, is_transform

        flat = mi.Float(value.array if dr.is_tensor_v(value) else value)
        shape, kind = self._stored[key], self._kinds[key]
        if key in self._padded:
            height, width, channels = self.shapes[key]
            texel = dr.arange(mi.UInt32, height * (width + 2) * channels)
            channel, column, row = (
                texel % channels,
                (texel // channels) % (width + 2),
                texel // (channels * (width + 2)),
            )
            column = (column + (width - 1)) % width
            flat = dr.gather(mi.Float, flat, (row * width + column) * channels + channel)
        if is_transform(kind):
            return kind(mi.Matrix4f([[dr.gather(mi.Float, flat, 4 * i + j) for j in range(4)] for i in range(4)]))
        return from_flat(flat, kind, shape)


def warn_of_missing(estimator: str, needs: Mapping[str, frozenset[str]]) -> None:
    """Warn of parts of a derivative that an estimator leaves out, by parameter."""
    from integrators import ESTIMATORS, PHENOMENA, GradientWarning

    if estimator not in ESTIMATORS:
        return
    for key, needed in needs.items():
        missing = needed - ESTIMATORS[estimator].handles
        if missing:
            what = "; ".join(PHENOMENA.get(m, m) for m in sorted(missing))
            better = [name for name, e in ESTIMATORS.items() if needed <= e.handles]
            remedy = f"use one of {', '.join(better)}" if better else None
            text = f"{key}: {estimator} leaves out {what}"
            warnings.warn(GradientWarning("visibility-left-out", text, remedy), stacklevel=3)


def _hash(seed: int, purpose: int) -> int:
    import numpy as np

    return int(np.random.SeedSequence([seed, purpose]).generate_state(1)[0])
