"""Options that several commands share, and the `Session` in which their values meet.

    @click.command(epilog=common.epilog("pathtracer render scene.xml -o out.exr"))
    @click.argument("scene", type=common.SCENE)
    @common.scene_options        # -m, -D key=value, -s/--sensor, -t, --allow-outside, --sanitize
    @common.sampling_options     # --spp, --seed, --deterministic
    @common.output_options       # -o/--output, --json  (-q and -v are there for every command)
    @common.pass_session
    def command(session: common.Session, scene: Path) -> int | None:
        loaded = session.load_scene(scene)                  # finds LLVM or the GPU, then parses with the -D values
        session.say("rendering ...")                        # stderr, silent with -q
        session.emit({"mean": 0.5}, "mean 0.5")             # stdout: the object with --json, else the text

The values are not arguments of the function: they are attributes of the session (`session.spp`, None when not given),
so that they may stand before or after the subcommand. A command returns its exit code (None is 0) and raises
`PathtracerError`s; `pathtracer.cli.main.main(argv) -> exit code` turns those into one sentence. Import Mitsuba only
inside the function.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pathtracer.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from pathtracer.scenes import Scene

F = TypeVar("F", bound=Callable[..., Any])

#: For arguments that name a file or folder; existence is checked by the loader, whose sentence says more than click's.
FILE = click.Path(path_type=Path)

EXIT_CODES = (
    "0 ok, 1 negative verdict, 2 usage or job file, 3 bad input file, 4 environment, 5 diverged, "
    "6 inconclusive, 7 disk, 8 worker lost, 130/143 interrupted after a checkpoint"
)


class _ScenePath(click.ParamType):
    """A scene file, or the name of a bundled scene when no such file exists."""

    name = "scene"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from pathtracer.scenes.bundled import resolve_scene

        return value if isinstance(value, Path) else resolve_scene(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        from pathtracer.scenes.bundled import bundled

        names = [CompletionItem(b.name, help=b.description) for b in bundled() if b.name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]


SCENE = _ScenePath()


@dataclass
class Session:
    """What the user asked for with the shared options, and the two streams.

    Attributes:
        variant: Mitsuba variant, or "auto".
        defines: values of the scene's `$defaults`.
        sensor: index of the sensor.
        output: file or folder to write, None when not given.
        threads: number of threads, None for all.
        spp: samples per pixel, None when not given.
        seed: seed of the first render, None when not given.
        deterministic: bit-identical results: one thread on the processor.
        json: one JSON object on stdout instead of text.
        quiet: nothing on stderr but warnings and errors.
        allow_outside: files of the scene may lie outside its folder.
        sanitize: replace NaN, infinite and negative texels of textures and images.
        verbose: how often -v was given; 1 shows tracebacks.
        warnings: warnings shown so far; `emit` adds them to the object.
    """

    variant: str = "auto"
    defines: dict[str, str] = field(default_factory=dict)
    sensor: int = 0
    output: Path | None = None
    threads: int | None = None
    spp: int | None = None
    seed: int | None = None
    deterministic: bool = False
    json: bool = False
    quiet: bool = False
    allow_outside: bool = False
    sanitize: bool = False
    verbose: int = 0
    warnings: list[str] = field(default_factory=list)
    #: names of the options that stood before the subcommand, to tell the user when it does not take them
    before: dict[str, str] = field(default_factory=dict, repr=False)
    _console: Console | None = field(default=None, repr=False)

    @property
    def console(self) -> Console:
        """A rich console on stderr (progress bars, colours); prints nothing with -q."""
        if self._console is None:
            from rich.console import Console

            self._console = Console(stderr=True, quiet=self.quiet, highlight=False, soft_wrap=True)
        return self._console

    def activate(self, cache: Path | None = None) -> str:
        """Make the renderer ready (LLVM or GPU, variant, threads, estimators); returns the variant's name.

        Args:
            cache: where compiled kernels go when home is not writable, such as a folder of the run.

        Raises:
            EnvironmentFault: no usable backend.
            UsageError: --deterministic with a GPU variant.
        """
        from pathtracer import runtime

        variant, threads = self.variant, self.threads
        if self.deterministic:
            if variant.startswith("cuda"):
                raise UsageError(
                    "the order of sums on a GPU is not fixed", where="--deterministic", remedy="use -m auto"
                )
            if threads not in (None, 1):
                raise UsageError(f"needs one thread, but -t {threads} was given", where="--deterministic")
            variant, threads = ("llvm_ad_rgb" if variant == "auto" else variant), 1
        name = runtime.activate(variant, threads, cache)
        self.detail(f"variant {name}")
        return name

    def load_scene(self, path: str | Path, **options: Any) -> Scene:
        """`activate`, then load the scene with the -D values; options go to `pathtracer.scenes.load_scene`."""
        self.activate()
        from pathtracer.scenes import load_scene

        self.check_defines()
        found = {"sanitize": self.sanitize, "root": "/" if self.allow_outside else None}
        return load_scene(path, **{**found, **options, **self.defines})

    def check_defines(self) -> None:
        """Refuse -D names that are arguments of `load_scene` itself."""
        for name in self.defines:
            if name in ("path", "variant", "root", "sanitize"):
                raise UsageError(f"'{name}' cannot be the name of a scene default", where=f"-D {name}")

    def say(self, text: str) -> None:
        """One line of progress on stderr; silent with -q."""
        if not self.quiet:
            click.echo(text, err=True)

    def detail(self, text: str) -> None:
        """One line on stderr that only -v shows."""
        if self.verbose:
            click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """One `warning:` line on stderr, also with -q, kept for the JSON object."""
        if text not in self.warnings:
            self.warnings.append(text)
            click.echo(click.style("warning: ", fg="yellow", bold=True) + text, err=True)

    def emit(self, obj: Mapping[str, Any], text: Any = None) -> None:
        """The result of the command, once: `obj` as JSON with --json, else `text` (a string or a rich renderable).

        NumPy arrays and paths are converted; a non-finite number becomes null, because JSON has no other word for it.
        """
        if self.json:
            full = dict(obj)
            if self.warnings:
                full.setdefault("warnings", list(self.warnings))
            click.echo(json.dumps(to_json(full), allow_nan=False))
        elif isinstance(text, str):
            click.echo(text)
        elif text is not None:
            from rich.console import Console

            Console(highlight=False).print(text)


def to_json(value: Any) -> Any:
    """`value` as what `json.dumps(allow_nan=False)` takes: arrays become lists, paths strings, NaN and Inf null."""
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(v) for v in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if hasattr(value, "tolist"):  # NumPy arrays and scalars, without importing NumPy for a command that has none
        return to_json(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")


def session_of(ctx: click.Context) -> Session:
    """The one session of this invocation."""
    root = ctx.find_root()
    if not isinstance(root.obj, Session):
        root.obj = Session()
    return root.obj


def pass_session(function: F) -> F:
    """Give the command its `Session` as first argument; adds -q and -v."""

    def with_session(*args: Any, **kwargs: Any) -> Any:
        return function(session_of(click.get_current_context()), *args, **kwargs)

    with_session.__name__, with_session.__doc__ = function.__name__, function.__doc__
    with_session.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    return _all(_QUIET, _VERBOSE)(with_session)  # type: ignore[return-value]


def _store(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if ctx.resilient_parsing or ctx.get_parameter_source(param.name or "") is click.core.ParameterSource.DEFAULT:
        return
    session, name = session_of(ctx), param.name or ""
    if name == "defines":
        session.defines.update(_parse_define(text) for text in value)
    elif name == "verbose":
        session.verbose += value
    else:
        setattr(session, name, value)
    if ctx.parent is None and isinstance(ctx.command, click.Group):
        session.before[name] = param.opts[-1]


def _parse_define(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise UsageError(f"'{text}' is not of the form key=value", where="-D", remedy="as in -D res=256")
    return key, value


def _option(*names: str, **settings: Any) -> Callable[[F], F]:
    return click.option(*names, expose_value=False, callback=_store, **settings)


_VARIANT = _option("-m", "--variant", metavar="NAME", help="auto (default), llvm_ad_rgb, cuda_ad_rgb, ...")
_DEFINES = _option(
    "-D", "defines", multiple=True, metavar="KEY=VALUE", help="Value of a $default of the scene; repeatable."
)
_SENSOR = _option("-s", "--sensor", type=click.IntRange(min=0), metavar="INDEX", help="Which sensor (default 0).")
_THREADS = _option("-t", "--threads", type=click.IntRange(min=1), metavar="N", help="Number of threads (default all).")
_SPP = _option("--spp", type=click.IntRange(min=1), metavar="N", help="Samples per pixel.")
_SEED = _option("--seed", type=click.IntRange(0, 2**32 - 1), metavar="N", help="Seed of the random numbers.")
_DETERMINISTIC = _option("--deterministic", is_flag=True, help="Bit-identical results, on one thread.")
_OUTSIDE = _option("--allow-outside", is_flag=True, help="Files of the scene may lie outside its folder.")
_SANITIZE = _option("--sanitize", is_flag=True, help="Replace NaN, infinite and negative texels by 0.")
_OUTPUT = _option("-o", "--output", type=FILE, metavar="PATH", help="File or folder to write.")
_JSON = _option("--json", is_flag=True, help="One JSON object on stdout; logs on stderr.")
_QUIET = _option("-q", "--quiet", is_flag=True, help="Only warnings and errors on stderr.")
_VERBOSE = _option("-v", "--verbose", count=True, help="More on stderr; tracebacks of errors.")


def _all(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def scene_options(function: F) -> F:
    """-m/--variant, -D key=value, -s/--sensor, -t/--threads, --allow-outside, --sanitize."""
    return _all(_VARIANT, _DEFINES, _SENSOR, _THREADS, _OUTSIDE, _SANITIZE)(function)


def sampling_options(function: F) -> F:
    """--spp, --seed, --deterministic."""
    return _all(_SPP, _SEED, _DETERMINISTIC)(function)


def output_options(function: F) -> F:
    """-o/--output, --json."""
    return _all(_OUTPUT, _JSON)(function)


def json_option(function: F) -> F:
    """--json alone, for commands that write no file."""
    return _JSON(function)


def seed_option(function: F) -> F:
    """--seed alone, for commands that choose their samples themselves."""
    return _SEED(function)


def runtime_options(function: F) -> F:
    """-m/--variant, -t/--threads, for commands that take no scene."""
    return _all(_VARIANT, _THREADS)(function)


def all_options(function: F) -> F:
    """Every shared option: what the program itself takes before the subcommand."""
    return _all(_QUIET, _VERBOSE)(scene_options(sampling_options(output_options(function))))


def epilog(*examples: str) -> str:
    """Examples and exit codes for the end of a help page."""
    lines = ["\b", "Examples:", *(f"  {line}" for line in examples), "", f"Exit codes: {EXIT_CODES}."]
    return "\n".join(lines)


def running_as_program() -> str:
    """What the user typed to start the program, for sentences that quote a command."""
    return "python -m pathtracer" if sys.argv and sys.argv[0].endswith("__main__.py") else "pathtracer"
