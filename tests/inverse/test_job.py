"""Job files: what is accepted, and that every mistake names its place and the nearest key."""

from __future__ import annotations

from pathlib import Path

import pytest

from pathtracer.errors import InputError, UsageError
from pathtracer.inverse.job import make_job, read_job

GOOD = """
[scene]
file = "scene.xml"
defines = {res = 32}
[views]
images = ["a.exr", {file = "b.exr", lit = ["lamp"], exposure = 2.0}]
[[parameter]]
key = "red.reflectance.value"
bounds = [0.0, 1.0]
init = 0.5
[solver]
iterations = 10
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "job.toml"
    path.write_text(text)
    return path


def test_a_job_survives_being_written_and_read(tmp_path: Path) -> None:
    job = read_job(write(tmp_path, GOOD))
    again = read_job(write(tmp_path, job.to_toml()))
    assert again == job and again.solver.options() == {"iterations": 10}


def test_resolving_makes_paths_absolute(tmp_path: Path) -> None:
    job = read_job(write(tmp_path, GOOD)).resolved(tmp_path)
    assert job.scene.file == str(tmp_path / "scene.xml")
    assert job.views.images[1].file == str(tmp_path / "b.exr")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("iterations", "iteration", "unknown key 'solver.iteration'; did you mean 'iterations'"),
        ("[solver]", "[solvers]", "unknown key 'solvers'; did you mean 'solver'"),
        ("bounds =", "bound =", r"unknown key 'parameter\[1\].bound'; did you mean 'bounds'"),
        ("exposure =", "exposur =", r"unknown key 'views.images\[2\].exposur'; did you mean 'exposure'"),
        ("iterations = 10", 'iterations = "ten"', r"'solver.iterations': .*integer, not 'ten'"),
        ("iterations = 10", "iterations = 0", "greater than or equal to 1, not 0"),
        ("iterations = 10", 'name = "adm"', "did you mean 'adam'"),
        ("iterations = 10", 'variant = "vektor"', "did you mean 'vector'"),
        ("iterations = 10", 'coarse = "sometimes"', "solver.coarse"),
        ("iterations = 10", "tile = 4", "did you mean 'tiles'"),
        ("iterations = 10", "focus = 1.5", "solver.focus"),
        ("init = 0.5", 'space = "logt"', "did you mean 'logit'"),
        ("[0.0, 1.0]", "[0.0]", "at least 2 items"),
        ('file = "scene.xml"', "", "'scene.file' is missing"),
        ("[solver]", "[solver", "not valid TOML.*line"),
    ],
)
def test_every_mistake_is_a_usage_error_with_its_place(tmp_path: Path, old: str, new: str, match: str) -> None:
    assert old in GOOD
    with pytest.raises(UsageError, match=match) as caught:
        read_job(write(tmp_path, GOOD.replace(old, new, 1)))
    assert "job.toml" in str(caught.value) and caught.value.exit_code == 2


def test_an_absent_job_names_the_nearest_file(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    with pytest.raises(InputError, match=r"did you mean 'job\.toml'"):
        read_job(tmp_path / "jop.toml")
    with pytest.raises(InputError, match="is a folder"):
        read_job(tmp_path)


def test_a_job_without_parameters_is_refused() -> None:
    with pytest.raises(UsageError, match="'parameter'"):
        make_job({"scene": {"file": "s.xml"}, "views": {"images": "a.exr"}, "parameter": []})


@pytest.mark.parametrize(
    ("prior", "match"),
    [
        ({"kind": "tv", "weigth": 1.0}, r"unknown key 'parameter\[1\].prior.weigth'; did you mean 'weight'"),
        ({"kind": "tw", "weight": 1.0}, "one of tv, smooth, normal was expected; did you mean 'tv'"),
        ({"kind": "tv"}, r"'parameter\[1\].prior.weight' is missing"),
    ],
)
def test_a_mistake_in_a_prior_is_named_with_its_place(prior, match) -> None:
    data = {"scene": {"file": "s.xml"}, "views": {"images": ["a.exr"]}, "parameter": [{"key": "k", "prior": prior}]}
    with pytest.raises(UsageError, match=match):
        make_job(data)
    data["parameter"][0]["prior"] = {"kind": "tv", "weight": 0.1}  # type: ignore[index]
    assert make_job(data).parameter[0].prior.weight == 0.1
