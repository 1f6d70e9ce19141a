"""Pictures are read as linear arrays, and files that cannot be used are refused with a sentence."""

from __future__ import annotations

import struct
import zlib

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile

from pathtracer.capture import linear_to_srgb, read_header, read_image, read_picture, srgb_to_linear, write_image
from pathtracer.errors import InputError, StorageFault, UsageError


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(1).uniform(0.01, 0.99, (5, 7, 3)).astype(np.float32)


def test_srgb_curve_inverts_itself_and_meets_the_standard_values():
    x = np.linspace(-0.2, 1.5, 200)
    np.testing.assert_allclose(srgb_to_linear(linear_to_srgb(x)), x, atol=1e-6)
    np.testing.assert_allclose(srgb_to_linear([0.0, 0.04045, 0.5, 1.0]), [0, 0.0031308, 0.2140411, 1], atol=1e-6)


@pytest.mark.parametrize(
    "suffix, tolerance", [(".exr", 0), (".pfm", 0), (".hdr", 0.01), (".png", 0.01), (".tif", 0.01)]
)
def test_what_is_written_is_read_again(tmp_path, picture, suffix, tolerance):
    path = write_image(tmp_path / f"a{suffix}", picture)
    array, _ = read_image(path)
    assert array.dtype == np.float32 and array.shape == (5, 7, 3)
    np.testing.assert_allclose(array, picture, atol=tolerance)


def test_eight_bit_images_are_converted_from_srgb_and_it_is_said(tmp_path, picture):
    iio.imwrite(tmp_path / "a.png", np.full((4, 4, 3), 188, np.uint8))
    array, notes = read_image(tmp_path / "a.png")
    np.testing.assert_allclose(array, srgb_to_linear(188 / 255), rtol=1e-6)
    assert len(notes) == 1 and "sRGB" in notes[0]
    array, notes = read_image(tmp_path / "a.png", color="linear")
    np.testing.assert_allclose(array, 188 / 255, rtol=1e-6)
    assert notes == []


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_colour_keeps_its_precision(tmp_path, suffix):
    import mitsuba as mi

    samples = np.random.default_rng(2).integers(0, 65536, (4, 5, 3)).astype(np.uint16)
    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        mi.Bitmap(samples).write(str(path))
    else:
        tifffile.imwrite(path, samples)
    array, _ = read_image(path, color="linear")
    np.testing.assert_allclose(array * 65535, samples, atol=0.01)


def test_exr_is_linear_without_a_note_and_negative_values_are_refused(tmp_path, picture):
    assert read_image(write_image(tmp_path / "a.exr", picture))[1] == []
    picture[2, 3, 1] = -0.5
    with pytest.raises(InputError, match=r"1 of 35 texels is negative, the first at column 3, row 2"):
        read_image(write_image(tmp_path / "b.exr", picture))


def test_nan_and_infinite_texels_are_counted_and_replaced_on_request(tmp_path, picture):
    picture[1, 2, 0] = np.nan
    picture[4, 6, 2] = np.inf
    path = write_image(tmp_path / "a.exr", picture)
    with pytest.raises(InputError, match=r"2 of 35 texels are NaN or infinite, the first at column 2, row 1") as error:
        read_image(path)
    assert error.value.exit_code == 3 and "sanitize" in str(error.value)
    array, notes = read_image(path, sanitize=True)
    assert np.isfinite(array).all() and array[1, 2, 0] == 0
    assert "2 NaN or infinite texels were replaced" in notes[0]


def test_alpha_and_saturation_are_kept_beside_the_colour(tmp_path):
    samples = np.zeros((2, 3, 4), np.uint8)
    samples[0, 0] = (255, 10, 10, 0)
    samples[1, 2] = (20, 20, 20, 255)
    iio.imwrite(tmp_path / "a.png", samples)
    picture = read_picture(tmp_path / "a.png")
    assert picture.alpha is not None and picture.saturated is not None
    assert picture.alpha[1, 2] == 1 and picture.alpha[0, 0] == 0
    assert picture.saturated.sum() == 1 and picture.saturated[0, 0]


def test_grey_images_become_three_equal_channels(tmp_path):
    iio.imwrite(tmp_path / "g.png", np.arange(12, dtype=np.uint8).reshape(3, 4))
    array, _ = read_image(tmp_path / "g.png", color="linear")
    assert array.shape == (3, 4, 3) and (array[..., 0] == array[..., 2]).all()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size that its data do not have."""
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0" * 64)
    chunks = [ihdr, body, b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )


def exr_claiming(path, width: int, height: int) -> bytes:
    data = bytearray(write_image(path, np.zeros((2, 2, 3))).read_bytes())
    at = data.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    data[at : at + 16] = struct.pack("<4i", 0, 0, width - 1, height - 1)
    return bytes(data)


@pytest.mark.parametrize(
    "content, sentence",
    [
        (b"", "is empty"),
        (b"hello, I am text", "not an image of a kind"),
        (b"\x89PNG\r\n\x1a\n\0\0", "not an image|truncated or damaged"),
        (struct.pack("<II", 20000630, 2) + b"channels\0chl", "truncated or damaged EXR header"),
        (struct.pack("<II", 20000630, 2 | 0x800), "deep or multi-part"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 4", "truncated or damaged Radiance"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n+X 4 -Y 4\n", "only '-Y H [+]X W'"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 900000 +X 900000\n", "claims 900000 x 900000"),
        (b"PF\n900000 900000\n-1.0\n", "claims 900000 x 900000"),
        (b"PF\n4", "PFM header"),
        (png_claiming(400000, 400000), "claims (400000 x 400000|too many) pixels"),
        (png_claiming(600, 600), "cannot be decoded, it seems truncated"),
    ],
)
def test_damaged_files_are_refused_with_exit_code_3(tmp_path, content, sentence):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=sentence) as error:
        read_image(path)
    assert str(path) in str(error.value) and error.value.exit_code == 3


def test_an_exr_header_that_claims_too_much_is_refused_before_decoding(tmp_path):
    path = tmp_path / "big.exr"
    path.write_bytes(exr_claiming(tmp_path / "a.exr", 1_000_000, 1_000_000))
    with pytest.raises(InputError, match="claims 1000000 x 1000000 pixels, more than the limit"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.png", "a.exr", "a.jpg", "a.tif"])
def test_truncated_files_are_refused(tmp_path, picture, name):
    path = write_image(tmp_path / name, np.tile(picture, (9, 9, 1)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="truncated or damaged"):
        read_image(path)


def test_a_missing_file_names_its_nearest_neighbour(tmp_path, picture):
    write_image(tmp_path / "photo_01.png", picture)
    with pytest.raises(InputError, match=r"no such file; did you mean 'photo_01.png'\?"):
        read_image(tmp_path / "photo_1.png")
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path)
    with pytest.raises(InputError, match="nor is there a folder"):
        read_image(tmp_path / "x" / "y.png")


def test_content_decides_the_kind_not_the_suffix(tmp_path, picture):
    path = tmp_path / "really_png.exr"
    path.write_bytes(write_image(tmp_path / "a.png", picture).read_bytes())
    assert read_header(path).kind == "png"


def test_unknown_colour_and_suffix_are_usage_errors(tmp_path, picture):
    path = write_image(tmp_path / "a.png", picture)
    with pytest.raises(UsageError, match="unknown colour 'sRGB', one of"):
        read_image(path, color="sRGB")
    with pytest.raises(UsageError, match=r"cannot write images of the kind '\.webm'"):
        write_image(tmp_path / "a.webm", picture)


def test_a_failed_write_leaves_the_old_file_and_no_leftovers(tmp_path, picture):
    target = tmp_path / "dir.png"
    target.mkdir()
    with pytest.raises(StorageFault):
        write_image(target, picture)
    assert [p.name for p in tmp_path.iterdir()] == ["dir.png"]
