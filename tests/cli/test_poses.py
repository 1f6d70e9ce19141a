"""Poses from one picture, on the command line: a camera, an object known by its shadow alone, a lamp out of view."""

from __future__ import annotations

import json

import pytest

from pathtracer.cli.main import main

#: scene, unknown: how far its start is from the truth.
CASES = {
    ("pose-camera", "camera.to_world"): {"degrees": 10.0, "distance": 0.4},
    ("pose-shadow", "letter.vertex_positions"): {"degrees": 10.0, "distance": 0.197},
    ("light-shadow", "lamp.position"): {"distance": 0.927},
}


@pytest.mark.slow
@pytest.mark.parametrize(("scene", "key"), CASES)
def test_a_pose_is_recovered_to_one_percent_of_where_it_started(scene, key, repository, tmp_path, capsys) -> None:
    code = main(["estimate", str(repository / "scenes" / scene / "job.toml"), "-o", str(tmp_path), "--json", "-q"])
    summary = json.loads(capsys.readouterr().out)
    assert code == 0
    row = next(r for r in summary["parameters"] if r["name"] == key)
    assert row["start_errors"] == pytest.approx(CASES[scene, key], rel=0.01)
    for unit, error in row["errors"].items():
        assert error < 0.01 * row["start_errors"][unit], (unit, row)
    assert summary["processor_seconds"] < 120, "two minutes on two idle cores, of which less than one is used up"
    assert summary["recordings"] < summary["steps"], "steps are recorded, not traced again"
    assert (tmp_path / "report.html").is_file()
