"""The catalogue's scenes, loaded for tests."""

from __future__ import annotations

from typing import Any

from pathtracer.scenes import Scene, load_scene
from pathtracer.verify.catalogue import catalogue_folder


def catalogue_scene(name: str, **defines: Any) -> Scene:
    """A scene of the catalogue."""
    return load_scene(catalogue_folder() / f"{name}.xml", **defines)
