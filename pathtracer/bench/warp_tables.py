"""Tables of benchmarks/warped_area.py: pure functions of its result."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .tables import Record, markdown, number, of, slope, subjects


def _with_error(row: Record, digits: int = 3) -> str:
    return f"{row['slope']:.{digits}f} ± {row['error']:.{digits}f}"


#: What `warped_area` does without a setting; the sweeps show their gains relative to it.
_KERNEL = {
    "warp_rays": 6, "warp_pairs": 2, "warp_width": 0.125, "warp_ridge": 1e-3, "warp_share": 0.15, "warp_angle": 0.02,
}  # fmt: skip


def warp_kernel_table(record: Record) -> str:
    """The sweep of the kernel of warped_area: slopes against edge_sampling, and variance x time over the default's."""
    head = ["case", "setting", "slope against edge_sampling", "variance", "CPU s", "variance x time, default = 1"]
    rows = []
    for tag in ("kernel", "rings", "ridge", "shadows"):
        found = of(record, tag)
        for subject in subjects(found):
            mine = [r for r in found if r["subject"] == subject]
            default = next((r for r in mine if all(r.get(k, v) == v for k, v in _KERNEL.items())), mine[0])
            for r in mine:
                setting = r["estimator"].partition(":")[2].replace("warp_", "").replace("=", " ").replace(",", ", ")
                name = f"**{setting}**" if r is default else setting
                ratio = number(r["cost"] / default["cost"], 2)
                rows.append([subject, name, _with_error(r), number(r["variance"], 2), number(r["time_cpu"], 2), ratio])
    return markdown(head, rows)


def warp_width_table(record: Record) -> str:
    """How the bias of warped_area grows with the width of its kernel."""
    found = of(record, "width")
    widths = sorted({r["warp_width"] for r in found})
    head = ["case", "extrapolated", *(f"width {w:g} px" for w in widths), "power of the bias"]
    rows = []
    for subject in subjects(found):
        for debias in (False, True):
            mine = {r["warp_width"]: r for r in found if r["subject"] == subject and r["warp_debias"] == debias}
            any_row = next(iter(mine.values()))
            power = "–" if any_row["power"] is None else f"{any_row['power']:.2f} ± {any_row['power_error']:.2f}"
            rows.append([subject, "yes" if debias else "no", *(_with_error(mine[w]) for w in widths), power])
    return markdown(head, rows)


def warp_pairs(record: Record) -> list[dict[str, Any]]:
    """For each case edge_sampling and warped_area, and how much more efficient the former is."""
    found = of(record, "pairs")
    result = []
    for subject in subjects(found):
        by_name = {r["estimator"]: r for r in found if r["subject"] == subject}
        edges, warp = by_name["edge_sampling"], by_name["warped_area"]
        result.append(
            {
                "subject": subject,
                "edges": edges,
                "warp": warp,
                "ratio": warp["mse"] * warp["time_cpu"] / (edges["mse"] * edges["time_cpu"]),
                "error": math.hypot(*(r["mse_error"] / r["mse"] for r in (edges, warp))),
            }
        )
    return result


def warp_pairs_table(record: Record) -> str:
    """Both estimators of visibility on every case that both handle, and what follows from it."""
    head = [
        "case", "edge_sampling", "warped_area", "warped / edge", "errors apart (allowed)",
        "error", "error, warped", "CPU s", "CPU s, warped", "efficiency, edge / warped",
    ]  # fmt: skip
    rows = []
    pairs = warp_pairs(record)
    for p in pairs:
        edges, warp = p["edges"], p["warp"]
        apart = abs(warp["ratio"] - 1) / warp["ratio_error"]
        cells = [f"{warp['ratio']:.3f} ± {warp['ratio_error']:.3f}", f"{apart:.1f} ({warp['limit']:.1f})"]
        cells[1] += "" if warp["agrees"] else " **no**"
        numbers = [number(r[k], 2) for k in ("mse", "time_cpu") for r in (edges, warp)]
        efficiency = f"{number(p['ratio'], 2)} ± {100 * p['error']:.0f} %"
        rows.append([p["subject"], slope(edges), slope(warp), *cells, *numbers, efficiency])
    return f"{markdown(head, rows)}\n\n{warp_advice(pairs)}"


def warp_advice(pairs: list[dict[str, Any]]) -> str:
    """Which estimator when, in words, from `warp_pairs`."""
    ratios = {p["subject"]: p["ratio"] for p in pairs}
    ordered = sorted(ratios, key=lambda name: ratios[name])
    low, middle, high = ordered[0], ordered[len(ordered) // 2], ordered[-1]
    better = [name for name in ordered if ratios[name] < 1]
    agreed = sum(bool(p["warp"]["agrees"]) for p in pairs)
    family = int(pairs[0]["warp"]["comparisons"])
    weights = [p["warp"]["ratio_error"] ** -2.0 for p in pairs]
    mean = sum(w * p["warp"]["ratio"] for w, p in zip(weights, pairs, strict=True)) / sum(weights)
    text = (
        f"{agreed} of {len(pairs)} cases agree, at 95 % confidence for all {family} that both handle together; the "
        f"ratio of all, weighted by their errors, is {mean:.4f} ± {sum(weights) ** -0.5:.4f}. "
        f"At equal time edge_sampling has {number(ratios[low], 2)} ({low}) to {number(ratios[high], 2)} ({high}) times "
        f"the efficiency of warped_area, {number(ratios[middle], 2)} in the middle: "
    )
    if better:
        return text + f"take warped_area for what {', '.join(better)} are like, and edge_sampling for the rest."
    return text + "take edge_sampling to find parameters, and warped_area to check what it says."


#: name of the marker -> (result file, table)
WARP_TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "warp-kernel": ("warped-area", warp_kernel_table),
    "warp-width": ("warped-area", warp_width_table),
    "warp-pairs": ("warped-area", warp_pairs_table),
}
