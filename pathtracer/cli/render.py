"""`pathtracer render`: an image, with its variance and auxiliary channels if wanted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pathtracer.errors import UsageError, nearest_names

from . import common

if TYPE_CHECKING:
    from pathtracer.scenes import Scene

#: Mitsuba's integrators that make an image of a scene; the estimators are added from their table.
_STOCK = ("path", "direct", "ptracer", "volpath", "volpathmis", "prb", "prb_basic", "direct_projective")
_AOVS = (
    "albedo",
    "depth",
    "position",
    "uv",
    "geo_normal",
    "sh_normal",
    "dp_du",
    "dp_dv",
    "prim_index",
    "shape_index",
)


@click.command(
    epilog=common.epilog(
        "pathtracer render cornell-box -o box.exr --spp 256",
        "pathtracer render scene.xml -D res=512 -s 1 -o view.png",
        "pathtracer render scene.xml -o out.exr --time-budget 30 --variance",
        "pathtracer render scene.xml -o out.exr --aovs depth,sh_normal",
    )
)
@click.argument("scene", type=common.SCENE)
@common.scene_options
@common.sampling_options
@common.output_options
@click.option("--integrator", metavar="NAME", help="Integrator instead of the scene's own, with its depth settings.")
@click.option(
    "--time-budget",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Stop after S seconds, not at --spp.",
)
@click.option("--variance", is_flag=True, help="Also write OUT.variance.exr: estimated variance of every pixel.")
@click.option("--aovs", metavar="NAMES", help=f"Extra EXR channels, separated by commas: {', '.join(_AOVS)}.")
@common.pass_session
def command(
    session: common.Session,
    scene: Path,
    integrator: str | None,
    time_budget: float | None,
    variance: bool,
    aovs: str | None,
) -> None:
    """Render SCENE to an image given by -o: EXR, HDR and PFM are linear, PNG and JPEG are sRGB.

    More than 512 samples per pixel are averaged over passes in double precision.
    """
    output = _image_path(session)
    names = _aov_names(aovs, output)
    if time_budget is not None and session.spp is not None:
        raise UsageError("--spp and --time-budget exclude each other", where="render")
    loaded = session.load_scene(scene)
    from pathtracer.capture import write_channels, write_image
    from pathtracer.scenes.passes import average_passes

    for text in loaded.warnings:
        session.warn(text)
    camera = loaded.sensor(session.sensor)
    plugin = _integrator(loaded, integrator, names)
    width, height = (int(v) for v in camera.film().crop_size())
    spp = session.spp or int(camera.sampler().sample_count())

    import mitsuba as mi
    import numpy as np

    def render(seed: int, share: int) -> np.ndarray:
        return np.array(mi.render(loaded.mi, sensor=camera, integrator=plugin, seed=seed, spp=share))

    with PassProgress(session, "rendering") as progress:
        result = average_passes(render, spp, width * height, session.seed or 0, time_budget, variance, progress)
    color, extra = _split(result.mean, plugin or loaded.mi.integrator(), names)
    bad = int((~np.isfinite(color)).any(axis=-1).sum())
    if bad:
        session.warn(f"{bad} pixels are not finite; look at the materials and textures of the scene")
    if extra:
        write_channels(output, {**dict(zip("RGB", np.moveaxis(color, -1, 0), strict=True)), **extra})
    else:
        write_image(output, color)
    files = [output]
    facts: dict[str, Any] = {}
    if variance:
        if result.variance is None:
            session.warn("one pass tells no variance, none was written; give more --spp or time")
        else:
            files.append(write_image(output.with_suffix(".variance.exr"), _rgb(result.variance)))
            facts["relative_error"] = _relative_error(color, _rgb(result.variance))
    mean = np.nanmean(color, axis=(0, 1))
    session.emit(
        {
            "files": files,
            "width": width,
            "height": height,
            "spp": result.spp,
            "passes": result.count,
            "seconds": result.seconds,
            "first_pass_seconds": result.first_seconds,
            "mean": mean,
            "channels": list(extra),
            **facts,
        },
        f"{', '.join(str(f) for f in files)}: {width} x {height}, {result.spp} samples per pixel in {result.count} "
        f"pass{'es' if result.count > 1 else ''}, {result.seconds:.2f} s, mean {' '.join(f'{v:.4g}' for v in mean)}"
        + (f", mean relative error {facts['relative_error']:.2g}" if facts else ""),
    )


def _image_path(session: common.Session) -> Path:
    from pathtracer.capture.headers import SUFFIXES

    if session.output is None:
        raise UsageError("no file to write", where="-o", remedy="name one, as in -o out.exr")
    suffix = session.output.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"cannot write images of the kind {suffix!r}, one of {', '.join(SUFFIXES)}",
            session.output,
            nearest=nearest_names(suffix, SUFFIXES),
        )
    return session.output


def _aov_names(text: str | None, output: Path) -> list[str]:
    names = [n.strip() for n in text.split(",") if n.strip()] if text else []
    for name in names:
        if name not in _AOVS:
            raise UsageError(f"unknown channel {name!r}", where="--aovs", nearest=nearest_names(name, _AOVS))
    if names and output.suffix.lower() != ".exr":
        raise UsageError("extra channels need an EXR file", where=output, remedy="name the file .exr")
    return names


def _integrator(scene: Scene, name: str | None, aovs: list[str]) -> Any:
    """The integrator to use, None for the scene's own."""
    import mitsuba as mi

    from integrators import ESTIMATORS

    plugin = None
    if name is not None:
        known = [*_STOCK, *ESTIMATORS]
        if name not in known:
            raise UsageError(
                f"unknown integrator {name!r}, one of {', '.join(known)}",
                where="--integrator",
                nearest=nearest_names(name, known),
            )
        plugin = mi.load_dict({"type": name, **scene.default_integrator()})
    if aovs:
        inner = plugin if plugin is not None else scene.mi.integrator()
        plugin = mi.load_dict({"type": "aov", "aovs": ",".join(f"{n}:{n}" for n in aovs), "image": inner})
    return plugin


def _split(mean: Any, integrator: Any, aovs: list[str]) -> tuple[Any, dict[str, Any]]:
    """Colour (H, W, 3) and the named extra channels of a developed film."""
    names = list(integrator.aov_names()) if aovs else []
    base = mean.shape[-1] - len(names)
    return _rgb(mean[..., :base]), {n: mean[..., base + i] for i, n in enumerate(names)}


def _rgb(image: Any) -> Any:
    import numpy as np

    return np.repeat(image[..., :1], 3, axis=-1) if image.shape[-1] < 3 else image[..., :3]


def _relative_error(color: Any, variance: Any) -> float:
    """Root of the mean variance over the mean brightness."""
    import numpy as np

    brightness = float(np.nanmean(color))
    return float(np.sqrt(np.nanmean(variance)) / brightness) if brightness > 0 else float("nan")


class PassProgress:
    """A progress bar over passes on a terminal, nothing elsewhere or for a single pass."""

    def __init__(self, session: common.Session, title: str) -> None:
        self.session, self.title = session, title
        self.bar: Any = None

    def __enter__(self) -> Any:
        def step(done: int, count: int | None, seconds: float) -> None:
            if count == 1 or not self.session.console.is_terminal or self.session.quiet:
                return
            if self.bar is None:
                from rich.progress import Progress

                self.bar = Progress(console=self.session.console, transient=True)
                self.bar.start()
                self.task = self.bar.add_task(self.title, total=count)
            self.bar.update(self.task, completed=done)

        return step

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.stop()
