"""Which plugins and properties Mitsuba knows: names for "did you mean".

Mitsuba can list neither. `plugins.json` holds the property names that the sources of the pinned version query; plugins
themselves are the shared libraries beside Mitsuba, the integrators that its Python part registers, and our estimators.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

#: Read by the parser itself.
_BUILT_IN = ("scene", "rgb", "spectrum", "ref")


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("plugins.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def plugin_names() -> list[str]:
    """Every plugin name that a scene may use."""
    import mitsuba as mi

    from integrators import ESTIMATORS

    native = [path.stem for path in (Path(mi.__file__).parent / "plugins").glob("*.so")]
    return sorted({*native, *_table()["plugins"], *ESTIMATORS, *_BUILT_IN})


def is_plugin(name: str) -> bool:
    """Whether a scene may use a plugin, also one that the user's own Python code registered."""
    if name in plugin_names():
        return True
    import mitsuba as mi

    try:
        mi.load_dict({"type": name})
    except RuntimeError as error:
        return f'Plugin "{name}" not found' not in str(error)
    return True


def property_names(plugin: str, kind: str) -> list[str]:
    """The properties of a plugin, with those of its base class.

    Args:
        plugin: its name.
        kind: "shape", "bsdf", "emitter", ... as in XML.
    """
    table = _table()
    own = table["plugins"].get(plugin, [])
    if not own:
        from integrators import ESTIMATORS

        own = ESTIMATOR_PROPERTIES if plugin in ESTIMATORS else []
    return sorted({*own, *table["base"].get(kind, [])})


#: What every estimator of `integrators.ESTIMATORS` takes.
ESTIMATOR_PROPERTIES = [
    "max_depth",
    "rr_depth",
    "hide_emitters",
    "primal_spp",
    "interior_spp",
    "primary_spp",
    "indirect_spp",
    "interior",
    "primary",
    "indirect",
]
