"""`pathtracer scenes`: listing, showing and copying the examples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pathtracer.cli.main import main
from pathtracer.errors import InputError
from pathtracer.scenes import bundled


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two bundled scenes: one with a README and a job, one with a comment only."""
    root = tmp_path / "bundle"
    (root / "red-room" / "textures").mkdir(parents=True)
    (root / "red-room" / "scene.xml").write_text("<scene version='3.0.0'/>")
    (root / "red-room" / "job.toml").write_text("[scene]\n")
    (root / "red-room" / "README.md").write_text("# Red room\n\nA room that is\nred. It has no door.\n")
    (root / "red-room" / "textures" / "wall.png").write_bytes(b"png")
    (root / "plain").mkdir()
    (root / "plain" / "scene.xml").write_text("<!-- Nothing at all. -->\n<scene version='3.0.0'/>")
    (root / "notes").mkdir()
    monkeypatch.setattr(bundled, "root", lambda: root)
    return root


def test_the_checkout_has_examples_with_a_line_of_description_each() -> None:
    found = bundled.bundled()
    assert found and all(example.description for example in found)
    assert "cornell-box" in [example.name for example in found]


def test_list_gives_name_and_first_sentence(examples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenes", "list"]) == 0
    assert capsys.readouterr().out == "plain     Nothing at all\nred-room  A room that is red\n"


def test_list_as_json_before_and_after(examples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--json", "scenes", "list"], ["scenes", "list", "--json"]):
        assert main(arguments) == 0
        names = [scene["name"] for scene in json.loads(capsys.readouterr().out)["scenes"]]
        assert names == ["plain", "red-room"]


def test_show_tells_files_and_the_command_that_runs_it(examples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenes", "show", "red-room"]) == 0
    page = capsys.readouterr().out
    assert "It has no door." in page and "textures/wall.png" in page
    assert f"pathtracer estimate {examples / 'red-room' / 'job.toml'}" in page


def test_an_unknown_example_is_refused_with_the_nearest(examples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenes", "show", "red-rom"]) == 2
    assert "did you mean 'red-room'?" in capsys.readouterr().err


def test_copy_writes_every_file(examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenes", "copy", "red-room", "-o", str(tmp_path / "mine")]) == 0
    assert (tmp_path / "mine" / "textures" / "wall.png").read_bytes() == b"png"
    assert "4 files" in capsys.readouterr().out


def test_copy_never_overwrites_without_force(
    examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "scene.xml").write_text("my work")
    assert main(["scenes", "copy", "red-room", "-o", str(mine)]) == 2
    assert "'scene.xml' exists already; choose another folder, or overwrite with --force" in capsys.readouterr().err
    assert [f.name for f in mine.iterdir()] == ["scene.xml"] and (mine / "scene.xml").read_text() == "my work"
    assert main(["scenes", "copy", "red-room", "-o", str(mine), "--force"]) == 0
    assert (mine / "scene.xml").read_text() != "my work"


def test_copy_to_where_nothing_can_be_written_ends_with_7(examples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenes", "copy", "red-room", "-o", "/proc/nowhere"]) == 7
    assert "/proc/nowhere: cannot be written" in capsys.readouterr().err


def test_a_name_stands_for_the_scene_unless_a_path_of_that_name_exists(
    examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert bundled.resolve_scene("plain") == examples / "plain" / "scene.xml"
    assert bundled.resolve_scene("plain.xml") == Path("plain.xml")
    assert bundled.resolve_scene("./a/plain") == Path("a/plain")
    (tmp_path / "plain").mkdir()
    assert bundled.resolve_scene("plain") == Path("plain")


def test_an_installation_finds_the_scenes_inside_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundled, "_PACKAGE", tmp_path / "site-packages" / "pathtracer")
    (tmp_path / "site-packages" / "scenes").mkdir(parents=True)  # someone else's package of that name
    with pytest.raises(InputError, match="holds no example scenes"):
        bundled.root()
    (tmp_path / "site-packages" / "pathtracer" / "_scenes").mkdir(parents=True)
    assert bundled.root().name == "_scenes"


def test_a_job_is_validated_with_its_scene_pictures_and_unknowns(repository: Path, tmp_path: Path, capfd) -> None:
    job = repository / "scenes" / "cornell-box" / "job.toml"
    assert main(["validate", str(job)]) == 0
    assert "sound (1 views, 4 unknowns of 12 numbers" in capfd.readouterr().out
    scene = repository / "scenes" / "cornell-box"
    wrong = tmp_path / "job.toml"
    text = job.read_text().replace('"red.', '"rad.')
    for name in ("scene.xml", "reference.exr"):
        text = text.replace(f'"{name}"', f'"{(scene / name).as_posix()}"')
    chosen = tmp_path / "chosen.toml"
    adam = 'name = "adam"\nvariant = "vector"\ncoarse = "never"'
    chosen.write_text(text.replace('"rad.', '"red.').replace('name = "auto"', adam))
    assert main(["validate", str(chosen)]) == 0
    assert "adam, as asked, variant = vector, coarse = never)" in capfd.readouterr().out
    wrong.write_text(text)
    assert main(["validate", str(wrong)]) == 2
    assert "did you mean 'red.reflectance.value'" in capfd.readouterr().err


def test_a_scene_that_is_no_file_gets_the_nearest_bundled_name(capfd) -> None:
    assert main(["params", "cornell-boks"]) == 3
    assert "did you mean 'cornell-box'" in capfd.readouterr().err
