"""`pathtracer grad`: the derivative of an image along a motion, or the gradient of its mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pathtracer.errors import UsageError

from . import common

#: What backward mode differentiates, in the words of its output.
FUNCTIONAL = "J = mean of all pixels and channels of the image"
_SHOWN = 16


@click.command(
    epilog=common.epilog(
        "pathtracer grad cornell-box --wrt red.reflectance.value -o red.exr",
        "pathtracer grad scene.xml --wrt cube.vertex_positions --motion rotate:y --spp 256 -o turn.exr",
        "pathtracer grad scene.xml --wrt 'light*.radiance.value' --mode backward",
    )
)
@click.argument("scene", type=common.SCENE)
@click.option("--wrt", "keys", multiple=True, required=True, metavar="KEY", help="Parameter key or glob; repeatable.")
@click.option(
    "--motion",
    metavar="KIND[:AXIS]",
    help="Forward mode: how the parameter moves: translate:x, rotate:y, scale, value, value:1,0,0, random. "
    "Default: what suits the key.",
)
@click.option("--estimator", metavar="NAME", help="Default: the unbiased one that accounts for most.")
@click.option("--mode", type=click.Choice(["forward", "backward"]), default="forward", show_default=True)
@click.option("--scale", type=click.FloatRange(min=0, min_open=True), metavar="X", help="Value at the ends of the PNG.")
@click.option("--strict", is_flag=True, help="Refuse a derivative that leaves something out instead of warning.")
@common.scene_options
@common.sampling_options
@common.output_options
@common.pass_session
def command(
    session: common.Session,
    scene: Path,
    keys: tuple[str, ...],
    motion: str | None,
    estimator: str | None,
    mode: str,
    scale: float | None,
    strict: bool,
) -> None:
    """Differentiate the image of SCENE with respect to a parameter.

    Forward mode writes the gradient image to the EXR file given by -o, and beside it a PNG in signed colours (blue
    negative, white zero, red positive). Backward mode prints the gradient of the mean of all pixels and channels, and
    -o OUT.safetensors keeps it.
    """
    suffix = ".exr" if mode == "forward" else ".safetensors"
    if session.output is None and mode == "forward":
        raise UsageError("no file to write", where="-o", remedy="name one, as in -o gradient.exr")
    if session.output is not None and session.output.suffix.lower() != suffix:
        raise UsageError(f"{mode} mode writes {suffix} files", where=session.output, remedy=f"name the file {suffix}")
    if mode == "backward" and motion is not None:
        raise UsageError("a motion belongs to forward mode", where="--motion", remedy="drop it or use --mode forward")
    loaded = session.load_scene(scene)
    from pathtracer.verify.gradients import choose_estimator

    for text in loaded.warnings:
        session.warn(text)
    found = list(dict.fromkeys(k for pattern in keys for k in loaded.select(pattern)))
    if mode == "forward" and motion is not None and len(found) > 1:
        raise UsageError(f"{len(found)} parameters match, a motion needs one: {', '.join(found[:5])}", where="--motion")
    infos = [loaded.parameters()[k] for k in found]
    name = choose_estimator(estimator, infos, strict)
    found = [loaded.make_differentiable(k) for k in found]
    spp = session.spp or int(loaded.sensor(session.sensor).sampler().sample_count())
    if mode == "forward":
        _forward(session, loaded, found, motion, name, spp, scale)
    else:
        _backward(session, loaded, found, name, spp)


def _forward(
    session: common.Session, scene: Any, keys: list[str], motion: str | None, name: str, spp: int, scale: float | None
) -> None:
    import numpy as np

    from pathtracer.capture import write_image
    from pathtracer.cli.render import PassProgress
    from pathtracer.report import diverging_png
    from pathtracer.verify.gradients import gradient_image
    from pathtracer.verify.motion import Motion

    path = Motion.parse(keys[0], motion) if motion else sum((Motion.parse(k) for k in keys[1:]), Motion.parse(keys[0]))
    with PassProgress(session, "differentiating") as progress:
        result = gradient_image(scene, path, name, spp, session.seed or 0, session.sensor, True, progress)
    output = session.output
    assert output is not None
    image = result.passes.mean[..., :3]
    write_image(output, image)
    picture = output.with_suffix(".png")
    shown = diverging_png(image, picture, scale)
    norm = float(np.sqrt(np.mean(image**2)))
    variance = result.passes.variance
    noise = None if variance is None else float(np.sqrt(np.mean(variance[..., :3])))
    files = [output, picture]
    session.emit(
        {
            "files": files,
            "motion": result.motion,
            "estimator": name,
            "spp": result.passes.spp,
            "passes": result.passes.count,
            "seconds": result.passes.seconds,
            "first_pass_seconds": result.passes.first_seconds,
            "rms": norm,
            "rms_standard_error": noise,
            "mean": image.mean(axis=(0, 1)),
            "dropped": result.dropped,
            "png_scale": shown,
        },
        f"{output}, {picture}: d(image)/d({result.motion}) by {name}, {result.passes.spp} samples per pixel, "
        f"{result.passes.seconds:.2f} s, RMS {norm:.4g}"
        + (f" (noise {noise:.2g} per pixel)" if noise is not None else ""),
    )


def _backward(session: common.Session, scene: Any, keys: list[str], name: str, spp: int) -> None:
    import numpy as np

    from pathtracer.capture.images import atomic_path
    from pathtracer.verify.gradients import gradient_of_mean

    gradients, value, passes = gradient_of_mean(scene, keys, name, spp, session.seed or 0, session.sensor)
    errors = _standard_errors(gradients, passes.variance)
    if session.output is not None:
        from safetensors.numpy import save

        content = save(
            {k: np.ascontiguousarray(g) for k, g in gradients.items()},
            metadata={"functional": FUNCTIONAL, "estimator": name},
        )
        with atomic_path(session.output) as temporary:
            temporary.write_bytes(content)
    lines = [f"{FUNCTIONAL} = {value:.5g}; gradient by {name}, {passes.spp} samples per pixel, {passes.seconds:.2f} s"]
    rows: dict[str, Any] = {}
    for key, gradient in gradients.items():
        error = errors.get(key)
        rows[key] = {"shape": list(gradient.shape), "norm": float(np.linalg.norm(gradient))}
        if gradient.size <= _SHOWN:
            rows[key] |= {"value": gradient, "standard_error": error}
            spread = [""] * gradient.size if error is None else [f" ± {e:.1g}" for e in error.ravel()]
            told = ", ".join(f"{g:.5g}{e}" for g, e in zip(gradient.ravel(), spread, strict=True))
            lines.append(f"  dJ/d({key}) = {told}")
        else:
            lines.append(f"  dJ/d({key}): shape {gradient.shape}, norm {rows[key]['norm']:.5g}")
    if session.output is not None:
        lines.append(f"written to {session.output}")
    session.emit(
        {
            "functional": FUNCTIONAL,
            "value": value,
            "estimator": name,
            "spp": passes.spp,
            "seconds": passes.seconds,
            "gradients": rows,
            "file": session.output,
        },
        "\n".join(lines),
    )


def _standard_errors(gradients: dict[str, Any], variance: Any) -> dict[str, Any]:
    import numpy as np

    if variance is None:
        return {}
    flat, at, errors = np.sqrt(variance).ravel(), 0, {}
    for key, gradient in gradients.items():
        errors[key] = flat[at : at + gradient.size].reshape(gradient.shape)
        at += gradient.size
    return errors
