"""`pathtracer bench`: estimators compared, and the documentation's tables made from the results."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from pathtracer.errors import UsageError

from . import common


@click.command(
    epilog=common.epilog(
        "pathtracer bench all                        # quick: about ten minutes on two idle cores",
        "pathtracer bench estimators --full -o full/ # unattended: hours",
        "pathtracer bench projective -o new/ --compare benchmarks/results/projective.json",
        "pathtracer bench publish                    # tables and plots of README and docs from the results",
        "pathtracer bench publish --check            # exit code 1 when they are stale",
    )
)
@click.argument("suite", default="all")
@click.option("--full", is_flag=True, help="Every row, with more samples and starts.")
@click.option(
    "--compare",
    "base",
    type=common.FILE,
    metavar="BASE.json",
    help="An older result of this suite; exit code 1 on a regression beyond the confidence of both.",
)
@click.option("--check", is_flag=True, help="With publish: write nothing, say what is stale.")
@common.runtime_options
@common.seed_option
@common.output_options
@common.pass_session
def command(session: common.Session, suite: str, full: bool, base: Path | None, check: bool) -> int:
    """Run SUITE: estimators, projective, experiments, control, solvers, scaling, or all; or publish.

    Each measurement runs in a process of its own with an empty kernel cache. Results are NAME.json, with versions,
    processor, load and seeds, in -o FOLDER (default: benchmarks/results of the checkout). publish fills the marked
    tables of README.md and docs/ and draws their plots.
    """
    from pathtracer.bench import record
    from pathtracer.bench.suites import choose, run_suite

    results = session.output or record.RESULTS
    if results.suffix:
        raise UsageError("bench writes several files", where=str(results), remedy="name a folder, as in -o results/")
    if suite == "publish":
        return _publish(session, results, check)
    if check:
        raise UsageError("--check belongs to publish", remedy="pathtracer bench publish --check")
    names = choose(suite)
    if base is not None and len(names) > 1:
        raise UsageError("--compare takes one suite", remedy="name it: pathtracer bench estimators --compare BASE.json")
    older = record.read_result(base) if base is not None else None  # before the run: it may write to the same file
    if older is not None and older["suite"] != names[0]:
        raise UsageError(f"this is a result of the suite {older['suite']}, not of {names[0]}", where=str(base))
    options = {"variant": session.variant, "threads": session.threads}
    written: dict[str, Any] = {}
    for name in names:
        start = time.monotonic()
        session.say(f"{name} ...")
        path = run_suite(name, full, options, session.seed or 0, results, session.say)
        written[name] = str(path)
        session.say(f"{name}: {time.monotonic() - start:.0f} s, {path}")
    report: dict[str, Any] = {"results": written, "exit_code": 0}
    lines = list(written.values())
    if older is not None:
        from pathtracer.bench.compare import compare

        changes = compare(record.read_result(Path(written[names[0]])), older)
        report["changes"] = [{"row": c.row, "what": c.what, "worse": c.worse} for c in changes]
        report["exit_code"] = int(any(c.worse for c in changes))
        lines += [f"{'WORSE ' if c.worse else 'better'} {c.row}: {c.what}" for c in changes] or ["no change"]
    session.emit(report, "\n".join(lines))
    return int(report["exit_code"])


def _publish(session: common.Session, results: Path, check: bool) -> int:
    from pathtracer.bench.publish import publish

    found = publish(results, write=not check)
    verb = "stale" if check else "written"
    text = "\n".join(f"{verb}: {path}" for path in found) or "everything is up to date"
    session.emit({verb: [str(p) for p in found], "exit_code": int(check and bool(found))}, text)
    return int(check and bool(found))
