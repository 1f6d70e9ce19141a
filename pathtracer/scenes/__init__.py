"""Loading, checking, editing and exporting Mitsuba XML scenes."""

from __future__ import annotations

from .parameters import ParameterInfo
from .scene import Scene, load_scene

__all__ = ["ParameterInfo", "Scene", "load_scene"]
