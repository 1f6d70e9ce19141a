"""Knowing whether a gradient is right: motions, differences, equivalence tests, and the check that joins them."""

from __future__ import annotations

from .checker import CheckReport, check_gradients
from .comparison import Comparison, Settings
from .motion import BoundMotion, Motion
from .statistics import Equivalence, Verdict, equivalence, judge
from .survey import check_catalogue

__all__ = [
    "BoundMotion",
    "CheckReport",
    "Comparison",
    "Equivalence",
    "Motion",
    "Settings",
    "Verdict",
    "check_catalogue",
    "check_gradients",
    "equivalence",
    "judge",
]
