"""A regression is called when it is beyond the noise of both results, and only then."""

from __future__ import annotations

import copy
import json

import pytest

from pathtracer.bench.compare import compare


def result(**changes):
    row = {
        "tag": "estimators",
        "subject": "sphere-moves",
        "estimator": "edge_sampling",
        "slope": 1.0,
        "slope_low": 0.98,
        "slope_high": 1.02,
        "mse": 0.02,
        "mse_error": 0.002,
        "time_cpu": 0.1,
        **changes,
    }
    return {"suite": "estimators", "environment": {"calibration": 0.2}, "rows": [row]}


def test_the_same_result_is_no_change():
    assert compare(result(), result()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mse": 0.04}, "error x time up by a factor 2"),
        ({"time_cpu": 0.3}, "error x time up by a factor 3"),
        ({"slope": 0.8, "slope_low": 0.78, "slope_high": 0.82}, "slope 1.000 to 0.800"),
    ],
)
def test_what_got_worse_beyond_the_noise_is_a_regression_and_the_reverse_an_improvement(changes, words):
    (worse,) = compare(result(**changes), result())
    assert worse.worse and words in worse.what
    (better,) = compare(result(), result(**changes))
    assert not better.worse


@pytest.mark.parametrize(
    "changes",
    [
        {"mse": 0.025},
        {"mse": 0.05, "mse_error": 0.02},
        {"time_cpu": 0.11},
        {"slope": 0.93, "slope_low": 0.89, "slope_high": 0.97},
    ],
)
def test_what_the_noise_explains_is_no_regression(changes):
    assert compare(result(**changes), result()) == []


def test_a_slower_machine_is_no_regression():
    slow = result(time_cpu=0.3)
    slow["environment"] = {"calibration": 0.6}
    assert compare(slow, result()) == []


def test_a_new_failure_is_a_regression_and_a_new_row_is_not():
    failed = result()
    failed["rows"][0] = {k: failed["rows"][0][k] for k in ("tag", "subject", "estimator")} | {"failure": "crashed"}
    (change,) = compare(failed, result())
    assert change.worse and "crashed" in change.what
    more = copy.deepcopy(result())
    more["rows"].append({**more["rows"][0], "subject": "disk-turns"})
    assert compare(more, result()) == []


def test_success_rates_are_compared_by_an_exact_test():
    rate = lambda solved: {
        "environment": {},
        "rows": [{"tag": "shadow", "subject": "shadow", "estimator": "e", "solved": solved, "starts": 16}],
    }
    assert compare(rate(14), rate(16)) == []
    (change,) = compare(rate(5), rate(16))
    assert change.worse


def test_the_command_exits_with_1_on_a_regression(tmp_path, monkeypatch, capsys):
    from pathtracer.bench import record, suites
    from pathtracer.cli.main import main

    def run(name, full, options, seed, folder, say):
        new = {"format": record.FORMAT, **result(mse=0.08)}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "estimators.json").write_text(json.dumps(new))
        return folder / "estimators.json"

    monkeypatch.setattr(suites, "run_suite", run)
    base = tmp_path / "base.json"
    base.write_text(json.dumps({"format": record.FORMAT, **result()}))
    command = ["bench", "estimators", "-o", str(tmp_path / "new"), "--compare", str(base), "--json"]
    assert main(command) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["exit_code"] == 1 and report["changes"][0]["worse"]
    base.write_text(json.dumps({"format": record.FORMAT, **result(mse=0.08)}))
    assert main(command) == 0
    base.write_text(json.dumps({"format": record.FORMAT, **result(), "suite": "control"}))
    assert main(command) == 2
    assert "is a result of the suite control" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["estimator"], "did you mean 'estimators'"),
        (["all", "--compare", "base.json"], "--compare takes one suite"),
        (["estimators", "--check"], "--check belongs to publish"),
        (["estimators", "--compare", "none.json"], "no such result"),
        (["estimators", "-o", "x.json"], "name a folder"),
    ],
)
def test_faults_of_the_command_line_are_one_sentence(arguments, words, capsys):
    from pathtracer.cli.main import main

    assert main(["bench", *arguments]) in (2, 3)
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
