"""The reference of a check: replicates of a finite-difference image that grow on demand and are kept on disk."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from pathtracer.runtime.folders import cache_folder, writable

from .motion import BoundMotion

#: Raise when a change of the code makes old files wrong.
FORMAT = 8
#: Larger references are not written to disk.
MAX_FILE_BYTES = 32 << 20
#: Paths of a render in the search for a step size; 64 samples per pixel of the catalogue's images.
PILOT_PATHS = 36_864


class Reference:
    """Replicates of the derivative image by central differences along one motion.

    Attributes:
        spp: samples per pixel of each replicate and each side so far.
        epsilon: the larger of the two step sizes.
        pilot: (H, W, C) derivative image from other seeds than the replicates: weights that are independent of them.
        view: (H, W, C) the image itself, as noisy as the pilot.
    """

    def __init__(
        self,
        bound: BoundMotion,
        sensor: Any,
        base: Any,
        replicates: int = 8,
        seed: int = 0,
        folder: Path | None = None,
    ) -> None:
        self.bound = bound
        self.sensor = sensor
        self.base = base
        self.replicates = replicates
        self.seed = seed
        self.spp = 0
        self._round = 0
        self._differences: np.ndarray | None = None  # (replicates, 2, H, W, C), mean over spp
        self._file = None if folder is None else folder / f"{self._identity()}.npz"
        if not self._load():
            self._start()

    @property
    def brightness(self) -> float:
        """Mean value of the image itself."""
        return float(np.mean(self.view))

    @property
    def images(self) -> np.ndarray:
        """(replicates, H, W, C): extrapolated derivative images."""
        from integrators.finite_difference import richardson

        return richardson(np.swapaxes(self._grown(), 0, 1))[0]

    @property
    def corrections(self) -> np.ndarray:
        """(replicates, H, W, C): last correction of the extrapolation, whose mean bounds the step-size bias."""
        from integrators.finite_difference import richardson

        return richardson(np.swapaxes(self._grown(), 0, 1))[1]

    def grow(self, spp: int) -> None:
        """Add `spp` samples per pixel to every replicate."""
        from integrators.finite_difference import central_differences, pass_seeds, render_mean

        def render(theta: float, seed: int) -> np.ndarray:
            self.bound.apply(theta)
            return _rgb(render_mean(self.bound.scene, self.sensor, self.base, spp, seed))

        self._round += 1
        seeds = pass_seeds(self.seed + 7919 * self._round, self.replicates)
        steps = [self.epsilon, self.epsilon / 2]
        try:
            fresh = np.stack([central_differences(render, steps, seed) for seed in seeds])
        finally:
            self.bound.restore()
        if self._differences is None:
            self._differences = fresh
        else:
            self._differences = (self.spp * self._differences + spp * fresh) / (self.spp + spp)
        self.spp += spp
        self._save()

    def refine(self) -> None:
        """Halve the step and draw as many samples again: for when the step's bias is what keeps the answer open."""
        spp, self.spp, self._differences = self.spp, 0, None
        self.epsilon /= 2
        self.grow(spp)

    def _grown(self) -> np.ndarray:
        if self._differences is None:
            raise ValueError("the reference holds no samples yet: call grow first")
        return self._differences

    def _start(self) -> None:
        from integrators.finite_difference import choose_step, render_mean

        size = self.sensor.film().crop_size()
        spp = 2 ** int(np.clip(np.log2(PILOT_PATHS / (int(size[0]) * int(size[1]))), 1, 9))

        def render(theta: float, seed: int) -> np.ndarray:
            self.bound.apply(theta)
            return _rgb(render_mean(self.bound.scene, self.sensor, self.base, spp, seed))

        try:
            # the verdict comes with about eight times the samples of the search, on twice as many replicates
            choice = choose_step(render, self.bound.scale, self.seed + 1, replicates=4, gain=16)
            self.view = render(0.0, self.seed)
        finally:
            self.bound.restore()
        self.epsilon, self.pilot = choice.epsilon, choice.pilot

    # ------------------------------------------------------------------ disk

    def _identity(self) -> str:
        """Hash of everything the images depend on: plugins, all parameter values, motion, integrator, seeds."""
        import mitsuba as mi

        scene, params = self.bound.scene, self.bound.params
        digest = hashlib.sha256(f"{FORMAT} {mi.__version__} {mi.variant()} {self.bound.motion}".encode())
        digest.update(f"{self.replicates} {self.seed} {self.base} {self.sensor} {scene}".encode())
        for key in sorted(params.keys()):
            value = params[key]
            if isinstance(value, mi.Transform4f):
                value = value.matrix
            numbers = np.asarray(value)
            digest.update(key.encode() + (numbers.tobytes() if numbers.dtype != object else str(value).encode()))
        return digest.hexdigest()[:32]

    def _load(self) -> bool:
        if self._file is None or not self._file.is_file():
            return False
        try:
            with open(self._file, "rb") as file, np.load(file, allow_pickle=False) as data:
                self.epsilon, self.pilot, self.view = float(data["epsilon"]), data["pilot"], data["view"]
                self._differences = data["differences"]
                self.spp, self._round = int(data["spp"]), int(data["round"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            # A file cut short by a full disk or a killed process: compute again, it will be replaced.
            self.spp, self._round, self._differences = 0, 0, None
            return False
        return True

    def _save(self) -> None:
        differences = self._grown()
        if self._file is None or differences.nbytes > MAX_FILE_BYTES:
            return
        handle, name = tempfile.mkstemp(dir=self._file.parent, suffix=".npz")
        with open(handle, "wb") as file:
            np.savez(
                file,
                epsilon=self.epsilon,
                view=self.view,
                pilot=self.pilot,
                differences=differences,
                spp=self.spp,
                round=self._round,
            )
        Path(name).replace(self._file)


def _rgb(image: np.ndarray) -> np.ndarray:
    """Colour channels only: (H, W, 3), or (H, W, 1) in mono."""
    return image[..., :3] if image.shape[-1] >= 3 else image[..., :1]


def reference_folder() -> Path | None:
    """Where references are kept between runs; None when no folder takes files."""
    folder = cache_folder() / "references"
    with contextlib.suppress(OSError):
        if writable(folder):
            return folder
    return None
