"""The command line as a whole: options, errors and their exit codes, streams."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest

from integrators.errors import GradientWarning, UnsupportedGradient
from pathtracer import errors
from pathtracer.cli import common
from pathtracer.cli import main as program
from pathtracer.cli.main import main

REPOSITORY = Path(__file__).resolve().parents[2]
Install = Callable[[Callable[[common.Session], object]], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make `pathtracer probe` a command with every shared option that calls the given function."""

    def put(function: Callable[[common.Session], object]) -> None:
        @click.command()
        @common.scene_options
        @common.sampling_options
        @common.output_options
        @common.pass_session
        def command(session: common.Session) -> object:
            return function(session)

        original = program.LazyGroup.get_command
        monkeypatch.setattr(
            program.LazyGroup, "get_command", lambda s, c, n: command if n == "probe" else original(s, c, n)
        )

    return put


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own."""
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-m", "pathtracer", *arguments],
        cwd=REPOSITORY,
        **{"capture_output": True, "text": True, "timeout": 120, **options},
    )


# -- help


def test_help_loads_neither_mitsuba_nor_numpy() -> None:
    code = (
        "import sys\nfrom pathtracer.cli.main import main\nmain(['--help'])\n"
        "print([m for m in ('mitsuba', 'drjit', 'numpy', 'rich', 'pydantic') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stderr.strip() == "[]"


def test_help_answers_at_once() -> None:
    def seconds(*command: str) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            subprocess.run([sys.executable, *command], cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=True)
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    # 0.1 s on an idle machine; what the interpreter needs by itself is a measure of how busy this one is
    assert seconds("-m", "pathtracer", "--help") < 0.15 + 4 * seconds("-c", "")


def test_help_shows_commands_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    page = capsys.readouterr().out
    for text in ("doctor", "scenes", "Examples:", "Exit codes: 0 ok", "completion bash", "--variant"):
        assert text in page


def test_every_listed_command_has_a_page_with_its_own_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in program.LazyGroup().list_commands(click.Context(program.cli)):
        assert main([name, "--help"]) == 0, name
        assert f"pathtracer {name}" in capsys.readouterr().out


def test_a_command_whose_file_is_absent_is_not_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(program.COMMANDS, "future", ("future_command", "To come."))
    main(["--help"])
    assert "future" not in capsys.readouterr().out
    assert main(["future"]) == 2


def test_version_names_the_pair(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert "mitsuba 3.9.1, drjit 1.5.0" in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_PATHTRACER_COMPLETE" in capsys.readouterr().out


def test_completion_completes_commands() -> None:
    environment = {
        **os.environ,
        "_PATHTRACER_COMPLETE": "bash_complete",
        "COMP_WORDS": "pathtracer do",
        "COMP_CWORD": "1",
    }
    assert run(env=environment).stdout.strip() == "plain,doctor"


# -- usage


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["completon"], "there is no command 'completon'; did you mean 'completion'? see: pathtracer --help"),
        (["qqq"], "there is no command 'qqq'; see: pathtracer --help"),
        (["scenes", "lst"], "there is no command 'scenes lst'; did you mean 'list'? see: pathtracer scenes --help"),
        (["doctor", "--jsn"], "no such option '--jsn'; did you mean '--json'? see: pathtracer doctor --help"),
        (["--spp", "4", "doctor"], "'doctor' takes no --spp; see: pathtracer doctor --help"),
        (["--spp", "0", "doctor"], "invalid value for '--spp': 0 is not in the range x>=1; see: pathtracer --help"),
        (["-D", "res", "doctor"], "-D: 'res' is not of the form key=value; as in -D res=256"),
        (["scenes", "show"], "missing argument 'NAME'; see: pathtracer scenes show --help"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_nearest_name_and_exit_code_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.strip() == f"error: {sentence}" and out == ""


def test_no_command_shows_the_help_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert "Commands:" in err and out == ""


def test_options_mean_the_same_before_and_after_the_command(install: Install) -> None:
    seen: list[common.Session] = []
    install(seen.append)
    options = ["-m", "llvm_ad_mono", "-D", "res=64", "-D", "name=a=b", "-s", "1", "-o", "out", "-t", "2", "--spp", "8"]
    options += ["--seed", "5", "--deterministic", "--json", "-q", "-v"]
    for place in (0, 6, len(options)):
        assert main([*options[:place], "probe", *options[place:]]) == 0
    for session in seen:
        session.before = {}
    assert seen[0] == seen[1] == seen[2]
    session = seen[0]
    assert session.defines == {"res": "64", "name": "a=b"}
    assert (session.variant, session.sensor, session.output, session.threads) == ("llvm_ad_mono", 1, Path("out"), 2)
    assert (session.spp, session.seed, session.deterministic) == (8, 5, True)
    assert (session.json, session.quiet, session.verbose) == (True, True, 1)


def test_the_option_after_the_command_wins_and_definitions_add_up(install: Install) -> None:
    seen: list[common.Session] = []
    install(seen.append)
    assert main(["--spp", "4", "-D", "a=1", "-D", "b=1", "probe", "--spp", "16", "-D", "b=2"]) == 0
    assert seen[0].spp == 16 and seen[0].defines == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("session", "sentence"),
    [
        (common.Session(deterministic=True, variant="cuda_ad_rgb"), "the order of sums on a GPU is not fixed"),
        (common.Session(deterministic=True, threads=4), "needs one thread, but -t 4 was given"),
    ],
)
def test_deterministic_refuses_what_it_cannot_keep(session: common.Session, sentence: str) -> None:
    with pytest.raises(errors.UsageError, match=sentence):
        session.activate()


# -- errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError("a", where="b", nearest=["c"], remedy="d"), 2),
        (errors.InputError("a", where="b", nearest=["c"], remedy="d"), 3),
        (errors.EnvironmentFault("a", where="b", nearest=["c"], remedy="d"), 4),
        (errors.Diverged("a", where="b", nearest=["c"], remedy="d"), 5),
        (errors.Inconclusive("a", where="b", nearest=["c"], remedy="d"), 6),
        (errors.StorageFault("a", where="b", nearest=["c"], remedy="d"), 7),
        (errors.WorkerLost("a", where="b", nearest=["c"], remedy="d"), 8),
    ],
)
def test_every_error_is_one_sentence_with_its_exit_code(
    install: Install, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    def fail(_session: common.Session) -> None:
        raise error

    install(fail)
    assert main(["probe"]) == code
    assert capsys.readouterr().err == "error: b: a; did you mean 'c'? d\n"


def test_an_unsupported_gradient_is_a_usage_error(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_session: common.Session) -> None:
        raise UnsupportedGradient("an index of refraction is not continuous", key="glass.eta", remedy="use rough glass")

    install(fail)
    assert main(["probe"]) == 2
    assert "glass.eta: an index of refraction is not continuous; use rough glass" in capsys.readouterr().err


def test_the_cause_that_a_loop_hides_decides(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_session: common.Session) -> None:
        raise RuntimeError("dr.while_loop(): encountered an exception (see above)") from errors.InputError(
            "bad", "x.ply"
        )

    install(fail)
    assert main(["probe"]) == 3
    assert capsys.readouterr().err == "error: x.ply: bad\n"


def test_an_unexpected_error_tells_its_causes_and_the_traceback_only_with_v(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_session: common.Session) -> None:
        raise RuntimeError("dr.while_loop(): encountered an exception (see above)") from ValueError("the\nreason")

    install(fail)
    assert main(["probe"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "internal error, please report it" in err
    assert "caused by ValueError: the reason" in err and "Traceback" not in err
    assert main(["probe", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_errors_are_objects_with_json(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_session: common.Session) -> None:
        raise errors.InputError("no such file", where="a.xml", nearest=["b.xml"])

    install(fail)
    assert main(["probe", "--json"]) == 3
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["exit_code"] == 3 and error["where"] == "a.xml" and error["nearest"] == ["b.xml"]


def test_ctrl_c_ends_with_130(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(_session: common.Session) -> None:
        raise KeyboardInterrupt

    install(stop)
    assert main(["probe"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_full_disk_ends_with_7(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_session: common.Session) -> None:
        raise OSError(28, "No space left on device", "out.exr")

    install(fail)
    assert main(["probe"]) == 7
    assert capsys.readouterr().err == "error: out.exr: No space left on device\n"


@pytest.mark.parametrize(("value", "code"), [(None, 0), (0, 0), (1, 1), (6, 6)])
def test_what_a_command_returns_is_the_exit_code(install: Install, value: int | None, code: int) -> None:
    install(lambda _session: value)
    assert main(["probe"]) == code


# -- streams


def test_json_is_one_object_and_nothing_else_on_stdout(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def work(session: common.Session) -> None:
        session.say("rendering")
        warnings.warn(GradientWarning("W1", "half of it", "do more"), stacklevel=1)
        session.emit({"image": np.eye(2), "mean": np.float32(0.5), "bad": float("nan"), "path": Path("a")}, "text")

    install(work)
    assert main(["probe", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "image": [[1, 0], [0, 1]],
        "mean": 0.5,
        "bad": None,
        "path": "a",
        "warnings": ["[W1] half of it; do more"],
    }
    assert err == "rendering\nwarning: [W1] half of it; do more\n"


def test_quiet_silences_progress_but_not_warnings(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def work(session: common.Session) -> None:
        session.say("rendering")
        session.detail("detail")
        session.console.print("bar")
        warnings.warn("beware", stacklevel=1)
        session.emit({}, "result")

    install(work)
    assert main(["-q", "probe"]) == 0
    assert capsys.readouterr() == ("result\n", "warning: beware\n")


def test_what_cannot_be_written_as_json_is_an_error_and_not_a_guess() -> None:
    with pytest.raises(TypeError, match="object"):
        common.to_json({"a": object()})


def test_a_reader_that_goes_away_leaves_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stdout:
        done = run("scenes", "list", capture_output=False, stdout=stdout, stderr=subprocess.PIPE)
    assert done.stderr == "" and done.returncode == 141


def test_a_closed_stdout_leaves_no_traceback() -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m pathtracer scenes list >&-"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.stderr == "" and done.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_stdout_ends_with_7_and_one_sentence() -> None:
    with open("/dev/full", "w") as stdout:
        done = run("scenes", "list", capture_output=False, stdout=stdout, stderr=subprocess.PIPE)
    assert done.returncode == 7 and done.stderr == "error: stdout: No space left on device\n"


def test_what_the_c_side_prints_goes_to_stderr() -> None:
    code = (
        "import os, sys\nfrom pathtracer.cli import main\nmain._reserve_stdout()\n"
        "os.write(1, b'log of the renderer\\n')\nprint('result')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout == "result\n" and done.stderr == "log of the renderer\n"
