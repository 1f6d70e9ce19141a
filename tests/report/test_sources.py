"""Reports of run folders, finished, interrupted or foreign, and of results in memory."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pathtracer.capture import View
from pathtracer.cli.main import main
from pathtracer.errors import InputError, UsageError
from pathtracer.report import render_page, write_report
from pathtracer.report.data import ParameterReport
from pathtracer.report.page import _rows
from pathtracer.report.sources import from_result, gather
from pathtracer.runs import RunFolder

SCENE = """<scene version="3.0.0">
  <integrator type="path"><integer name="max_depth" value="2"/></integrator>
  <sensor type="perspective"><float name="fov" value="30"/>
    <transform name="to_world"><lookat origin="0,0,3" target="0,0,0" up="0,1,0"/></transform>
    <film type="hdrfilm"><integer name="width" value="12"/><integer name="height" value="10"/><rfilter type="box"/>
      <string name="pixel_format" value="rgb"/></film></sensor>
  <emitter type="directional" id="sun"><vector name="direction" x="0" y="0" z="-1"/></emitter>
  <shape type="rectangle" id="wall"><transform name="to_world"><scale value="4"/></transform>
    <bsdf type="diffuse" id="paint"><rgb name="reflectance" value="0.4,0.5,0.6"/></bsdf></shape>
</scene>"""
KEY = "wall.bsdf.reflectance.value"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a few steps from the command line."""
    folder = tmp_path_factory.mktemp("walls")
    (folder / "wall.xml").write_text(SCENE)
    target = folder / "photo.exr"
    assert main(["render", str(folder / "wall.xml"), "-o", str(target), "-q", "--spp", "4"]) == 0
    options = ["--target", str(target), "--wrt", KEY, "--init", f"{KEY}=0.2", "--iterations", "12", "-q"]
    assert main(["estimate", str(folder / "wall.xml"), *options, "-o", str(folder / "run")]) == 0
    return folder / "run"


def test_a_finished_run_has_a_report_with_everything(run):
    text = (run / "report.html").read_text(encoding="utf-8")
    for part in (KEY, "Loss</h2>", "wall (run)", "finished", "photo", "difference", "compile (", "seed"):
        assert part in text, part
    data = gather(run)
    assert len(data.steps) == len(data.loss) >= 2 and data.views[0].target.shape == (10, 12, 3)
    (parameter,) = data.parameters
    assert parameter.course is not None and parameter.course.shape[1] == 3
    assert abs(parameter.value - [0.4, 0.5, 0.6]).max() < abs(parameter.start - [0.4, 0.5, 0.6]).max()
    assert 'http-equiv="refresh"' not in text


def test_report_command_writes_the_page_again(run, tmp_path, capsys):
    assert main(["report", str(run), "-o", str(tmp_path / "r.html"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text(encoding="utf-8").rstrip().endswith("</html>")


def test_a_run_that_goes_on_is_shown_with_what_it_has_and_reloads(run, tmp_path):
    going = tmp_path / "going"
    going.mkdir()
    (going / "state.json").write_text('{"status": "running", "solver": "adam"}')
    lines = (run / "history.jsonl").read_text().splitlines(keepends=True)
    (going / "history.jsonl").write_text("".join(lines[:3]) + lines[3][:20])  # the last line is being written
    with RunFolder(going, fresh=False):
        text = write_report(going, going / "report.html").read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' in text and "running" in text and KEY in text
    data = gather(going)
    assert len(data.steps) == 3 and data.parameters[0].value.size == 3


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    with pytest.raises(UsageError, match="is not a run folder"):
        write_report(tmp_path, tmp_path / "r.html")
    with pytest.raises(InputError, match="no such folder"):
        write_report(tmp_path / "absent", tmp_path / "r.html")
    assert main(["report", str(tmp_path)]) == 2
    (tmp_path / "state.json").write_text("{")
    assert main(["report", str(tmp_path)]) == 3


def test_a_result_in_memory_makes_the_same_page(run, tmp_path):
    from pathtracer.inverse import Parameter, Problem, estimate
    from pathtracer.scenes import load_scene

    scene = load_scene(run.parent / "wall.xml")
    views = [View("wall", scene.render(4))]
    result = estimate(Problem(scene, views, [Parameter(KEY, init=0.2, truth=[0.4, 0.5, 0.6])]), iterations=4)
    data = from_result(result)
    assert data.parameters[0].truth is not None and len(data.views) == 1
    html = render_page(data)
    assert "off by" in html and "wall" in html


def test_a_direction_is_one_row_with_an_angle():
    a = np.radians(10)
    parameter = ParameterReport(
        "lamp.to_world", np.array([np.sin(a), 0, -np.cos(a)]), truth=np.array([0.0, 0, -2]), space="direction"
    )
    (row,) = _rows(parameter)["rows"]
    assert row["off"] == "10.00°" and row["truth"] == "0.000  0.000  -1.000"


def test_a_few_numbers_without_truth_or_error_share_a_row():
    (row,) = _rows(ParameterReport("k", np.array([1.0, 2.0, 3.0])))["rows"]
    assert row["value"] == "1  2  3" and row["start"] == "–"
    known = ParameterReport("k", np.array([1.0, 2.0, 3.0]), truth=np.array([1.0, 2.0, 6.0]))
    assert [r["off"] for r in _rows(known)["rows"]] == ["+0 (+0 %)", "+0 (+0 %)", "-3 (-50 %)"]
