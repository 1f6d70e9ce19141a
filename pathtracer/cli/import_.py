"""`pathtracer import`: from the cameras of another program to a views file, a scene and a job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathtracer.errors import UsageError, nearest_names

from . import common

if TYPE_CHECKING:
    from pathtracer.capture.shots import Capture


class _Group(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            raise UsageError(
                f"there is no command 'import {args[0]}'",
                nearest=nearest_names(args[0], self.list_commands(ctx)),
                remedy="see: pathtracer import --help",
            )
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Group,
    epilog=common.epilog(
        "pathtracer import transforms photos/transforms.json -o project",
        "pathtracer import colmap colmap-project -o project --mesh object.ply",
        "pathtracer estimate project/job.toml",
    ),
)
def command() -> None:
    """Turn cameras from other programs into a views file, a scene and a job.

    transforms: transforms.json of NeRF, Blender, nerfstudio, instant-ngp. colmap: a sparse reconstruction.
    """


def _shared(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of both kinds of files."""
    for option in reversed(
        (
            click.option("--masks", type=common.FILE, metavar="DIR", help="Folder of masks, named like the pictures."),
            click.option("--mesh", type=common.FILE, metavar="FILE", help="The object, in the world of the cameras."),
            click.option("--holdout-every", type=click.IntRange(min=0), default=0, metavar="N", help="Hold out views."),
            click.option("--downscale", type=click.IntRange(min=1), default=1, metavar="N", help="Pixels to average."),
            click.option("--force", is_flag=True, help="Replace the files of an earlier import."),
        )
    ):
        function = option(function)
    return function


@command.command(
    epilog=common.epilog(
        "pathtracer import transforms photos/transforms.json -o project",
        "pathtracer import transforms lego/ -o project --downscale 8 --holdout-every 8",
        "pathtracer import transforms mine.json -o project --convention opencv",
    )
)
@click.argument("path", type=common.FILE)
@click.option(
    "--convention",
    type=str,
    default="opengl",
    metavar="NAME",
    help="Camera axes: opengl (default), opencv or mitsuba.",
)
@click.option(
    "--matrices",
    type=str,
    default="camera-to-world",
    metavar="KIND",
    help="camera-to-world (default) or world-to-camera.",
)
@click.option(
    "--world",
    type=str,
    default="stored",
    metavar="NAME",
    help="stored (default), or original to undo nerfstudio's applied_transform and applied_scale.",
)
@_shared
@common.output_options
@common.pass_session
def transforms(session: common.Session, path: Path, convention: str, matrices: str, world: str, **options: Any) -> None:
    """Import transforms.json (or the folder that holds it) into the folder given by -o."""
    from pathtracer.capture.transforms import read_transforms

    _require_output(session)
    capture = read_transforms(path, convention, matrices, world, options["masks"])
    _write(session, capture, options, convention, matrices)


@command.command(
    epilog=common.epilog(
        "pathtracer import colmap colmap-project -o project",
        "pathtracer import colmap sparse/0 --images photos --masks masks -o project",
    )
)
@click.argument("path", type=common.FILE)
@click.option("--images", type=common.FILE, metavar="DIR", help="Folder of the pictures.")
@_shared
@common.output_options
@common.pass_session
def colmap(session: common.Session, path: Path, images: Path | None, **options: Any) -> None:
    """Import a COLMAP reconstruction (text or binary) into the folder given by -o."""
    from pathtracer.capture.colmap import read_colmap

    _require_output(session)
    capture = read_colmap(path, images, options["masks"])
    _write(session, capture, options, None, "camera-to-world")


def _require_output(session: common.Session) -> None:
    if session.output is None:
        raise UsageError("a folder to write to is needed", where="-o", remedy="as in -o project")
    if session.output.is_file():
        raise UsageError("is a file, a folder was expected", where=session.output)


def _write(
    session: common.Session, capture: Capture, options: dict[str, Any], convention: str | None, matrices: str
) -> None:
    import numpy as np

    from pathtracer.capture.layout import doubts
    from pathtracer.capture.skeleton import write_project

    folder = session.output
    assert folder is not None
    present = [name for name in ("views.toml", "scene.xml", "job.toml") if (folder / name).exists()]
    if present and not options["force"]:
        raise UsageError(
            f"'{present[0]}' exists already", where=folder, remedy="choose another folder, or overwrite with --force"
        )
    shapes = _silhouettes(capture)
    project = write_project(
        capture,
        folder,
        mesh=options["mesh"],
        holdout_every=options["holdout_every"],
        downscale=options["downscale"],
        alpha=any(shape is not None for shape in shapes),
    )
    for text in doubts(capture.cameras, shapes, convention, matrices):
        session.warn(text)
    where = project.where
    sizes = sorted({(c.width, c.height) for c in capture.cameras})
    first = f"{sizes[0][0]} x {sizes[0][1]}" + (f" to {sizes[-1][0]} x {sizes[-1][1]}" if len(sizes) > 1 else "")
    place = ", ".join(f"{v:.3g}" for v in np.round(where.focus / where.distance, 6) * where.distance + 0.0)
    lines = [
        *capture.notes,
        f"{len(capture.shots)} pictures of {first} pixels, {round(where.looking * len(capture.shots))} of their "
        f"cameras look at ({place}) from a distance of about {where.distance:.3g}",
        "the object is "
        + (f"{options['mesh']}" if options["mesh"] else f"a placeholder: a ball of radius {where.radius:.3g} there"),
        f"wrote {project.views}, {project.scene} and {project.job}",
        f"next:  {common.running_as_program()} render {project.scene} -o first.png",
        f"       {common.running_as_program()} estimate {project.job}",
    ]
    session.emit(
        {
            "views": project.views,
            "scene": project.scene,
            "job": project.job,
            "count": len(capture.shots),
            "sizes": sizes,
            "focus": where.focus,
            "distance": where.distance,
            "notes": capture.notes,
        },
        "\n".join(lines),
    )


def _silhouettes(capture: Capture) -> list[Any]:
    """The mask of each picture, from its file or its alpha, at the size of its camera; None without one."""
    import numpy as np

    from pathtracer.capture.framing import resample
    from pathtracer.capture.headers import read_header
    from pathtracer.capture.images import read_picture
    from pathtracer.capture.views import read_mask

    shapes: list[Any] = []
    for shot in capture.shots:
        shape = None
        if shot.mask is not None:
            shape = read_mask(shot.mask)
        else:
            header = read_header(shot.file)
            if "A" in header.mode or "A" in header.channels or header.mode == "P":
                shape = read_picture(shot.file).alpha
        if shape is not None and np.ptp(shape) > 0.5:
            size = (shot.camera.width, shot.camera.height)
            shapes.append(shape if shape.shape[::-1] == size else resample(shape, size))
        else:
            shapes.append(None)
    return shapes
