"""Views made ready to be rendered: each gets a sensor, and its picture becomes the inputs of the step program."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..capture import View
from ..errors import InputError
from .arrays import to_device
from .rendering import Target
from .sights import level_count, pyramid

if TYPE_CHECKING:
    from ..scenes import Scene
    from .lighting import Switchboard
    from .losses import Loss
    from .tiles import Window

#: Parameters of a perspective sensor and the names of their properties.
_LENS = {
    "x_fov": "fov",
    "principal_point_offset_x": "principal_point_offset_x",
    "principal_point_offset_y": "principal_point_offset_y",
}
#: Rec. 709, as a luminance film weights its colours.
_LUMINANCE = np.array([[0.212671], [0.715160], [0.072169]], np.float32)


@dataclass(frozen=True)
class PreparedView:
    """A view ready to be rendered: its camera, its lights, its inputs of the step program.

    Attributes:
        view: what the user gave.
        sensor: `mi.Sensor`; views of one `shape` share it.
        shape: views with the same shape replay the same recording.
        pose: camera-to-world matrix to set before rendering, None for the scene's own sensors.
        lens: further parameters of the sensor to set before rendering.
        lit: prefixes of its emitters.
        target: image, weights and exposure on the device.
        weight: share of the view in the loss.
        window: the part of another view that this is, None for a whole one (see `tiles`).
    """

    view: View
    sensor: Any
    shape: str
    pose: np.ndarray | None
    lit: frozenset[str]
    target: Target
    weight: float
    lens: Mapping[str, float] = field(default_factory=dict)
    window: Window | None = None

    @property
    def pixels(self) -> int:
        """Pixels of the picture or of the part of it."""
        return int(self.target.image.shape[0]) * int(self.target.image.shape[1])


def prepare_views(
    scene: Scene, views: Sequence[View], shares: Sequence[float], loss: Loss, lights: Switchboard
) -> list[PreparedView]:
    """Views ready to be rendered; those whose cameras differ in poses and lenses alone share a sensor.

    Args:
        scene: whose sensors views may look through.
        views: what was observed.
        shares: of each view in the loss.
        loss: weights the pixels of an image.
        lights: knows which emitters shine in a view.
    Raises:
        InputError: an image that does not fit its film or is not finite, a camera that is no rigid motion.
        UsageError: a view that names lights that there are not.
    """
    sensors: dict[str, Any] = {}
    return [_prepare(scene, v, share, loss, lights, sensors) for v, share in zip(views, shares, strict=True)]


def _prepare(
    scene: Scene, view: View, weight: float, loss: Loss, lights: Switchboard, sensors: dict[str, Any]
) -> PreparedView:
    import mitsuba as mi

    sensor, shape, pose, lens = _camera(scene, view, sensors)
    film = sensor.film()
    width, height = (int(n) for n in film.crop_size())
    where = view.path or view.name
    if (view.width, view.height) != (width, height):
        raise InputError(
            f"the image is {view.width} x {view.height} pixels, the film {width} x {height}",
            where,
            remedy=f"render at the image's size, or ask for resize = [{width}, {height}] in [views]",
        )
    channels = _channels(film, where)
    if not np.all(np.isfinite(view.image)):
        raise InputError("the image has values that are not finite", where)
    image = np.zeros((height, width, channels), np.float32)
    weights = np.zeros((height, width, channels), np.float64)
    used = min(channels, 3)
    image[..., :used] = view.image[..., :used] if channels >= 3 else view.image @ _LUMINANCE
    weights[..., :used] = view.weight[..., None] * loss.weight(image[..., :used])
    # of the mask, not of the loss's own weights, so that losses keep their size; channels beyond colour have none
    weights /= float(view.weight.sum()) * used * level_count(loss, image.shape)
    layers = tuple(layer.on_device() for layer in pyramid(image, view.weight, loss))
    if channels == 1 and np.ptp(view.gain) > 0:
        raise InputError("a film of luminance has no white balance", where, remedy="use an rgb film")
    gain = np.ones((1, 1, channels), np.float32)
    gain[..., :used] = view.gain[:used]
    seen, weighing, factors = (to_device(part, mi.TensorXf) for part in (image, weights, gain))
    target = Target(seen, weighing, factors, layers)
    lit = lights.select(view.lit, view.name)
    return PreparedView(view, sensor, shape, pose, lit, target, weight, lens)


def _camera(scene: Scene, view: View, sensors: dict[str, Any]) -> tuple[Any, str, np.ndarray | None, dict[str, float]]:
    """The sensor of a view, what it shares with others of its recording, its pose and its lens."""
    import mitsuba as mi

    if isinstance(view.sensor, int):
        return scene.sensor(view.sensor), f"sensor {view.sensor}", None, {}
    camera = dict(view.sensor)
    camera.setdefault("type", "perspective")
    film = {"type": "hdrfilm", "width": view.width, "height": view.height, "pixel_format": "rgb"}
    camera.setdefault("film", {**film, "component_format": "float32", "rfilter": {"type": "box"}})
    pose = _matrix(camera.pop("to_world", np.eye(4)), view.name)
    # cameras that differ in their lenses alone share a recording, too
    own = camera
    lens: dict[str, float] = {}
    if camera["type"] == "perspective" and camera.get("fov_axis") == "x" and "fov" in camera:
        lens = {key: float(camera.get(name, 0.0)) for key, name in _LENS.items()}
        own = {k: v for k, v in camera.items() if k not in _LENS.values()}
    shape = json.dumps(own, sort_keys=True, default=str)
    if shape not in sensors:
        sensors[shape] = mi.load_dict({**camera, "to_world": mi.ScalarTransform4f(pose)})
    return sensors[shape], shape, pose, lens


def _channels(film: Any, where: str | Path) -> int:
    """Channels of a developed film: 1, 3, or 4 with alpha (which is not compared)."""
    film.prepare([])
    channels = int(film.develop().shape[-1])
    if channels not in (1, 3, 4):
        raise InputError(f"the film has {channels} channels, one of rgb, rgba and luminance was expected", where)
    return channels


def _matrix(value: Any, where: str) -> np.ndarray:
    array = np.array(value.matrix if hasattr(value, "matrix") else value, np.float64)
    if array.size != 16:
        raise InputError(f"to_world has {array.size} numbers, a 4x4 matrix was expected", where)
    matrix = array.reshape(4, 4)
    turn = matrix[:3, :3] / np.cbrt(abs(np.linalg.det(matrix[:3, :3])) or 1.0)
    if not np.all(np.isfinite(matrix)) or not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3):
        raise InputError("to_world is not a rotation and a translation", where)
    if np.linalg.det(turn) < 0:
        raise InputError(
            "to_world mirrors (its determinant is negative)", where, remedy="check the camera convention of the file"
        )
    return matrix
