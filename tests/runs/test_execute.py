"""Whole runs: what the folder shows while they go on, after failures, and after going on."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from walls import LAMP, PAINT, job, write_walls

from pathtracer.cli.main import main
from pathtracer.errors import EnvironmentFault, StorageFault, UsageError
from pathtracer.inverse.estimation import EXPLODE_LIMIT
from pathtracer.inverse.objective import Objective
from pathtracer.report.page import _headline
from pathtracer.report.sources import gather
from pathtracer.runs import RunFolder, read_history
from pathtracer.runs.execute import execute
from pathtracer.runs.folder import read_arrays
from pathtracer.runs.progress import Budget


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_walls(tmp_path_factory.mktemp("walls")).parent


@pytest.fixture
def one_thread():
    import drjit as dr

    count = dr.thread_count()
    dr.set_thread_count(1)
    yield
    dr.set_thread_count(count)


class Quiet:
    """An observer that does something at one step."""

    def __init__(self, at: int = -1, action=None) -> None:
        self.at, self.action = at, action
        self.notes: list[str] = []

    def begin(self, estimation, folder) -> None:
        self.folder = folder

    def step(self, step) -> None:
        if step.index == self.at:
            self.action()

    def note(self, text: str) -> None:
        self.notes.append(text)


def comparable(records: list[dict]) -> list[dict]:
    return [{k: v for k, v in r.items() if k != "seconds"} for r in records]


@pytest.mark.skipif("'llvm' not in __import__('mitsuba').variant()", reason="the order of sums on a GPU is not fixed")
def test_a_run_that_went_on_tells_the_same_as_one_that_was_never_interrupted(folder, tmp_path, one_thread, monkeypatch):
    evaluate = Objective.evaluate

    def noisy(self, latent, step, spp=None):
        if step == 2:
            warnings.warn("[odd] the second step looked odd; look again", stacklevel=1)
        return evaluate(self, latent, step, spp)

    monkeypatch.setattr(Objective, "evaluate", noisy)
    with pytest.warns(UserWarning, match="odd"):
        whole = execute(job(folder), folder, tmp_path / "whole", Quiet())
    with pytest.warns(UserWarning, match="odd"):
        first = execute(job(folder), folder, tmp_path / "broken", Quiet(11, lambda: signal.raise_signal(signal.SIGINT)))
    assert first.code == 130 and len(first.result.history) == 12
    second = execute(job(folder), folder, tmp_path / "broken", Quiet(), resume=True)
    assert second.code == 0
    for key, value in whole.result.values.items():
        np.testing.assert_array_equal(value, second.result.values[key])
    assert comparable([s.record() for s in whole.result.history]) == comparable(
        [s.record() for s in second.result.history]
    )
    assert whole.result.warnings == second.result.warnings and any("odd" in w for w in whole.result.warnings)
    a, b = gather(whole.folder), gather(second.folder)
    np.testing.assert_array_equal(a.loss, b.loss)
    assert [w.message for w in a.warnings] == [w.message for w in b.warnings]
    assert [w.remedy for w in a.warnings if w.code == "odd"] == ["look again"]


def test_textures_are_shown_with_start_and_truth_after_a_run_and_after_going_on(folder, tmp_path):
    execute(job(folder), folder, tmp_path / "run", Quiet(6, lambda: signal.raise_signal(signal.SIGINT)))
    for resume in (False, True):
        if resume:
            execute(job(folder), folder, tmp_path / "run", Quiet(), resume=True)
        paint = next(p for p in gather(tmp_path / "run").parameters if p.key == PAINT)
        assert paint.is_image and paint.value.shape == (6, 8, 3)
        np.testing.assert_allclose(paint.start, 0.5, atol=1e-6)
        assert paint.truth is not None and paint.truth.std() > 0.05 and paint.value.std() > 0
    assert "Textures" in (tmp_path / "run" / "report.html").read_text()


def test_a_diverged_run_has_a_line_for_the_step_that_it_fell_over(folder, tmp_path, monkeypatch):
    evaluate = Objective.evaluate

    def exploding(self, latent, step, spp=None):
        e = evaluate(self, latent, step, spp)
        e.loss *= 1e9 if step > 6 else 1.0
        return e

    monkeypatch.setattr(Objective, "evaluate", exploding)
    outcome = execute(job(folder), folder, tmp_path / "run", Quiet())
    assert outcome.code == 5 and len(read_history(tmp_path / "run")) == 7 + EXPLODE_LIMIT
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    assert state["status"] == "diverged" and "exploded" in state["error"]
    assert "exploded" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_that_fails_says_so_in_its_state_and_report(folder, tmp_path):
    def fail() -> None:
        raise RuntimeError("the roof fell in")

    with pytest.raises(RuntimeError, match="roof"):
        execute(job(folder), folder, tmp_path / "run", Quiet(7, fail))
    state = json.loads((tmp_path / "run" / "state.json").read_text())
    assert state["status"] == "failed" and state["error"] == "the roof fell in"
    assert "roof" in (tmp_path / "run" / "report.html").read_text()
    assert execute(job(folder), folder, tmp_path / "run", Quiet(), resume=True).code == 0


def test_the_report_is_there_while_the_run_goes_on_and_after_it_was_killed(folder, tmp_path):
    seen = []

    def look() -> None:
        seen.append(gather(tmp_path / "run"))
        seen.append((tmp_path / "run" / "report.html").read_text())

    execute(job(folder), folder, tmp_path / "run", Quiet(3, look))
    data, html = seen
    assert data.status == "running" and 'http-equiv="refresh"' in html and html.rstrip().endswith("</html>")
    assert data.views[0].result is not None and data.views[0].start is not None
    assert next(p for p in data.parameters if p.key == PAINT).value.shape == (6, 8, 3)
    assert any(p.key == LAMP for p in data.parameters)
    # what a killed process leaves: a state that says "running", and no lock
    state = tmp_path / "run" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"status": "running"}))
    killed = gather(tmp_path / "run")
    assert "without an end" in killed.status and "resume" in killed.warnings[0].remedy


def test_the_start_of_a_view_is_its_first_render_and_views_without_a_picture_yet_are_counted(folder, tmp_path):
    views = [{"file": str(folder / "photo.exr"), "name": f"photo {k}", "holdout": k == 3} for k in range(4)]
    seen = []

    def look() -> None:
        seen.append(gather(tmp_path / "run"))

    execute(job(folder, views={"images": views, "batch": 1}), folder, tmp_path / "run", Quiet(1, look))
    (data,) = seen
    assert len(data.views) == 1 and data.unpictured == (2, 1)
    np.testing.assert_array_equal(data.views[0].start, data.views[0].result)
    assert ("views", "3 + 1 held out") in _headline(data)


def test_showing_a_run_takes_its_share_of_the_time_and_no_more():
    budget, clock = Budget(share=0.02, every=5.0), 0.0
    times: list[float] = []
    for step in range(4000):
        clock += 0.1
        if budget.due(clock):
            cost = 0.2 + 1e-4 * step  # histories grow
            clock += cost
            budget.pay(clock, cost)
            times.append(clock)
    assert times[0] < 1 and 10 < len(times) < 60
    assert min(b - a for a, b in itertools.pairwise(times)) >= 5.0
    assert budget.spent <= 0.021 * clock


def test_large_unknowns_are_kept_in_the_form_that_the_report_shows(folder, tmp_path):
    execute(job(folder, iterations=2), folder, tmp_path / "run", Quiet())
    arrays = read_arrays(tmp_path / "run")
    assert set(arrays) == {f"{what}:{PAINT}" for what in ("start", "value", "truth")}


def test_times_are_split_into_loading_compiling_stepping_and_what_follows(folder, tmp_path):
    execute(job(folder, iterations=6), folder, tmp_path / "run", Quiet())
    timings = gather(tmp_path / "run").timings
    assert [name.split(" ")[0] for name in timings] == ["load", "compile", "6", "a", "pictures", "processor"]
    assert all(seconds >= 0 for seconds in timings.values())


def test_a_disk_that_fills_up_ends_the_run_with_exit_7_and_what_was_saved_goes_on(folder, tmp_path, monkeypatch):
    fsync = os.fsync

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageFault, match="No space left") as caught:
        execute(job(folder), folder, tmp_path / "run", Quiet(12, lambda: monkeypatch.setattr(os, "fsync", full)))
    assert caught.value.exit_code == 7
    monkeypatch.setattr(os, "fsync", fsync)
    saved = sorted(p.name for p in (tmp_path / "run" / "checkpoints").iterdir())
    assert saved == ["step-000005", "step-000010"]
    outcome = execute(job(folder), folder, tmp_path / "run", Quiet(), resume=True)
    assert outcome.code == 0 and [s.index for s in outcome.result.history] == list(range(20))


def test_a_run_killed_before_its_first_checkpoint_begins_anew(folder, tmp_path):
    execute(job(folder), folder, tmp_path / "run", Quiet(2, lambda: signal.raise_signal(signal.SIGINT)))
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # a killed process does not get to write one
    assert len(list(read_history(tmp_path / "run"))) == 3
    observer = Quiet()
    outcome = execute(job(folder), folder, tmp_path / "run", observer, resume=True)
    assert outcome.code == 0 and [s.index for s in outcome.result.history] == list(range(20))
    assert any("before its first checkpoint: it begins anew" in note for note in observer.notes)


def test_a_second_process_on_one_run_is_refused_with_exit_2(folder, tmp_path, capsys):
    execute(job(folder), folder, tmp_path / "run", Quiet(6, lambda: signal.raise_signal(signal.SIGINT)))
    with RunFolder(tmp_path / "run", fresh=False):
        assert main(["resume", str(tmp_path / "run")]) == 2
    assert "another process works in this run folder" in capsys.readouterr().err
    assert main(["resume", str(tmp_path / "run"), "-q"]) == 0


def test_tensorboard_gets_every_step_also_after_going_on(folder, tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX", reason='needs tensorboardX: pip install "pathtracer[tensorboard]"')
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)  # both sessions within a second
    logged = job(folder, report={"tensorboard": True})
    execute(logged, folder, tmp_path / "run", Quiet(8, lambda: signal.raise_signal(signal.SIGINT)))
    execute(logged, folder, tmp_path / "run", Quiet(), resume=True)
    events = b"".join(p.read_bytes() for p in sorted((tmp_path / "run" / "tensorboard").iterdir()))
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 2
    assert events.count(b"loss_error") == 20 and LAMP.encode() in events and b"view/photo" in events


def test_tensorboard_without_its_package_says_what_to_install(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(EnvironmentFault, match=r"pip install .pathtracer\[tensorboard\]"):
        execute(job(folder, report={"tensorboard": True}), folder, tmp_path / "run", Quiet())


def test_a_checkpoint_of_a_scene_that_was_edited_is_refused_with_both_hashes(folder, tmp_path):
    own = tmp_path / "walls"
    shutil.copytree(folder, own)
    execute(job(own), own, tmp_path / "run", Quiet(6, lambda: signal.raise_signal(signal.SIGINT)))
    (own / "wall.xml").write_text((own / "wall.xml").read_text().replace('value="9,8,7"', 'value="9,8,6"'))
    with pytest.raises(UsageError, match=r"scene file with hash [0-9a-f]{12}, the file now has [0-9a-f]{12}"):
        execute(job(own), own, tmp_path / "run", Quiet(), resume=True)
