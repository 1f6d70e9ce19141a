"""COLMAP's sparse reconstructions: cameras, image poses and points, as text or binary.

    capture = read_colmap("project/sparse/0")          # pictures in project/images

Poses are stored world-to-camera as a quaternion (w, x, y, z) and a translation, in OpenCV's axes. Read are the models
SIMPLE_PINHOLE and PINHOLE, and the others when all their distortion is zero. Formats: https://colmap.github.io/format.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathtracer.capture.cameras import Camera, Matrix, camera_to_world, inverse, stored
from pathtracer.capture.shots import Capture, Shot, find_image, find_mask, read_text, require_file, unique_names
from pathtracer.capture.transforms import UNDISTORT
from pathtracer.errors import InputError, nearest_names

#: Model id -> (name, number of focal lengths, number of parameters); focal lengths and the principal point come first.
MODELS: dict[int, tuple[str, int, int]] = {
    0: ("SIMPLE_PINHOLE", 1, 3),
    1: ("PINHOLE", 2, 4),
    2: ("SIMPLE_RADIAL", 1, 4),
    3: ("RADIAL", 1, 5),
    4: ("OPENCV", 2, 8),
    5: ("OPENCV_FISHEYE", 2, 8),
    6: ("FULL_OPENCV", 2, 12),
    7: ("FOV", 2, 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 1, 4),
    9: ("RADIAL_FISHEYE", 1, 5),
    10: ("THIN_PRISM_FISHEYE", 2, 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 2, 16),
}
_BY_NAME = {name: (name, focal, count) for name, focal, count in MODELS.values()}
#: Where pictures may lie, from the folder of the reconstruction.
_IMAGES = ("images", "../images", "../../images", "..", "../..", ".")
#: Points are only used to see how large the scene is.
_MAX_POINTS = 10_000_000


@dataclass
class _Pose:
    name: str
    camera: int
    quaternion: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass
class _Lens:
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float


def read_colmap(path: str | Path, images: str | Path | None = None, masks: str | Path | None = None) -> Capture:
    """The capture of a COLMAP reconstruction.

    Args:
        path: the folder with cameras.bin and images.bin (or .txt), or one above it (`sparse/0`, `sparse`).
        images: folder of the pictures; None looks for `images` beside and above.
        masks: folder of masks, named like the pictures or, as COLMAP has it, NAME.png.
    Raises:
        InputError: missing, truncated or malformed files, distorted cameras, missing pictures.
    """
    path = Path(path)
    folder, suffix = _model_folder(path)
    if suffix == ".bin":
        lenses = _lenses_binary(folder / "cameras.bin")
        poses = _poses_binary(folder / "images.bin")
    else:
        lenses = _lenses_text(folder / "cameras.txt")
        poses = _poses_text(folder / "images.txt")
    source = folder / f"images{suffix}"
    if not poses:
        raise InputError("holds no image with a pose", source)
    root = _image_folder(folder, poses, images)
    capture = Capture([], folder)
    for pose in sorted(poses, key=lambda p: p.name):
        where = f"{source}: image {pose.name!r}"
        if pose.camera not in lenses:
            raise InputError(f"names camera {pose.camera}, which cameras{suffix} does not have", where)
        lens = lenses[pose.camera]
        file = find_image(root, pose.name, where)
        mask = None if masks is None else find_mask(Path(masks), file, where, pose.name)
        world_to_camera = np.eye(4)
        world_to_camera[:3, :3], world_to_camera[:3, 3] = _rotation(pose.quaternion, where), pose.translation
        matrix, _ = camera_to_world(world_to_camera, where, "opencv", "world-to-camera")
        camera = Camera(lens.width, lens.height, lens.fx, lens.fy, lens.cx, lens.cy, matrix)
        capture.shots.append(Shot(file, Path(pose.name).stem, camera, mask))
    capture.points = _points(folder)
    capture.notes.append(
        f"{len(poses)} images and {len(lenses)} camera{'s' if len(lenses) != 1 else ''} of {folder}, pictures in {root}"
    )
    unique_names(capture.shots)
    return capture


def write_colmap(capture: Capture, folder: str | Path, binary: bool = True) -> Path:
    """Write a reconstruction without points: one PINHOLE camera per distinct lens.

    Raises:
        StorageFault: the folder cannot be written.
    """
    from pathtracer.capture.images import atomic_path

    folder = Path(folder)
    lenses: dict[tuple[float, ...], int] = {}
    rows = []
    for k, shot in enumerate(capture.shots):
        c = shot.camera
        camera = lenses.setdefault((c.width, c.height, c.fx, c.fy, c.cx, c.cy), len(lenses) + 1)
        pose = inverse(stored(c.to_world, "opencv"))
        rows.append((k + 1, (*_quaternion(pose[:3, :3]), *pose[:3, 3]), camera, shot.file.name))
    if binary:
        cameras = struct.pack("<Q", len(lenses)) + b"".join(
            struct.pack("<iiQQ4d", k, 1, int(v[0]), int(v[1]), *v[2:]) for v, k in lenses.items()
        )
        images = struct.pack("<Q", len(rows)) + b"".join(
            struct.pack("<i7di", k, *pose, camera) + name.encode() + b"\0" + struct.pack("<Q", 0)
            for k, pose, camera, name in rows
        )
    else:
        cameras = "".join(
            f"{k} PINHOLE {v[0]} {v[1]} {' '.join(repr(float(x)) for x in v[2:])}\n" for v, k in lenses.items()
        ).encode()
        images = "".join(
            f"{k} {' '.join(repr(float(x)) for x in pose)} {camera} {name}\n\n" for k, pose, camera, name in rows
        ).encode()
    suffix = ".bin" if binary else ".txt"
    for name, data in (("cameras", cameras), ("images", images)):
        with atomic_path(folder / (name + suffix)) as temporary:
            temporary.write_bytes(data)
    return folder


def _model_folder(path: Path) -> tuple[Path, str]:
    """Where the reconstruction lies, and whether it is binary."""
    if path.is_file():
        path = path.parent
    if not path.is_dir():
        parent = path.parent
        names = [p.name for p in parent.iterdir()] if parent.is_dir() else []
        raise InputError("no such folder", path, nearest=nearest_names(path.name, names))
    for folder in (path, path / "sparse" / "0", path / "sparse", path / "0"):
        for suffix in (".bin", ".txt"):
            if (folder / f"images{suffix}").is_file():
                require_file(folder / f"cameras{suffix}")
                return folder, suffix
    raise InputError(
        "holds no COLMAP reconstruction (images.bin or images.txt, here or in sparse/0)",
        path,
        remedy="name the folder that COLMAP's mapper or model_converter wrote",
    )


def _image_folder(folder: Path, poses: list[_Pose], images: str | Path | None) -> Path:
    if images is not None:
        if not Path(images).is_dir():
            raise InputError("is no folder of pictures", images)
        return Path(images)
    for name in _IMAGES:
        candidate = (folder / name).resolve()
        if (candidate / poses[0].name).is_file():
            return candidate
    raise InputError(
        f"the picture {poses[0].name!r} lies neither in {folder} nor in an 'images' folder beside or above it",
        folder,
        remedy="name the folder of the pictures (--images, or image_folder in [views])",
    )


def _lens(model: str, width: float, height: float, params: list[float], where: str) -> _Lens:
    name, focal, count = _BY_NAME[model]
    if len(params) != count:
        raise InputError(f"a {name} camera has {count} parameters, not {len(params)}", where)
    if not np.isfinite(params).all() or min(params[:focal]) <= 0 or min(width, height) < 1:
        raise InputError(f"the {name} camera has impossible numbers: {width:g} x {height:g}, {params}", where)
    if any(params[focal + 2 :]) or "FISHEYE" in name or name == "FOV":
        raise InputError(f"the camera model {name} distorts, which a pinhole does not", where, remedy=UNDISTORT)
    fx, fy = params[0], params[focal - 1]
    return _Lens(int(width), int(height), fx, fy, params[focal], params[focal + 1])


def _rotation(quaternion: tuple[float, ...], where: str) -> Matrix:
    from scipy.spatial.transform import Rotation

    q = np.array(quaternion)
    if not np.isfinite(q).all() or not np.linalg.norm(q) > 1e-6:
        raise InputError(f"the rotation {quaternion} is no quaternion", where)
    return Rotation.from_quat(q[[1, 2, 3, 0]]).as_matrix()


def _quaternion(rotation: Matrix) -> tuple[float, ...]:
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(rotation).as_quat()
    return float(w), float(x), float(y), float(z)


# -- text ---------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """(place, text) of each line that is no comment; empty lines count, because an image without points has one."""
    for k, line in enumerate(read_text(path).splitlines()):
        if not line.lstrip().startswith("#"):
            yield f"{path}:{k + 1}", line.strip()


def _floats(words: list[str], where: str) -> list[float]:
    try:
        return [float(w) for w in words]
    except ValueError:
        raise InputError(f"numbers were expected, not {' '.join(words)!r}", where) from None


def _lenses_text(path: Path) -> dict[int, _Lens]:
    lenses: dict[int, _Lens] = {}
    for where, line in _lines(path):
        if not line:
            continue
        words = line.split()
        if len(words) < 4:
            raise InputError("a camera is 'ID MODEL WIDTH HEIGHT PARAMETERS'", where)
        if words[1] not in _BY_NAME:
            raise InputError(f"unknown camera model {words[1]!r}", where, nearest=nearest_names(words[1], _BY_NAME))
        identity, width, height, *params = _floats([words[0], *words[2:]], where)
        lenses[int(identity)] = _lens(words[1], width, height, params, where)
    return lenses


def _poses_text(path: Path) -> list[_Pose]:
    poses: list[_Pose] = []
    lines = _lines(path)
    for where, line in lines:
        if not line:
            continue
        words = line.split(maxsplit=9)
        if len(words) < 10:
            raise InputError("an image is 'ID QW QX QY QZ TX TY TZ CAMERA NAME', then a line of its points", where)
        numbers = _floats(words[:9], where)
        poses.append(_Pose(words[9], int(numbers[8]), tuple(numbers[1:5]), tuple(numbers[5:8])))
        next(lines, None)  # its points in the picture
    return poses


# -- binary ---------------------------------------------------------------------------------------------------------


class _Reader:
    """Reads a binary file from its start; a file that ends too early is an error, not an exception of `struct`."""

    def __init__(self, path: Path) -> None:
        require_file(path)
        self.path, self.data, self.at = path, path.read_bytes(), 0

    def take(self, layout: str) -> tuple[Any, ...]:
        size = struct.calcsize("<" + layout)
        self.skip(size)
        return struct.unpack_from("<" + layout, self.data, self.at - size)

    def skip(self, size: int) -> None:
        if size < 0 or self.at + size > len(self.data):
            raise InputError(
                f"ends after {len(self.data)} bytes, in the middle of its content", self.path, remedy="copy it again"
            )
        self.at += size

    def text(self) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            self.skip(len(self.data) + 1)
        word, self.at = self.data[self.at : end], end + 1
        try:
            return word.decode()
        except UnicodeDecodeError:
            raise InputError(f"holds the image name {word!r}, which is not UTF-8", self.path) from None

    def count(self, smallest: int) -> int:
        """A number of entries of at least so many bytes each."""
        (n,) = self.take("Q")
        if n * smallest > len(self.data) - self.at:
            raise InputError(f"claims {n} entries, more than its {len(self.data)} bytes can hold", self.path)
        return int(n)


def _lenses_binary(path: Path) -> dict[int, _Lens]:
    reader, lenses = _Reader(path), {}
    for _ in range(reader.count(24)):
        identity, model, width, height = reader.take("iiQQ")
        if model not in MODELS:
            raise InputError(f"camera {identity} has the unknown model number {model}", path)
        name, _, count = MODELS[model]
        lenses[identity] = _lens(name, width, height, list(reader.take(f"{count}d")), f"{path}: camera {identity}")
    return lenses


def _poses_binary(path: Path) -> list[_Pose]:
    reader, poses = _Reader(path), []
    for _ in range(reader.count(64)):
        _, *numbers, camera = reader.take("i7di")
        name = reader.text()
        reader.skip(24 * reader.count(24))
        poses.append(_Pose(name, camera, tuple(numbers[:4]), tuple(numbers[4:])))
    return poses


# -- points -------------------------------------------------------------------------------------------------------


def _points(folder: Path) -> Matrix | None:
    """(N, 3) points of the reconstruction; None without a file of them or when it is empty."""
    points: list[Any] = []
    if (folder / "points3D.bin").is_file():
        reader = _Reader(folder / "points3D.bin")
        for _ in range(reader.count(51)):
            _, x, y, z, _, _, _, _, track = reader.take("Q3d3BdQ")
            points.append((x, y, z))
            reader.skip(8 * track)
    elif (folder / "points3D.txt").is_file():
        for where, line in _lines(folder / "points3D.txt"):
            if line:
                points.append(_floats(line.split()[1:4], where))
    found = np.array(points[:_MAX_POINTS], np.float64).reshape(-1, 3)
    found = found[np.isfinite(found).all(axis=1)]
    return found if len(found) else None
