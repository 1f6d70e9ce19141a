"""pathtracer resume: go on with an interrupted run."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pathtracer.cli import common
from pathtracer.errors import InputError


@click.command(epilog=common.epilog("pathtracer resume runs/cornell-box"))
@click.argument("run", type=common.FILE)
@common.runtime_options
@common.json_option
@common.pass_session
def command(session: common.Session, run: Path) -> int:
    """Go on with a run from its newest valid checkpoint.

    The job is the run folder's own job.toml. With deterministic = true in [run] the result is the same, bit for bit, as
    that of a run that was never interrupted.
    """
    from pathtracer.cli.estimate import run as run_job
    from pathtracer.inverse.job import read_job

    if not (run / "job.toml").is_file():
        raise InputError("is no run folder: it holds no job.toml", where=run)
    work = read_job(run / "job.toml")
    status = _status(run)
    if status == "finished":
        session.emit({"run": run, "status": status}, f"{run} is finished already, nothing is left to do")
        return 0
    session.deterministic = work.run.deterministic
    session.activate(cache=run / "cache")
    return run_job(session, work, run.resolve(), run, resume=True)


def _status(run: Path) -> str:
    """What state.json says; a run that was killed still says "running"."""
    try:
        return str(json.loads((run / "state.json").read_text(encoding="utf-8"))["status"])
    except (OSError, ValueError, KeyError):
        return "running"
