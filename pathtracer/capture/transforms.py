"""`transforms.json`: cameras as NeRF, Blender, nerfstudio and instant-ngp write them.

    capture = read_transforms("photos/transforms.json")

Focal lengths come from `fl_x`, `fl_y` (pixels) or `camera_angle_x`, `camera_angle_y` (radians), the principal point
from `cx`, `cy`, the size from `w`, `h` or the picture; each may stand at the top or in a frame, which comes first.
Poses are camera-to-world in OpenGL's axes unless told otherwise. nerfstudio's `applied_transform` and `applied_scale`
say what was done to the world before the poses were stored; `world="original"` undoes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pathtracer.capture.cameras import MATRICES, Camera, Matrix, camera_to_world, check_convention, stored
from pathtracer.capture.headers import read_header
from pathtracer.capture.shots import Capture, Shot, find_image, find_mask, number, read_json, unique_names
from pathtracer.errors import InputError, UsageError, nearest_names

WORLDS = ("stored", "original")
#: Lens distortion, which a pinhole has not.
_DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
_PINHOLES = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "SIMPLE_RADIAL", "RADIAL", "FULL_OPENCV")
UNDISTORT = "undistort the pictures first (`colmap image_undistorter`, or OpenCV's `undistort`)"


def read_transforms(
    path: str | Path,
    convention: str = "opengl",
    matrices: str = "camera-to-world",
    world: str = "stored",
    masks: str | Path | None = None,
) -> Capture:
    """The capture of a transforms file.

    Args:
        path: the file, or a folder with `transforms.json` (or Blender's `transforms_train.json`, with the pictures of
            `transforms_test.json` held out).
        convention: of the camera axes: "opengl", "opencv" or "mitsuba".
        matrices: "camera-to-world" or "world-to-camera".
        world: "stored" takes poses as they are, "original" undoes nerfstudio's applied transform and scale.
        masks: folder of masks, for pictures whose frame names none.
    Raises:
        InputError: a file or picture that is missing, malformed, distorted or mirrored, with file, frame and key.
        UsageError: an unknown convention.
    """
    check_convention(convention)
    for value, known, what in ((matrices, MATRICES, "matrices"), (world, WORLDS, "world")):
        if value not in known:
            raise UsageError(
                f"unknown {what} {value!r}, one of {', '.join(known)}", nearest=nearest_names(value, known)
            )
    path = Path(path)
    if path.is_dir():
        path, test = _files(path)
    else:
        test = None
    mask_folder = None if masks is None else Path(masks)
    capture = _read(path, convention, matrices, world, mask_folder)
    if test is not None:
        heldout = _read(test, convention, matrices, world, mask_folder)
        for shot in heldout.shots:
            shot.holdout = True
        capture.notes.append(f"the {len(heldout.shots)} views of {test.name} are held out")
        capture.shots += heldout.shots
    unique_names(capture.shots)
    return capture


def write_transforms(capture: Capture, path: str | Path) -> Path:
    """Write a transforms file in OpenGL's axes, with intrinsics in every frame.

    Raises:
        StorageFault: the folder cannot be written.
    """
    from pathtracer.capture.images import atomic_path

    path = Path(path)
    frames = []
    for shot in capture.shots:
        c = shot.camera
        frame: dict[str, Any] = {
            "file_path": _relative(shot.file, path.parent),
            **{"w": c.width, "h": c.height, "fl_x": c.fx, "fl_y": c.fy, "cx": c.cx, "cy": c.cy},
            "transform_matrix": stored(c.to_world, "opengl").tolist(),
        }
        if shot.mask:
            frame["mask_path"] = _relative(shot.mask, path.parent)
        frames.append(frame)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"camera_model": "PINHOLE", "frames": frames}, indent=1) + "\n")
    return path


def _relative(file: Path, folder: Path) -> str:
    import os

    return Path(os.path.relpath(file, folder)).as_posix()


def _files(folder: Path) -> tuple[Path, Path | None]:
    """The transforms file of a folder, and the one of its held-out pictures."""
    if (folder / "transforms.json").is_file():
        return folder / "transforms.json", None
    train, test = folder / "transforms_train.json", folder / "transforms_test.json"
    if train.is_file():
        return train, test if test.is_file() else None
    near = nearest_names("transforms.json", [p.name for p in folder.glob("*.json")])
    raise InputError("holds no transforms.json (nor transforms_train.json)", folder, nearest=near)


def _read(path: Path, convention: str, matrices: str, world: str, masks: Path | None) -> Capture:
    data = read_json(path)
    frames = data.get("frames")
    if not isinstance(frames, list):
        raise InputError("has no list of 'frames'", path, nearest=nearest_names("frames", data))
    if not frames:
        raise InputError("its list of frames is empty", path)
    _refuse_unsupported(data, path)
    capture = Capture([], path)
    undo = _undo(data, path)
    if undo is not None and world == "stored":
        capture.notes.append(
            "applied_transform and applied_scale of the file were left as they are: the world is the stored one "
            '(world = "original" undoes them)'
        )
    elif undo is None and world == "original":
        capture.notes.append("the file has no applied_transform, so the stored world is the original one")
    scales = []
    for index, frame in enumerate(frames):
        where = f"{path}: frame {index + 1}"
        if not isinstance(frame, dict):
            raise InputError(f"is {frame!r:.40}, an object was expected", where)
        file = find_image(path.parent, frame.get("file_path"), where)
        where = f"{where} ({file.name})"
        _refuse_unsupported(frame, where)
        if "transform_matrix" not in frame:
            raise InputError("has no 'transform_matrix'", where, nearest=nearest_names("transform_matrix", frame))
        pose, scale = camera_to_world(frame["transform_matrix"], where, convention, matrices)
        scales.append(scale)
        if undo is not None and world == "original":
            pose = _moved(pose, undo)
        mask = None
        if frame.get("mask_path") is not None:
            mask = find_image(path.parent, frame["mask_path"], where)
        elif masks is not None:
            mask = find_mask(masks, file, where)
        camera = Camera(**_intrinsics(frame, data, file, where), to_world=pose)
        capture.shots.append(Shot(file, file.stem, camera, mask))
    if not np.allclose(scales, 1, atol=1e-3):
        capture.notes.append(
            f"the camera matrices hold a scale of {np.median(scales):.4g}, which was taken out of their rotations"
        )
    _hold_out(capture, data)
    capture.notes.append(
        f"camera axes are taken as {convention} ({matrices}), {len(capture.shots)} frames of {path.name}"
    )
    return capture


def _intrinsics(frame: Mapping[str, Any], data: Mapping[str, Any], file: Path, where: str) -> dict[str, Any]:
    """Size, focal lengths and principal point of a frame."""

    def get(key: str, positive: bool = True) -> float | None:
        value = number(frame, key, where, positive)
        return number(data, key, where, positive) if value is None else value

    width, height = get("w"), get("h")
    if width is None or height is None:
        header = read_header(file)
        width, height = header.width, header.height
    if width != int(width) or height != int(height):
        raise InputError(f"w and h are {width} and {height}, whole numbers were expected", where)
    focal = {}
    for axis, size in (("x", width), ("y", height)):
        length, angle = get(f"fl_{axis}"), get(f"camera_angle_{axis}")
        if length is None and angle is not None:
            if angle >= math.pi:
                remedy = "angles are in radians" if angle <= 180 else None
                raise InputError(f"camera_angle_{axis} is {angle}, less than pi was expected", where, remedy=remedy)
            length = 0.5 * size / math.tan(0.5 * angle)
        focal[axis] = length
    if focal["x"] is None and focal["y"] is None:
        near = nearest_names("camera_angle_x", [*frame, *data])
        raise InputError("neither fl_x nor camera_angle_x says how wide the camera sees", where, nearest=near)
    cx, cy = get("cx", False), get("cy", False)
    return {
        "width": int(width),
        "height": int(height),
        "fx": focal["x"] or focal["y"],
        "fy": focal["y"] or focal["x"],
        "cx": width / 2 if cx is None else cx,
        "cy": height / 2 if cy is None else cy,
    }


def _refuse_unsupported(table: Mapping[str, Any], where: object) -> None:
    """Refuse lenses that are no pinhole."""
    model = table.get("camera_model")
    if model is not None and str(model).upper() not in _PINHOLES:
        raise InputError(f"the camera model {model!r} is no pinhole", where, remedy=UNDISTORT)
    if table.get("is_fisheye"):
        raise InputError("a fisheye lens is no pinhole", where, remedy=UNDISTORT)
    found = [f"{k} = {table[k]}" for k in _DISTORTION if number(table, k, where)]
    params = table.get("distortion_params")
    if isinstance(params, list) and any(params):
        found.append(f"distortion_params = {params}")
    if found:
        raise InputError(f"the lens distorts ({', '.join(found)}), which a pinhole does not", where, remedy=UNDISTORT)


def _undo(data: Mapping[str, Any], path: Path) -> Matrix | None:
    """(4, 4) from the stored to the original world, None when nothing was applied."""
    applied, scale = data.get("applied_transform"), number(data, "applied_scale", path, positive=True) or 1.0
    if applied is None and scale == 1.0:
        return None
    matrix = np.eye(4)
    if applied is not None:
        try:
            rows = np.array(applied, np.float64)
        except (ValueError, TypeError):
            rows = np.zeros(0)
        if rows.shape not in ((3, 4), (4, 4)) or not np.isfinite(rows).all() or np.linalg.det(rows[:3, :3]) == 0:
            raise InputError("applied_transform is no invertible table of 3 x 4 numbers", path)
        matrix[:3] = rows[:3]
        if np.linalg.det(matrix[:3, :3]) < 0:
            raise InputError("applied_transform mirrors: its determinant is negative", path)
    matrix[:3] *= scale  # nerfstudio: the transform first, then the scale of the positions
    return np.asarray(np.linalg.inv(matrix), np.float64)


def _moved(pose: Matrix, motion: Matrix) -> Matrix:
    """A pose after a motion of the world that may scale it."""
    out = motion @ pose
    out[:3, :3] /= np.cbrt(np.linalg.det(out[:3, :3]))
    return out


def _hold_out(capture: Capture, data: Mapping[str, Any]) -> None:
    """nerfstudio's lists of test and validation pictures."""
    listed = {str(n).replace("\\", "/") for k in ("test_filenames", "val_filenames") for n in data.get(k) or []}
    held = 0
    for shot in capture.shots:
        if any(shot.file.as_posix().endswith(n.removeprefix("./")) for n in listed):
            shot.holdout, held = True, held + 1
    if held:
        capture.notes.append(f"{held} views are held out, as test_filenames and val_filenames say")
