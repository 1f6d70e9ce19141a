"""Every way in which a scene can be broken ends in one sentence and exit code 3 (or 2), never in a crash."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio
import mitsuba as mi
import numpy as np
import pytest

from pathtracer.errors import InputError, PathtracerError, UsageError
from pathtracer.scenes import load_scene
from pathtracer.scenes.scene import inspect_scene

SENSOR = (
    '<sensor type="perspective"><film type="hdrfilm"><integer name="width" value="8"/>'
    '<integer name="height" value="8"/></film></sensor>'
)


def scene(*parts: str, light: bool = True) -> str:
    """A small scene around some elements."""
    return "\n".join(
        ['<scene version="3.0.0">', SENSOR, '<emitter type="constant"/>' if light else "", *parts, "</scene>"]
    )


def shape(kind: str, name: str) -> str:
    return f'<shape type="{kind}" id="it"><string name="filename" value="{name}"/></shape>'


def texture(name: str, more: str = "") -> str:
    return (
        f'<shape type="rectangle"><bsdf type="diffuse"><texture type="bitmap" name="reflectance" id="it">'
        f'<string name="filename" value="{name}"/>{more}</texture></bsdf></shape>'
    )


def envmap(name: str) -> str:
    return f'<emitter type="envmap" id="it"><string name="filename" value="{name}"/></emitter>'


def ply(vertices: str, faces: str, v: int = 3, f: int = 1) -> str:
    return (
        f"ply\nformat ascii 1.0\nelement vertex {v}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {f}\nproperty list uchar int vertex_indices\nend_header\n{vertices}\n{faces}\n"
    )


TRIANGLE = "0 0 0\n1 0 0\n0 1 0"


def binary_ply(indices: list[int], claimed: int | None = None, truncate: int = 0) -> bytes:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")
    header = (
        "ply\nformat binary_little_endian 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
        f"property float z\nelement face {claimed or 1}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    data = header.encode() + vertices.tobytes() + struct.pack("<B3i", 3, *indices)
    return data[: len(data) - truncate]


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
    )


def exr(path: Path, texel: float) -> None:
    data = np.full((4, 6, 3), 0.5, np.float32)
    data[1, 2] = texel
    data[3, 4, 0] = texel
    mi.Bitmap(data).write(str(path))


def fails(tmp_path: Path, text: str | bytes, name: str = "scene.xml", **options: object) -> PathtracerError:
    """The error of loading a scene text."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PathtracerError) as caught:
        load_scene(path, **options)
    assert "\n" not in str(caught.value)
    return caught.value


# -- the XML file ----------------------------------------------------------------------------------------------


def test_a_missing_scene_names_the_nearest_file(tmp_path: Path) -> None:
    (tmp_path / "kitchen.xml").write_text(scene())
    with pytest.raises(InputError, match=r"no such scene file; did you mean '.*kitchen\.xml'") as caught:
        load_scene(tmp_path / "kitchn.xml")
    assert caught.value.exit_code == 3


def test_a_folder_is_not_a_scene(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder, not a scene file"):
        load_scene(tmp_path)


def test_an_unreadable_scene_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scene.xml"
    path.write_text(scene())

    def refuse(_self: Path) -> bytes:  # root may read everything, so permissions alone cannot show it
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match=r"scene\.xml: the scene file cannot be read: Permission denied"):
        load_scene(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"scene\.xml: the scene file is empty"),
        ("<scene version='3.0.0'>\n  <shape>\n</scene>", r"scene\.xml, line 3, column \d+: malformed XML: .*mismatch"),
        ("<scene version='3.0.0'/>garbage", r"line 1, column \d+: malformed XML"),
        ("<html/>", r"line 1, column 1: the root element is <html>, not a Mitsuba scene"),
        (scene("<shpe type='sphere'/>"), r"line 4, column 1: unknown element <shpe>; did you mean 'shape'"),
        ("<!DOCTYPE scene [<!ENTITY a 'b'>]><scene version='3.0.0'/>", "declares a document type or entities"),
        ('<!DOCTYPE scene SYSTEM "file:///etc/passwd"><scene version="3.0.0"/>', "declares a document type"),
        (scene("<shape type='sphere'>" * 120 + "</shape>" * 120), "nested more than 100 deep"),
        (scene("<shape type='sphere'>" * 400 + "</shape>" * 400), "nested more than 100 deep"),
        (scene("<float name='a' value='$sise'/>", "<default name='size' value='3'/>"), r"\$sise is used but nowhere"),
        (scene("<shape type='sphere' id='a'/>", "<shape type='sphere' id='a'/>"), r'line \d+.*duplicate ID: "a"'),
        (scene("<shape type='sphere'><ref id='nothing'/></shape>"), r'line \d+.*"?nothing"?'),
        (scene("<shape type='sphere'><float name='radius' value='wide'/></shape>"), "could not parse floating point"),
    ],
)
def test_a_bad_xml_file_is_one_sentence_with_its_place(tmp_path: Path, text: str, sentence: str) -> None:
    error = fails(tmp_path, text)
    assert re.search(sentence, str(error)), str(error)
    assert error.exit_code == 3


def test_a_huge_xml_file_is_refused_before_parsing(tmp_path: Path) -> None:
    path = tmp_path / "scene.xml"
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(InputError, match="has 65 MB, more than the 64 MB that are accepted"):
        load_scene(path)


def test_includes_that_form_a_loop_are_named(tmp_path: Path) -> None:
    (tmp_path / "b.xml").write_text('<scene version="3.0.0"><include filename="scene.xml"/></scene>')
    error = fails(tmp_path, scene('<include filename="b.xml"/>'))
    assert "b.xml, line 1, column 24: the files include each other in a loop: scene.xml -> b.xml -> scene.xml" in str(
        error
    )


def test_a_missing_include_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "materials.xml").write_text('<scene version="3.0.0"/>')
    error = fails(tmp_path, scene('<include filename="material.xml"/>'))
    assert "line 4, column 1: no such included file 'material.xml'; did you mean 'materials.xml'" in str(error)


def test_an_undefined_default_on_the_command_line_exits_2_with_the_nearest_name(tmp_path: Path) -> None:
    text = scene('<default name="resolution" value="8"/>')
    error = fails(tmp_path, text, resolutoin=4)
    assert isinstance(error, UsageError) and error.exit_code == 2
    assert "no default named 'resolutoin'; did you mean 'resolution'" in str(error)


# -- files that leave the folder -------------------------------------------------------------------------------


def _linked(tmp_path: Path) -> str:
    (tmp_path / "outside.obj").write_text("v 0 0 0\n")
    (tmp_path / "scene" / "link.obj").symlink_to(tmp_path / "outside.obj")
    return scene(shape("obj", "link.obj"))


@pytest.mark.parametrize(
    "text",
    [
        scene(shape("ply", "../outside.ply")),
        scene(texture("/etc/hostname")),
        scene('<include filename="../outside.xml"/>'),
        scene('<path value="/usr"/>'),
        scene('<bsdf type="diffuse"><spectrum name="reflectance" filename="../outside.spd"/></bsdf>'),
        _linked,
    ],
)
def test_a_file_outside_the_scenes_folder_is_refused(tmp_path: Path, text: str | Callable[[Path], str]) -> None:
    folder = tmp_path / "scene"
    folder.mkdir()
    error = fails(folder, text(tmp_path) if callable(text) else text)
    assert error.exit_code == 3
    assert re.search(r"line 4, column \d+.* leaves the scene's folder .*--allow-outside", str(error)), str(error)


def test_a_wider_root_allows_the_same_file(tmp_path: Path) -> None:
    folder = tmp_path / "scene"
    folder.mkdir()
    (tmp_path / "outside.ply").write_text(ply(TRIANGLE, "3 0 1 2"))
    path = folder / "scene.xml"
    path.write_text(scene(shape("ply", "../outside.ply")))
    assert "it.vertex_positions" in load_scene(path, root=tmp_path).params
    assert "it.vertex_positions" in load_scene(path, root="/").params


# -- plugins, properties, numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (["<bsdf type='difuse'/>"], r"line 4, column 1: unknown bsdf plugin 'difuse'; did you mean 'diffuse'"),
        (["<integrator type='path_reply'/>"], r"unknown integrator plugin 'path_reply'; did you mean 'path_replay'"),
        (
            ["<bsdf type='roughplastic'><float name='int_io' value='1.3'/></bsdf>"],
            r"line 4, column \d+: the bsdf plugin 'roughplastic' has no property 'int_io'; did you mean 'int_ior'",
        ),
        (["<shape type='sphere'><float name='radius' value='nan'/></shape>"], r"'radius' is not finite \(nan\)"),
        (["<shape type='sphere'><float name='radius' value='inf'/></shape>"], r"'radius' is not finite \(inf\)"),
        (["<shape type='sphere'><float name='radius' value='0'/></shape>"], "'radius' is 0, it must be larger than 0"),
        (["<shape type='sphere'><float name='radius' value='1e30'/></shape>"], r"'radius' is too large .*1e\+30"),
        (["<bsdf type='roughconductor'><float name='alpha' value='-1'/></bsdf>"], "'alpha' is -1, it must not be neg"),
        (["<emitter type='point'><rgb name='intensity' value='1,nan,0'/></emitter>"], "'intensity' is not finite"),
        (["<emitter type='point'><point name='position' x='0' y='0' z='inf'/></emitter>"], "'position' is not finite"),
        (
            ["<shape type='sphere'><transform name='to_world'><scale x='0'/></transform></shape>"],
            "the transform 'to_world' flattens space",
        ),
        (
            ["<shape type='sphere'><transform name='to_world'><translate x='nan'/></transform></shape>"],
            "'to_world' is not finite",
        ),
        (["<sensor type='perspective'><float name='fov' value='0'/></sensor>"], "'fov' is 0"),
        (["<sensor type='perspective'><float name='fov' value='200'/></sensor>"], "'fov' is 200 degrees"),
        (
            ["<sensor type='perspective'><film type='hdrfilm'><integer name='width' value='0'/></film></sensor>"],
            "the film's width is 0, it must be at least 1",
        ),
        (
            [
                "<sensor type='perspective'><film type='hdrfilm'><integer name='width' value='1000000'/>"
                "<integer name='height' value='1000000'/></film></sensor>"
            ],
            "the film has 1000000 x 1000000 pixels, more than",
        ),
        (
            [
                "<sensor type='perspective'><sampler type='independent'><integer name='sample_count' value='0'/>"
                "</sampler></sensor>"
            ],
            "'sample_count' is 0",
        ),
    ],
)
def test_a_wrong_plugin_property_or_number_is_one_sentence(tmp_path: Path, parts: list[str], sentence: str) -> None:
    error = fails(tmp_path, scene(*parts))
    assert re.search(sentence, str(error)), str(error)
    assert re.search(r"scene\.xml, line \d+", str(error)), str(error)
    assert error.exit_code == 3


def test_a_scene_without_emitter_warns(tmp_path: Path) -> None:
    path = tmp_path / "scene.xml"
    path.write_text(scene("<shape type='sphere'/>", light=False))
    assert any("no emitter, every image of it is black" in w for w in load_scene(path).warnings)


def test_all_faults_of_a_scene_are_listed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "scene.xml"
    path.write_text(
        scene(shape("ply", "none.ply"), "<bsdf type='difuse'/>", envmap("none.exr").replace(' id="it"', ""))
    )
    sentences = [str(error) for error in inspect_scene(path).report.errors]
    assert len(sentences) == 3
    assert [re.search(r"line (\d)", s).group(1) for s in sentences] == ["4", "5", "6"]  # type: ignore[union-attr]


# -- textures --------------------------------------------------------------------------------------------------


def test_a_missing_texture_names_the_node_and_the_nearest_file(tmp_path: Path) -> None:
    exr(tmp_path / "wood.exr", 0.5)
    error = fails(tmp_path, scene(texture("wod.exr")))
    assert re.search(r"line 4, column \d+: texture 'it': .*no such file; did you mean 'wood.exr'", str(error)), str(
        error
    )


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.png", b"", "is empty"),
        ("a.png", b"hello, I am no image at all", "is not an image of a kind"),
        ("a.png", png_header(100_000, 100_000), "header claims"),
        ("a.exr", b"\x76\x2f\x31\x01\x02\x00\x00\x00chann", "truncated or damaged"),
        ("a.hdr", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 99999 +X 99999\n", "header claims 99999 x 99999 pixels"),
    ],
)
def test_a_broken_texture_is_refused_by_its_header(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    error = fails(tmp_path, scene(texture(name)))
    assert "texture 'it'" in str(error) and name in str(error)
    assert re.search(sentence, str(error)), str(error)
    assert error.exit_code == 3


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "exr", "hdr", "pfm"])
def test_a_truncated_texture_is_refused(tmp_path: Path, suffix: str) -> None:
    random = np.random.default_rng(0)
    whole = tmp_path / f"whole.{suffix}"
    if suffix in ("exr", "hdr", "pfm"):
        mi.Bitmap(random.uniform(0, 1, (32, 32, 3)).astype(np.float32)).write(str(whole))
    else:
        imageio.imwrite(whole, random.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    data = whole.read_bytes()
    (tmp_path / f"half.{suffix}").write_bytes(data[: len(data) // 2])
    error = fails(tmp_path, scene(texture(f"half.{suffix}")))
    assert re.search("truncated or damaged", str(error)), str(error)
    path = tmp_path / "ok.xml"
    path.write_text(scene(texture(f"whole.{suffix}")))
    assert load_scene(path).mi is not None


@pytest.mark.parametrize(("texel", "kind"), [(np.nan, "NaN"), (np.inf, "infinite"), (-0.25, "negative")])
@pytest.mark.parametrize("element", [texture, envmap])
def test_bad_texels_are_counted_and_replaced_on_request(
    tmp_path: Path, texel: float, kind: str, element: Callable[[str], str]
) -> None:
    exr(tmp_path / "bad.exr", texel)
    text = scene(element("bad.exr"), light=element is texture)
    error = fails(tmp_path, text)
    assert f"'bad.exr' has 2 {kind} texels, the first at column 2, row 1" in str(error)
    assert "--sanitize" in str(error) and error.exit_code == 3
    loaded = load_scene(tmp_path / "scene.xml", sanitize=True)
    assert any("replaced by 0" in w for w in loaded.warnings)
    key = next(k for k in loaded.params.keys() if k.endswith(".data"))  # noqa: SIM118
    texels = np.array(loaded.params[key])
    assert np.isfinite(texels).all() and texels.min() == 0


def test_a_bump_texture_may_be_negative_when_it_is_raw(tmp_path: Path) -> None:
    exr(tmp_path / "bump.exr", -1.0)
    path = tmp_path / "scene.xml"
    path.write_text(scene(texture("bump.exr", '<boolean name="raw" value="true"/>')))
    assert load_scene(path).mi is not None


def test_a_black_environment_warns(tmp_path: Path) -> None:
    mi.Bitmap(np.zeros((4, 8, 3), np.float32)).write(str(tmp_path / "black.exr"))
    path = tmp_path / "scene.xml"
    path.write_text(scene(envmap("black.exr"), light=False))
    assert any("emits nothing" in w for w in load_scene(path).warnings)


# -- meshes ----------------------------------------------------------------------------------------------------


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


def test_a_scene_is_found_by_absolute_path_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "a.ply").write_text(ply(TRIANGLE, "3 0 1 2"))
    (tmp_path / "scene" / "s.xml").write_text(scene(shape("ply", "a.ply")))
    monkeypatch.chdir("/")
    assert "it.faces" in load_scene(tmp_path / "scene" / "s.xml").params
    monkeypatch.chdir(tmp_path)
    assert "it.faces" in load_scene(os.path.join("scene", "s.xml")).params
