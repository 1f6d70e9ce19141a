"""COLMAP's files, text and binary, give the cameras that transforms.json gives; broken ones are refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from capture.rig import BY_HAND, photographed, ring

from pathtracer.capture.colmap import MODELS, read_colmap, write_colmap
from pathtracer.capture.transforms import read_transforms, write_transforms
from pathtracer.errors import InputError


@pytest.fixture(params=[True, False], ids=["binary", "text"])
def project(request, tmp_path):
    """A project folder with images/ and sparse/0."""
    write_colmap(photographed(tmp_path, ring(4)), tmp_path / "sparse" / "0", binary=request.param)
    return tmp_path


def by_hand(folder, cameras, images):
    model = folder / "sparse" / "0"
    model.mkdir(parents=True, exist_ok=True)
    photographed(folder, ring(2))
    (model / "cameras.txt").write_text(cameras)
    (model / "images.txt").write_text(images)
    return folder


def test_the_cameras_are_those_of_transforms_json_to_1e_minus_5(project):
    write_transforms(photographed(project, ring(4)), project / "transforms.json")
    for path in (project, project / "sparse", project / "sparse" / "0"):
        ours, theirs = read_colmap(path).shots, read_transforms(project).shots
        for a, b in zip(ours, theirs, strict=True):
            assert (a.name, a.camera.width, a.camera.height) == (b.name, b.camera.width, b.camera.height)
            np.testing.assert_allclose(a.camera.to_world, b.camera.to_world, atol=1e-5)
            for field in ("fx", "fy", "cx", "cy"):
                assert getattr(a.camera, field) == pytest.approx(getattr(b.camera, field), abs=1e-5)


def test_a_reconstruction_written_by_hand_in_colmaps_own_words(tmp_path):
    # the camera of BY_HAND: world-to-camera turns by 90 degrees about x; t = -R (0, -4, 1) = (0, 1, 4)
    images = "# Image list\n7 0.7071067811865476 0.7071067811865476 0 0 0 1 4 3 photo 0.png\n12.5 3.0 -1 4 5 8\n"
    images += "8 0.7071067811865476 0.7071067811865476 0 0 0 1 4 3 photo 1.png\n\n"
    folder = by_hand(tmp_path, "# comment\n3 SIMPLE_PINHOLE 32 24 40.5 16 12\n", images)
    (tmp_path / "sparse" / "0" / "points3D.txt").write_text("1 0.5 0.25 1 255 0 0 0.1 7 0\n")
    capture = read_colmap(folder)
    assert [s.name for s in capture.shots] == ["photo 0", "photo 1"]
    camera = capture.cameras[0]
    np.testing.assert_allclose(camera.to_world, BY_HAND["mitsuba"], atol=1e-12)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (40.5, 40.5, 16, 12)
    np.testing.assert_allclose(capture.points, [[0.5, 0.25, 1]])


@pytest.mark.parametrize("model", sorted(MODELS))
def test_every_model_but_the_pinholes_is_refused_with_a_remedy_unless_it_does_not_distort(tmp_path, model):
    name, focal, count = MODELS[model]
    image = "1 1 0 0 0 0 0 0 1 photo 0.png\n\n"
    params = [40.0] * focal + [16.0, 12.0] + [0.01] * (count - focal - 2)
    folder = by_hand(tmp_path, f"1 {name} 32 24 {' '.join(map(str, params))}\n", image)
    if count == focal + 2:
        assert read_colmap(folder).cameras[0].fx == 40
        return
    with pytest.raises(InputError, match=f"cameras.txt:1: the camera model {name} distorts.*image_undistorter"):
        read_colmap(folder)
    params[focal + 2 :] = [0.0] * (count - focal - 2)
    by_hand(tmp_path, f"1 {name} 32 24 {' '.join(map(str, params))}\n", image)
    if "FISHEYE" in name or name == "FOV":  # no pinhole even without coefficients
        with pytest.raises(InputError, match=name):
            read_colmap(folder)
    else:
        assert read_colmap(folder).cameras[0].cy == 12


GOOD = "1 PINHOLE 32 24 40 40 16 12\n"
POSE = "1 1 0 0 0 0 0 0 1 photo 0.png\n\n"


@pytest.mark.parametrize(
    ("cameras", "images", "match"),
    [
        ("1 PINHOL 32 24 40 40 16 12\n", POSE, "cameras.txt:1: unknown camera model 'PINHOL'; did you mean 'PINHOLE'"),
        ("1 PINHOLE 32 24 40 16 12\n", POSE, "a PINHOLE camera has 4 parameters, not 3"),
        ("1 PINHOLE 32 24 forty 40 16 12\n", POSE, "numbers were expected, not '1 32 24 forty"),
        ("1 PINHOLE 32 24 -40 40 16 12\n", POSE, "impossible numbers"),
        ("1 PINHOLE\n", POSE, "a camera is 'ID MODEL"),
        (GOOD, "1 1 0 0 0 0 0 0 2 photo 0.png\n\n", "names camera 2, which cameras.txt does not have"),
        (GOOD, "1 0 0 0 0 0 0 0 1 photo 0.png\n\n", "is no quaternion"),
        (GOOD, "1 1 0 0 photo 0.png\n\n", "an image is 'ID QW"),
        (GOOD, "", "holds no image with a pose"),
        (GOOD, "1 1 0 0 0 0 0 0 1 foto.png\n\n", "lies neither in"),
        (GOOD, POSE + "2 1 0 0 0 0 0 0 1 photo 7.png\n\n", "image 'photo 7.png': there is no picture .*did you mean"),
    ],
)
def test_a_broken_text_file_is_named_with_its_line(tmp_path, cameras, images, match):
    with pytest.raises(InputError, match=match):
        read_colmap(by_hand(tmp_path, cameras, images))


def test_no_truncation_of_a_binary_file_is_read_or_crashes(tmp_path):
    write_colmap(photographed(tmp_path, ring(2)), tmp_path / "sparse" / "0")
    for name in ("cameras.bin", "images.bin"):
        path = tmp_path / "sparse" / "0" / name
        whole = path.read_bytes()
        for length in range(0, len(whole) - 1, 7):
            path.write_bytes(whole[:length])
            with pytest.raises(InputError, match=name):
                read_colmap(tmp_path)
        path.write_bytes(whole)


def test_counts_that_a_file_cannot_hold_are_refused_before_memory_is_taken(tmp_path):
    write_colmap(photographed(tmp_path, ring(2)), tmp_path / "sparse" / "0")
    path = tmp_path / "sparse" / "0" / "images.bin"
    path.write_bytes(struct.pack("<Q", 10**15) + path.read_bytes()[8:])
    with pytest.raises(InputError, match="claims 1000000000000000 entries"):
        read_colmap(tmp_path)
    points = tmp_path / "sparse" / "0" / "points3D.bin"
    points.write_bytes(struct.pack("<Q", 3))
    with pytest.raises(InputError, match=r"(points3D|images).bin: claims"):
        read_colmap(tmp_path)


def test_an_unknown_model_number_is_named(tmp_path):
    write_colmap(photographed(tmp_path, ring(1)), tmp_path / "sparse" / "0")
    path = tmp_path / "sparse" / "0" / "cameras.bin"
    data = bytearray(path.read_bytes())
    data[12:16] = struct.pack("<i", 99)
    path.write_bytes(data)
    with pytest.raises(InputError, match="unknown model number 99"):
        read_colmap(tmp_path)


def test_folders_without_a_reconstruction_or_pictures_say_so(tmp_path):
    with pytest.raises(InputError, match="holds no COLMAP reconstruction"):
        read_colmap(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_colmap(tmp_path / "sparse")
    write_colmap(photographed(tmp_path, ring(2)), tmp_path / "sparse" / "0")
    (tmp_path / "images").rename(tmp_path / "pictures")
    with pytest.raises(InputError, match="--images"):
        read_colmap(tmp_path)
    assert len(read_colmap(tmp_path, images=tmp_path / "pictures").shots) == 2
    with pytest.raises(InputError, match="is no folder of pictures"):
        read_colmap(tmp_path, images=tmp_path / "images")


def test_masks_are_found_by_colmaps_names(tmp_path):
    capture = photographed(tmp_path, ring(2))
    write_colmap(capture, tmp_path / "sparse" / "0")
    (tmp_path / "masks").mkdir()
    for shot in capture.shots:
        (tmp_path / "masks" / (shot.file.name + ".png")).write_bytes(shot.file.read_bytes())
    assert [s.mask.name for s in read_colmap(tmp_path, masks=tmp_path / "masks").shots] == [
        "photo 0.png.png",
        "photo 1.png.png",
    ]
