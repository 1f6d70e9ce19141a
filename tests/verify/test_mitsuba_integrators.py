"""What the checker says of Mitsuba's own projective integrator: right for a glowing sphere, wrong elsewhere.

Mitsuba keeps the motion of the silhouette alone, not of the two ends of the boundary segment, and counts the edges of
a seam twice: a moving receiver, camera or point light gives zero or a wrong value. If a later version mends that,
these tests fail and want to be turned around.
"""

from __future__ import annotations

import pytest
from verify.scenes import catalogue_scene

from pathtracer.verify import Verdict, check_gradients

pytestmark = pytest.mark.slow


def _check(scene, motion, **defines):
    report = check_gradients(
        catalogue_scene(scene, **defines), motion, "prb_projective", budget=180, diagnosis=False, cache=False
    )
    return report.comparisons[0]


def test_translated_sphere_is_right():
    row = _check("pair", "other.to_world translate:x")
    assert row.verdict is Verdict.PASS, row.reason


def test_translated_cube_with_seams_is_wrong():
    row = _check("shape", "object.vertex_positions translate:x")
    assert row.verdict is Verdict.FAIL
    assert row.slope > 1.5


def test_moving_receiver_is_wrong():
    row = _check("shadow-area", "floor.to_world translate:y")
    assert row.verdict is Verdict.FAIL
    assert abs(row.slope) < 0.8


def test_moving_camera_is_refused_or_wrong():
    row = _check("camera-perspective", "camera.to_world translate:x")
    assert row.verdict is Verdict.FAIL
    assert "raised" in row.reason or abs(row.slope) < 0.5


def test_shadow_of_a_point_light_is_missing():
    row = _check("shadow-point", "blocker.vertex_positions translate:x")
    assert row.verdict is Verdict.FAIL
    assert abs(row.slope) < 0.2
