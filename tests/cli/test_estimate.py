"""`pathtracer estimate` and `resume` as a user meets them: results, folders, exit codes, sentences."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pathtracer.cli.main import main

QUICK = ["--iterations", "4", "--spp", "2", "-D", "res=16"]
KEYS = ("red", "green", "white")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, repository: Path) -> Path:
    """The bundled room with a small picture of it."""
    from pathtracer.capture import write_image
    from pathtracer.scenes import load_scene

    folder = tmp_path_factory.mktemp("room")
    shutil.copy(repository / "scenes" / "cornell-box" / "scene.xml", folder / "scene.xml")
    scene = load_scene(folder / "scene.xml", res=16)
    write_image(folder / "photo.exr", scene.render(spp=256, seed=5))
    job = """
[scene]
file = "scene.xml"
defines = {res = 16}
[views]
images = ["photo.exr"]
[[parameter]]
key = "red.reflectance.value"
init = 0.5
truth = "scene"
[estimator]
spp = 2
[solver]
iterations = 30
[run]
checkpoint = 5
[report]
spp = 4
"""
    (folder / "job.toml").write_text(job)
    return folder


def test_a_job_leaves_a_complete_run_folder_and_a_table(folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    code = main(["estimate", str(folder / "job.toml"), "-o", str(out), "--solver", "adam", "--iterations", "6"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "red.reflectance.value" in printed.out and "truth" in printed.out and str(out) in printed.out
    assert "solver adam" in printed.err and "step 1/6" in printed.err
    for name in (
        "job.toml",
        "history.jsonl",
        "state.json",
        "result/values.json",
        "result/scene.xml",
        "views/views.json",
    ):
        assert (out / name).is_file(), name
    assert len((out / "history.jsonl").read_text().splitlines()) == 6
    assert json.loads((out / "state.json").read_text())["status"] == "finished"
    from safetensors.numpy import load_file

    values = load_file(out / "result" / "values.safetensors")
    assert values["red.reflectance.value"].shape == (3,)


def test_json_is_one_object_on_stdout(folder: Path, tmp_path: Path, capsys) -> None:
    code = main(["estimate", str(folder / "job.toml"), "-o", str(tmp_path / "run"), "--json", "--iterations", "3"])
    summary = json.loads(capsys.readouterr().out)
    assert code == 0 and summary["steps"] == 3 and summary["parameters"][0]["name"] == "red.reflectance.value"


def test_a_scene_with_target_and_wrt_writes_the_job_that_it_ran(folder: Path, tmp_path: Path, capsys) -> None:
    command = ["estimate", str(folder / "scene.xml"), "--target", str(folder / "photo.exr")]
    command += ["--wrt", "*.reflectance.value", "--init", "*=0.4", *QUICK]
    assert main([*command, "-o", str(tmp_path / "first"), "--seed", "3", "-q"]) == 0
    job = tmp_path / "first" / "job.toml"
    assert main(["estimate", str(job), "-o", str(tmp_path / "again"), "-q"]) == 0
    capsys.readouterr()
    first, again = (
        json.loads((tmp_path / n / "history.jsonl").read_text().splitlines()[0]) for n in ("first", "again")
    )
    assert first["loss"] == pytest.approx(again["loss"], rel=1e-4)
    assert {f"{k}.reflectance.value" for k in KEYS} == set(first["values"])


@pytest.mark.parametrize(
    ("change", "code", "match"),
    [
        (("iterations", "iteration"), 2, "unknown key 'solver.iteration'; did you mean 'iterations'"),
        (("red.reflectance", "red.reflectanse"), 2, "did you mean 'red.reflectance.value'"),
        (("red.reflectance.value", "light.emitter.sampling_weight"), 2, "cannot be differentiated"),
        (("photo.exr", "foto.exr"), 3, "foto.exr"),
        (("res = 16", "res = 20"), 3, "16 x 16 pixels, the film 20 x 20"),
        (("scene.xml", "sceen.xml"), 3, "sceen.xml"),
    ],
)
def test_a_mistake_in_a_job_is_one_sentence_and_a_code(
    folder: Path, tmp_path: Path, capsys, change: tuple[str, str], code: int, match: str
) -> None:
    text = (folder / "job.toml").read_text()
    for name in ("scene.xml", "photo.exr"):
        shutil.copy(folder / name, tmp_path / name)
    (tmp_path / "job.toml").write_text(text.replace(*change, 1))
    assert main(["estimate", str(tmp_path / "job.toml"), "-o", str(tmp_path / "run")]) == code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and re.search(match, error), error
    assert "Traceback" not in error and not (tmp_path / "run" / "job.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["{scene}", "--wrt", "red.reflectance.value"], "--target is needed"),
        (["{scene}", "--target", "{photo}"], "--wrt is needed"),
        (["{job}", "--wrt", "x"], "names its parameters itself"),
        (["{job}", "--loss", "l3"], "one of l2"),
        (["{scene}", "--target", "{photo}", "--wrt", "red.*", "--init", "blue=1"], "not among the --wrt keys"),
        (["{scene}", "--target", "{photo}", "--wrt", "red.*", "--init", "red"], "not of the form"),
    ],
)
def test_wrong_commands_are_usage_errors(folder: Path, capsys, arguments: list[str], match: str) -> None:
    places = {"scene": folder / "scene.xml", "photo": folder / "photo.exr", "job": folder / "job.toml"}
    assert main(["estimate", *(a.format(**places) for a in arguments)]) == 2
    assert re.search(match, capsys.readouterr().err)


def test_help_answers_without_loading_the_renderer() -> None:
    code = (
        "import sys; from pathtracer.cli.main import main; main(['estimate', '--help']);"
        "print('mitsuba' in sys.modules, 'drjit' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Examples" in done.stdout and done.stderr.strip() == "False False"


def test_a_folder_that_cannot_be_written_is_exit_7(folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert main(["estimate", str(folder / "job.toml"), "-o", str(tmp_path / "file" / "run")]) == 7
    assert "cannot be written" in capsys.readouterr().err


def start(job: Path, out: Path, *options: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "pathtracer", "estimate", str(job), "-o", str(out), "--deterministic", *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def wait_for_steps(out: Path, count: int, process: subprocess.Popen) -> None:
    for _ in range(1200):
        if process.poll() is not None:
            raise AssertionError(process.communicate())
        history = out / "history.jsonl"
        if history.exists() and len(history.read_text().splitlines()) >= count:
            return
        time.sleep(0.05)
    raise AssertionError("no steps")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_resumes_to_the_result_of_an_uninterrupted_one(
    folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    options = ("--iterations", "60", "--solver", "adam")
    whole = start(folder / "job.toml", tmp_path / "whole", *options)
    whole.communicate()
    assert whole.returncode == 0
    broken = start(folder / "job.toml", tmp_path / "broken", *options)
    wait_for_steps(tmp_path / "broken", 12, broken)
    broken.send_signal(number)
    _, errors = broken.communicate()
    if number is signal.SIGKILL:
        assert broken.returncode == -signal.SIGKILL
    else:
        assert broken.returncode == 128 + number and "go on with" in errors
        assert json.loads((tmp_path / "broken" / "state.json").read_text())["status"] == "interrupted"
    done = subprocess.run([sys.executable, "-m", "pathtracer", "resume", str(tmp_path / "broken")], capture_output=True)
    assert done.returncode == 0, done.stderr
    from safetensors.numpy import load_file

    a, b = (load_file(tmp_path / name / "result" / "values.safetensors") for name in ("whole", "broken"))
    np.testing.assert_array_equal(a["red.reflectance.value"], b["red.reflectance.value"])
    records = [json.loads(line) for line in (tmp_path / "broken" / "history.jsonl").read_text().splitlines()]
    assert [r["index"] for r in records] == list(range(len(records)))


@pytest.mark.slow
def test_the_bundled_room_is_recovered_to_one_percent(repository: Path, tmp_path: Path, capsys) -> None:
    job = repository / "scenes" / "cornell-box" / "job.toml"
    assert main(["estimate", str(job), "-o", str(tmp_path / "run"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert len(summary["parameters"]) == 4
    for parameter in summary["parameters"]:
        assert parameter["error"] < 0.01, parameter


@pytest.mark.slow
def test_the_room_of_others_is_recovered_to_two_percent(shared_data: Path, tmp_path: Path, capsys) -> None:
    from pathtracer.capture import write_image
    from pathtracer.scenes import load_scene

    path = shared_data / "third_party" / "cbox.xml"
    if not path.is_file():
        pytest.skip(f"needs {path}")
    scene = load_scene(path, res=48)
    write_image(tmp_path / "photo.exr", scene.render(spp=2048, seed=777))
    light = next(k for k in scene.params.keys() if k.endswith("radiance.value"))  # noqa: SIM118
    truth = {k: np.array(scene.params[k]).ravel() for k in ("red.reflectance.value", "green.reflectance.value", light)}
    command = ["estimate", str(path), "--target", str(tmp_path / "photo.exr"), "-D", "res=48", "--spp", "8", "--json"]
    command += ["--loss", "noise_weighted", "-o", str(tmp_path / "run")]
    for key in truth:
        command += ["--wrt", key]
    command += ["--init", "red.reflectance.value=0.3", "--init", "green.reflectance.value=0.3", "--init", f"{light}=8"]
    assert main(command) == 0
    summary = json.loads(capsys.readouterr().out)
    for parameter in summary["parameters"]:
        np.testing.assert_allclose(parameter["value"], truth[parameter["name"]], rtol=0.02)
