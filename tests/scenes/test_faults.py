"""Every way in which a scene can be broken ends in one sentence and exit code 3 (or 2), never in a crash.

Broken textures and meshes are in `test_texture_faults.py` and `test_mesh_faults.py`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.broken_scenes import TRIANGLE, envmap, fails, ply, scene, shape, texture

from pathtracer.errors import InputError, UsageError
from pathtracer.scenes import load_scene
from pathtracer.scenes.scene import inspect_scene

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


def test_a_scene_is_found_by_absolute_path_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "a.ply").write_text(ply(TRIANGLE, "3 0 1 2"))
    (tmp_path / "scene" / "s.xml").write_text(scene(shape("ply", "a.ply")))
    monkeypatch.chdir("/")
    assert "it.faces" in load_scene(tmp_path / "scene" / "s.xml").params
    monkeypatch.chdir(tmp_path)
    assert "it.faces" in load_scene(os.path.join("scene", "s.xml")).params
