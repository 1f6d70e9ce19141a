"""`pathtracer doctor`: can this machine run the renderer, and if not, what mends it?"""

from __future__ import annotations

from dataclasses import asdict

import click

from pathtracer.errors import EnvironmentFault

from . import common

_COLOURS = {"ok": "green", "warn": "yellow", "FAIL": "red"}


@click.command(epilog=common.epilog("pathtracer doctor", "pathtracer doctor --json"))
@common.json_option
@common.pass_session
def command(session: common.Session) -> int:
    """Check that this machine can run the renderer, and say how to mend it.

    One line each: Python, the Mitsuba/Dr.Jit pair, the processor, libatomic, LLVM, the GPU, threads, memory, the kernel
    cache, an EXR round trip, a 32x32 render and a gradient against finite differences. Exit code 4 when one fails.
    """
    from pathtracer.runtime.checks import Check, run_checks

    checks: list[Check] = []
    for check in run_checks():
        checks.append(check)
        if not session.json:
            click.echo(_line(check))
    failed = [check.name for check in checks if check.status == "FAIL"]
    session.emit(
        {"ok": not failed, "checks": [asdict(check) for check in checks]},
        f"{', '.join(failed)} failed" if failed else "this machine can run pathtracer",
    )
    return EnvironmentFault.exit_code if failed else 0


def _line(check) -> str:  # type: ignore[no-untyped-def]
    status = click.style(f"{check.status:4}", fg=_COLOURS[check.status], bold=True)
    return f"{status}  {check.name:10}{check.detail}" + (f"\n      {'':10}{check.remedy}" if check.remedy else "")
