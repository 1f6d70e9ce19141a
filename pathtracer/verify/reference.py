"""The reference of a check: replicates of a finite-difference image that grow on demand and are kept on disk.

Central differences at two steps, ε and ε/4. An expansion in even powers of the step holds only below the scale of the
smallest kink of I'(θ), and a shadow whose edge leaves the frame at a small angle has several: there the error falls no
faster than the step, even in smooth sums. So no order is taken for granted but that the error falls at least in
proportion to the step on the way from ε to ε/4 (order one: four times; Richardson's order two: sixteen times):

    I' lies between D(ε/4) and (4 D(ε/4) − D(ε)) / 3.

Both ends are sampled quantities, and a verdict must hold for both (see `statistics`). Steps four times apart, because
the upper end then has 1.6 times the variance of D(ε/4) where samples cross edges; with steps twice apart it has 2.5.
D(ε) gets a quarter of the samples, the first ones of D(ε/4) (others where aovs are asked for): of the upper end's
variance its part is the least, and so each look costs 5/8 of what it would (1.67 times the variance of D(ε/4) then).
Derivation: docs/theory/finite_difference.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pathtracer.runtime.folders import cache_folder, writable

from .channels import pick
from .motion import BoundMotion
from .samples import Replicates

#: The larger step over the smaller one.
RATIO = 4
#: Raise when a change of the code makes old files wrong.
FORMAT = 10
#: Larger references are not written to disk.
MAX_FILE_BYTES = 32 << 20
#: Paths of a render in the search for a step size; 64 samples per pixel of the catalogue's images.
PILOT_PATHS = 36_864


class Reference:
    """Replicates of the derivative image by central differences along one motion.

    Attributes:
        differences: (replicates, 2, H, W, C) at ε, with a quarter of the samples, and at ε / `RATIO`.
        epsilon: the larger of the two step sizes.
        refined: whether that is smaller than the step chosen at first.
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
        self.differences = Replicates(seed)
        self.epsilon, self.refined = 0.0, False
        self._file = None if folder is None else folder / f"{self._identity()}.npz"
        if not self._load():
            self._start()

    @property
    def brightness(self) -> float:
        """Mean value of the image itself."""
        return float(np.mean(self.view))

    @property
    def spp(self) -> int:
        """Samples per pixel of each replicate and side at the finer step so far."""
        return self.differences.spp

    @property
    def images(self) -> np.ndarray:
        """(replicates, H, W, C): Richardson's extrapolation for smooth functions, the best guess between the ends."""
        coarse, fine = self._grown()
        return (RATIO**2 * fine - coarse) / (RATIO**2 - 1)

    @property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Two of (replicates, H, W, C) between which the derivative lies: the finer difference, and order one."""
        coarse, fine = self._grown()
        return fine, (RATIO * fine - coarse) / (RATIO - 1)

    @property
    def corrections(self) -> np.ndarray:
        """(replicates, H, W, C): from `images` to the farther end; its mean bounds the step-size bias."""
        return self.ends[1] - self.images

    def grow(self, spp: int) -> None:
        """Add `spp` samples per pixel to every replicate."""
        from integrators.finite_difference import central_differences

        def difference(epsilon: float, samples: int, seed: int) -> np.ndarray:
            return central_differences(partial(self._render, samples), [epsilon], seed)

        def draw(seed: int) -> np.ndarray:
            coarse = difference(self.epsilon, -(-spp // RATIO), seed)
            return np.concatenate([coarse, difference(self.epsilon / RATIO, spp, seed)])

        try:
            self.differences.add(draw, spp, self.replicates)
        finally:
            self.bound.restore()
        self._save()

    def refine(self, spp: int) -> None:
        """Halve the step and draw anew, with other seeds: for when the range that the step leaves is in the way."""
        self.differences.forget()
        self.epsilon, self.refined = self.epsilon / 2, True
        self.grow(spp)

    def _grown(self) -> tuple[np.ndarray, np.ndarray]:
        if self.differences.values is None:
            raise ValueError("the reference holds no samples yet: call grow first")
        return self.differences.values[:, 0], self.differences.values[:, 1]

    def _render(self, spp: int, theta: float, seed: int) -> np.ndarray:
        from integrators.finite_difference import render_mean

        self.bound.apply(theta)
        return pick(render_mean(self.bound.scene, self.sensor, self.base, spp, seed), self.base)

    def _start(self) -> None:
        from integrators.finite_difference import choose_step

        size = self.sensor.film().crop_size()
        spp = 2 ** int(np.clip(np.log2(PILOT_PATHS / (int(size[0]) * int(size[1]))), 1, 9))

        render = partial(self._render, spp)
        try:
            # the verdict comes with about eight times the samples of the search, on twice as many replicates
            choice = choose_step(render, self.bound.scale, self.seed + 1, replicates=4, gain=16, ratio=RATIO)
            self.view = render(0.0, self.seed)
        finally:
            self.bound.restore()
        self.epsilon, self.pilot = choice.epsilon, choice.pilot

    # ------------------------------------------------------------------ disk

    def _identity(self) -> str:
        """Hash of everything the images depend on: plugins, all parameter values, motion, integrator, seeds."""
        import drjit as dr
        import mitsuba as mi

        scene, params = self.bound.scene, self.bound.params
        digest = hashlib.sha256(f"{FORMAT} {mi.__version__} {mi.variant()} {self.bound.motion}".encode())
        digest.update(f"{self.replicates} {self.seed} {self.base} {self.sensor} {scene}".encode())
        digest.update(f"{list(self.base.aov_names())} {getattr(self.base, 'hide_emitters', None)}".encode())
        if "shape_index" in str(self.base):  # this AOV depends on the scenes that the process loaded before
            digest.update(np.asarray(dr.reinterpret_array(mi.UInt32, scene.shapes_dr())).tobytes())
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
                kept = Replicates(self.seed)
                kept.values, kept.spp = data["differences"], int(data["spp"])
                kept.rounds, kept.rate = int(data["rounds"]), float(data["rate"])
                self.refined = bool(data["refined"])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            # A file cut short by a full disk or a killed process: compute again, it will be replaced.
            return False
        self.differences = kept
        return True

    def _save(self) -> None:
        grown = self.differences
        if self._file is None or grown.values is None or grown.values.nbytes > MAX_FILE_BYTES:
            return
        handle, name = tempfile.mkstemp(dir=self._file.parent, suffix=".npz")
        with open(handle, "wb") as file:
            np.savez(
                file,
                epsilon=self.epsilon,
                refined=self.refined,
                view=self.view,
                pilot=self.pilot,
                differences=grown.values,
                spp=grown.spp,
                rounds=grown.rounds,
                rate=grown.rate,
            )
        Path(name).replace(self._file)


def reference_folder() -> Path | None:
    """Where references are kept between runs; None when no folder takes files."""
    folder = cache_folder() / "references"
    with contextlib.suppress(OSError):
        if writable(folder):
            return folder
    return None
