"""Texts of small scenes and files to break, and the one sentence that a broken scene ends in."""

from __future__ import annotations

from pathlib import Path

import pytest

from pathtracer.errors import PathtracerError
from pathtracer.scenes import load_scene

SENSOR = (
    '<sensor type="perspective"><film type="hdrfilm"><integer name="width" value="8"/>'
    '<integer name="height" value="8"/></film></sensor>'
)


def scene(*parts: str, light: bool = True) -> str:
    """A small scene around some elements."""
    return "\n".join(
        ['<scene version="3.0.0">', SENSOR, '<emitter type="constant"/>' if light else "", *parts, "</scene>"]
    )


def shape(kind: str, name: str) -> str:
    return f'<shape type="{kind}" id="it"><string name="filename" value="{name}"/></shape>'


def texture(name: str, more: str = "") -> str:
    return (
        f'<shape type="rectangle"><bsdf type="diffuse"><texture type="bitmap" name="reflectance" id="it">'
        f'<string name="filename" value="{name}"/>{more}</texture></bsdf></shape>'
    )


def envmap(name: str) -> str:
    return f'<emitter type="envmap" id="it"><string name="filename" value="{name}"/></emitter>'


def ply(vertices: str, faces: str, v: int = 3, f: int = 1) -> str:
    return (
        f"ply\nformat ascii 1.0\nelement vertex {v}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {f}\nproperty list uchar int vertex_indices\nend_header\n{vertices}\n{faces}\n"
    )


TRIANGLE = "0 0 0\n1 0 0\n0 1 0"


def fails(tmp_path: Path, text: str | bytes, name: str = "scene.xml", **options: object) -> PathtracerError:
    """The error of loading a scene text."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PathtracerError) as caught:
        load_scene(path, **options)
    assert "\n" not in str(caught.value)
    return caught.value
