"""`pathtracer validate`: every check of the loader, no render."""

from __future__ import annotations

from pathlib import Path

import click

from . import common


@click.command(
    epilog=common.epilog(
        "pathtracer validate cornell-box",
        "pathtracer validate scene.xml -D res=512 --allow-outside",
        "pathtracer validate scene.xml --json",
    )
)
@click.argument("scene", type=common.SCENE)
@common.scene_options
@common.json_option
@common.pass_session
def command(session: common.Session, scene: Path) -> int:
    """Check SCENE and all files that it names, and list everything that is wrong with it.

    Looks at the XML and its includes, plugins, properties, numbers, films, textures and their texels, meshes and their
    indices. Exits with 3 when the scene cannot be used.
    """
    session.activate()
    session.check_defines()
    from pathtracer.errors import InputError, PathtracerError
    from pathtracer.scenes.scene import build, inspect_scene

    root = "/" if session.allow_outside else None
    checked = inspect_scene(scene, root=root, sanitize=session.sanitize, **session.defines)
    errors: list[PathtracerError] = list(checked.report.errors)
    loaded = None
    if not errors:
        try:  # what only the plugins themselves can find, such as unknown properties
            loaded = build(checked)
        except InputError as found:
            errors.append(found)
    for text in checked.report.warnings:
        session.warn(text)
    for error in errors:
        click.echo(click.style("error: ", fg="red", bold=True) + str(error), err=True)
    facts = None if loaded is None else loaded.facts()
    verdict = f"{scene}: " + (
        f"{len(errors)} error{'s' * (len(errors) != 1)}"
        if errors
        else f"sound ({', '.join(f'{count} {name}' for name, count in (facts or {}).items())})"
    )
    session.emit({"scene": scene, "sound": not errors, "errors": [str(e) for e in errors], "contents": facts}, verdict)
    return 3 if errors else 0
