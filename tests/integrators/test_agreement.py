"""Two families of mathematics: edge_sampling and warped_area agree on what both handle."""

from __future__ import annotations

import pytest

from pathtracer.bench.agreement import agreement, slopes
from pathtracer.bench.measure import gradients

#: What the camera sees, a moving camera, an area light's shadow, the environment's, and light that bounces, each with
#: the largest standard error of the ratio that still says something.
CASES = {
    "mesh-closed-turns": 0.05,
    "perspective-moves": 0.05,
    "shadow-area-receiver": 0.05,
    "shadow-environment-camera": 0.1,
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
