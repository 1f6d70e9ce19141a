"""Signed pictures: white is zero, red and blue are its sides, the scale bar says how much."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest

from pathtracer.errors import StorageFault
from pathtracer.report import diverging_picture, diverging_png, preview_png
from pathtracer.report.pictures import display_scale, diverging_pixels, signed_scale


def test_zero_is_white_and_the_signs_are_red_and_blue():
    pixels = diverging_pixels(np.array([[0.0, 1.0, -1.0]]), 1.0).astype(int)
    assert (pixels[0, 0] == 255).all()
    assert pixels[0, 1, 0] > pixels[0, 1, 2] + 50, "positive is red"
    assert pixels[0, 2, 2] > pixels[0, 2, 0] + 50, "negative is blue"


def test_equal_magnitudes_are_equally_dark_for_everyone():
    ramp = np.linspace(0, 1, 9)[None]
    light = [diverging_pixels(sign * ramp, 1.0)[0].astype(float) @ [0.299, 0.587, 0.114] for sign in (1, -1)]
    for side in light:
        assert (np.diff(side) < 0).all(), "larger magnitudes are darker, whatever the hue looks like"
    assert np.abs(light[0] - light[1]).max() < 60


def test_exact_zeros_are_no_holes_in_small_values():
    pixels = diverging_pixels(np.array([[0.0, 1e-3, -1e-3]]), 1.0).astype(int)
    assert np.abs(pixels - 255).max() <= 2


def test_pixels_that_are_not_finite_stand_out():
    pixels = diverging_pixels(np.array([[np.nan, np.inf, 0.0]]), 1.0)
    assert (pixels[0, 0] == pixels[0, 1]).all() and pixels[0, 0, 1] > 150 and pixels[0, 0, 0] == 0


def test_the_scale_ignores_the_zeros_of_a_sparse_gradient():
    sparse = np.zeros((100, 100))
    sparse[50, 40:60] = 3
    assert signed_scale(sparse) == 3
    assert signed_scale(np.zeros((4, 4))) == 1


def test_a_small_image_is_enlarged_and_has_a_scale_bar(tmp_path):
    values = np.random.default_rng(0).normal(size=(8, 10, 3))
    scale = diverging_png(values, tmp_path / "d.png", label="per metre")
    assert scale == pytest.approx(signed_scale(values.mean(-1)))
    picture = iio.imread(tmp_path / "d.png")
    assert picture.shape[1] >= 256 and picture.shape[0] > 8 * (picture.shape[1] // 10)
    bar = picture[-25].astype(int)
    assert bar[12, 2] > bar[12, 0] and bar[-12, 0] > bar[-12, 2]
    assert diverging_png(values, tmp_path / "d.png", scale=7.0) == 7.0


def test_previews_are_srgb_and_scaled(tmp_path):
    preview_png(np.full((2, 2, 3), 0.107), tmp_path / "p.png", scale=2.0)
    assert abs(int(iio.imread(tmp_path / "p.png")[0, 0, 0]) - 128) <= 1
    assert display_scale(np.full((4, 4, 3), 10.0)) == pytest.approx(0.1)
    assert display_scale(np.full((4, 4, 3), 0.7)) == 1


def test_an_unwritable_folder_is_a_storage_fault(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFault):
        preview_png(np.zeros((2, 2, 3)), tmp_path / "file" / "p.png")


def test_the_picture_has_room_for_its_legend():
    assert diverging_picture(np.zeros((300, 400))).shape == (334, 400, 3)
