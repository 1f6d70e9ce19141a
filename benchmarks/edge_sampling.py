"""edge_sampling against Mitsuba's projective integrators, on the cases in which those are right.

    python benchmarks/edge_sampling.py [--full] [--only sphere-moves ...] [-o benchmarks/results/projective.json]

One gradient image after the other at about equal time, each estimator in a process of its own with an empty kernel
cache. Efficiency is 1 / (mean square error x time), with all that a gradient image costs: tracing, guiding, silhouette
lists. Writes JSON, a picture of one derivative image of each estimator, and prints a table in Markdown. Time is
processor time of all threads, which other programs hardly disturb.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="all integrators, more samples: an hour")
    parser.add_argument("--only", nargs="*", metavar="SUBJECT", help="these cases alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()

    import numpy as np

    from pathtracer.bench import plots, suites, tables
    from pathtracer.bench.record import RESULTS, environment, read_result, write_result
    from pathtracer.bench.worker import call

    output = options.output or RESULTS / "projective.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    speed = call("measure:calibration", {"seed": options.seed}, 240)
    chosen = [r for r in suites.projective_rows() if not options.only or r.subject in options.only]
    record = {**environment(speed["variant"], options.seed), "calibration": speed["cpu"]}
    start = time.perf_counter()
    rows, images = suites.run_rows(chosen, options.full, {}, options.seed, lambda line: print(line, flush=True))
    write_result(output, "projective", "full" if options.full else "quick", record, rows, time.perf_counter() - start)
    np.savez_compressed(output.with_suffix(".npz"), **images)
    plots.pictures(output, output.with_suffix(".npz")).savefig(output.with_suffix(".png"), dpi=110)
    print(tables.projective_table(read_result(output)))


if __name__ == "__main__":
    main()
