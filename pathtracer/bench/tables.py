"""Markdown tables made from results: pure functions of the JSON."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Record = dict[str, Any]

#: How tables call what a row measured.
NAMES = {
    "prb_projective:guiding=none": "prb_projective, unguided",
    "direct_projective:guiding=none": "direct_projective, unguided",
    "prb_projective:guiding=octree": "prb_projective, octree",
    "direct_projective:guiding=octree": "direct_projective, octree",
    "prb_projective:guiding=grid": "prb_projective, grid",
    "edge_sampling:guiding=false": "edge_sampling, unguided",
    "edge_sampling:split=auto": "edge_sampling, split by a pilot",
    "soft_rasterizer:sigma=0.001": "soft_rasterizer",
}


def label(estimator: str) -> str:
    """What people call an estimator."""
    return NAMES.get(estimator, estimator)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table; the first column is text, the others numbers."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def number(value: float | None, digits: int = 3) -> str:
    """Few digits, no exponents where none are needed; "–" for none."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    if "e" not in text:
        return text
    return (
        f"{value:.0f}"
        if abs(value) < 1e6 and abs(value) >= 1
        else f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e")
    )


def slope(row: Record) -> str:
    """Slope with its confidence interval, or why there is none."""
    if "failure" in row:
        return "refuses" if row.get("refused") else "fails"
    if row.get("slope") is None:
        return "–"
    return f"{row['slope']:.3f} [{row['slope_low']:.2f}, {row['slope_high']:.2f}]"


def conditions(record: Record) -> str:
    """One line on where and how the numbers came about."""
    env = record["environment"]
    commit = str(env.get("commit") or "no checkout")
    return (
        f"*{record['size'].capitalize()} suite, {env['seconds']:.0f} s, {env['date'][:10]}, commit {commit[:8]}"
        f"{' with changes' if commit.endswith('+') else ''}; {env['processor']}, {env['cores']} cores, "
        f"{env['variant']}, Mitsuba {env['mitsuba']}; "
        f"load {env['load_before']:.1f} before, {env['load_after']:.1f} after.*"
    )


def of(record: Record, tag: str) -> list[Record]:
    """The rows of one table."""
    return [r for r in record["rows"] if r["tag"] == tag]


def subjects(rows: list[Record]) -> list[str]:
    """What rows are about, once each."""
    return list(dict.fromkeys(r["subject"] for r in rows))


def estimators_table(record: Record) -> str:
    """Every measurement of the suite."""
    head = ["subject", "estimator", "slope [95 %]", "bias", "error", "s", "CPU s", "first, s", "MiB", "1/(error·CPU s)"]
    rows = []
    for r in of(record, "estimators"):
        cells = [r["subject"], label(r["estimator"]), slope(r)]
        if "failure" in r:
            rows.append([*cells, *["–"] * 7])
            continue
        keys = ("bias", "mse", "time", "time_cpu", "first", "memory", "efficiency_cpu")
        rows.append([*cells, *(number(r[k], 2 if k != "memory" else 3) for k in keys)])
    return markdown(head, rows)


def summary_table(record: Record) -> str:
    """Slopes only: subjects down, estimators across."""
    found = of(record, "estimators")
    names = list(dict.fromkeys(r["estimator"] for r in found))
    rows = []
    for subject in subjects(found):
        cells = [subject]
        for name in names:
            row = next((r for r in found if r["subject"] == subject and r["estimator"] == name), None)
            cells.append("" if row is None else slope(row).split(" [")[0])
        rows.append(cells)
    return markdown(["slope (1 is right)", *(label(n) for n in names)], rows)


def projective_pairs(record: Record) -> list[dict[str, Any]]:
    """For each subject ours against the most efficient of theirs; ratios above 1 are in our favour."""
    found = of(record, "projective")
    interior = {r["subject"]: r.get("first_cpu") for r in of(record, "interior")}
    pairs = []
    for subject in subjects(found):
        rows = [r for r in found if r["subject"] == subject]
        mine = [r for r in rows if r["estimator"].startswith("edge_sampling") and r.get("efficiency_cpu")]
        theirs = [r for r in rows if not r["estimator"].startswith("edge_sampling") and r.get("efficiency_cpu")]
        if not mine or not theirs:
            continue
        ours = max(mine, key=lambda r: float(r["efficiency_cpu"]))
        best = max(theirs, key=lambda r: float(r["efficiency_cpu"]))
        default = next((r for r in theirs if r["estimator"] == "prb_projective:guiding=octree"), None)
        pairs.append(
            {
                "subject": subject,
                "ours": ours,
                "theirs": best,
                "efficiency": ours["efficiency"] / best["efficiency"],
                "efficiency_cpu": ours["efficiency_cpu"] / best["efficiency_cpu"],
                "error": math.hypot(*(r["mse_error"] / r["mse"] for r in (ours, best))),
                "first": min(r["first"] for r in theirs) / mine[0]["first"],
                "first_cpu": min(r["first_cpu"] for r in theirs) / mine[0]["first_cpu"],
                "first_seconds": (mine[0]["first_cpu"], min(r["first_cpu"] for r in theirs)),
                "interior": interior.get(subject),
                "default": None if default is None else default["first_cpu"] / mine[0]["first_cpu"],
                "default_efficiency": None if default is None else ours["efficiency_cpu"] / default["efficiency_cpu"],
            }
        )
    return pairs


def projective_table(record: Record) -> str:
    """edge_sampling against the most efficient of Mitsuba's projective integrators, case by case."""
    head = [
        "case", "best of ours", "our slope", "best of theirs", "their slope", "our error", "their error",
        "CPU s", "theirs", "efficiency ratio", "to their default", "first gradient, CPU s",
        "theirs", "ratio", "to their default", "prb's, CPU s",
    ]  # fmt: skip
    rows = []
    for p in projective_pairs(record):
        ours, theirs = p["ours"], p["theirs"]
        rows.append(
            [
                p["subject"],
                label(ours["estimator"]),
                slope(ours),
                label(theirs["estimator"]),
                slope(theirs),
                number(ours["mse"], 2),
                number(theirs["mse"], 2),
                number(ours["time_cpu"], 2),
                number(theirs["time_cpu"], 2),
                f"{number(p['efficiency_cpu'], 2)} ± {100 * p['error']:.0f} %",
                number(p["default_efficiency"], 2),
                *(number(seconds, 2) for seconds in p["first_seconds"]),
                number(p["first_cpu"], 2),
                number(p["default"], 2),
                number(p["interior"], 2),
            ]
        )
    return markdown(head, rows)


def slopes_table(tag: str) -> Callable[[Record], str]:
    """Subjects down, estimators across, slopes with intervals."""

    def table(record: Record) -> str:
        found = of(record, tag)
        names = list(dict.fromkeys(r["estimator"] for r in found))
        rows = []
        for subject in subjects(found):
            by_name = {r["estimator"]: r for r in found if r["subject"] == subject}
            rows.append([subject, *(slope(by_name[n]) if n in by_name else "" for n in names)])
        return markdown(["moves", *(label(n) for n in names)], rows)

    return table


def guiding_table(record: Record) -> str:
    """Errors at about equal time, and what guiding gains when its build is counted."""
    rows = []
    found = of(record, "experiment-5")
    for subject in subjects(found):
        mine = [r for r in found if r["subject"] == subject]
        for r in mine:
            plain = r["estimator"].split(":")[0]
            unguided = {
                "edge_sampling": "edge_sampling:guiding=false",
                "prb_projective": "prb_projective:guiding=none",
            }[plain]
            base = next((u for u in mine if u["estimator"] == unguided and "failure" not in u), None)
            if "failure" in r or base is None:
                rows.append([subject, label(r["estimator"]), slope(r), *["–"] * 4])
                continue
            rows.append(
                [
                    subject,
                    label(r["estimator"]),
                    slope(r),
                    number(math.sqrt(r["mse"]), 2),
                    number(r["time_cpu"], 2),
                    str(int(r["spp"])),
                    number(math.sqrt(base["mse"] * base["time_cpu"] / (r["mse"] * r["time_cpu"])), 2),
                ]
            )
    return markdown(["case", "estimator", "slope", "relative RMSE", "CPU s", "spp", "RMSE gain at equal time"], rows)


def control_table(record: Record) -> str:
    """Who recovers a pose from what."""
    rows = []
    names = list(dict.fromkeys(r["estimator"] for r in record["rows"]))
    for name in names:
        cells = [label(name)]
        for task in ("silhouette", "shadow", "reflection"):
            r = next((r for r in record["rows"] if r["subject"] == task and r["estimator"] == name), None)
            if r is None:
                cells.append("")
            elif "failure" in r:
                cells.append("refuses" if r.get("refused") else "fails")
            else:
                cells.append(
                    f"{int(r['solved'])} of {int(r['starts'])} ({r['final']:.0%} left, {number(r['seconds'], 2)} s)"
                )
        rows.append(cells)
    return markdown(["pose found from", "silhouette", "shadow", "reflection"], rows)


def solvers_table(record: Record) -> str:
    """Success rates and times of the solvers."""
    rows = []
    for r in record["rows"]:
        if "failure" in r:
            rows.append([r["estimator"], r["failure"], "–", "–"])
            continue
        cells = [
            f"{int(r[f'reached_{k}'])} of {int(r['starts'])}, {number(r[f'seconds_{k}'], 2)} s" for k in ("5", "1")
        ]
        rows.append([r["estimator"], *cells, f"{100 * r['final']:.2g} %"])
    return markdown(["solver", "to 5 % (starts, median CPU s)", "to 1 %", "largest error at the end, median"], rows)


def inverse_table(record: Record) -> str:
    """Success rates of inverse problems, times to sustained errors beside a plain script (benchmarks/solvers.py)."""
    rows = []
    for r in (r for r in record["rows"] if "success" in r):
        first = [r["what"] + _elsewhere(r, record), r["solver"], _found(r)]
        for k, level in enumerate(r["levels"]):
            short = int(level["plain_reached"]) < int(level["plain_starts"])
            times = [number(level["ours"], 2), f"more than {number(level['plain_limit'], 2)}"]
            if level["plain"] is not None:
                times[1] = (
                    f"{number(level['plain'], 2)} (rate {level['plain_rate']:g}, {int(level['plain_starts'])} starts)"
                )
            ratio = number(level["ratio"], 2)
            rows.append([*(first if k == 0 else [""] * 3), f"{100 * level['level']:g} %", *times, ratio])
            rows[-1][-1] = f"more than {ratio}" if level["plain"] is None and short else ratio
        if not r["levels"]:
            error = f"{number(r['success_at'])} {r['unit']}" if r["unit"] else f"{100 * r['success_at']:g} %"
            theirs = "does not see visibility"
            if "control" in r:
                theirs = f"ours without blur: {_found(r['control'])}"
            rows.append([*first, error, f"{number(r['seconds_median'], 2)} in all", theirs, "–"])
    head = ["problem (unknown numbers)", "solver", "found", "sustained", "ours, CPU s", "plain script, CPU s", "ratio"]
    return markdown(head, rows)


def coverage_table(record: Record) -> str:
    """How often the 95 % intervals hold the truth."""
    rows = []
    for r in (r for r in record["rows"] if "coverage" in r):
        rows.append(["all" + _elsewhere(r, record), f"{100 * r['coverage']:.1f} %"])
        rows += [[name, f"{100 * share:.0f} %"] for name, share in r["each"].items()]
        rows.append(["spread of (found - true) / standard error", number(r["z_spread"])])
        rows.append(["noise seeds", str(int(r["starts"]))])
    return markdown(["", "95 % intervals that hold the truth"], rows)


def _found(row: Record) -> str:
    return f"{round(row['success'] * row['starts'])} of {int(row['starts'])}"


def _elsewhere(row: Record, record: Record) -> str:
    """A remark where a row was measured with another commit than the record says."""
    mine = str(row["commit"])
    return "" if mine == record["environment"]["commit"] else f" [commit {mine[:8]}]"


def scaling_table(record: Record) -> str:
    """Times, memory and exponents."""
    rows = []
    for r in record["rows"]:
        if "failure" in r:
            rows.append([r["subject"], r["estimator"], r["failure"], *["–"] * 5])
            continue
        series = lambda key, r=r: ", ".join(number(v, 2) for v in r[key])
        sizes = ", ".join(str(int(s)) for s in r["sizes"])
        powers = [number(r[f"exponent_{k}"], 2) for k in ("cpu", "memory")]
        rows.append([f"{r['subject']}: {r['what']}", r["estimator"], sizes, series("cpu"), series("memory"), *powers])
    return markdown(
        ["axis", "estimator", "sizes", "CPU s per gradient", "peak MiB", "power of time", "power of memory"], rows
    )


def speed_table(record: Record) -> str:
    """path_replay against Mitsuba's integrators (benchmarks/speed.py)."""
    rows = []
    for name, r in record["rows"].items():
        ratio = f"{r['ratio']:.2f} ({r['ratio_low']:.2f}–{r['ratio_high']:.2f})"
        rows.append([name, f"{r['ours_ms']:.0f} ms", f"{r['theirs_ms']:.0f} ms", ratio])
    return markdown(["", "path_replay", "Mitsuba", "ratio (quartiles)"], rows)


#: name of the marker -> (result file, table)
TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "speed": ("speed", speed_table),
    "speed-cuda": ("speed-cuda", speed_table),
    "estimators": ("estimators", estimators_table),
    "summary": ("estimators", summary_table),
    "projective": ("projective", projective_table),
    "control": ("control", control_table),
    "scaling": ("scaling", scaling_table),
    "experiment-10": ("solvers", solvers_table),
    "inverse-problems": ("inverse-problems", inverse_table),
    "coverage": ("inverse-problems", coverage_table),
    "experiment-1": ("experiments", slopes_table("experiment-1")),
    "experiment-2": ("experiments", slopes_table("experiment-2")),
    "experiment-3": ("experiments", slopes_table("experiment-3")),
    "experiment-5": ("experiments", guiding_table),
}
