"""`render` and `grad`: files, numbers and sentences."""

from __future__ import annotations

import json
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from safetensors.numpy import load_file

from pathtracer.capture import read_header, read_image
from pathtracer.cli.main import main
from pathtracer.cli.render import _AOVS

# A wall of albedo 0.4 under perpendicular light of irradiance 2 pi: every pixel is 0.8, without noise.
WALL = """<scene version="3.0.0">
  <default name="res" value="12"/>
  <integrator type="path"><integer name="max_depth" value="2"/></integrator>
  <sensor type="perspective" id="camera"><float name="fov" value="30"/>
    <transform name="to_world"><lookat origin="0,0,3" target="0,0,0" up="0,1,0"/></transform>
    <sampler type="independent"><integer name="sample_count" value="16"/></sampler>
    <film type="hdrfilm"><integer name="width" value="$res"/><integer name="height" value="$res"/><rfilter type="box"/>
      <string name="pixel_format" value="rgb"/></film></sensor>
  <emitter type="directional" id="sun"><vector name="direction" x="0" y="0" z="-1"/>
    <rgb name="irradiance" value="6.2831853,6.2831853,6.2831853"/></emitter>
  <shape type="rectangle" id="wall"><transform name="to_world"><scale value="4"/></transform>
    <bsdf type="diffuse" id="paint"><rgb name="reflectance" value="0.4,0.4,0.4"/></bsdf></shape>
  {extra}
</scene>"""

KEY = "wall.bsdf.reflectance.value"
BALL = '<shape type="sphere" id="ball"><float name="radius" value="0.4"/></shape>'


@pytest.fixture
def wall(tmp_path) -> Path:
    path = tmp_path / "wall.xml"
    path.write_text(WALL.format(extra=""))
    return path


@pytest.fixture
def ball(tmp_path) -> Path:
    path = tmp_path / "ball.xml"
    path.write_text(WALL.format(extra='<emitter type="constant"/>' + BALL))
    return path


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_render_writes_the_image_that_the_scene_has(capsys, wall, tmp_path):
    code, out, _ = run(capsys, "render", wall, "-o", tmp_path / "a.exr", "--spp", 64, "--json")
    report = json.loads(out)
    assert code == 0 and report["spp"] == 64 and report["passes"] == 1
    image, _ = read_image(tmp_path / "a.exr")
    assert image.shape == (12, 12, 3)
    np.testing.assert_allclose(image, 0.8, rtol=1e-5)
    np.testing.assert_allclose(report["mean"], 0.8, rtol=1e-3)


def test_png_is_srgb(capsys, wall, tmp_path):
    assert run(capsys, "render", wall, "-o", tmp_path / "a.png")[0] == 0
    assert abs(int(iio.imread(tmp_path / "a.png")[3, 3, 0]) - 231) <= 1  # sRGB of 0.8


def test_many_samples_are_split_into_passes_and_the_size_follows_defines(capsys, wall, tmp_path):
    code, out, _ = run(capsys, "render", wall, "-D", "res=6", "-o", tmp_path / "a.exr", "--spp", 1300, "--json")
    report = json.loads(out)
    assert code == 0 and report["passes"] == 3 and report["spp"] == 1302 and report["width"] == 6


def test_variance_image_predicts_the_spread_between_seeds(capsys, ball, tmp_path):
    arguments = ("--spp", 64, "--variance", "-D", "res=8", "--json")
    images, variances = [], []
    for seed in range(8):
        code, out, _ = run(capsys, "render", ball, "-o", tmp_path / "a.exr", "--seed", seed, *arguments)
        assert code == 0 and json.loads(out)["relative_error"] > 0
        images.append(read_image(tmp_path / "a.exr")[0])
        variances.append(read_image(tmp_path / "a.variance.exr")[0])
    measured, predicted = np.var(images, axis=0, ddof=1).mean(), np.mean(variances)
    # 64 pixels, about 40 of them noisy, 7 degrees of freedom each: the ratio has a relative spread below 0.12
    assert 0.6 < measured / predicted < 1.6


def test_a_time_budget_ends_a_render(capsys, wall, tmp_path):
    code, out, _ = run(capsys, "render", wall, "-o", tmp_path / "a.exr", "--time-budget", 0.5, "--json")
    report = json.loads(out)
    assert code == 0 and report["seconds"] < 5 and report["spp"] >= 512


def test_extra_channels_lie_beside_the_colour(capsys, wall, tmp_path):
    path = tmp_path / "a.exr"
    code, out, _ = run(capsys, "render", wall, "-o", path, "--spp", 4, "--aovs", ",".join(_AOVS), "--json")
    assert code == 0
    channels = read_header(path).channels
    assert {"R", "G", "B"} <= set(channels) and any("depth" in c for c in channels)
    np.testing.assert_allclose(read_image(path)[0], 0.8, rtol=1e-5)
    assert any("albedo" in c for c in json.loads(out)["channels"])


@pytest.mark.parametrize(
    "options, sentence",
    [
        ((), "no file to write"),
        (("-o", "a.webp"), "cannot write images of the kind '.webp'"),
        (("-o", "a.exr", "--integrator", "pathh"), "did you mean 'path'"),
        (("-o", "a.exr", "--aovs", "dept"), "did you mean 'depth'"),
        (("-o", "a.png", "--aovs", "depth"), "need an EXR file"),
        (("-o", "a.exr", "--spp", "4", "--time-budget", "1"), "exclude each other"),
        (("-o", "a.exr", "-s", "3"), "sensor 3 does not exist"),
    ],
)
def test_wrong_render_options_are_named(capsys, wall, monkeypatch, tmp_path, options, sentence):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "render", wall, *options)
    assert code == 2 and sentence in err and "Traceback" not in err


def test_grad_writes_the_derivative_and_its_picture(capsys, wall, tmp_path):
    path = tmp_path / "g.exr"
    code, out, err = run(
        capsys, "grad", wall, "--wrt", "wall.bsdf.reflectance.value", "-o", path, "--spp", 32, "--json"
    )
    report = json.loads(out)
    assert code == 0 and report["files"] == [str(path), str(path.with_suffix(".png"))]
    # image = 2 albedo, in every channel: the derivative along (1, 1, 1) is 2
    np.testing.assert_allclose(report["mean"], 2, rtol=1e-3)
    picture = iio.imread(path.with_suffix(".png")).astype(int)
    assert picture[10, 10, 0] > picture[10, 10, 2] + 50, "positive is red"
    assert "warning" not in err


def test_a_motion_chooses_the_direction(capsys, wall, tmp_path):
    arguments = (
        "grad",
        wall,
        "--wrt",
        "wall.bsdf.reflectance.value",
        "--motion",
        "value:0,-1,0",
        "-o",
        tmp_path / "g.exr",
    )
    _, out, _ = run(capsys, *arguments, "--json", "--spp", 16)
    np.testing.assert_allclose(json.loads(out)["mean"], [0, -2, 0], atol=2e-3)


def test_backward_mode_says_what_it_differentiates_and_keeps_it(capsys, wall, tmp_path):
    path = tmp_path / "g.safetensors"
    keys = ("--wrt", "wall.bsdf.reflectance.value", "--wrt", "sun.irradiance.value")
    code, out, _ = run(capsys, "grad", wall, *keys, "--mode", "backward", "--spp", 32, "-o", path)
    assert code == 0 and "J = mean of all pixels and channels of the image = 0.8" in out
    gradients = load_file(path)
    # J = mean over three channels of albedo x irradiance / pi
    np.testing.assert_allclose(gradients["wall.bsdf.reflectance.value"], 2 / 3, rtol=1e-3)
    np.testing.assert_allclose(gradients["sun.irradiance.value"], 0.4 / np.pi / 3, rtol=1e-3)


def test_an_incomplete_derivative_warns_with_a_code_and_is_refused_when_strict(capsys, ball, tmp_path):
    arguments = ("grad", ball, "--wrt", "ball.to_world", "--motion", "translate:x", "-o", tmp_path / "g.exr")
    arguments += ("--estimator", "path_replay", "--spp", 4)
    code, _, err = run(capsys, *arguments)
    assert code == 0 and "[visibility-ignored]" in err and "primary" in err
    code, _, err = run(capsys, *arguments, "--strict")
    assert code == 2 and "leaves out" in err


def test_a_derivative_that_is_not_finite_is_pointed_out(capsys, wall, tmp_path, monkeypatch):
    from pathtracer.verify import gradients

    whole = gradients.average_passes
    monkeypatch.setattr(
        gradients, "average_passes", lambda render, *a, **k: whole(lambda *b: render(*b) * np.nan, *a, **k)
    )
    arguments = ("grad", wall, "--wrt", KEY, "-o", tmp_path / "g.exr", "--spp", 4, "--estimator", "path_replay")
    code, _, err = run(capsys, *arguments)
    assert code == 0 and "[not-finite]" in err and "432 values" in err  # 12 x 12 x 3


def test_a_derivative_that_is_zero_everywhere_is_pointed_out(capsys, wall, tmp_path):
    hidden = '<shape type="sphere" id="far"><float name="radius" value="0.1"/><point name="center" value="0,0,-9"/>'
    hidden += '<bsdf type="diffuse" id="unseen"/></shape>'
    wall.write_text(WALL.format(extra=hidden))
    code, _, err = run(
        capsys, "grad", wall, "--wrt", "far.bsdf.reflectance.value", "-o", tmp_path / "g.exr", "--spp", 4
    )
    assert code == 0 and "[zero-gradient]" in err


@pytest.mark.parametrize(
    "options, sentence",
    [
        (("--wrt", "wall.bsdf.reflectance.valu", "-o", "g.exr"), "did you mean 'wall.bsdf.reflectance.value'"),
        (("--wrt", "wall.bsdf.reflectance.value"), "no file to write"),
        (("--wrt", "wall.bsdf.reflectance.value", "-o", "g.png"), "writes .exr files"),
        (
            ("--wrt", "wall.bsdf.reflectance.value", "-o", "g.exr", "--estimator", "path_repla"),
            "did you mean 'path_replay'",
        ),
        (("--wrt", "wall.bsdf.reflectance.value", "-o", "g.exr", "--motion", "spin:x"), "unknown motion 'spin'"),
        (("--wrt", "*", "-o", "g.exr", "--motion", "value"), "a motion needs one"),
        (("--wrt", "*", "--mode", "backward", "--motion", "value"), "belongs to forward mode"),
    ],
)
def test_wrong_grad_options_are_named(capsys, wall, monkeypatch, tmp_path, options, sentence):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "grad", wall, *options)
    assert code == 2 and sentence in err and "Traceback" not in err
