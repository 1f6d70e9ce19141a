"""`pathtracer import`: what it writes renders and runs at once; every bad input is one sentence and a code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from capture.rig import photographed, ring

from pathtracer.capture.colmap import write_colmap
from pathtracer.capture.transforms import write_transforms
from pathtracer.cli.main import main


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with transforms.json, a reconstruction and cut-out pictures."""
    folder = tmp_path / "photos"
    capture = photographed(folder, ring(4, (20, 16)), alpha=True)
    write_transforms(capture, folder / "transforms.json")
    write_colmap(capture, folder / "sparse" / "0")
    return folder


def test_what_is_written_renders_at_once_and_its_job_runs(photos, tmp_path, capsys):
    project = tmp_path / "project"
    assert main(["import", "transforms", str(photos), "-o", str(project), "--holdout-every", "4"]) == 0
    said = capsys.readouterr().out
    assert "4 pictures of 20 x 16 pixels, 4 of their cameras look at (1, 2, " in said and "placeholder" in said
    image = tmp_path / "first.png"
    assert main(["render", str(project / "scene.xml"), "-s", "2", "--spp", "4", "-o", str(image), "-q"]) == 0
    capsys.readouterr()
    command = ["estimate", str(project / "job.toml"), "-o", str(tmp_path / "run"), "--iterations", "2", "--spp", "2"]
    assert main([*command, "-q", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert {p["name"] for p in summary["parameters"]} == {
        "paint.base_color.value",
        "paint.roughness.value",
        "sky.radiance.value",
    }
    assert summary["heldout"] == ["photo 0"] and summary["recordings"] <= 3


def test_the_placeholder_is_where_the_cameras_look(photos, tmp_path):
    from pathtracer.scenes import load_scene

    assert main(["import", "transforms", str(photos / "transforms.json"), "-o", str(tmp_path / "p"), "-q"]) == 0
    scene = load_scene(tmp_path / "p" / "scene.xml")
    assert len(scene.mi.sensors()) == 4
    for k, camera in enumerate(ring(4, (20, 16))):
        image = scene.render(spp=16, seed=1, sensor=k)
        y, x = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
        lit = image.sum(axis=-1)
        middle = [(x * lit).sum() / lit.sum(), (y * lit).sum() / lit.sum()]
        np.testing.assert_allclose(middle, camera.project([[1, 2, 0]])[0][0], atol=0.5)
        assert 0.05 < (lit > 0).mean() < 0.6


def test_the_views_file_gives_the_same_cameras(photos, tmp_path):
    from pathtracer.capture.views_file import read_views_file

    assert main(["import", "colmap", str(photos), "-o", str(tmp_path / "p"), "-q"]) == 0
    capture, entries = read_views_file(tmp_path / "p" / "views.toml")
    for found, camera in zip(capture.cameras, ring(4, (20, 16)), strict=True):
        np.testing.assert_allclose(found.to_world, camera.to_world, atol=1e-9)
        assert found.fx == pytest.approx(camera.fx, rel=1e-12) and found.cx == pytest.approx(camera.cx, rel=1e-12)
    assert [e["name"] for e in entries] == [f"photo {k}" for k in range(4)]


def test_a_mesh_replaces_the_placeholder(photos, tmp_path, repository):
    mesh = repository / "scenes" / "catalogue" / "cube.ply"
    assert main(["import", "transforms", str(photos), "-o", str(tmp_path / "p"), "--mesh", str(mesh), "-q"]) == 0
    assert (tmp_path / "p" / "cube.ply").read_bytes() == mesh.read_bytes()
    assert main(["validate", str(tmp_path / "p" / "scene.xml"), "-q"]) == 0


def test_a_wrong_convention_is_recognised(photos, tmp_path, capsys):
    command = ["import", "transforms", str(photos), "-o", str(tmp_path / "p"), "--convention", "opencv"]
    assert main(command) == 0
    assert 'do with convention = "opengl", matrices = "camera-to-world"' in capsys.readouterr().err


def test_json_is_one_object(photos, tmp_path, capsys):
    assert main(["import", "colmap", str(photos), "-o", str(tmp_path / "p"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["count"] == 4 and found["sizes"] == [[20, 16]]
    np.testing.assert_allclose(found["focus"], [1, 2, 0], atol=1e-6)


WRONG = [
    (["transforms", "{photos}"], 2, "-o: a folder to write to is needed"),
    (["transforms", "{photos}", "-o", "{photos}/transforms.json"], 2, "is a file, a folder was expected"),
    (["transform", "{photos}"], 2, "did you mean 'transforms'"),
    (["transforms", "{photos}/transform.json", "-o", "{out}"], 3, "no such file; did you mean 'transforms.json'"),
    (["transforms", "{photos}/images", "-o", "{out}"], 3, "holds no transforms.json"),
    (["transforms", "{photos}/images/photo 0.png", "-o", "{out}"], 3, "not text in UTF-8"),
    (["transforms", "{photos}", "-o", "{out}", "--convention", "opencl"], 2, "did you mean 'opengl' or 'opencv'"),
    (["transforms", "{photos}", "-o", "{out}", "--mesh", "{photos}/a.stl"], 2, "is no mesh that is read here"),
    (["transforms", "{photos}", "-o", "{out}", "--mesh", "{photos}/a.ply"], 3, "a.ply: no such file"),
    (["transforms", "{photos}", "-o", "{out}", "--masks", "{photos}/masks"], 3, "is no folder of masks"),
    (["transforms", "{photos}", "-o", "/proc/nowhere"], 7, "cannot be written"),
    (["colmap", "{photos}/images", "-o", "{out}"], 3, "holds no COLMAP reconstruction"),
    (["colmap", "{photos}/nothing", "-o", "{out}"], 3, "no such folder"),
    (["colmap", "{photos}", "-o", "{out}", "--images", "{photos}/pictures"], 3, "is no folder of pictures"),
    (["colmap", "{photos}", "-o", "{out}", "--images", "{photos}/sparse"], 3, "there is no picture"),
]


@pytest.mark.parametrize(("arguments", "code", "match"), WRONG)
def test_a_bad_input_is_one_sentence_and_a_code(arguments, code, match, photos, tmp_path, capsys):
    command = [a.format(photos=photos, out=tmp_path / "out") for a in arguments]
    assert main(["import", *command]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and match in lines[0], lines
    assert not (tmp_path / "out" / "scene.xml").exists()


def test_nothing_is_overwritten_unasked(photos, tmp_path, capsys):
    command = ["import", "transforms", str(photos), "-o", str(tmp_path / "p")]
    assert main(command) == 0
    (tmp_path / "p" / "job.toml").write_text("# mine")
    assert main(command) == 2
    assert "'views.toml' exists already" in capsys.readouterr().err
    assert (tmp_path / "p" / "job.toml").read_text() == "# mine"
    assert main([*command, "--force"]) == 0


def test_help_answers_without_the_renderer(capsys):
    assert main(["import", "--help"]) == 0
    assert main(["import", "transforms", "--help"]) == 0
    assert "--convention" in capsys.readouterr().out
