"""Two families of mathematics: edge_sampling and warped_area agree on what both handle."""

from __future__ import annotations

import pytest

from pathtracer.bench.agreement import agreement, slopes
from pathtracer.bench.measure import gradients

#: What the camera sees, a moving camera, an area light's shadow, the environment's, and light that bounces, each with
#: the largest standard error of the ratio that still says something.
CASES = {
    "mesh-closed-turns": 0.02,
    "perspective-moves": 0.02,
    "shadow-area-receiver": 0.02,
    "shadow-environment-camera": 0.03,
    "indirect-room-grows": 0.15,
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_edge_sampling_and_warped_area_agree_within_their_joint_confidence(case: str) -> None:
    """|a − b| ≤ z √(sₐ² + s_b²), with z for 95 % of all `CASES` together."""
    weights = gradients(case, "edge_sampling", 0, 4, seed=900, spp=128)["images"].mean(0)
    edges = slopes(gradients(case, "edge_sampling", 0, 12, seed=500, spp=256)["images"], weights)
    warp = slopes(gradients(case, "warped_area", 0, 16, seed=17, spp=256)["images"], weights)
    found = agreement(warp, edges, comparisons=len(CASES))
    assert found.agrees, f"ratio {found.slope:.3f} ± {found.error:.3f}"
    assert found.error < CASES[case]


def test_a_wide_kernel_of_directions_has_no_bias_under_a_sky_full_of_detail() -> None:
    """The sky is seen from the warped directions, too: left out, 0.08 rad gave 1.19 here, 0.02 rad 1.05."""
    case = "shadow-environment-occluder"
    weights = gradients(case, "edge_sampling", 0, 4, seed=900, spp=64)["images"].mean(0)
    edges = slopes(gradients(case, "edge_sampling", 0, 6, seed=500, spp=256)["images"], weights)
    warp = slopes(gradients(case, "warped_area:warp_angle=0.08", 0, 8, seed=17, spp=128)["images"], weights)
    found = agreement(warp, edges)
    assert abs(found.slope - 1) < 0.06 and found.error < 0.03, f"ratio {found.slope:.3f} ± {found.error:.3f}"
