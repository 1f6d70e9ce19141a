"""`pathtracer doctor`: lines, JSON and exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from pathtracer.cli.main import main
from pathtracer.runtime import checks
from pathtracer.runtime.checks import Check

OK = Check("Python", "ok", "3.12")
WARN = Check("GPU", "warn", "old driver", "install a newer one")
FAIL = Check("LLVM", "FAIL", "none was found", "run: pip install it")


def finds(monkeypatch: pytest.MonkeyPatch, *found: Check) -> None:
    def run_checks() -> Iterator[Check]:
        yield from found

    monkeypatch.setattr(checks, "run_checks", run_checks)


def test_a_failed_check_ends_with_4_and_shows_what_mends_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finds(monkeypatch, OK, WARN, FAIL)
    assert main(["doctor"]) == 4
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "warn", "install", "FAIL", "run:", "LLVM"]
    assert lines[4].strip() == "run: pip install it"


def test_warnings_alone_pass(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    finds(monkeypatch, OK, WARN)
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("this machine can run pathtracer\n")


def test_json_lists_every_check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    finds(monkeypatch, OK, FAIL)
    assert main(["doctor", "--json"]) == 4
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert answer["checks"][1] == {
        "name": "LLVM",
        "status": "FAIL",
        "detail": "none was found",
        "remedy": "run: pip install it",
    }


def test_a_machine_without_a_usable_llvm_fails_and_renders_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DRJIT_LIBLLVM_PATH", "/nowhere/libLLVM.so.19")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main(["doctor", "--json"]) == 4
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert found["LLVM"]["status"] == "FAIL" and found["LLVM"]["remedy"] == "run: unset DRJIT_LIBLLVM_PATH"
    assert found["render"]["detail"] == "not run: nothing to run it on"
