"""Broken meshes end in one sentence and exit code 3, before Mitsuba reads them."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.broken_scenes import TRIANGLE, fails, ply, scene, shape

from pathtracer.scenes import load_scene


def binary_ply(indices: list[int], claimed: int | None = None, truncate: int = 0) -> bytes:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")
    header = (
        "ply\nformat binary_little_endian 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
        f"property float z\nelement face {claimed or 1}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    data = header.encode() + vertices.tobytes() + struct.pack("<B3i", 3, *indices)
    return data[: len(data) - truncate]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.ply", None, "no such mesh file"),
        ("a.ply", b"", "is empty"),
        ("a.ply", b"not a mesh", "is not a PLY file"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 3\n", "truncated PLY header"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex many\nend_header\n", "damaged PLY header"),
        (
            "a.ply",
            ply(TRIANGLE, "3 0 1 7"),
            "1 faces that point outside its 3 vertices, the first is face 0 with index 7",
        ),
        ("a.ply", ply(TRIANGLE, "3 0 1 -1"), "point outside its 3 vertices, the first is face 0 with index -1"),
        ("a.ply", binary_ply([0, 1, 1_000_000]), "index 1000000"),
        ("a.ply", binary_ply([0, 1, 2], claimed=4_000_000_000), "claims 4000000000 elements 'face', more than its"),
        ("a.ply", binary_ply([0, 1, 2], claimed=4), "claims 4 elements 'face' but ends after 1"),
        ("a.ply", binary_ply([0, 1, 2], truncate=6), "claims 1 elements 'face' but ends after 0"),
        ("a.ply", ply(TRIANGLE, "", f=0), "has no faces"),
        (
            "a.ply",
            ply("0 0 0\n1 nan 0\n0 1 0", "3 0 1 2"),
            "1 vertices that are NaN or infinite, the first is vertex 1",
        ),
        ("a.ply", ply(TRIANGLE + "\n1 1 0", "4 0 1 2 3", v=4), r"a face with 4 corners \(face 0\); triangulate it"),
        ("a.ply", ply(TRIANGLE, "0 1 2").replace("list uchar int", "int"), "faces without a list vertex_index"),
        ("a.ply", ply(TRIANGLE, "3 0 one 2"), "no number among its elements 'face'"),
        ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "points at vertex 9 in line 4, but only 3 stand before it"),
        ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 0\n", "points at vertex 0 in line 4"),
        ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf -1 -2 -3\n", r"counts a vertex from the end \(-1, line 4\)"),
        ("a.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1/5 2/5 3/5\n", "points at texture coordinate 5 in line 4, but only 0"),
        ("a.obj", "v 0 nan 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "NaN or infinite"),
        ("a.obj", "v 0 0 0\nv 1 0 0\n", "has no faces"),
        ("a.obj", "v 0 zero 0\n", "no v entry in line 1"),
        ("a.serialized", b"\x1c\x04\x04\x00broken", "truncated or damaged"),
    ],
)
def test_a_broken_mesh_is_refused_before_mitsuba_reads_it(
    tmp_path: Path, name: str, content: str | bytes | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    error = fails(tmp_path, scene(shape(name.split(".")[1], name)))
    assert re.search(sentence, str(error)), str(error)
    assert "line 4, column 1: shape 'it'" in str(error) and name in str(error)
    assert error.exit_code == 3


def test_a_mesh_with_odd_triangles_loads_with_a_count(tmp_path: Path) -> None:
    faces = "3 0 1 2\n3 2 1 0\n3 0 0 1\n3 0 1 3"
    (tmp_path / "a.ply").write_text(ply(TRIANGLE + "\n0 0 1", faces, v=4, f=4))
    path = tmp_path / "scene.xml"
    path.write_text(scene(shape("ply", "a.ply")))
    loaded = load_scene(path)
    assert any(
        "1 triangle without area, 1 duplicate triangle, 1 edge with more than two triangles" in w
        for w in loaded.warnings
    )
    assert np.isfinite(loaded.render(4)).all()


def test_a_serialized_mesh_is_read_and_checked(tmp_path: Path) -> None:
    def serialized(index: int) -> bytes:
        vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")
        body = struct.pack("<I", 0x1000) + b"name\0" + struct.pack("<QQ", 3, 1) + vertices.tobytes()
        body += struct.pack("<3I", 0, 1, index)
        stream = struct.pack("<HH", 0x041C, 4) + zlib.compress(body)
        return stream + struct.pack("<QI", 0, 1)

    (tmp_path / "a.serialized").write_bytes(serialized(5))
    error = fails(tmp_path, scene(shape("serialized", "a.serialized")))
    assert "point outside its 3 vertices" in str(error)
    (tmp_path / "a.serialized").write_bytes(serialized(2))
    assert "it.vertex_positions" in load_scene(tmp_path / "scene.xml").params
