"""Every estimator on every case of the catalogue: right where it should be, caught where it cannot be.

The default run takes the quick cases; `-m slow` takes all of them (under ten minutes an estimator on two idle cores).
"""

from __future__ import annotations

import os

import pytest

from integrators import ESTIMATORS, PHENOMENA
from pathtracer.errors import UsageError
from pathtracer.scenes import load_scene
from pathtracer.verify import Motion, Verdict, check_gradients
from pathtracer.verify.catalogue import CASES, EXCEPTIONS, catalogue_folder, expectation, find_case, settings_for
from pathtracer.verify.subject import REFERENCE

#: Rasterisers draw another image: what they must do is tested on their own (tests/integrators).
NAMES = [name for name, row in ESTIMATORS.items() if name != REFERENCE and not row.baseline]
QUICK = [case for case in CASES if case.quick]
SLOW = [case for case in CASES if not case.quick]
#: Seconds for a verdict; idle cores need two to ten.
BUDGET = float(os.environ.get("PATHTRACER_TEST_BUDGET", "60"))


def _scene(case):
    return load_scene(catalogue_folder() / f"{case.scene}.xml", **case.defines)


def _check(name, case):
    settings = settings_for(name, case)
    report = check_gradients(_scene(case), case.motion, name, budget=BUDGET, diagnosis=False, **settings)
    (row,) = report.comparisons
    expected = expectation(name, case)
    words = f"{case.id} {case.motion}: {row.verdict}, expected {'/'.join(map(str, expected.verdicts))}: {row.reason}"
    assert row.verdict in expected.verdicts, words
    if expected.bias is not None and row.verdict is not Verdict.UNSUPPORTED:
        low, high = row.slope_interval()
        assert low - 0.1 <= 1 + expected.bias <= high + 0.1, f"{words}; known bias {expected.bias:+.2f}"


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


@pytest.mark.parametrize("scene", sorted({case.scene for case in CASES}))
def test_every_motion_of_the_catalogue_fits_its_scene(scene):
    for case in CASES:
        if case.scene == scene:
            loaded = _scene(case)
            bound = Motion.parse(case.motion).bind(loaded.mi, loaded.params)
            assert bound.scale > 0
