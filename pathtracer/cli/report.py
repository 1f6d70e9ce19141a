"""`pathtracer report`: the HTML page of a run."""

from __future__ import annotations

from pathlib import Path

import click

from . import common


@click.command(epilog=common.epilog("pathtracer report runs/cornell-box", "pathtracer report runs/box -o box.html"))
@click.argument("run", type=common.FILE)
@common.output_options
@common.pass_session
def command(session: common.Session, run: Path) -> None:
    """Write the report of the run folder RUN: one HTML page that needs no other file and no network.

    Works while the run goes on; the page then reloads itself. Default: RUN/report.html.
    """
    from pathtracer.report import write_report

    path = write_report(run, session.output or run / "report.html")
    session.emit({"report": path}, str(path))
