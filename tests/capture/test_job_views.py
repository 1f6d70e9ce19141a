"""`[views]` of a job: one source, its own options, the same views whichever way they are told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from capture.rig import photographed, ring

from pathtracer.capture.colmap import write_colmap
from pathtracer.capture.transforms import write_transforms
from pathtracer.capture.views_file import read_views_file, write_views_file
from pathtracer.errors import InputError, UsageError
from pathtracer.inverse.job import ViewsTable, make_job
from pathtracer.inverse.setup import read_views


def job(**views):
    return make_job({"scene": {"file": "scene.xml"}, "views": views, "parameter": [{"key": "k"}]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    capture = photographed(tmp_path, ring(4), alpha=True)
    capture.shots[2].holdout = True
    write_transforms(capture, tmp_path / "transforms.json")
    write_colmap(capture, tmp_path / "sparse" / "0", binary=False)
    write_views_file(capture, tmp_path / "views.toml")
    return tmp_path


@pytest.mark.parametrize(
    ("views", "match"),
    [
        ({}, "'views': one of images, transforms, colmap, file was expected, not none"),
        ({"images": ["a.png"], "colmap": "sparse"}, "not images and colmap"),
        ({"images": ["a.png"], "convention": "opencv"}, "convention goes with transforms, not with images"),
        ({"transforms": "t.json", "image_folder": "x"}, "image_folder goes with colmap, not with transforms"),
        ({"transforms": "t.json", "convention": "opengll"}, "'views.convention'"),
        ({"transform": "t.json"}, "unknown key 'views.transform'; did you mean 'transforms'"),
        ({"file": "v.toml", "downscale": 0}, "'views.downscale'"),
        ({"file": "v.toml", "crop": [0, 0, 3]}, "'views.crop'"),
        ({"file": "v.toml", "white_balance": [1, 1]}, "'views.white_balance'"),
    ],
)
def test_a_mistake_is_named_with_its_place(views, match):
    with pytest.raises(UsageError, match=match):
        job(**views)


def test_three_sources_give_the_same_views(folder):
    tables = [{"transforms": "transforms.json"}, {"colmap": "."}, {"file": "views.toml"}]
    read = [read_views(ViewsTable(**table, downscale=2, crop=[0, 0, 30, 24]), folder) for table in tables]
    for views in read[1:]:
        for a, b in zip(read[0], views, strict=True):
            assert a.name == b.name and a.image.shape == (12, 15, 3)
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_allclose(a.camera.to_world, b.camera.to_world, atol=1e-9)
            np.testing.assert_allclose(a.sensor["fov"], b.sensor["fov"], rtol=1e-12)
    assert [v.holdout for v in read[2]] == [False, False, True, False]


def test_paths_of_a_resolved_job_are_absolute(folder):
    for key, name in (("transforms", "transforms.json"), ("colmap", "sparse/0"), ("file", "views.toml")):
        resolved = job(**{key: name, "masks": "masks"}).resolved(folder)
        assert getattr(resolved.views, key) == str((folder / name).resolve())
        assert resolved.views.masks == str(folder / "masks")


def test_a_view_of_a_views_file_has_its_own_exposure_balance_and_crop(folder):
    path = folder / "views.toml"
    text = path.read_text().replace(
        'name = "photo 1"', 'name = "photo 1"\nexposure = 2.0\nwhite_balance = [1.5, 1, 1]\ncrop = [2, 2, 10, 8]'
    )
    path.write_text(text)
    views = read_views(ViewsTable(file="views.toml"), folder)
    assert views[1].image.shape == (8, 10, 3)
    np.testing.assert_allclose(views[1].gain, [3, 2, 2])
    np.testing.assert_allclose(views[0].gain, [1, 1, 1])


@pytest.mark.parametrize(
    ("old", "new", "error", "match"),
    [
        ("[[view]]", "[[views]]", UsageError, "unknown key 'views'; did you mean 'view'"),
        ("holdout", "hold_out", UsageError, r"view 3: unknown key 'hold_out'; did you mean 'holdout'"),
        ("photo 3.png", "photo 9.png", InputError, r"view 4: there is no picture .*did you mean 'photo"),
        ("size = [32, 24]", "size = [32]", InputError, r"view 1 \(photo 0.png\): size is \[32\], two numbers"),
        ("focal = [", "focal = [-", InputError, "size and focal are positive"),
        ("to_world = [", "to_world = [[1], ", InputError, "matrix"),
        ('convention = "mitsuba"', 'convention = "mitsubishi"', UsageError, "did you mean 'mitsuba'"),
        ("to_world = [", "to_world = = [", InputError, "is not valid TOML"),
    ],
)
def test_a_broken_views_file_is_named_with_its_view(folder, old, new, error, match):
    path = folder / "views.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(error, match=match):
        read_views_file(path)


def test_a_views_file_without_views_says_so(folder):
    (folder / "views.toml").write_text('convention = "mitsuba"\n')
    with pytest.raises(InputError, match=r"holds no \[\[view\]\]"):
        read_views_file(folder / "views.toml")
