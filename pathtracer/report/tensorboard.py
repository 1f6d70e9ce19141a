"""The course of a run for TensorBoard: losses, rates, few-number parameters, and the newest pictures.

Needs the extra `tensorboard` (`pip install "pathtracer[tensorboard]"`), which writes the files without TensorFlow; look
at them with `tensorboard --logdir RUN/tensorboard`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EnvironmentFault
from .pictures import display_scale

if TYPE_CHECKING:
    from ..inverse.result import Step

FOLDER = "tensorboard"


class TensorBoard:
    """Writes event files into the folder `tensorboard` of a run; use it as a context manager.

    Args:
        run: the run folder.
        first: the step that comes next; what an earlier session logged from there on is hidden.
    Raises:
        EnvironmentFault: the package is not installed.
    """

    def __init__(self, run: Path, first: int = 0) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise EnvironmentFault(
                "tensorboardX is not installed", remedy='pip install "pathtracer[tensorboard]"'
            ) from error
        # the file's own name tells seconds only: a session that goes on at once would overwrite the one before it
        self._writer: Any = SummaryWriter(str(run / FOLDER), purge_step=first or None, filename_suffix=f".{first}")

    def __enter__(self) -> TensorBoard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def step(self, step: Step) -> None:
        """Log a step."""
        at = step.index + 1
        numbers = {"loss": step.loss, "loss_error": step.loss_error, "rate": step.rate, "prior": step.prior}
        numbers |= {f"view/{name}": loss for name, loss in step.per_view.items()}
        for name, values in (step.estimate or step.values).items():
            numbers |= {f"{name}/{i}" if len(values) > 1 else name: v for i, v in enumerate(values)}
        for name, value in numbers.items():
            if np.isfinite(value):
                self._writer.add_scalar(name, value, at)

    def pictures(self, pictures: Mapping[str, Mapping[str, np.ndarray]], at: int) -> None:
        """Log target and newest render of views, side by side, as sRGB."""
        from ..capture.images import to_8bit

        for name, arrays in pictures.items():
            scale = np.float32(display_scale(arrays["target"]))
            both = np.concatenate([arrays["target"], arrays["result"]], axis=1).astype(np.float32)
            self._writer.add_image(f"view/{name}", to_8bit(both * scale), at, dataformats="HWC")
