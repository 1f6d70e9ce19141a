"""What the checker says of Mitsuba's own projective integrator: right for a translated sphere, wrong elsewhere.

Mitsuba keeps the motion of the silhouette alone, not of the two ends of the boundary segment, and counts the edges of
a seam twice: a moving receiver, camera or point light gives zero or a wrong value. If a later version mends that,
these tests fail and want to be turned around. As a command (docs/checking.md):

    pathtracer check catalogue/CASE --estimator prb_projective
"""

from __future__ import annotations

import pytest

from pathtracer.verify import Verdict, check_catalogue

pytestmark = pytest.mark.slow


def _check(case, **settings):
    return check_catalogue(case, "prb_projective", budget=180, backward=False, **settings).comparisons[0]


def test_translated_sphere_is_right():
    row = _check("occluder-in-front-moves")
    assert row.verdict is Verdict.PASS, row.reason


def test_translated_cube_with_seams_is_wrong():
    row = _check("mesh-seamed-cube-moves", diagnosis=True)
    assert row.verdict is Verdict.FAIL
    assert row.slope > 1.5
    assert row.terms and set(row.terms) <= {"interior", "primary", "indirect"}


def test_moving_receiver_is_wrong():
    row = _check("shadow-area-receiver")
    assert row.verdict is Verdict.FAIL
    assert abs(row.slope) < 0.8


def test_moving_camera_is_refused_or_wrong():
    row = _check("perspective-moves")
    assert row.verdict is Verdict.FAIL
    assert "raised" in row.reason or abs(row.slope) < 0.5


def test_shadow_of_a_point_light_is_missing():
    row = _check("shadow-point-occluder")
    assert row.verdict is Verdict.FAIL
    assert abs(row.slope) < 0.2
