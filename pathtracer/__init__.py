"""Inverse rendering of Mitsuba scenes: which materials, lights, shapes and cameras made these images?

    import pathtracer as pt

    scene = pt.load_scene("scenes/cornell-box/scene.xml")
    problem = pt.Problem(scene, pt.load_views("reference.exr"), [pt.Parameter("red.reflectance.value", init=0.5)])
    result = pt.estimate(problem)

Importing this package loads neither Mitsuba nor Dr.Jit: each name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: public name -> module that defines it.
_EXPORTS = {
    "Estimation": "pathtracer.inverse",
    "Parameter": "pathtracer.inverse",
    "PathtracerError": "pathtracer.errors",
    "Problem": "pathtracer.inverse",
    "Result": "pathtracer.inverse",
    "Scene": "pathtracer.scenes",
    "Step": "pathtracer.inverse",
    "View": "pathtracer.capture",
    "activate": "pathtracer.runtime",
    "check_gradients": "pathtracer.verify",
    "estimate": "pathtracer.inverse",
    "export_scene": "pathtracer.scenes.export",
    "load_scene": "pathtracer.scenes",
    "load_views": "pathtracer.capture",
    "read_image": "pathtracer.capture",
    "write_image": "pathtracer.capture",
    "write_report": "pathtracer.report",
}

__all__ = ["__version__", *sorted(_EXPORTS)]

if TYPE_CHECKING:
    from .capture import View as View
    from .capture import load_views as load_views
    from .capture import read_image as read_image
    from .capture import write_image as write_image
    from .errors import PathtracerError as PathtracerError
    from .inverse import Estimation as Estimation
    from .inverse import Parameter as Parameter
    from .inverse import Problem as Problem
    from .inverse import Result as Result
    from .inverse import Step as Step
    from .inverse import estimate as estimate
    from .runtime import activate as activate
    from .scenes import Scene as Scene
    from .scenes import load_scene as load_scene


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        value = getattr(importlib.import_module(_EXPORTS[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'pathtracer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
