"""Is a result worse than an older one, beyond what the noise of both explains?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

#: Changes below this are never called a regression: compilers, caches and clocks are not in the error bars.
SLACK = 0.15
#: Standard errors that a change must exceed.
SIGMAS = 3.0
#: A slope may be off by so much before its distance counts.
TOLERANCE = 0.03


@dataclass(frozen=True)
class Change:
    """One row that can be compared.

    Attributes:
        row: subject and estimator.
        what: what changed, with both values.
        worse: whether it is a regression.
    """

    row: str
    what: str
    worse: bool


def compare(new: dict[str, Any], base: dict[str, Any]) -> list[Change]:
    """Changes between two results of one suite, those that are beyond confidence.

    Rows of one side only are passed over: suites may grow. Times are in processor seconds over each side's calibration.
    """
    old_rows = {_key(r): r for r in base["rows"]}
    unit = (new["environment"].get("calibration") or 1.0) / (base["environment"].get("calibration") or 1.0)
    changes = []
    for row in new["rows"]:
        old = old_rows.get(_key(row))
        if old is None:
            continue
        for found in (_failure(row, old), _bias(row, old), _efficiency(row, old, unit), _solved(row, old)):
            if found is not None:
                changes.append(Change(f"{row['subject']}: {row['estimator']}", *found))
    return changes


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return str(row["tag"]), str(row["subject"]), str(row["estimator"])


def _failure(new: dict[str, Any], old: dict[str, Any]) -> tuple[str, bool] | None:
    if ("failure" in new) == ("failure" in old):
        return None
    if "failure" in new:
        return f"failed: {new['failure']}", True
    return f"no longer fails ({old['failure']})", False


def _bias(new: dict[str, Any], old: dict[str, Any]) -> tuple[str, bool] | None:
    """A slope that is surely farther from 1 than the older one can have been."""
    if any(r.get(k) is None for r in (new, old) for k in ("slope_low", "slope_high")):
        return None

    def distance(row: dict[str, Any]) -> tuple[float, float]:
        low, high = row["slope_low"] - 1, row["slope_high"] - 1
        nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
        return nearest, max(abs(low), abs(high))

    words = f"slope {old['slope']:.3f} to {new['slope']:.3f}"
    if distance(new)[0] > distance(old)[1] + TOLERANCE:
        return words, True
    if distance(old)[0] > distance(new)[1] + TOLERANCE:
        return words, False
    return None


def _efficiency(new: dict[str, Any], old: dict[str, Any], unit: float) -> tuple[str, bool] | None:
    """Efficiency in units of each machine's own speed, against the standard errors of both mean squared errors."""
    if not all(r.get("mse") and r.get("time_cpu") for r in (new, old)):
        return None
    cost = lambda r: r["mse"] * r["time_cpu"]
    ratio = math.log(cost(new) / unit / cost(old))
    error = math.hypot(*((r.get("mse_error") or 0.0) / r["mse"] for r in (new, old)))
    if abs(ratio) <= SIGMAS * error + math.log(1 + SLACK):
        return None
    return f"error x time {'up' if ratio > 0 else 'down'} by a factor {math.exp(abs(ratio)):.2f}", ratio > 0


def _solved(new: dict[str, Any], old: dict[str, Any]) -> tuple[str, bool] | None:
    """Success rates of starts, by Fisher's exact test at about the same level."""
    if "solved" not in new or "solved" not in old:
        return None
    import numpy as np
    from scipy.stats import fisher_exact

    table = np.array([[r["solved"], r["starts"] - r["solved"]] for r in (new, old)])
    if fisher_exact(table).pvalue > 0.01:
        return None
    words = f"{old['solved']} of {old['starts']} starts solved before, {new['solved']} of {new['starts']} now"
    return words, new["solved"] / new["starts"] < old["solved"] / old["starts"]
