"""`pathtracer export`: the recovered scene of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathtracer.errors import InputError, UsageError

from . import common

if TYPE_CHECKING:
    import numpy as np


@click.command(
    epilog=common.epilog(
        "pathtracer export runs/cornell-box -o recovered",
        "mitsuba recovered/scene.xml",
    )
)
@click.argument("run", type=common.FILE)
@click.option("--verify/--no-verify", default=True, help="Reload it in stock Mitsuba in a new process (default).")
@click.option(
    "--keep-ids/--add-ids",
    default=True,
    help="Ids as in your file (default), or one more on every object without: stock Mitsuba then has our keys.",
)
@click.option("--gltf", is_flag=True, help="Also write scene.glb: meshes with base colour, roughness, metallic.")
@common.runtime_options
@common.output_options
@common.pass_session
def command(session: common.Session, run: Path, verify: bool, keep_ids: bool, gltf: bool) -> None:
    """Write the scene that RUN recovered to the folder given by -o: XML, EXR textures, PLY meshes.

    The XML is the user's own with the recovered values in their places. The export is reloaded in stock Mitsuba in a
    new process, and both renders have to agree.
    """
    from pathtracer.inverse.job import read_job

    if session.output is None:
        raise UsageError("needs a folder to write to", where="export", remedy="add -o DIR")
    if not (run / "job.toml").is_file():
        raise InputError("is no run folder: it holds no job.toml", where=run)
    job = read_job(run / "job.toml")
    values = read_values(run / "result" / "values.safetensors")
    session.activate()
    from pathtracer.scenes import load_scene
    from pathtracer.scenes.export import export_scene, verify_export

    table = job.scene
    file = (run / table.file).resolve()  # absolute already in a resolved job
    root = None if table.root is None else run / table.root
    defines: dict[str, Any] = dict(table.defines)
    scene = load_scene(file, root=root, sanitize=table.sanitize, **defines)
    for text in scene.warnings:
        session.warn(text)
    for key in values:
        if key in scene.params and scene.parameters()[key].stored:
            scene.make_differentiable(key)
    path = export_scene(scene, values, session.output, keep_ids)
    written: dict[str, Any] = {"run": run, "scene": path, "parameters": sorted(values)}
    sentence = f"{path}: {len(values)} parameter{'s' * (len(values) != 1)}"
    if gltf:
        from pathtracer.scenes.gltf import export_gltf

        written["gltf"], lacking = export_gltf(scene, values, session.output / "scene.glb")
        for text in lacking:
            session.warn(text)
        sentence += f", {written['gltf'].name}"
    if verify:
        check = verify_export(scene, path, values)
        written["verified"] = {"mean_difference": check.mean, "maximum": check.maximum, "noise": check.noise}
        sentence += f", verified in stock Mitsuba (mean difference {check.mean:.2g}, noise {check.noise:.2g})"
    session.emit(written, sentence)


def read_values(path: Path) -> dict[str, np.ndarray]:
    """The recovered values of a run, by parameter key.

    Raises:
        InputError: there are none, or the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except FileNotFoundError as error:
        raise InputError(
            "the run has no result yet", where=path, remedy="finish it with: pathtracer resume RUN"
        ) from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"the values cannot be read: {error}", where=path) from error
