"""The bundled capture: its files tell the same cameras, and its job recovers what was photographed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pathtracer.capture.colmap import read_colmap
from pathtracer.capture.transforms import read_transforms
from pathtracer.inverse.job import read_job
from pathtracer.inverse.setup import read_views


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    return repository / "scenes" / "capture"


def test_colmap_and_transforms_give_the_same_cameras_to_1e_minus_5(folder):
    ours, theirs = read_transforms(folder / "photos").shots, read_colmap(folder / "photos").shots
    assert len(ours) == len(theirs) == 24
    for a, b in zip(ours, theirs, strict=True):
        assert a.file.samefile(b.file)
        np.testing.assert_allclose(a.camera.to_world, b.camera.to_world, atol=1e-5)
        for name in ("fx", "fy", "cx", "cy", "width", "height"):
            assert getattr(a.camera, name) == pytest.approx(getattr(b.camera, name), abs=1e-5)


def test_the_job_reads_twenty_views_to_fit_and_four_to_predict_and_doubts_no_camera(folder):
    views = read_views(read_job(folder / "job.toml").views, folder)
    assert (len(views.fitted), len(views.heldout)) == (20, 4)
    assert not any("silhouettes" in n or "look away" in n for n in views.notes)
    assert all(v.mask is None and v.image[0, 0].sum() == 0 for v in views), "cut out and composited over black"


def test_the_photographs_show_the_scene_of_the_script(folder):
    """One photograph taken again: the files that lie there are those that make.py writes."""
    sys.path.insert(0, str(folder))
    try:
        import make
    finally:
        sys.path.remove(str(folder))
    import mitsuba as mi

    scene, camera = make.truth(), make.cameras()[7]
    views = read_views(read_job(folder / "job.toml").views, folder)
    sensor = dict(views[7].sensor)
    pose = mi.ScalarTransform4f(sensor.pop("to_world"))
    film = {"type": "hdrfilm", "width": camera.width, "height": camera.height, "pixel_format": "rgb"}
    sensor = mi.load_dict({**sensor, "to_world": pose, "film": {**film, "rfilter": {"type": "box"}}})
    image = scene.render(spp=256, seed=99, sensor=sensor)
    error = np.sqrt(np.mean((image - views[7].image) ** 2))
    assert error < 0.01, "noise and 8 bits"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_job_recovers_paint_gloss_sky_and_place(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "capture", ignore=shutil.ignore_patterns("__pycache__"))
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "pathtracer",
        "estimate",
        str(tmp_path / "capture" / "job.toml"),
        "-o",
        str(run),
        "-q",
    ]
    subprocess.run(command, check=True)
    told = subprocess.run(
        [sys.executable, str(folder / "measure.py"), str(run)], check=True, capture_output=True, text=True
    ).stdout
    found = {line.split()[0]: float(line.split()[1]) for line in told.splitlines()}
    assert found["paint_psnr_db"] >= 28
    assert found["heldout_psnr_db"] >= 30
    assert found["roughness"] == pytest.approx(found["roughness_truth"], abs=0.02)
    assert found["box_offset"] < 0.005 and found["box_turn_degrees"] < 0.5
    assert (run / "result" / "scene.xml").is_file() and (run / "report.html").is_file()
