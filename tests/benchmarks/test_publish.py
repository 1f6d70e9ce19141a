"""What README and docs show comes from the results, and is up to date."""

from __future__ import annotations

import json

import pytest

from pathtracer.bench.publish import filled, pages, publish
from pathtracer.bench.record import RESULTS, read_result
from pathtracer.bench.tables import TABLES, markdown, number, projective_pairs


def _row(tag, subject, estimator, **values):
    row = {
        "tag": tag,
        "subject": subject,
        "estimator": estimator,
        "slope": 1.0,
        "slope_low": 0.98,
        "slope_high": 1.02,
        "bias": 0.0,
        "mse": 0.02,
        "mse_error": 0.002,
        "time": 0.2,
        "time_cpu": 0.1,
        "efficiency": 250.0,
        "efficiency_cpu": 500.0,
        "first": 2.0,
        "first_cpu": 1.0,
        "memory": 20.0,
        "spp": 64,
    }
    return {**row, **values}


def _result(suite, rows):
    env = {
        "seconds": 100.0,
        "date": "2026-01-01T00:00:00",
        "commit": "abcdef0123",
        "processor": "P",
        "cores": 2,
        "variant": "llvm_ad_rgb",
        "mitsuba": "3.9.1",
        "load_before": 0.1,
        "load_after": 2.0,
    }
    return {"format": 1, "suite": suite, "size": "quick", "environment": env, "rows": rows}


@pytest.fixture
def checkout(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    rows = [
        _row("projective", "sphere-moves", "edge_sampling"),
        _row(
            "projective", "sphere-moves", "prb_projective:guiding=none", efficiency=25.0, efficiency_cpu=40.0, first=9.0
        ),
        {"tag": "projective", "subject": "sphere-moves", "estimator": "x", "failure": "cannot", "refused": True},
    ]
    (results / "projective.json").write_text(json.dumps(_result("projective", rows)))
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("before\n\n<!-- projective table -->\n\nafter\n")
    return tmp_path, results


def test_a_marker_is_filled_once_and_refilled_when_the_result_changes(checkout):
    root, results = checkout
    readme = root / "README.md"
    assert readme in publish(results, root=root)
    text = readme.read_text()
    assert text.startswith("before\n\n<!-- projective table -->\n\n| case |") and text.endswith("table -->\n\nafter\n")
    assert "sphere-moves" in text and "commit abcdef01" in text
    assert publish(results, write=False, root=root) == []
    record = json.loads((results / "projective.json").read_text())
    record["rows"][0]["slope"] = 0.5
    (results / "projective.json").write_text(json.dumps(record))
    stale = publish(results, write=False, root=root)
    assert {p.name for p in stale} == {"README.md", "projective.png"}
    assert readme.read_text() == text
    publish(results, root=root)
    assert "0.500" in readme.read_text() and readme.read_text().count("<!-- projective table -->") == 1
    assert publish(results, write=False, root=root) == []


def test_ratios_are_ours_over_the_most_efficient_of_theirs(checkout):
    _, results = checkout
    (pair,) = projective_pairs(read_result(results / "projective.json"))
    assert pair["efficiency_cpu"] == pytest.approx(12.5) and pair["first"] == pytest.approx(4.5)


def test_markers_without_a_result_stay_as_they_are(tmp_path):
    text = "<!-- control table -->\nold\n<!-- end of control table -->"
    assert filled(text, tmp_path) == text


def test_numbers_are_short_and_never_lie_about_nothing():
    assert [number(v) for v in (0.01234, 123.4, None, float("nan"), 1234567.0, 0.0, 1.5e-7)] == [
        "0.0123", "123", "–", "–", "1.2e6", "0", "1.5e-7",
    ]  # fmt: skip
    assert markdown(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"


def test_published_tables_and_plots_are_those_of_the_results(repository):
    stale = publish(RESULTS, write=False)
    assert not stale, f"stale: {[str(p.relative_to(repository)) for p in stale]}; run: pathtracer bench publish"


def test_every_result_that_is_kept_says_how_it_came_about(repository):
    for name in {file for file, _ in TABLES.values() if not file.startswith("speed")}:
        path = RESULTS / f"{name}.json"
        if path.is_file():
            record = read_result(path)
            assert {"commit", "processor", "mitsuba", "drjit", "seed", "load_before"} <= set(record["environment"])
            assert record["rows"]


def test_every_page_of_an_experiment_shows_a_table_of_ours(repository):
    shown = [p for p in pages(repository) if p.parent.name == "experiments" and p.name != "README.md"]
    assert len(shown) >= 6
    for page in shown:
        assert "<!-- " in page.read_text() and "## The paper" in page.read_text(), page
