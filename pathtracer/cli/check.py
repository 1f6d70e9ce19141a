"""`pathtracer check`: are the gradients right?"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import click

from pathtracer.errors import UsageError

from . import common

_COLORS = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "unsupported": "dim"}
_CATALOGUE = "catalogue"


class _SceneOrCatalogue(click.ParamType):
    """A scene, or `catalogue`, `catalogue/CASE`, `catalogue/GLOB` (kept as text) where no such file exists."""

    name = "scene"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        if isinstance(value, str) and value.split("/")[0] == _CATALOGUE and not Path(value).is_file():
            return value
        path: Path = common.SCENE.convert(value, param, ctx)
        return path

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        names = [_CATALOGUE] if _CATALOGUE.startswith(incomplete) else []
        return [*map(CompletionItem, names), *common.SCENE.shell_complete(ctx, param, incomplete)]


@click.command(
    epilog=common.epilog(
        "pathtracer check cornell-box --wrt red.reflectance.value",
        "pathtracer check scene.xml --wrt cube.vertex_positions --motion rotate:y --estimator all -o check/",
        "pathtracer check scene.xml --wrt 'cube.vertex_positions translate:x + lamp.position translate:x'",
        "pathtracer check scene.xml --wrt ball.to_world --estimator prb_projective",
        "pathtracer check catalogue --estimator edge_sampling -o catalogue/",
        "pathtracer check 'catalogue/shadow-point-*' --estimator all",
    )
)
@click.argument("scene", type=_SceneOrCatalogue())
@click.option(
    "--wrt",
    "keys",
    multiple=True,
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
    help="Relative error of the slope that counts as none; default 0.03, in the catalogue what the estimator declares.",
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
@click.option(
    "--resolution",
    type=click.IntRange(min=4),
    default=64,
    show_default=True,
    metavar="PIXELS",
    help="Larger images are checked at this size of their longer side.",
)
@click.option("--list", "list_cases", is_flag=True, help="With SCENE 'catalogue': show the cases and check nothing.")
@click.option("--forward-only", is_flag=True, help="Leave out the backward mode.")
@click.option("--no-cache", is_flag=True, help="Compute the finite differences afresh.")
@common.scene_options
@common.sampling_options
@common.output_options
@common.pass_session
def command(
    session: common.Session,
    scene: Path | str,
    keys: tuple[str, ...],
    motion: str | None,
    estimators: tuple[str, ...],
    tolerance: float | None,
    confidence: float,
    budget: float,
    resolution: int,
    list_cases: bool,
    forward_only: bool,
    no_cache: bool,
) -> int:
    """Compare gradients of SCENE with finite differences and say pass, fail or inconclusive.

    pass: the difference lies within the tolerance, with the stated confidence. fail: it lies outside. inconclusive
    (exit code 6): the budget ended first. "slope" is estimate over reference for the whole image, "backward" the same
    in backward mode, "block" the largest error of an image block in units of its margin. -o FOLDER takes pictures and
    a page.

    SCENE may be 'catalogue', 'catalogue/CASE,CASE' or 'catalogue/GLOB': small scenes with one phenomenon each, where it
    is known what each estimator must get right and where it must be caught; exit code 0 when everything is as expected.
    """
    if session.output is not None and (session.output.suffix or session.output.is_file()):
        raise UsageError("check writes several files", where=session.output, remedy="name a folder, as in -o check/")
    options: dict[str, Any] = {
        **({} if session.spp is None else {"spp": session.spp}),
        **({} if tolerance is None else {"tolerance": tolerance}),
        "confidence": confidence,
        "budget": budget,
        "seed": session.seed or 0,
        "backward": not forward_only,
        "cache": not no_cache,
        "resolution": resolution,
    }
    if isinstance(scene, str):
        if keys or motion or session.defines:
            raise UsageError("the cases of the catalogue say themselves what moves", remedy="leave out --wrt, -D")
        cases = list(filter(None, scene.partition("/")[2].split(","))) or ["*"]
        if list_cases:
            return _list_cases(session, cases)
        report = _check_catalogue(session, cases, list(estimators) or None, options)
    elif list_cases:
        raise UsageError("only the catalogue has cases to list", remedy="pathtracer check catalogue --list")
    elif not keys:
        raise UsageError("say what moves with --wrt KEY", remedy=f"`pathtracer params {scene}` lists the keys")
    else:
        motions = [key if motion is None or " " in key else f"{key} {motion}" for key in keys]
        report = _check_scene(session, scene, motions, list(estimators) or None, options)
    for c in report.comparisons:
        for note in c.notes:
            session.warn(note)
    files = []
    if session.output is not None:
        from pathtracer.verify.page import write_check

        files = write_check(report, session.output)
    session.emit({**report.to_dict(), "files": files, "exit_code": report.exit_code}, _table(report, files))
    return int(report.exit_code)


def _check_scene(
    session: common.Session, scene: Path, motions: list[str], estimators: list[str] | None, options: dict[str, Any]
) -> Any:
    loaded = session.load_scene(scene)
    for text in loaded.warnings:
        session.warn(text)
    from pathtracer.verify import check_gradients

    with session.console.status("check") as status:

        def progress(begins: str, done: Any) -> None:
            if begins:
                status.update(begins)
                session.detail(begins)

        return check_gradients(loaded, motions, estimators, sensor=session.sensor, progress=progress, **options)


def _check_catalogue(
    session: common.Session, cases: list[str], estimators: list[str] | None, options: dict[str, Any]
) -> Any:
    session.activate()
    from pathtracer.verify import check_catalogue

    def progress(begins: str, done: Any) -> None:
        if done is not None:
            wrong = "" if done.as_expected is not False else f"  UNEXPECTED, should be {done.expected}"
            session.say(f"{done.case} {done.estimator}: {done.verdict}, {done.seconds:.1f} s{wrong}")

    return check_catalogue(cases, estimators, progress=progress, **options)


def _list_cases(session: common.Session, cases: list[str]) -> int:
    from rich.table import Table

    from pathtracer.verify.catalogue import expectation
    from pathtracer.verify.subject import checkable
    from pathtracer.verify.survey import select_cases

    names = checkable()
    table = Table(box=None, pad_edge=False)
    for title in ("case", "moves", "derivative consists of", *names):
        table.add_column(title, overflow="fold", no_wrap=title in names)
    rows = []
    for case in select_cases(cases):
        expected = {name: expectation(name, case) for name in names}
        table.add_row(case.id, case.motion, ", ".join(sorted(case.needs)), *(e.word for e in expected.values()))
        rows.append(
            {
                "case": case.id,
                "scene": case.scene,
                "defines": case.defines,
                "motion": case.motion,
                "needs": sorted(case.needs),
                "expected": {name: str(e) for name, e in expected.items()},
            }
        )
    session.emit({"cases": rows}, _wide(table))
    return 0


def _table(report: Any, files: list[Path]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from pathtracer.verify.pictures import number, slope_text

    cases = any(c.case for c in report.comparisons)
    table = Table(box=None, pad_edge=False)
    first = ("case", "estimator", "verdict", "expected") if cases else ("moves", "estimator", "verdict")
    for name in (*first, "slope", "backward", "block", "s"):
        # The motion may wrap, the verdict never
        right = name in ("backward", "block", "s")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "moves", overflow="fold")
    lines = []
    for c in report.comparisons:
        verdict = Text(str(c.verdict), style=_COLORS[str(c.verdict)])
        yes = Text("–") if c.as_expected is None else Text("yes") if c.as_expected else Text("NO", style="bold red")
        start = (c.case, c.estimator, verdict, yes) if cases else (c.motion, c.estimator, verdict)
        table.add_row(*start, slope_text(c), number(c.backward), number(c.worst_block, 2), number(c.seconds, 1))
        if c.as_expected is False or (c.as_expected is None and str(c.verdict) != "pass"):
            remedy = f"; {c.remedy}" if c.remedy else ""
            expected = f"; expected: {c.expected}" if c.expected else ""
            lines.append(Text(f"{c.case + ', ' if c.case else ''}{c.estimator}: {c.reason}{remedy}{expected}"))
    if len(report.comparisons) > 1:
        lines.append(Text(report.summary()))
    if files:
        lines.append(Text(f"pictures: {files[0]}"))
    return _wide(Group(table, *lines))


def _wide(text: Any) -> Any:
    """Left to the terminal where there is one; else printed here, wide enough for the numbers."""
    if sys.stdout.isatty():
        return text
    from rich.console import Console

    console = Console(width=160, highlight=False, file=io.StringIO())
    console.print(text)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())
