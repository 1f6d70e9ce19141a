"""The table of benchmarks/catalogue.py: a pure function of its result."""

from __future__ import annotations

from collections import Counter

from .tables import Record, markdown, number, subjects

_MARKS = {"pass": "", "inconclusive": " open", "fail": " **fails**"}


def _slope(row: Record) -> str:
    """The slope with its interval; what is not within the tolerance for sure is marked."""
    if row["verdict"] == "unsupported":
        return "refuses"
    if row["slope"] is None:
        return row["verdict"]
    return f"{row['slope']:.3f} [{row['slope_low']:.3f}, {row['slope_high']:.3f}]{_MARKS[row['verdict']]}"


def catalogue_table(record: Record) -> str:
    """A line for every case, three columns for every estimator, and the sums in words."""
    rows = record["rows"]
    estimators = list(dict.fromkeys(r["estimator"] for r in rows))
    head = ["case"]
    for name in estimators:
        head += [name, "backward", "s"]
    lines = []
    for case in subjects(rows):
        line = [case]
        for name in estimators:
            row = next((r for r in rows if r["subject"] == case and r["estimator"] == name), None)
            backward = "–" if row is None or row["backward"] is None else f"{row['backward']:.3f}"
            line += [_slope(row), backward, number(row["seconds"], 2)] if row else ["", "", ""]
        lines.append(line)
    sums = [_sum(name, [r for r in rows if r["estimator"] == name]) for name in estimators]
    return "\n".join([markdown(head, lines), "", *sums])


def _sum(estimator: str, rows: list[Record]) -> str:
    """How many cases had which verdict, and which are not what they should be."""
    counts = Counter(r["verdict"] for r in rows)
    words = ", ".join(f"{counts[v]} {v}" for v in ("pass", "inconclusive", "fail", "unsupported") if counts[v])
    other = [r for r in rows if (r["verdict"] != "pass" if r["as_expected"] is None else not r["as_expected"])]
    names = "; not as they should be: " + ", ".join(f"`{r['subject']}`" for r in other) if other else ""
    expected = [r["subject"] for r in rows if r["verdict"] != "pass" and r["as_expected"]]
    declared = "; as declared: " + ", ".join(f"`{name}`" for name in expected) if expected else ""
    budgets = sorted({r["budget"] for r in rows})
    budget = " or ".join(f"{b:g}" for b in budgets)
    commits = ", ".join(dict.fromkeys(r["commit"][:8] + "+" * r["commit"].endswith("+") for r in rows))
    return (
        f"* {estimator}: {words}{names}{declared}. {sum(r['seconds'] for r in rows) / 60:.0f} min, "
        f"at most {budget} s for each case; commit {commits}."
    )
