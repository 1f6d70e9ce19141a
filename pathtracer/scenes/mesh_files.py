"""Mesh files checked before Mitsuba reads them.

Stock Mitsuba trusts what a PLY says: a face that points outside the vertices crashes the process, and a header that
claims four billion vertices allocates them. Here counts are compared with the size of the file before anything is
allocated, and all indices and coordinates are looked at.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pathtracer.errors import InputError, nearest_names

_PLY_TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "half": "f2",
    "float16": "f2",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}
_PLY_HEADER_LIMIT = 1 << 20


@dataclass
class MeshArrays:
    """Vertices (V, 3) and triangles (F, 3) of a mesh file."""

    vertices: npt.NDArray[Any]
    faces: npt.NDArray[np.int64]


def check_mesh(path: Path, where: str) -> MeshArrays:
    """Read a PLY, OBJ or serialized mesh and refuse what would crash or poison a render.

    Raises:
        InputError: missing, damaged, counts that the file cannot hold, faces that point outside, NaN vertices.
    """
    if path.is_dir():
        raise InputError(f"the mesh {path.name!r} is a folder", where=where)
    if not path.is_file():
        folder = path.parent
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        raise InputError(f"no such mesh file {str(path)!r}", where=where, nearest=nearest_names(path.name, names))
    data = path.read_bytes()
    if not data:
        raise InputError(f"the mesh {path.name!r} is empty", where=where)
    fault = _Fault(path, where)
    if data[:3] == b"ply":
        mesh = _read_ply(data, fault)
    elif path.suffix.lower() == ".ply":
        raise fault("is not a PLY file")
    else:
        mesh = _read_obj(data, fault)
    return _check_arrays(mesh, fault)


def check_serialized(path: Path, where: str, shape_index: int = 0) -> MeshArrays:
    """The same for one shape of Mitsuba's `.serialized` format."""
    if not path.is_file():
        raise InputError(f"no such mesh file {str(path)!r}", where=where)
    fault = _Fault(path, where)
    return _check_arrays(_read_serialized(path.read_bytes(), shape_index, fault), fault)


class _Fault:
    """Makes errors that name the node and the file."""

    def __init__(self, path: Path, where: str) -> None:
        self.path, self.where = path, where

    def __call__(self, message: str, remedy: str | None = None) -> InputError:
        return InputError(f"the mesh {self.path.name!r} {message}", where=self.where, remedy=remedy)


def _check_arrays(mesh: MeshArrays, fault: _Fault) -> MeshArrays:
    if not len(mesh.faces):
        raise fault("has no faces")
    count = len(mesh.vertices)
    outside = (mesh.faces < 0) | (mesh.faces >= count)
    if outside.any():
        face = int(np.argmax(outside.any(axis=1)))
        raise fault(
            f"has {int(outside.any(axis=1).sum())} faces that point outside its {count} vertices, "
            f"the first is face {face} with index {int(mesh.faces[face][outside[face]][0])}"
        )
    bad = ~np.isfinite(mesh.vertices).all(axis=1)
    if bad.any():
        raise fault(
            f"has {int(bad.sum())} vertices that are NaN or infinite, the first is vertex {int(np.argmax(bad))}"
        )
    return mesh


# -- PLY -------------------------------------------------------------------------------------------


@dataclass
class _Element:
    name: str
    count: int
    #: (name, dtype, dtype of the list's length or None)
    properties: list[tuple[str, str, str | None]]


def _read_ply(data: bytes, fault: _Fault) -> MeshArrays:
    kind, elements, at = _ply_header(data, fault)
    vertices: npt.NDArray[Any] | None = None
    faces: npt.NDArray[np.int64] | None = None
    if kind == "ascii":
        tokens = data[at:].split()
        rows = _ascii_rows(tokens, elements, fault)
    else:
        rows = _binary_rows(data, at, elements, "<" if kind == "binary_little_endian" else ">", fault)
    for element, columns in rows:
        if element.name == "vertex":
            if not all(axis in columns for axis in "xyz"):
                raise fault("has vertices without x, y and z")
            vertices = np.stack([columns[axis] for axis in "xyz"], axis=1).astype(np.float64)
        elif element.name == "face":
            lists = [columns[n] for n, _, length in element.properties if length and n.startswith("vertex_ind")]
            if not lists:
                raise fault("has faces without a list vertex_index or vertex_indices")
            faces = lists[0].astype(np.int64).reshape(-1, 3)
    if vertices is None or faces is None:
        raise fault("has no " + ("vertices" if vertices is None else "faces"))
    return MeshArrays(vertices, faces)


def _ply_header(data: bytes, fault: _Fault) -> tuple[str, list[_Element], int]:
    end = data.find(b"end_header", 0, _PLY_HEADER_LIMIT)
    newline = data.find(b"\n", end)
    if end < 0 or newline < 0:
        raise fault("has a truncated PLY header")
    kind = ""
    elements: list[_Element] = []
    try:
        for line in data[:end].decode("ascii").splitlines():
            words = line.split()
            if not words or words[0] in ("ply", "comment", "obj_info"):
                continue
            if words[0] == "format":
                kind = words[1]
            elif words[0] == "element":
                elements.append(_Element(words[1], int(words[2]), []))
            elif words[0] == "property" and words[1] == "list":
                elements[-1].properties.append((words[4], _PLY_TYPES[words[3]], _PLY_TYPES[words[2]]))
            elif words[0] == "property":
                elements[-1].properties.append((words[2], _PLY_TYPES[words[1]], None))
            else:
                raise ValueError(line)
    except (ValueError, KeyError, IndexError):
        raise fault("has a damaged PLY header") from None
    if kind not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise fault(f"has the unknown PLY format {kind!r}")
    # No element can be smaller than one byte (two characters in ASCII) a property; a list has at least its length.
    room = len(data) - newline - 1
    for element in elements:
        least = sum(
            1 if kind == "ascii" else np.dtype(length or dtype).itemsize for _, dtype, length in element.properties
        )
        if element.count < 0 or element.count * max(1, least) > room:
            raise fault(f"claims {element.count} elements {element.name!r}, more than its {len(data)} bytes can hold")
    return kind, elements, newline + 1


def _ascii_rows(tokens: list[bytes], elements: list[_Element], fault: _Fault) -> Any:
    at = 0
    for element in elements:
        lists = [p for p in element.properties if p[2]]
        try:
            if not lists:
                width = len(element.properties)
                block = np.array(tokens[at : at + width * element.count], dtype=np.float64).reshape(-1, width)
                if len(block) != element.count:
                    raise IndexError
                at += width * element.count
                yield element, {name: block[:, i] for i, (name, _, _) in enumerate(element.properties)}
                continue
            columns: dict[str, list[Any]] = {name: [] for name, _, _ in element.properties}
            for row in range(element.count):
                for name, _, length in element.properties:
                    if length is None:
                        columns[name].append(float(tokens[at]))
                        at += 1
                        continue
                    count = int(tokens[at])
                    if element.name == "face":
                        _check_triangle(count, row, fault)
                    values = [float(t) for t in tokens[at + 1 : at + 1 + count]]
                    if len(values) != count:
                        raise IndexError
                    columns[name].append(values)
                    at += 1 + count
            yield (
                element,
                {
                    name: np.array(values, dtype=np.float64 if element.name == "face" else object)
                    for name, values in columns.items()
                },
            )
        except IndexError:
            raise fault(f"ends before its {element.count} elements {element.name!r}") from None
        except ValueError:
            raise fault(f"has something that is no number among its elements {element.name!r}") from None


def _binary_rows(data: bytes, at: int, elements: list[_Element], order: str, fault: _Fault) -> Any:
    for element in elements:
        fields: list[Any] = []
        for name, dtype, length in element.properties:
            if length is None:
                fields.append((name, order + dtype))
            elif element.name == "face":  # Mitsuba reads triangles only: a fixed layout
                fields += [(f"{name}.count", order + length), (name, order + dtype, (3,))]
            else:
                raise fault(f"has a list in its elements {element.name!r}, which Mitsuba does not read")
        layout = np.dtype(fields)
        available = (len(data) - at) // max(1, layout.itemsize)
        block = np.frombuffer(data, dtype=layout, count=min(element.count, available), offset=at)
        for name, _, length in element.properties:
            if length is not None and element.name == "face":
                wrong = block[f"{name}.count"] != 3
                if wrong.any():
                    row = int(np.argmax(wrong))
                    _check_triangle(int(block[f"{name}.count"][row]), row, fault)
        if available < element.count:
            raise fault(
                f"claims {element.count} elements {element.name!r} but ends after {available}: "
                "truncated, or a wrong count"
            )
        at += layout.itemsize * element.count
        yield element, {name: block[name] for name, _, _ in element.properties}


def _check_triangle(count: int, row: int, fault: _Fault) -> None:
    if count != 3:
        raise fault(
            f"has a face with {count} corners (face {row})",
            remedy="triangulate it: Mitsuba's PLY reader takes triangles",
        )


# -- OBJ -------------------------------------------------------------------------------------------


def _read_obj(data: bytes, fault: _Fault) -> MeshArrays:
    vertices: list[list[float]] = []
    faces: list[tuple[int, int, int]] = []
    seen = {b"vt": 0, b"vn": 0}
    for number, line in enumerate(data.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            if words[0] == b"v":
                vertices.append([float(words[1]), float(words[2]), float(words[3])])
            elif words[0] in seen:
                seen[words[0]] += 1
            elif words[0] == b"f":
                corners = [_obj_corner(w, len(vertices), seen, number, fault) for w in words[1:]]
                faces += [(corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1)]
        except (ValueError, IndexError):
            raise fault(f"has something that is no {words[0].decode()} entry in line {number}") from None
    if not vertices:
        raise fault("has no vertices: is it an OBJ file?")
    return MeshArrays(np.array(vertices, dtype=np.float64), np.array(faces, dtype=np.int64).reshape(-1, 3))


def _obj_corner(word: bytes, vertices: int, seen: dict[bytes, int], number: int, fault: _Fault) -> int:
    parts = word.split(b"/")
    for part, known, what in zip(
        parts, (vertices, seen[b"vt"], seen[b"vn"]), ("vertex", "texture coordinate", "normal"), strict=False
    ):
        if not part:
            continue
        index = int(part)
        if index < 0:
            raise fault(
                f"counts a {what} from the end ({index}, line {number}), which Mitsuba does not read",
                remedy="export it with absolute indices",
            )
        if not 1 <= index <= known:
            raise fault(f"points at {what} {index} in line {number}, but only {known} stand before it")
    return int(parts[0]) - 1


# -- serialized ------------------------------------------------------------------------------------


def _read_serialized(data: bytes, shape_index: int, fault: _Fault) -> MeshArrays:
    """One shape of a Mitsuba `.serialized` file: a deflated stream per shape, offsets at the end of the file."""
    try:
        magic, version = struct.unpack_from("<HH", data, 0)
        if magic != 0x041C or version not in (3, 4):
            raise fault("is not a Mitsuba serialized file of version 3 or 4")
        (count,) = struct.unpack_from("<I", data, len(data) - 4)
        size = 8 if version == 4 else 4
        if not 0 <= shape_index < count:
            raise fault(f"has {count} shapes, so shape_index {shape_index} does not exist")
        (start,) = struct.unpack_from(
            "<Q" if version == 4 else "<I", data, len(data) - 4 - size * (count - shape_index)
        )
        body = zlib.decompressobj().decompress(data[start + 4 :], 2**31)
        (flags,) = struct.unpack_from("<I", body, 0)
        at = 4
        if version == 4:
            at = body.index(b"\0", at) + 1
        vertex_count, face_count = struct.unpack_from("<QQ", body, at)
        at += 16
        real = np.dtype("<f8" if flags & 0x2000 else "<f4")
        if vertex_count * 3 * real.itemsize + face_count * 12 > len(body) - at:
            raise fault(f"claims {vertex_count} vertices and {face_count} faces, more than its data can hold")
        vertices = np.frombuffer(body, real, vertex_count * 3, at).reshape(-1, 3)
        at += vertices.nbytes
        for flag, width in ((0x0001, 3), (0x0002, 2), (0x0008, 3)):
            at += vertex_count * width * real.itemsize if flags & flag else 0
        index = np.dtype("<u8" if vertex_count > 0xFFFFFFFF else "<u4")
        faces = np.frombuffer(body, index, face_count * 3, at).reshape(-1, 3).astype(np.int64)
    except (struct.error, ValueError, IndexError, zlib.error):
        raise fault("is truncated or damaged") from None
    return MeshArrays(vertices.astype(np.float64), faces)
