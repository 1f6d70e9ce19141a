"""The table of benchmarks/catalogue.py: what is not as it should be must be seen."""

from __future__ import annotations

from pathtracer.bench.catalogue_table import catalogue_table


def _row(case: str, estimator: str, verdict: str, slope: float | None = 1.0, as_expected: bool | None = True) -> dict:
    interval = {"slope_low": None, "slope_high": None}
    if slope is not None:
        interval = {"slope_low": slope - 0.02, "slope_high": slope + 0.02}
    return {
        "tag": "catalogue", "subject": case, "estimator": estimator, "verdict": verdict, "slope": slope, **interval,
        "backward": slope, "seconds": 30.0, "budget": 60.0, "commit": "abcdef0123", "as_expected": as_expected,
    }  # fmt: skip


def test_verdicts_that_are_not_a_pass_stand_out() -> None:
    rows = [
        _row("sphere", "edge_sampling", "pass"),
        _row("tile", "edge_sampling", "unsupported", None),
        _row("sphere", "warped_area", "fail", 0.5, as_expected=False),
        _row("box", "warped_area", "inconclusive", 0.9, as_expected=False),
        _row("sphere", "warped_area:hybrid=true", "pass", as_expected=None),
        _row("box", "warped_area:hybrid=true", "inconclusive", 0.9, as_expected=None),
    ]
    text = catalogue_table({"rows": rows})
    assert "| case | edge_sampling | backward | s | warped_area |" in text
    sphere, tile, box = (
        next(x for x in text.splitlines() if x.startswith(f"| {c} |")) for c in ("sphere", "tile", "box")
    )
    assert "1.000 [0.980, 1.020] |" in sphere and "0.500 [0.480, 0.520] **fails**" in sphere
    assert (
        tile.startswith("| tile | refuses | – |") and box.count(" open |") == 2 and box.startswith("| box |  |  |  |")
    )
    assert "* edge_sampling: 1 pass, 1 unsupported; as declared: `tile`. 1 min, at most 60 s" in text
    assert "* warped_area: 1 inconclusive, 1 fail; not as they should be: `sphere`, `box`." in text
    assert "* warped_area:hybrid=true: 1 pass, 1 inconclusive; not as they should be: `box`." in text
    assert "commit abcdef01" in text
