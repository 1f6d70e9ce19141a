"""The renderer is made ready before the modules of this folder import Mitsuba."""

from __future__ import annotations

from pathtracer.runtime import activate

activate()
