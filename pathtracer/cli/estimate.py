"""pathtracer estimate: inverse rendering from a job file, or from a scene with images and parameter keys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathtracer.cli import common
from pathtracer.errors import UsageError

if TYPE_CHECKING:
    from pathtracer.inverse.job import Job


@click.command(
    epilog=common.epilog(
        "pathtracer estimate scenes/cornell-box/job.toml",
        "pathtracer estimate cornell-box --iterations 100 -o runs/quick",
        "pathtracer estimate scene.xml --target photo.exr --wrt red.reflectance.value",
        "pathtracer estimate scene.xml --target photo.exr --wrt '*.reflectance.value' --init '*=0.5'",
    )
)
@click.argument("job", type=common.FILE, metavar="JOB.toml|SCENE")
@click.option("--target", multiple=True, metavar="IMAGE", help="What the scene looked like; repeatable.")
@click.option("--wrt", multiple=True, metavar="KEY", help="Parameter to recover, or a glob; repeatable.")
@click.option("--init", multiple=True, metavar="KEY=VALUE", help="Start value: one number, or several with commas.")
@click.option("--mask", type=str, metavar="IMAGE", help="Pixels that count.")
@click.option("--color", type=click.Choice(["auto", "linear", "srgb"]), help="How the images are encoded.")
@click.option("--loss", metavar="KIND", help="l2, noise_weighted, relative_l2, huber, ...")
@click.option("--estimator", metavar="NAME", help="Gradient estimator.")
@click.option("--solver", metavar="NAME", help="auto (default), least-squares, linear-lighting, adam.")
@click.option("--iterations", type=click.IntRange(min=1), metavar="N", help="Most steps.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Most time of the steps.")
@click.option("--strict", is_flag=True, help="Refuse gradients that are known to lack a part.")
@common.scene_options
@common.sampling_options
@common.output_options
@common.pass_session
def command(session: common.Session, job: Path, **options: Any) -> int:
    """Recover materials, lights, shapes or cameras from images.

    With a scene, the job that is run is written to job.toml in the run folder (default runs/NAME), to be run again.
    Options override the job file. The run folder holds the history, checkpoints, report.html and the recovered scene.
    """
    work, base = _find_job(job, session, options)
    work = _override(work, session, options)
    if work.run.deterministic:
        session.deterministic = True
    out = session.output or (Path(base / work.run.out) if work.run.out else _default_folder(job))
    session.activate(cache=out / "cache")
    return run(session, work, base, out, resume=False)


def run(session: common.Session, work: Job, base: Path, out: Path, resume: bool) -> int:
    """Execute a job with progress on stderr and the table on stdout; returns the exit code."""
    from pathtracer.cli._progress import make_progress, result_table
    from pathtracer.runs.execute import execute

    with make_progress(session) as observer:
        outcome = execute(work, base, out, observer, resume=resume)
    for text in outcome.result.warnings:
        if text not in outcome.notes:
            session.warn(text)
    summary = {
        "run": outcome.folder,
        "report": outcome.report,
        "export": outcome.export,
        "exit_code": outcome.code,
        **outcome.result.summary(),
    }
    session.emit(summary, result_table(outcome))
    if outcome.code in (130, 143):
        session.say(f"interrupted; go on with: {common.running_as_program()} resume {outcome.folder}")
    elif outcome.error is not None:
        session.warn(f"{outcome.error}; the best state is in {outcome.folder / 'result'}")
    return outcome.code


def _find_job(path: Path, session: common.Session, options: dict[str, Any]) -> tuple[Job, Path]:
    """The job and the folder that its paths start at."""
    from pathtracer.inverse.job import make_job, read_job
    from pathtracer.scenes.bundled import bundled, resolve_scene

    with_images = bool(options["target"] or options["wrt"])
    if not path.exists() and not path.suffix and not with_images:
        for example in bundled():
            if example.name == str(path) and example.job is not None:
                path = example.job
    if path.suffix == ".toml":
        if options["wrt"]:
            raise UsageError("a job file names its parameters itself", where="--wrt", remedy="edit the job file")
        return read_job(path), path.resolve().parent
    scene = resolve_scene(str(path))
    for name in ("target", "wrt"):
        if not options[name]:
            raise UsageError(
                f"'{path}' is a scene, so --{name} is needed",
                remedy="name the image and the parameters, or give a job file",
            )
    inits = [_parse_init(text) for text in options["init"]]
    parameters: list[dict[str, Any]] = []
    for key in options["wrt"]:
        entry: dict[str, Any] = {"key": key}
        for name, value in inits:
            if name in (key, "*"):
                entry["init"] = value
        parameters.append(entry)
    for name, _ in inits:
        if name != "*" and name not in options["wrt"]:
            raise UsageError(f"'{name}' is not among the --wrt keys", where="--init")
    data: dict[str, Any] = {
        "scene": {"file": str(scene.resolve())},
        "views": {"images": [str(Path(t).resolve()) for t in options["target"]], "sensor": session.sensor},
        "parameter": parameters,
    }
    return make_job(data, "command line"), Path.cwd()


def _override(work: Job, session: common.Session, options: dict[str, Any]) -> Job:
    """The job with what the command line says."""
    from pathtracer.inverse.job import make_job

    data = work.model_dump(exclude_none=True)
    if session.defines:
        data["scene"].setdefault("defines", {}).update(session.defines)
    given = {
        ("views", "mask"): None if options["mask"] is None else str(Path(options["mask"]).resolve()),
        ("views", "color"): options["color"],
        ("views", "sanitize"): session.sanitize or None,
        ("scene", "sanitize"): session.sanitize or None,
        ("scene", "root"): "/" if session.allow_outside else None,
        ("loss", "kind"): options["loss"],
        ("estimator", "name"): options["estimator"],
        ("estimator", "strict"): options["strict"] or None,
        ("estimator", "spp"): session.spp,
        ("solver", "name"): options["solver"],
        ("solver", "iterations"): options["iterations"],
        ("solver", "seconds"): options["seconds"],
        ("run", "seed"): session.seed,
        ("run", "deterministic"): session.deterministic or None,
    }
    for (table, key), value in given.items():
        if value is not None:
            data[table][key] = value
    if options["target"]:
        data["views"]["images"] = [str(Path(t).resolve()) for t in options["target"]]
    return make_job(data, "command line")


def _parse_init(text: str) -> tuple[str, float | list[float]]:
    key, equals, value = text.partition("=")
    try:
        numbers = [float(x) for x in value.split(",")]
    except ValueError:
        numbers = []
    if not (key and equals and numbers):
        raise UsageError(f"'{text}' is not of the form KEY=NUMBER[,NUMBER...]", where="--init")
    return key, numbers[0] if len(numbers) == 1 else numbers


def _default_folder(job: Path) -> Path:
    """runs/NAME, or runs/NAME-2, ... when that exists."""
    generic = job.stem in ("job", "scene") and job.resolve().parent.name
    name = job.resolve().parent.name if generic else job.stem
    folder, number = Path("runs") / name, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder
