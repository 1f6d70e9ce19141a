"""`pathtracer check`: are the gradients right?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pathtracer.errors import UsageError

from . import common

_COLORS = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "unsupported": "dim"}


@click.command(
    epilog=common.epilog(
        "pathtracer check cornell-box --wrt red.reflectance.value",
        "pathtracer check scene.xml --wrt cube.vertex_positions --motion rotate:y --estimator all -o check/",
        "pathtracer check scene.xml --wrt 'cube.vertex_positions translate:x + lamp.position translate:x'",
        "pathtracer check scene.xml --wrt ball.to_world --estimator prb_projective",
    )
)
@click.argument("scene", type=common.SCENE)
@click.option(
    "--wrt",
    "keys",
    multiple=True,
    required=True,
    metavar="KEY",
    help="Parameter key or glob, with its motion if you like ('KEY rotate:y'); repeatable. 'A + B' moves both.",
)
@click.option(
    "--motion",
    metavar="KIND[:AXIS]",
    help="translate:x, rotate:y, scale, value:1,0,0, random:SEED; for every --wrt without one. Default: what suits it.",
)
@click.option(
    "--estimator",
    "estimators",
    multiple=True,
    metavar="NAME",
    help="Repeatable; 'all', a Mitsuba integrator (prb, prb_projective), or NAME:property=value. "
    "Default: the unbiased one that accounts for most.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.03,
    show_default=True,
    help="Relative error of the slope that counts as none.",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Of the verdicts, all together.",
)
@click.option(
    "--budget",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="For each motion and estimator; samples double until the answer is clear.",
)
@click.option("--forward-only", is_flag=True, help="Leave out the backward mode.")
@click.option("--no-cache", is_flag=True, help="Compute the finite differences afresh.")
@common.scene_options
@common.sampling_options
@common.output_options
@common.pass_session
def command(
    session: common.Session,
    scene: Path,
    keys: tuple[str, ...],
    motion: str | None,
    estimators: tuple[str, ...],
    tolerance: float,
    confidence: float,
    budget: float,
    forward_only: bool,
    no_cache: bool,
) -> int:
    """Compare gradients of SCENE with finite differences and say pass, fail or inconclusive.

    pass: the difference lies within the tolerance, with the stated confidence. fail: it lies outside. inconclusive
    (exit code 6): the budget ended first. "block" is the largest error of an image block in units of its margin.
    -o FOLDER takes pictures and a page.
    """
    if session.output is not None and session.output.suffix:
        raise UsageError("check writes several files", where=session.output, remedy="name a folder, as in -o check/")
    loaded = session.load_scene(scene)
    for text in loaded.warnings:
        session.warn(text)
    from pathtracer.verify import check_gradients

    motions = [key if motion is None or " " in key else f"{key} {motion}" for key in keys]
    settings: dict[str, Any] = {} if session.spp is None else {"spp": session.spp}
    with session.console.status("check") as status:

        def progress(begins: str, done: Any) -> None:
            if begins:
                status.update(begins)
                session.detail(begins)

        report = check_gradients(
            loaded,
            motions,
            list(estimators) or None,
            tolerance=tolerance,
            confidence=confidence,
            budget=budget,
            sensor=session.sensor,
            seed=session.seed or 0,
            backward=not forward_only,
            cache=not no_cache,
            progress=progress,
            **settings,
        )
    for c in report.comparisons:
        for note in c.notes:
            session.warn(note)
    files = []
    if session.output is not None:
        from pathtracer.verify.page import write_check

        files = write_check(report, session.output)
    session.emit({**report.to_dict(), "files": files, "exit_code": report.exit_code}, _table(report, files))
    return report.exit_code


def _table(report: Any, files: list[Path]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from pathtracer.verify.page import number, slope_text

    table = Table(box=None, pad_edge=False)
    for name in ("moves", "estimator", "verdict", "slope", "backward", "block", "s"):
        # The motion may wrap, the verdict never
        right = name in ("backward", "block", "s")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "moves", overflow="fold")
    lines = []
    for c in report.comparisons:
        verdict = Text(str(c.verdict), style=_COLORS[str(c.verdict)])
        table.add_row(
            c.motion,
            c.estimator,
            verdict,
            slope_text(c),
            number(c.backward),
            number(c.worst_block, 2),
            number(c.seconds, 1),
        )
        if str(c.verdict) != "pass":
            remedy = f"; {c.remedy}" if c.remedy else ""
            lines.append(Text(f"{c.estimator}: {c.reason}{remedy}"))
    if files:
        lines.append(Text(f"pictures: {files[0]}"))
    return Group(table, *lines)
