"""The tables of benchmarks/warped_area.py, and the advice that is drawn from them."""

from __future__ import annotations

from pathtracer.bench.warp_tables import warp_advice, warp_kernel_table, warp_pairs, warp_pairs_table, warp_width_table


def _pair(subject: str, edges: float, warp: float, ratio: float = 1.0, agrees: bool = True) -> list[dict]:
    common = {"tag": "pairs", "subject": subject, "slope": 1.0, "slope_low": 0.9, "slope_high": 1.1, "time_cpu": 0.2}
    first = common | {"estimator": "edge_sampling", "mse": edges, "mse_error": 0.1 * edges}
    joint = {"ratio": ratio, "ratio_error": 0.02, "limit": 3.5, "agrees": agrees, "comparisons": 2}
    return [first, common | {"estimator": "warped_area", "mse": warp, "mse_error": 0.1 * warp} | joint]


def test_advice_follows_the_efficiencies() -> None:
    slower = {"rows": [*_pair("a", 0.01, 1.0), *_pair("b", 0.1, 0.5)]}
    text = warp_advice(warp_pairs(slower))
    assert "2 of 2 cases agree" in text and "5 (b) to 100 (a)" in text and "take edge_sampling to find" in text
    mixed = {"rows": [*_pair("a", 0.01, 1.0), *_pair("b", 0.5, 0.1, ratio=1.2, agrees=False)]}
    text = warp_advice(warp_pairs(mixed))
    assert "1 of 2 cases agree" in text and "take warped_area for what b" in text
    assert "10.0 (3.5) **no**" in warp_pairs_table(mixed)


def test_sweeps_are_shown_relative_to_the_defaults() -> None:
    row = {"tag": "kernel", "subject": "s", "slope": 1.0, "error": 0.1, "variance": 2.0, "time_cpu": 0.5}
    rows = [
        row
        | {"estimator": f"warped_area:warp_rays={n},warp_width=0.125", "warp_rays": n, "warp_width": 0.125, "cost": c}
        for n, c in ((6, 2.0), (9, 3.0))
    ]
    table = warp_kernel_table({"rows": rows})
    assert "**rays 6, width 0.125**" in table and "| 1.5 |" in table
    wide = {"tag": "width", "subject": "s", "warp_width": 1.0, "slope": 0.9, "error": 0.01}
    wide |= {"power": None, "power_error": None}
    shown = warp_width_table({"rows": [wide | {"warp_debias": d} for d in (False, True)]})
    assert "0.900 ± 0.010" in shown and "| – |" in shown
