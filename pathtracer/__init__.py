"""Inverse rendering of Mitsuba scenes: which materials, lights, shapes and cameras made these images?"""

from __future__ import annotations

__version__ = "0.1.0"
