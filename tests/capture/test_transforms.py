"""`transforms.json` as several programs write it, and every way in which it can be wrong."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from capture.rig import BY_HAND, photographed, ring

from pathtracer.capture.transforms import read_transforms, write_transforms
from pathtracer.errors import InputError, UsageError


@pytest.fixture
def folder(tmp_path):
    write_transforms(photographed(tmp_path, ring(4)), tmp_path / "transforms.json")
    return tmp_path


def edit(folder, change):
    path = folder / "transforms.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return path


def same(a, b, tolerance=1e-9):
    assert (a.width, a.height) == (b.width, b.height)
    np.testing.assert_allclose([a.fx, a.fy, a.cx, a.cy], [b.fx, b.fy, b.cx, b.cy], rtol=tolerance)
    np.testing.assert_allclose(a.to_world, b.to_world, atol=tolerance)


def test_what_is_written_is_read_back(folder):
    capture = read_transforms(folder)
    assert [s.name for s in capture.shots] == ["photo 0", "photo 1", "photo 2", "photo 3"]
    for found, camera in zip(capture.cameras, ring(4), strict=True):
        same(found, camera)
    assert "opengl" in capture.notes[-1]


def test_a_blender_file_has_one_angle_no_suffixes_and_no_sizes(folder):
    def blender(data):
        frames = [
            {"file_path": "./images/photo 0", "rotation": 0.01, "transform_matrix": BY_HAND["opengl"]},
            {"file_path": ".\\images\\photo 1", "transform_matrix": BY_HAND["opengl"]},
        ]
        data.clear()
        data.update({"camera_angle_x": 2 * math.atan(0.5), "frames": frames})

    camera = read_transforms(edit(folder, blender)).cameras[1]
    assert (camera.width, camera.height, camera.cx, camera.cy) == (32, 24, 16, 12)
    assert camera.fx == pytest.approx(32) and camera.fy == camera.fx
    np.testing.assert_allclose(camera.to_world, BY_HAND["mitsuba"], atol=1e-12)


def test_blenders_test_file_is_held_out(folder):
    capture = photographed(folder, ring(4))
    capture.shots, rest = capture.shots[:3], capture.shots[3:]
    write_transforms(capture, folder / "transforms_train.json")
    capture.shots = rest
    write_transforms(capture, folder / "transforms_test.json")
    (folder / "transforms.json").unlink()
    assert [s.holdout for s in read_transforms(folder).shots] == [False, False, False, True]


def test_what_a_frame_says_comes_before_the_top(folder):
    def change(data):
        data.update({"w": 32, "h": 24, "fl_x": 50.0, "fl_y": 51.0, "cx": 15.0, "cy": 13.0})
        for k, frame in enumerate(data["frames"]):
            for key in ("w", "h", "fl_x", "fl_y", "cx", "cy"):
                if k:
                    del frame[key]

    first, second, *_ = read_transforms(edit(folder, change)).cameras
    same(first, ring(4)[0])
    assert (second.fx, second.fy, second.cx, second.cy) == (50, 51, 15, 13)


def test_nerfstudios_applied_transform_is_left_or_undone(folder):
    # nerfstudio: x' = 0.5 (A x), with A swapping axes
    a = np.array([[1, 0, 0, 0.1], [0, 0, 1, 0.2], [0, -1, 0, 0.3], [0, 0, 0, 1]])

    def change(data):
        data["applied_transform"], data["applied_scale"] = a[:3].tolist(), 0.5
        for frame in data["frames"]:
            pose = a @ np.array(frame["transform_matrix"])
            pose[:3, 3] *= 0.5
            frame["transform_matrix"] = pose.tolist()

    path = edit(folder, change)
    for found, camera in zip(read_transforms(path, world="original").cameras, ring(4), strict=True):
        same(found, camera)
    stored = read_transforms(path)
    np.testing.assert_allclose(stored.cameras[0].position, 0.5 * (a @ [*ring(4)[0].position, 1])[:3])
    assert any("applied_transform" in note for note in stored.notes)


def test_masks_come_from_the_frame_or_from_a_folder(folder):
    import imageio.v3 as iio

    (folder / "masks").mkdir()
    for k, name in enumerate(["photo 0.png", "photo 1.png.png", "photo 2.jpg", "other.png"]):
        iio.imwrite(folder / "masks" / name, np.full((24, 32), 255 - k, np.uint8))
    path = edit(folder, lambda d: d["frames"][3].update(mask_path="masks/other.png"))
    found = [s.mask.name for s in read_transforms(path, masks=folder / "masks").shots]
    assert found == ["photo 0.png", "photo 1.png.png", "photo 2.jpg", "other.png"]
    (folder / "masks" / "photo 0.png").unlink()
    with pytest.raises(InputError, match=r"frame 1 \(photo 0.png\): there is no mask for photo 0.png .*name it"):
        read_transforms(path, masks=folder / "masks")


def test_pictures_of_one_name_in_two_folders_keep_apart(folder):
    (folder / "more").mkdir()
    (folder / "more" / "photo 0.png").write_bytes((folder / "images" / "photo 0.png").read_bytes())
    path = edit(folder, lambda d: d["frames"][1].update(file_path="more/photo 0.png"))
    assert [s.name for s in read_transforms(path).shots][:2] == ["images-photo 0", "more-photo 0"]


def test_nerfstudios_lists_hold_out(folder):
    path = edit(folder, lambda d: d.update(test_filenames=["images/photo 2.png"]))
    assert [s.holdout for s in read_transforms(path).shots] == [False, False, True, False]


WRONG = [
    (lambda d: d.pop("frames"), "has no list of 'frames'"),
    (lambda d: d.update(frames=[]), "list of frames is empty"),
    (lambda d: d.update(frames=[1]), "frame 1: is 1, an object"),
    (lambda d: d["frames"][1].pop("file_path"), "frame 2: names the picture None"),
    (lambda d: d["frames"][1].update(file_path="images/photo 9"), r"frame 2: there is no picture .*did you mean"),
    (lambda d: d["frames"][1].update(file_path="pictures/a.png"), "nor is there a folder"),
    (lambda d: d["frames"][2].pop("transform_matrix"), r"frame 3 \(photo 2.png\): has no 'transform_matrix'"),
    (lambda d: d["frames"][2].update(transform_matrix=[[1]]), "has the shape"),
    (lambda d: d["frames"][2]["transform_matrix"][0].__setitem__(0, 9), "is not a rotation"),
    (lambda d: d["frames"][0].update(fl_x=-1), "fl_x is -1, a positive number"),
    (lambda d: d["frames"][0].update(fl_x="wide"), "fl_x is 'wide', a finite number"),
    (lambda d: [f.pop(k) for f in d["frames"] for k in ("fl_x", "fl_y")], "neither fl_x nor camera_angle_x"),
    (
        lambda d: [f.pop("fl_x") for f in d["frames"]] + [d.update(camera_angle_x=39.6)],
        "camera_angle_x is 39.6, less than pi was expected; angles are in radians",
    ),
    (lambda d: d.update(k1=0.1), r"distorts \(k1 = 0.1\), .*; undistort the pictures first"),
    (lambda d: d["frames"][3].update(p2=1e-3), r"frame 4 \(photo 3.png\): the lens distorts"),
    (lambda d: d.update(camera_model="OPENCV_FISHEYE"), "'OPENCV_FISHEYE' is no pinhole"),
    (lambda d: d.update(applied_transform=[[0] * 4] * 3), "no invertible table"),
]


@pytest.mark.parametrize(("change", "match"), WRONG)
def test_what_is_wrong_is_said_with_file_and_frame(folder, change, match):
    path = edit(folder, change)
    with pytest.raises(InputError, match=match) as caught:
        read_transforms(path)
    assert str(caught.value).startswith(str(path))


def test_coefficients_of_zero_are_no_distortion(folder):
    path = edit(folder, lambda d: d.update(k1=0.0, p1=0, camera_model="OPENCV"))
    assert len(read_transforms(path).shots) == 4


def test_a_mirroring_matrix_hints_at_the_convention(folder):
    path = edit(folder, lambda d: [r.__setitem__(2, -r[2]) for r in d["frames"][0]["transform_matrix"][:3]])
    with pytest.raises(InputError, match=r"mirrors: its determinant is negative.*opengl"):
        read_transforms(path)


def test_files_that_are_no_json_name_line_and_column(folder):
    path = folder / "transforms.json"
    path.write_text('{"frames": [\n  {,}]}')
    with pytest.raises(InputError, match=r"transforms.json:2:4: is not valid JSON"):
        read_transforms(path)
    path.write_text("[1]")
    with pytest.raises(InputError, match="holds a list"):
        read_transforms(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not text in UTF-8"):
        read_transforms(path)
    path.rename(folder / "transform.json")
    with pytest.raises(InputError, match=r"no transforms.json .*did you mean 'transform.json'"):
        read_transforms(folder)
    with pytest.raises(InputError, match=r"no such file; did you mean 'transform.json'"):
        read_transforms(path)


def test_unknown_words_name_the_nearest(folder):
    for options, match in (
        ({"convention": "open-gl"}, "'opengl'"),
        ({"matrices": "world-to-cam"}, "'world-to-camera'"),
        ({"world": "orig"}, "'original'"),
    ):
        with pytest.raises(UsageError, match=match):
            read_transforms(folder, **options)
