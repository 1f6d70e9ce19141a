"""Views carry mask, sensor, exposure and lit emitters; what does not fit is refused with both sides named."""

from __future__ import annotations

import imageio.v3 as iio
import numpy as np
import pytest

from pathtracer.capture import View, check_films, load_views, resample, write_image
from pathtracer.errors import InputError, UsageError


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("b", "a", "c"):
        iio.imwrite(tmp_path / f"{name}.png", rng.integers(0, 255, (4, 6, 3)).astype(np.uint8))
    mask = np.zeros((4, 6), np.uint8)
    mask[1:3, 2:5] = 255
    (tmp_path / "masks").mkdir()
    iio.imwrite(tmp_path / "masks" / "m.png", mask)
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_a_folder_is_read_in_the_order_of_its_names_and_the_conversion_is_said_once(photos):
    views = load_views(photos)
    assert [v.name for v in views] == ["a", "b", "c"]
    assert len(views.notes) == 1 and "sRGB" in views.notes[0]
    assert views[0].weight.shape == (4, 6) and (views[0].weight == 1).all()


def test_a_glob_relative_to_the_root_is_followed(photos):
    assert [v.name for v in load_views("[ab].png", root=photos, color="linear")] == ["a", "b"]
    with pytest.raises(InputError, match="no file matches"):
        load_views("*.jpg", root=photos)


def test_tables_override_the_defaults(photos):
    views = load_views(
        [{"file": "a.png", "lit": "lamp", "exposure": 2, "sensor": 1, "name": "first"}, "b.png"],
        root=photos,
        mask="masks/m.png",
        lit=["sun", "sky"],
        holdout=["b"],
    )
    first, second = views
    assert (first.name, first.lit, first.exposure, first.sensor) == ("first", ["lamp"], 2.0, 1)
    assert second.lit == ["sun", "sky"] and second.holdout
    assert first.mask is not None and first.mask.sum() == 6
    assert views.fitted == [first] and views.heldout == [second]


def test_alpha_becomes_the_mask_or_composites_over_black_or_is_ignored(tmp_path):
    samples = np.full((2, 2, 4), 255, np.uint8)
    samples[0, 0, 3] = 0
    iio.imwrite(tmp_path / "a.png", samples)
    assert load_views(tmp_path)[0].weight.sum() == 3
    black = load_views(tmp_path, alpha="black")[0]
    assert black.mask is None and black.image[0, 0].sum() == 0
    assert load_views(tmp_path, alpha="ignore")[0].mask is None


def test_saturated_pixels_lose_their_weight_on_request(tmp_path):
    samples = np.full((2, 2, 3), 100, np.uint8)
    samples[1, 1, 0] = 255
    iio.imwrite(tmp_path / "a.png", samples)
    assert load_views(tmp_path)[0].mask is None
    assert load_views(tmp_path, saturated="mask")[0].weight[1, 1] == 0


def test_a_mask_of_another_size_names_both_sides(photos):
    write_image(photos / "masks" / "small.png", np.ones((2, 3)))
    with pytest.raises(InputError, match="6 x 4"):
        load_views(photos, mask="masks/small.png", root=photos)
    load_views([{"file": "a.png", "mask": "masks/m.png"}, {"file": "b.png"}], root=photos)


def test_an_empty_mask_is_refused(photos):
    write_image(photos / "masks" / "none.png", np.zeros((4, 6)))
    with pytest.raises(InputError, match="0 everywhere"):
        load_views("a.png", mask="masks/none.png", root=photos)


def test_a_picture_that_does_not_fit_the_film_names_both_sides_and_is_resized_only_on_request(photos):
    views = load_views("a.png", root=photos)
    with pytest.raises(InputError, match=r"the image is 6 x 4 pixels, the film of sensor 0 is 3 x 2"):
        check_films(views, [(3, 2)])
    small = load_views("a.png", root=photos, resize=(3, 2))
    check_films(small, [(3, 2)])
    assert any("resampled" in n for n in small.notes)
    with pytest.raises(UsageError, match="sensor 0"):
        check_films(views, [])


def test_downscaling_keeps_the_mean_and_upscaling_stays_nonnegative():
    image = np.random.default_rng(3).uniform(0, 4, (8, 12, 3)).astype(np.float32)
    np.testing.assert_allclose(resample(image, (6, 4)).mean((0, 1)), image.mean((0, 1)), rtol=1e-5)
    assert resample(np.pad(np.ones((2, 2), np.float32), 2), (24, 24)).min() >= 0


def test_unknown_keys_and_views_are_named_with_their_nearest(photos):
    with pytest.raises(UsageError, match="has no 'exposre'; did you mean 'exposure'"):
        load_views([{"file": "a.png", "exposre": 2}], root=photos)
    with pytest.raises(UsageError, match="no view 'z'"):
        load_views(photos, holdout=["z"])
    with pytest.raises(UsageError, match="needs a 'file'"):
        load_views([{"name": "x"}])
    with pytest.raises(UsageError, match="2 sensors were named for 3 images"):
        load_views(photos, sensor=[0, 1])


def test_a_view_refuses_impossible_values():
    with pytest.raises(InputError, match="exposure"):
        View("v", np.ones((2, 2, 3)), exposure=float("nan"))
    with pytest.raises(InputError, match=r"\(H, W, 3\)"):
        View("v", np.ones((2, 2, 4)))
