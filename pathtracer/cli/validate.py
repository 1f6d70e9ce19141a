"""`pathtracer validate`: every check of the loader, of a scene or of a job with its pictures; no render."""

from __future__ import annotations

from pathlib import Path

import click

from . import common


@click.command(
    epilog=common.epilog(
        "pathtracer validate cornell-box",
        "pathtracer validate scene.xml -D res=512 --allow-outside",
        "pathtracer validate job.toml --json",
    )
)
@click.argument("scene", type=common.SCENE)
@common.scene_options
@common.json_option
@common.pass_session
def command(session: common.Session, scene: Path) -> int:
    """Check SCENE and all files that it names, and list everything that is wrong with it.

    Looks at the XML and its includes, plugins, properties, numbers, films, textures and their texels, meshes and their
    indices. Exits with 3 when the scene cannot be used. Of a job file (.toml) its keys, scene, pictures, parameters and
    solver are checked, up to the first fault.
    """
    session.activate()
    if scene.suffix == ".toml":
        return _check_job(session, scene)
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


def _check_job(session: common.Session, path: Path) -> int:
    """Everything that `estimate` does before its first render; its errors are those of `estimate`."""
    from pathtracer.inverse.job import read_job
    from pathtracer.inverse.setup import build_estimation, build_problem

    job = read_job(path)
    problem, notes = build_problem(job, path.resolve().parent)
    for text in notes:
        session.warn(text)
    estimation = build_estimation(job, problem)
    contents = {
        "views": len(problem.views),
        "parameters": [name for unknown in problem.unknowns for name in unknown.keys],
        "numbers": problem.start.size,
        "solver": estimation.choice,
        "options": job.solver.options(),
    }
    options = "".join(f", {name} = {value}" for name, value in job.solver.options().items())
    verdict = (
        f"{path}: sound ({contents['views']} views, {len(problem.unknowns)} unknowns of {problem.start.size} numbers; "
        f"{estimation.choice}{options})"
    )
    session.emit({"job": path, "sound": True, "contents": contents}, verdict)
    return 0
