"""Broken textures and environment maps end in one sentence and exit code 3, never in a crash."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio
import mitsuba as mi
import numpy as np
import pytest
from helpers.broken_scenes import envmap, fails, scene, texture

from pathtracer.scenes import load_scene


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
    )


def exr(path: Path, texel: float) -> None:
    data = np.full((4, 6, 3), 0.5, np.float32)
    data[1, 2] = texel
    data[3, 4, 0] = texel
    mi.Bitmap(data).write(str(path))


def test_a_missing_texture_names_the_node_and_the_nearest_file(tmp_path: Path) -> None:
    exr(tmp_path / "wood.exr", 0.5)
    error = fails(tmp_path, scene(texture("wod.exr")))
    assert re.search(r"line 4, column \d+: texture 'it': .*no such file; did you mean 'wood.exr'", str(error)), str(
        error
    )


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.png", b"", "is empty"),
        ("a.png", b"hello, I am no image at all", "is not an image of a kind"),
        ("a.png", png_header(100_000, 100_000), "header claims"),
        ("a.exr", b"\x76\x2f\x31\x01\x02\x00\x00\x00chann", "truncated or damaged"),
        ("a.hdr", b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 99999 +X 99999\n", "header claims 99999 x 99999 pixels"),
    ],
)
def test_a_broken_texture_is_refused_by_its_header(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    error = fails(tmp_path, scene(texture(name)))
    assert "texture 'it'" in str(error) and name in str(error)
    assert re.search(sentence, str(error)), str(error)
    assert error.exit_code == 3


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "exr", "hdr", "pfm"])
def test_a_truncated_texture_is_refused(tmp_path: Path, suffix: str) -> None:
    random = np.random.default_rng(0)
    whole = tmp_path / f"whole.{suffix}"
    if suffix in ("exr", "hdr", "pfm"):
        mi.Bitmap(random.uniform(0, 1, (32, 32, 3)).astype(np.float32)).write(str(whole))
    else:
        imageio.imwrite(whole, random.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    data = whole.read_bytes()
    (tmp_path / f"half.{suffix}").write_bytes(data[: len(data) // 2])
    error = fails(tmp_path, scene(texture(f"half.{suffix}")))
    assert re.search("truncated or damaged", str(error)), str(error)
    path = tmp_path / "ok.xml"
    path.write_text(scene(texture(f"whole.{suffix}")))
    assert load_scene(path).mi is not None


@pytest.mark.parametrize(("texel", "kind"), [(np.nan, "NaN"), (np.inf, "infinite"), (-0.25, "negative")])
@pytest.mark.parametrize("element", [texture, envmap])
def test_bad_texels_are_counted_and_replaced_on_request(
    tmp_path: Path, texel: float, kind: str, element: Callable[[str], str]
) -> None:
    exr(tmp_path / "bad.exr", texel)
    text = scene(element("bad.exr"), light=element is texture)
    error = fails(tmp_path, text)
    assert f"'bad.exr' has 2 {kind} texels, the first at column 2, row 1" in str(error)
    assert "--sanitize" in str(error) and error.exit_code == 3
    loaded = load_scene(tmp_path / "scene.xml", sanitize=True)
    assert any("replaced by 0" in w for w in loaded.warnings)
    key = next(k for k in loaded.params.keys() if k.endswith(".data"))  # noqa: SIM118
    texels = np.array(loaded.params[key])
    assert np.isfinite(texels).all() and texels.min() == 0


def test_a_bump_texture_may_be_negative_when_it_is_raw(tmp_path: Path) -> None:
    exr(tmp_path / "bump.exr", -1.0)
    path = tmp_path / "scene.xml"
    path.write_text(scene(texture("bump.exr", '<boolean name="raw" value="true"/>')))
    assert load_scene(path).mi is not None


def test_a_black_environment_warns(tmp_path: Path) -> None:
    mi.Bitmap(np.zeros((4, 8, 3), np.float32)).write(str(tmp_path / "black.exr"))
    path = tmp_path / "scene.xml"
    path.write_text(scene(envmap("black.exr"), light=False))
    assert any("emits nothing" in w for w in load_scene(path).warnings)
