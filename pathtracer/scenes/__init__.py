"""Loading, checking, editing and exporting Mitsuba XML scenes.

scene = load_scene("scene.xml", res=256)
scene.parameters()                      # what there is, and which estimators have a derivative for it
path = export_scene(scene, {"red.reflectance.value": [0.6, 0.1, 0.1]}, "out/")
verify_export(scene, path, ...)         # stock Mitsuba, new process, same image
"""

from __future__ import annotations

from .export import ExportCheck, export_scene, verify_export
from .parameters import ParameterInfo
from .scene import Scene, load_scene

__all__ = ["ExportCheck", "ParameterInfo", "Scene", "export_scene", "load_scene", "verify_export"]
