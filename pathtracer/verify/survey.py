"""The whole catalogue in one go: does every estimator do what its row of the table promises, and no more?"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from integrators import ESTIMATORS
from pathtracer.errors import UsageError, nearest_names

from .catalogue import CASES, Case, catalogue_folder, expectation, settings_for
from .checker import CheckReport, Progress, check_gradients
from .comparison import Settings
from .subject import choose_estimators


def select_cases(patterns: str | Sequence[str] = "*") -> list[Case]:
    """Cases whose id matches one of the patterns, in the order of the catalogue.

    Raises:
        UsageError: a pattern matches nothing, with the nearest names.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    names = [case.id for case in CASES]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise UsageError(
                f"the catalogue has no case {pattern!r}",
                nearest=nearest_names(pattern, names),
                remedy="`pathtracer check catalogue --list` shows them",
            )
    return [case for case in CASES if any(fnmatch.fnmatch(case.id, pattern) for pattern in patterns)]


def check_catalogue(
    cases: str | Sequence[str] = "*",
    estimators: Any = None,
    *,
    budget: float = 60.0,
    seed: int = 0,
    cache: bool | Path = True,
    diagnosis: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> CheckReport:
    """Check estimators on cases of the catalogue, each at what it declares (`catalogue.settings_for`).

    Args:
        cases: ids or globs.
        estimators: as for `check_gradients`; those that are not in the table (Mitsuba's own) have no expectations.
        settings: fields of `comparison.Settings` that overrule the case's and the estimator's.

    Returns:
        A report whose comparisons carry their case and what was expected; `unexpected` lists the deviations.
    """
    report = CheckReport(settings=Settings(budget=budget, seed=seed, **settings))
    for case in select_cases(cases):
        for spec in choose_estimators(estimators):
            known = spec if isinstance(spec, str) and spec in ESTIMATORS else None
            own = {**(settings_for(known, case) if known else case.settings), **settings}
            found = check_gradients(
                load_case(case), case.motion, spec, budget=budget, seed=seed, cache=cache, diagnosis=diagnosis, **own
            )
            (row,) = found.comparisons
            row.case = case.id
            if known:
                expected = expectation(known, case)
                row.expected, row.as_expected = str(expected), expected.agrees(row)
            report.comparisons.append(row)
            if progress:
                progress("", row)
    return report


def load_case(case: Case) -> Any:
    """The `Scene` of a case."""
    from pathtracer.scenes import load_scene

    defines: dict[str, Any] = dict(case.defines)
    return load_scene(catalogue_folder() / f"{case.scene}.xml", **defines)
