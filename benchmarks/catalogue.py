"""The gradient court: every case of the catalogue against finite differences, kept with its commit.

    python benchmarks/catalogue.py [estimator ...] [--cases GLOB ...] [--budget 60] [-o catalogue.json]

Estimators as in `pathtracer check`; by default edge_sampling, warped_area and warped_area:hybrid=true, each on the
cases whose visibility it accounts for (edge_sampling on all). Cases that are not checked again keep their rows, and the
result is written after every case. About an hour on two idle cores; `pathtracer bench publish` makes tables of it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from pathtracer.bench.record import RESULTS, environment, read_result, write_result
from pathtracer.errors import UsageError

ESTIMATORS = ("edge_sampling", "warped_area", "warped_area:hybrid=true")
SEED = 0

Row = dict[str, Any]


def own_cases(spec: str) -> list[str]:
    """Cases by which an estimator is judged: what its properties add is looked at alone, and so is visibility."""
    from integrators import ESTIMATORS as TABLE
    from pathtracer.verify.catalogue import CASES, EXCEPTIONS

    name, _, properties = spec.partition(":")
    if name not in TABLE:
        return [case.id for case in CASES if case.needs - {"interior"}]
    if name == "edge_sampling":
        return [case.id for case in CASES]
    plain = TABLE[name].handles
    if not properties:
        return [case.id for case in CASES if case.needs <= plain and case.needs - {"interior"}]
    every = plain | TABLE[name].hybrid
    declared = {case for (estimator, case), found in EXCEPTIONS.items() if estimator == name and found.bias}
    return [case.id for case in CASES if case.needs <= every and (case.id in declared or not case.needs <= plain)]


def check(spec: str, case: str, budget: float) -> Row:
    """One row: verdict, slope with its interval, backward slope, largest block."""
    from pathtracer.verify import check_catalogue
    from pathtracer.verify.catalogue import find_case, settings_for

    declared = settings_for(spec.partition(":")[0], find_case(case))
    began, cpu = time.perf_counter(), time.process_time()
    (found,) = check_catalogue(case, [spec], budget=budget, seed=SEED, **declared).comparisons
    low, high = found.slope_interval()
    return {
        "tag": "catalogue",
        "subject": case,
        "estimator": spec,
        "verdict": str(found.verdict),
        "expected": found.expected,
        "as_expected": found.as_expected,
        "reason": found.reason,
        "slope": found.slope,
        "slope_low": low,
        "slope_high": high,
        "backward": found.backward,
        "block": found.worst_block,
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "budget": budget,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("estimators", nargs="*", default=list(ESTIMATORS), help="as in `pathtracer check`")
    parser.add_argument("--cases", nargs="*", help="ids or globs; by default those of each estimator")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds for each case")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "catalogue.json")
    options = parser.parse_args()
    try:
        measure(options.estimators, options.cases, options.budget, options.output)
    except UsageError as error:
        parser.error(str(error))


def measure(estimators: list[str], cases: list[str] | None, budget: float, output: Path) -> None:
    """Check, and write after every case.

    Raises:
        UsageError: unknown estimator or case.
    """
    from pathtracer.runtime import activate
    from pathtracer.verify.survey import select_cases

    env = environment(activate(), SEED)
    rows: dict[tuple[str, str], Row] = {}
    if output.is_file():
        rows = {(row["estimator"], row["subject"]): row for row in read_result(output)["rows"]}
    for spec in estimators:
        for case in [c.id for c in select_cases(cases)] if cases else own_cases(spec):
            row = {**check(spec, case, budget), "commit": env["commit"], "date": env["date"]}
            rows[spec, case] = row
            print(f"{case} {spec}: {row['verdict']}, {row['slope']:.3f}, {row['seconds']:.1f} s", flush=True)
            seconds = sum(float(row["seconds"]) for row in rows.values())
            write_result(output, "catalogue", "full", env, list(rows.values()), seconds)


if __name__ == "__main__":
    main()
