"""Real processes, killed without warning at random moments, come to the same bits as one that was left alone."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from walls import job, write_walls

from pathtracer.inverse.job import Job, read_job


def run(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "pathtracer", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def steps(folder: Path) -> int:
    history = folder / "history.jsonl"
    return len(history.read_text().splitlines()) if history.exists() else 0


def kill_at(process: subprocess.Popen[str], folder: Path, count: int, delay: float) -> None:
    """SIGKILL once the history has `count` lines, `delay` seconds later."""
    deadline = time.monotonic() + 300
    while steps(folder) < count and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    time.sleep(delay)
    process.kill()
    process.communicate()


def walls_job(folder: Path) -> Job:
    write_walls(folder)
    return job(folder, 240, solver={"stop": "never"}, loss={"kind": "noise_weighted"})


def capture_job(repository: Path) -> Job:
    """The bundled capture with few steps of few samples: batches of views, textures, sky, a pose and priors at once."""
    base = repository / "scenes" / "capture"
    wanted = read_job(base / "job.toml").resolved(base)
    wanted.estimator.spp, wanted.solver.iterations = 2, 120
    wanted.run.checkpoint, wanted.run.deterministic = 7, True
    wanted.report.spp, wanted.report.export = 2, False
    return wanted


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("what", ["walls", "capture"])
@pytest.mark.skipif("'llvm' not in __import__('mitsuba').variant()", reason="the order of sums on a GPU is not fixed")
def test_a_run_killed_three_times_at_random_moments_comes_to_the_same_bits(
    what: str, tmp_path: Path, repository: Path
) -> None:
    seed = int(os.environ.get("KILL_SEED", random.SystemRandom().randrange(10**6)))
    print(f"KILL_SEED={seed}")
    moments = random.Random(seed)
    wanted = walls_job(tmp_path) if what == "walls" else capture_job(repository)
    apart = int(wanted.solver.iterations) // 5
    (tmp_path / "job.toml").write_text(wanted.to_toml())
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    process = run("estimate", str(tmp_path / "job.toml"), "-o", str(whole))
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    arguments = ["estimate", str(tmp_path / "job.toml"), "-o", str(broken)]
    for _ in range(3):
        done = steps(broken)
        target = moments.randrange(max(done, 6), max(done, 6) + apart)
        kill_at(run(*arguments), broken, target, moments.random() * 0.1)
        print(f"killed after {steps(broken)} steps")
        arguments = ["resume", str(broken)]
    process = run(*arguments)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    a, b = (load_file(f / "result" / "values.safetensors") for f in (whole, broken))
    assert a.keys() == b.keys()
    for key, value in a.items():
        np.testing.assert_array_equal(value, b[key])
    histories = [[json.loads(line) for line in (f / "history.jsonl").read_text().splitlines()] for f in (whole, broken)]
    for record in (r for h in histories for r in h):
        record.pop("seconds")
    assert histories[0] == histories[1]
    assert (broken / "report.html").read_text().rstrip().endswith("</html>")
