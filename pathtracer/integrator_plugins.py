"""Loading an estimator by name and properties, with Mitsuba's account of what is wrong turned into a sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .errors import UsageError


def load_integrator(settings: Mapping[str, Any], where: str) -> Any:
    """The `mi.Integrator` of a plugin name (`type`) and its properties.

    Args:
        where: what the message blames.

    Raises:
        UsageError: the plugin has no such property, or refuses a value.
        RuntimeError: what else Mitsuba says, that there is no such plugin for one.
    """
    import mitsuba as mi

    try:
        return mi.load_dict(dict(settings))
    except RuntimeError as error:
        text = str(error).strip()
        if "unreferenced propert" in text:
            unread = [key for key in settings if f'"{key}"' in text]
            raise UsageError(
                f"the estimator {settings['type']} has no property {', '.join(map(repr, unread))}",
                where=where,
                remedy="correct its spelling, or leave it out; the estimator's class lists them",
            ) from error
        refused = re.search(r"ValueError: (.+)$", text)
        if refused:  # in a sentence of the estimator's own, at the end of Mitsuba's account
            raise UsageError(refused[1], where=where, remedy="correct the value of the property") from error
        raise
