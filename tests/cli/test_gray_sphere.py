"""Real photographs: lamps and paint of the gray sphere, and a photograph that was left out."""

from __future__ import annotations

import json
import shutil

import mitsuba as mi
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from pathtracer.capture import load_views
from pathtracer.cli.main import main


@pytest.fixture
def photographs(shared_data):
    folder = shared_data / "gray_sphere"
    if not folder.is_dir():
        pytest.skip(f"needs the photographs in {folder}")
    return folder


@pytest.fixture
def sphere(repository):
    return repository / "scenes" / "gray-sphere"


def test_the_scene_has_the_circle_of_the_silhouette(photographs, sphere, tmp_path, capsys):
    """Measured where the brightest picture falls to half, and rendered at full size as a flat disc (its albedo)."""
    views = load_views(str(photographs / "image_*.png"), color="linear")
    photographed = circle(np.max([v.image for v in views], axis=0).mean(-1))
    out = tmp_path / "sphere.exr"
    options = ["-D", "width=512", "-D", "height=340", "--spp", "16", "--aovs", "albedo"]
    assert main(["render", str(sphere / "scene.xml"), *options, "-o", str(out)]) == 0
    rendered = circle(channel(out, "albedo.G"))
    np.testing.assert_allclose(rendered, photographed, atol=0.25)


def channel(path, name: str) -> np.ndarray:
    """One named channel of an EXR file."""
    bitmap = mi.Bitmap(str(path))
    return np.array(bitmap)[..., [f.name for f in bitmap.struct_()].index(name)]


def circle(image: np.ndarray, guess: tuple[float, float, float] = (245.0, 144.5, 108.0)) -> np.ndarray:
    """Column, row and radius of the circle through the half-bright points of rays from its centre, but the stand's."""
    x, y, r = guess
    angles = np.linspace(-1.25 * np.pi, 0.25 * np.pi, 541)  # rows grow downwards: this leaves out the lower quarter
    radii = np.linspace(0.88 * r, 1.1 * r, 240)
    points = []
    for a in angles:
        profile = map_coordinates(image, [y + radii * np.sin(a), x + radii * np.cos(a)], order=1)
        inside, outside = np.median(profile[:60]), np.median(profile[-40:])
        if inside - outside > 0.1:
            edge = radii[np.nonzero(profile < (inside + outside) / 2)[0][0]]
            points.append((x + edge * np.cos(a), y + edge * np.sin(a)))
    p = np.array(points)
    for _ in range(5):
        cx, cy, c = np.linalg.lstsq(np.c_[2 * p, np.ones(len(p))], (p**2).sum(1), rcond=None)[0]
        radius = np.sqrt(c + cx**2 + cy**2)
        p = p[np.abs(np.hypot(p[:, 0] - cx, p[:, 1] - cy) - radius) < 1]
    return np.array([cx, cy, radius])


def test_absent_photographs_are_named(sphere, tmp_path, capsys):
    copied = tmp_path / "a" / "b" / "c"
    shutil.copytree(sphere, copied)
    code = main(["estimate", str(copied / "job.toml"), "-o", str(tmp_path / "run")])
    err = capsys.readouterr().err
    assert code == 3 and "image_00.png: no such file" in err and "gray_sphere" in err
    assert not (tmp_path / "run" / "result").exists()


@pytest.mark.slow
def test_lamps_and_paint_of_the_photographs_are_recovered(photographs, sphere, tmp_path, capsys):
    code = main(["estimate", str(sphere / "job.toml"), "-o", str(tmp_path / "run"), "--json", "-q"])
    summary = json.loads(capsys.readouterr().out)
    assert code == 0
    assert summary["seconds"] < 300
    rows = {r["name"]: r for r in summary["parameters"]}
    angles = [r["error"] for r in rows.values() if r["space"] == "direction" and r["error"] is not None]
    assert len(angles) == 8
    assert np.mean(angles) <= 3, "degrees to the directions that were measured; a Lambertian fit has 3.3"
    irradiance = np.array([r["value"] for name, r in rows.items() if "irradiance" in name])
    assert np.ptp(irradiance) < 0.05 * irradiance.mean(), "the same lamp was moved about"
    assert 0.3 < rows["paint.roughness.value"]["value"] < 1


@pytest.mark.slow
def test_a_photograph_that_was_left_out_is_predicted_better_than_any_other_resembles_it(
    photographs, sphere, tmp_path, capsys
):
    code = main(["estimate", str(sphere / "holdout.toml"), "-o", str(tmp_path / "run"), "--json", "-q"])
    assert code == 0 and json.loads(capsys.readouterr().out)["heldout"] == ["image_08"]
    from pathtracer.report.sources import gather

    views = {v.name: v for v in gather(tmp_path / "run").views}
    held = views.pop("image_08")
    assert held.holdout
    error = held.error()
    others = []
    for view in views.values():
        held.result = view.target
        others.append(held.error())
    assert error is not None and error < 0.6 * min(o for o in others if o is not None)
