"""`pathtracer scenes`: the bundled examples."""

from __future__ import annotations

from pathlib import Path

import click

from pathtracer.errors import UsageError, nearest_names

from . import common


class _Group(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            names = self.list_commands(ctx)
            raise UsageError(
                f"there is no command 'scenes {args[0]}'",
                nearest=nearest_names(args[0], names),
                remedy="see: pathtracer scenes --help",
            )
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Group,
    epilog=common.epilog("pathtracer scenes list", "pathtracer scenes copy cornell-box -o my-box"),
)
def command() -> None:
    """List, show or copy the bundled example scenes.

    Wherever a command takes a scene file, the name of an example does as well.
    """


@command.command("list")
@common.json_option
@common.pass_session
def list_(session: common.Session) -> None:
    """Name and one line of every example."""
    from pathtracer.scenes.bundled import bundled

    examples = bundled()
    width = max((len(e.name) for e in examples), default=0)
    session.emit(
        {"scenes": [{"name": e.name, "description": e.description, "folder": e.folder} for e in examples]},
        "\n".join(f"{e.name:{width}}  {e.description}" for e in examples) or "no example scenes",
    )


@command.command()
@click.argument("name")
@common.json_option
@common.pass_session
def show(session: common.Session, name: str) -> None:
    """Where an example lies, its files and its README."""
    from pathtracer.scenes.bundled import find

    example = find(name)
    readme = example.folder / "README.md"
    text = readme.read_text(encoding="utf-8").strip() if readme.is_file() else example.description
    files = example.files()
    lines = [text, "", f"folder: {example.folder}", *(f"  {file}" for file in files)]
    if example.job:
        lines += ["", f"run it:  pathtracer estimate {example.job}"]
    session.emit(
        {
            "name": name,
            "description": example.description,
            "folder": example.folder,
            "scene": example.scene if example.scene.is_file() else None,
            "job": example.job,
            "files": files,
        },
        "\n".join(lines),
    )


@command.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Replace files that exist.")
@common.output_options
@common.pass_session
def copy(session: common.Session, name: str, force: bool) -> None:
    """Copy an example to the folder given by -o (default: ./NAME) to change it there."""
    from pathtracer.scenes.bundled import copy as copy_scene

    folder = session.output or Path(name)
    written = copy_scene(name, folder, force)
    session.emit({"name": name, "folder": folder, "files": written}, f"{folder}: {len(written)} files")
