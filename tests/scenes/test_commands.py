"""`params`, `validate` and `export` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pathtracer.cli.main import main

SCENE = """<scene version="3.0.0">
    <default name="res" value="16"/>
    <integrator type="path"><integer name="max_depth" value="3"/></integrator>
    <sensor type="perspective" id="camera">
        <transform name="to_world"><lookat origin="0, 0, 5" target="0, 0, 0" up="0, 1, 0"/></transform>
        <film type="hdrfilm"><integer name="width" value="$res"/><integer name="height" value="$res"/></film>
    </sensor>
    <emitter type="constant" id="sky"><rgb name="radiance" value="0.8, 0.9, 1.0"/></emitter>
    <bsdf type="diffuse" id="paint"><rgb name="reflectance" value="0.5, 0.4, 0.3"/></bsdf>
    <shape type="sphere" id="ball"><ref id="paint"/></shape>
    <shape type="sphere" id="glass"><point name="center" x="3" y="0" z="0"/><bsdf type="dielectric"/></shape>
</scene>
"""


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    path = tmp_path / "scene.xml"
    path.write_text(SCENE)
    return path


def test_params_lists_keys_with_their_estimators(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["params", str(scene)]) == 0
    text = capsys.readouterr().out
    assert "paint.reflectance.value" in text and "0..1" in text and "logit" in text
    assert "not path_replay: leaves out" in text
    assert "near_clip" not in text and "--all shows them" in text


def test_params_as_json_says_why_an_estimator_cannot(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["params", str(scene), "--filter", "glass.bsdf.*", "--json"]) == 0
    rows = {row["key"]: row for row in json.loads(capsys.readouterr().out)["parameters"]}
    eta = rows["glass.bsdf.eta"]
    assert not eta["differentiable"] and "smooth dielectric" in eta["reason"]
    assert not eta["estimators"]["path_replay"]["handles"]


def test_params_names_the_nearest_key_for_a_filter_without_match(
    scene: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["params", str(scene), "--filter", "paint.reflectanse.value"]) == 2
    assert "did you mean 'paint.reflectance.value'" in capsys.readouterr().err


def test_validate_says_sound_and_counts(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(scene), "-D", "res=8"]) == 0
    assert "sound (2 shapes" in capsys.readouterr().out


def test_validate_lists_every_error_and_exits_3(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene.write_text(
        SCENE.replace('type="dielectric"', 'type="dielectrik"').replace('type="constant"', 'type="konstant"')
    )
    assert main(["validate", str(scene), "--json"]) == 3
    streams = capsys.readouterr()
    report = json.loads(streams.out)
    assert not report["sound"] and len(report["errors"]) == 2
    assert "did you mean 'dielectric'" in streams.err and "did you mean 'constant'" in streams.err


def test_validate_finds_unknown_properties_and_names(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene.write_text(SCENE.replace('name="reflectance"', 'name="reflectence"'))
    assert main(["validate", str(scene)]) == 3
    assert "has no property 'reflectence'; did you mean 'reflectance'" in capsys.readouterr().err
    assert main(["validate", str(scene), "-D", "rez=3"]) == 2
    assert "no default named 'rez'; did you mean 'res'" in capsys.readouterr().err


def test_a_file_outside_is_allowed_only_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "tri.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    path = folder / "scene.xml"
    path.write_text(
        SCENE.replace("</scene>", '<shape type="obj"><string name="filename" value="../tri.obj"/></shape></scene>')
    )
    assert main(["validate", str(path)]) == 3
    assert "--allow-outside" in capsys.readouterr().err
    assert main(["validate", str(path), "--allow-outside"]) == 0


def _run(tmp_path: Path, scene: Path) -> Path:
    run = tmp_path / "run"
    (run / "result").mkdir(parents=True)
    (run / "job.toml").write_text(
        f'[scene]\nfile = "{scene}"\ndefines = {{res = 12}}\n[views]\nimages = ["a.exr"]\n'
        '[[parameter]]\nkey = "paint.reflectance.value"\n'
    )
    values = {"paint.reflectance.value": np.array([0.1, 0.2, 0.3], np.float32)}
    save_file(values, run / "result" / "values.safetensors")
    return run


def test_export_writes_the_recovered_scene_of_a_run(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(_run(tmp_path, scene)), "-o", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verified"]["mean_difference"] <= 0.05 * report["verified"]["noise"]
    text = (out / "scene.xml").read_text()
    assert 'name="reflectance" value="0.1, 0.2, 0.3"' in text and 'name="res" value="12"' in text
    assert main(["export", str(tmp_path / "run"), "-o", str(tmp_path / "ids"), "--add-ids", "--no-verify"]) == 0
    assert (tmp_path / "ids" / "scene.xml").read_text().count("id=") > text.count("id=")


def test_export_refuses_what_is_no_run_or_has_no_result(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path), "-o", str(tmp_path / "out")]) == 3
    assert "is no run folder" in capsys.readouterr().err
    run = _run(tmp_path, scene)
    assert main(["export", str(run)]) == 2
    (run / "result" / "values.safetensors").unlink()
    assert main(["export", str(run), "-o", str(tmp_path / "out")]) == 3
    assert "has no result yet" in capsys.readouterr().err
    (run / "result" / "values.safetensors").write_bytes(b"no tensors")
    assert main(["export", str(run), "-o", str(tmp_path / "out")]) == 3
    assert "cannot be read" in capsys.readouterr().err
