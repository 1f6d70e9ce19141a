"""Inverse rendering: problems, spaces, losses, solvers and the step loop around them."""

from __future__ import annotations

from .estimation import Estimation, estimate
from .parameters import Parameter
from .problem import Problem
from .result import Result, Step

__all__ = ["Estimation", "Parameter", "Problem", "Result", "Step", "estimate"]
