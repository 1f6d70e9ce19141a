"""`pathtracer params`: what of a scene can be recovered, and by which estimators."""

from __future__ import annotations

import fnmatch
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathtracer.errors import UsageError, nearest_names

from . import common

if TYPE_CHECKING:
    from pathtracer.scenes import ParameterInfo


@click.command(
    epilog=common.epilog(
        "pathtracer params cornell-box",
        "pathtracer params scene.xml --filter '*.reflectance.*'",
        "pathtracer params scene.xml --all --json",
    )
)
@click.argument("scene", type=common.SCENE)
@click.option("--filter", "pattern", metavar="GLOB", help="Only keys that match.")
@click.option("--all", "everything", is_flag=True, help="Also settings that nothing can differentiate.")
@common.scene_options
@common.json_option
@common.pass_session
def command(session: common.Session, scene: Path, pattern: str | None, everything: bool) -> None:
    """List the parameters of SCENE: key, type, shape, range, bounds, and which estimators handle them.

    An estimator that does not handle a parameter says why below the table. Parameters marked with "moves" change what
    hides what: their gradient needs an estimator with visibility terms.
    """
    loaded = session.load_scene(scene)
    for text in loaded.warnings:
        session.warn(text)
    infos = loaded.parameters()
    chosen = dict(infos)
    if pattern is not None:
        chosen = {key: info for key, info in infos.items() if fnmatch.fnmatchcase(key, pattern)}
        if not chosen:
            raise UsageError(
                f"no parameter matches {pattern!r}", where="--filter", nearest=nearest_names(pattern, infos)
            )
    elif not everything and not session.json:
        chosen = {key: info for key, info in infos.items() if info.kind not in ("setting", "faces")}
    session.emit(
        {"scene": scene, "parameters": [as_json(info) for info in chosen.values()]},
        None if session.json else _text(_table(list(chosen.values()), len(infos) - len(chosen), pattern)),
    )


def as_json(info: ParameterInfo) -> dict[str, Any]:
    """One parameter for `--json`."""
    return {
        "key": info.key,
        "kind": info.kind,
        "owner": info.owner,
        "shape": info.shape,
        "range": info.range,
        "bounds": info.bounds,
        "space": info.space,
        "differentiable": info.differentiable,
        "discontinuous": info.discontinuous,
        "reason": info.reason,
        "needs": info.needs,
        "note": info.note,
        "estimators": {name: {"handles": not why, "reason": why} for name, why in info.estimators().items()},
    }


def _table(infos: list[ParameterInfo], hidden: int, pattern: str | None) -> Any:
    """A row for every parameter; the last column refers to the lines below, one for each set of able estimators."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("key", "type", "shape", "range", "bounds", "space", "", "by"):
        table.add_column(name, no_wrap=True, overflow="fold")
    answers: dict[tuple[tuple[str, str], ...], int] = {}
    for info in infos:
        number = answers.setdefault(tuple(info.estimators().items()), len(answers) + 1)
        table.add_row(
            Text(info.key),
            info.kind,
            "x".join(str(n) for n in info.shape) or "-",
            _interval(info.range),
            _interval(info.bounds),
            info.space if info.differentiable else "-",
            "moves" if info.discontinuous else "",
            Text(f"[{number}]"),
        )
    lines: list[Any] = [table, Text("")]
    for answer, number in answers.items():
        lines += [Text(line) for line in _legend(number, dict(answer))]
    notes = dict.fromkeys(f"{info.key}: {info.note}" for info in infos if info.note)
    if notes:
        lines += [Text(""), *(Text(note) for note in notes)]
    if hidden and pattern is None:
        lines += [Text(""), Text(f"{hidden} settings that have no derivative are left out; --all shows them")]
    return Group(*lines)


def _text(renderable: Any) -> str:
    """As wide as it needs to be: a key that is cut off cannot be copied."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=400, highlight=False, force_terminal=sys.stdout.isatty())
    console.print(renderable)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


def _legend(number: int, answer: dict[str, str]) -> list[str]:
    """Who handles a group of parameters, and why the others do not."""
    able = [name for name, why in answer.items() if not why]
    lines = [f"[{number}] {', '.join(able) or 'no estimator'}"]
    reasons: dict[str, list[str]] = {}
    for name, why in answer.items():
        if why:
            reasons.setdefault(why, []).append(name)
    return lines + [f"    not {', '.join(names)}: {why}" for why, names in reasons.items()]


def _interval(bounds: tuple[float | None, float | None] | None) -> str:
    if bounds is None or bounds == (None, None):
        return "-"
    low, high = ("" if b is None else f"{b:.4g}" for b in bounds)
    return low if low == high else f"{low}..{high}"
