"""The program: a table of subcommands that are imported when they are called, and the end of every error."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pathtracer import __version__
from pathtracer.errors import PathtracerError, StorageFault, UsageError, nearest_names

from . import common

#: name -> (module of this package with a click command called `command`, one line of help)
COMMANDS: dict[str, tuple[str, str]] = {
    "estimate": ("estimate", "Recover materials, lights, shapes or cameras from images."),
    "resume": ("resume", "Go on with a run from its newest valid checkpoint."),
    "report": ("report", "Write the HTML page of a run."),
    "export": ("export", "Write the recovered scene of a run and verify that stock Mitsuba reloads it."),
    "render": ("render", "Render an image, optionally with its variance and auxiliary channels."),
    "grad": ("grad", "Render a gradient image, or the gradient of a loss."),
    "check": ("check", "Compare gradient estimators with finite differences."),
    "params": ("params", "List what of a scene can be recovered, and by which estimators."),
    "validate": ("validate", "Check a scene file without rendering it."),
    "import": ("import_", "Turn cameras from other programs into a views file."),
    "bench": ("bench", "Measure bias, variance, time and efficiency of the estimators."),
    "scenes": ("scenes", "List, show or copy the bundled example scenes."),
    "doctor": ("doctor", "Check that this machine can run the renderer, and say how to mend it."),
    "completion": ("main", "Print the shell completion script for bash, zsh or fish."),
}
_COMPLETE_VARIABLE = "_PATHTRACER_COMPLETE"
_SIGPIPE = 141  # what a shell reports of a program whose reader went away


class LazyGroup(click.Group):
    """A group that knows its commands by a table and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        here = Path(__file__).parent
        return [name for name, (module, _) in COMMANDS.items() if (here / f"{module}.py").is_file()]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name == "completion":
            return completion
        if name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"{__package__}.{COMMANDS[name][0]}")
        found: click.Command = module.command
        found.name = name
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None:
            known = self.list_commands(ctx)
            raise UsageError(
                f"there is no command '{name}'", nearest=nearest_names(name, known), remedy="see: pathtracer --help"
            )
        taken = {p.name for p in command.params} | {"quiet", "verbose"}
        if isinstance(command, click.Group):
            taken |= {"json", "output"}
        for option, spelling in common.session_of(ctx).before.items():
            if option not in taken:
                raise UsageError(f"'{name}' takes no {spelling}", remedy=f"see: pathtracer {name} --help")
        return name, command, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        names = [CompletionItem(n, help=COMMANDS[n][1]) for n in self.list_commands(ctx) if n.startswith(incomplete)]
        return names + click.Command.shell_complete(self, ctx, incomplete)


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from pathtracer.runtime.versions import PINS, installed_version

        pair = ", ".join(f"{package} {installed_version(package) or 'absent'}" for package in PINS)
        click.echo(f"pathtracer {__version__} ({pair})")
        ctx.exit()


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=common.epilog(
        "pathtracer doctor",
        "pathtracer scenes list",
        "pathtracer params cornell-box",
        "pathtracer estimate scenes/cornell-box/job.toml",
        'eval "$(pathtracer completion bash)"',
    ),
)
@common.all_options
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Versions.")
def cli() -> None:
    """Inverse rendering of Mitsuba scenes: which materials, lights, shapes and cameras made these images?

    The options below may stand before or after the command, which takes those that its own help lists.
    """


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the shell completion script for bash, zsh or fish.

    \b
    bash:  eval "$(pathtracer completion bash)"      in ~/.bashrc
    zsh:   eval "$(pathtracer completion zsh)"       in ~/.zshrc
    fish:  pathtracer completion fish | source       in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "pathtracer", _COMPLETE_VARIABLE).source())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; no exception but SystemExit leaves it.

    Args:
        argv: the arguments, default those of the program.
    """
    if argv is None:
        _reserve_stdout()
    session = common.Session()
    with warnings.catch_warnings():
        _show_warnings_as_lines(session)
        code = _run(list(sys.argv[1:] if argv is None else argv), session)
    return _flush(code)


def _run(arguments: list[str], session: common.Session) -> int:
    try:
        if os.environ.get(_COMPLETE_VARIABLE):
            from click.shell_completion import shell_complete

            return shell_complete(cli, {}, "pathtracer", _COMPLETE_VARIABLE, os.environ[_COMPLETE_VARIABLE])
        with cli.make_context("pathtracer", arguments, obj=session) as ctx:
            result = cli.invoke(ctx)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as exit:
        return exit.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        return _report_click(error, session)
    except click.Abort:
        return _report("aborted", 1, session)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        return _discard_stdout()
    except Exception as error:
        return _report_exception(error, session)


def _report_click(error: click.ClickException, session: common.Session) -> int:
    sentence = error.format_message().rstrip(".").replace(". Did you mean", "; did you mean")
    ctx = getattr(error, "ctx", None)
    if isinstance(error, click.UsageError):
        sentence += (
            "" if sentence.endswith("?") else ";"
        ) + f" see: {ctx.command_path if ctx else 'pathtracer'} --help"
    return _report(sentence[:1].lower() + sentence[1:], error.exit_code, session)


def _report_exception(error: Exception, session: common.Session) -> int:
    from integrators.errors import UnsupportedGradient

    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:  # Dr.Jit's loops wrap what went wrong inside them
        chain.append(link)
        link = link.__cause__
    if session.verbose:
        traceback.print_exception(error, file=sys.stderr)
    for link in reversed(chain):
        if isinstance(link, PathtracerError):
            details = {"where": link.where, "nearest": link.nearest, "remedy": link.remedy}
            return _report(link.sentence(), link.exit_code, session, **details)
        if isinstance(link, UnsupportedGradient):
            return _report(str(link), 2, session, where=link.key, remedy=link.remedy)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
        return _report(f"{error.filename or 'stdout'}: {error.strerror}", StorageFault.exit_code, session)
    told = " caused by ".join(f"{type(e).__name__}: {' '.join(str(e).split()) or 'no message'}" for e in chain)
    hint = "" if session.verbose else " (-v shows where)"
    return _report(f"internal error, please report it: {told}{hint}", 1, session)


def _report(sentence: str, code: int, session: common.Session, **details: Any) -> int:
    try:
        click.echo(click.style("error: ", fg="red", bold=True) + sentence, err=True)
        if session.json:
            session.emit({"error": {"message": sentence, "exit_code": code, **details}})
    except OSError:
        return code  # both streams are gone; the exit code still tells
    return code


def _show_warnings_as_lines(session: common.Session) -> None:
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        session.warn(" ".join(str(message).split()))
        session.detail(f"  {category.__name__} at {filename}:{lineno}")

    warnings.showwarning = show  # type: ignore[assignment]


def _reserve_stdout() -> None:
    """Keep stdout for results: what Mitsuba's C++ side logs to it goes to stderr instead."""
    if sys.stdout is None or sys.stderr is None:
        return
    try:
        if sys.stdout.fileno() != 1:
            return
        results = open(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)  # noqa: SIM115
        os.dup2(2, 1)
    except (OSError, ValueError):
        return  # closed or replaced streams stay as they are
    sys.stdout = results


def _flush(code: int) -> int:
    """Write out what is still buffered, so that a closed or full stdout shows here, not in the interpreter's exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        return _discard_stdout()
    except OSError as error:
        _discard_stdout()
        if code == 0:  # else the failed write has been reported already
            click.echo(f"error: stdout: {error.strerror}", err=True)
        return code or StorageFault.exit_code
    return code


def _discard_stdout() -> int:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    return _SIGPIPE


if __name__ == "__main__":
    sys.exit(main())
