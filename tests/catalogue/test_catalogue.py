"""Every estimator on every case of the catalogue: right where it should be, caught where it cannot be.

The default run takes the quick cases; `-m slow` takes all of them (under ten minutes an estimator on two idle cores).
"""

from __future__ import annotations

import os

import pytest

from integrators import ESTIMATORS, PHENOMENA
from pathtracer.errors import UsageError
from pathtracer.verify import Motion, check_catalogue
from pathtracer.verify.catalogue import CASES, EXCEPTIONS, find_case
from pathtracer.verify.subject import checkable
from pathtracer.verify.survey import load_case, select_cases

NAMES = checkable()
QUICK = [case for case in CASES if case.quick]
SLOW = [case for case in CASES if not case.quick]
#: Seconds for a verdict; idle cores need two to ten, the noisiest a minute or two.
BUDGET = float(os.environ.get("PATHTRACER_TEST_BUDGET", "180"))


def _check(name, case):
    report = check_catalogue(case.id, name, budget=BUDGET)
    (row,) = report.comparisons
    assert row.as_expected, f"{case.id} {case.motion}: {row.verdict}, expected {row.expected}: {row.reason}"
    assert report.exit_code == 0


#: Every kernel of warped_area takes long to compile.
LONG = {"warped_area"}


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.id)
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in NAMES])
def test_estimator_is_right_or_caught(name, case):
    _check(name, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW, ids=lambda case: case.id)
@pytest.mark.parametrize("name", NAMES)
def test_estimator_is_right_or_caught_everywhere(name, case):
    _check(name, case)


@pytest.mark.slow
@pytest.mark.parametrize("case_id", ["mesh-closed-moves", "shadow-point-light", "point-intensity", "mask-opacity"])
def test_finite_difference_plugin_agrees_with_the_reference(case_id):
    """Plugin and reference share their formulas, but neither seeds, nor steps, nor the way to move."""
    (row,) = check_catalogue(case_id, "finite_difference", budget=BUDGET, backward=False).comparisons
    assert str(row.verdict) == "pass", row.reason


def test_every_phenomenon_has_cases_and_names_are_unique():
    assert len({case.id for case in CASES}) == len(CASES) >= 40
    covered = set().union(*(case.needs for case in CASES))
    assert covered == set(PHENOMENA)


def test_exceptions_name_known_cases_and_estimators():
    for name, case_id in EXCEPTIONS:
        assert name in ESTIMATORS
        find_case(case_id)


def test_unknown_case_is_named_with_its_neighbours():
    with pytest.raises(UsageError, match="did you mean 'sphere-moves'"):
        find_case("sphere-move")
    with pytest.raises(UsageError, match="did you mean"):
        select_cases("sphere-move")


def test_a_pattern_takes_the_cases_that_it_matches():
    assert [case.id for case in select_cases("shadow-point-l*")] == ["shadow-point-light"]
    assert len(select_cases(["shadow-point-*", "shadow-spot-*"])) == 9
    assert select_cases() == list(CASES)


@pytest.mark.parametrize("scene", sorted({case.scene for case in CASES}))
def test_every_motion_of_the_catalogue_fits_its_scene(scene):
    for case in CASES:
        if case.scene == scene:
            loaded = load_case(case)
            bound = Motion.parse(case.motion).bind(loaded.mi, loaded.params)
            assert bound.scale > 0
