"""The report: one HTML page with everything in it, that asks the network for nothing.

Names come from files and users, so the template escapes everything; only our own SVG and data addresses pass unescaped.
"""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Any

import numpy as np

from pathtracer.capture.images import atomic_path, to_8bit
from pathtracer.capture.views import resample
from pathtracer.report.data import Array, ParameterReport, ReportData, ViewReport
from pathtracer.report.figures import component_names, loss_figure, parameter_figure
from pathtracer.report.pictures import data_uri, display_scale, diverging_pixels, signed_scale

#: Views shown with pictures; the rest are rows of a table, or a page of a hundred views would weigh tens of megabytes.
MAX_PICTURED_VIEWS = 16
#: Wider pictures are averaged down to this.
MAX_WIDTH = 512
#: Numbers of one parameter that the table shows.
MAX_ROWS = 16
#: Curves drawn; more than this hides the ones that matter.
MAX_CURVES = 24


def write_page(data: ReportData, path: str | Path, refresh: int | None = None) -> Path:
    """Write the page of `data`, whole or not at all.

    Args:
        path: the HTML file.
        refresh: reload after so many seconds (a run that goes on), None for never.
    Raises:
        StorageFault: the file cannot be written.
    """
    path = Path(path)
    html = render_page(data, refresh)
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return path


def render_page(data: ReportData, refresh: int | None = None) -> str:
    """The page as text."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pathtracer.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    numeric = [p for p in data.parameters if not p.is_image]
    rows = [_rows(p) for p in numeric]
    has_truth = any(p.truth is not None for p in numeric)
    has_errors = any(p.standard_error is not None for p in numeric)
    pictured = _choose(data.views)
    scale = _difference_scale(pictured)
    curves = [(p.key, svg) for p in numeric[:MAX_CURVES] if (svg := parameter_figure(p)) is not None]
    return environment.get_template("page.html.j2").render(
        data=data,
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        refresh=refresh,
        headline=_headline(data),
        rows=rows,
        has_truth=has_truth,
        has_errors=has_errors,
        columns=3 + has_errors + 2 * has_truth + (has_errors and has_truth),
        views=[_view(v, scale) for v in pictured],
        difference_scale=f"{scale:.2g}",
        hidden_views=len(data.views) - len(pictured),
        view_table=[_view_row(v) for v in data.views] if len(data.views) > 1 else [],
        loss=loss_figure(data) if len(data.steps) > 1 else None,
        loss_band=bool(np.isfinite(data.loss_error).any()) if data.loss_error.size else False,
        curves=curves,
        textures=[_texture(p) for p in data.parameters if p.is_image],
        timings=[(name, duration(seconds)) for name, seconds in data.timings.items()],
    )


def _headline(data: ReportData) -> list[tuple[str, str]]:
    items = [("state", data.status or "unknown")]
    if len(data.steps):
        items.append(("steps", str(int(data.steps[-1]))))
        error = float(data.loss_error[-1]) if data.loss_error.size else math.nan
        items.append(("loss", number(float(data.loss[-1]), error) + (f" ± {error:.1g}" if error > 0 else "")))
        last = max(abs(float(data.loss[-1])), error if error > 0 else 0.0)  # noise is no progress
        if data.loss[0] > last > 0:
            what = "loss fell by a factor of" + (" more than" if last > data.loss[-1] else "")
            items.append((what, _factor(data.loss[0] / last)))
    if data.wall.size:
        items.append(("time", duration(float(data.wall[-1]))))
    items.append(("parameters", str(len(data.parameters))))
    fitted, held = ([v for v in data.views if v.holdout == kind] for kind in (False, True))
    count, more = len(fitted) + data.unpictured[0], len(held) + data.unpictured[1]
    items.append(("views", f"{count}" + (f" + {more} held out" if more else "")))
    for what, views in (("PSNR of the fit", fitted), ("PSNR held out", held)):
        errors = [e * display_scale(v.target) for v in views if (e := v.error()) is not None]
        if len(errors) > 1 and any(errors):
            items.append((what, f"{-10 * math.log10(float(np.mean(np.square(errors)))):.1f} dB"))
    return items


def _factor(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}" if value < 1e6 else f"{value:.1e}"


def number(value: float, error: float = math.nan) -> str:
    """A number with the digits that its error leaves (two of the error's), or five significant ones."""
    if not math.isfinite(value):
        return str(value)
    if math.isfinite(error) and error > 0:
        digits = 1 - math.floor(math.log10(error))
        if 0 <= digits <= 7 and abs(value) < 1e6:
            return f"{value:.{digits}f}"
        significant = max(2, digits + math.floor(math.log10(abs(value) or error)) + 1)
        return f"{value:.{min(significant, 8)}g}"
    return f"{value:.5g}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _rows(parameter: ParameterReport) -> dict[str, Any]:
    """The rows of one parameter: one per number, or a single one where the numbers only mean something together."""
    value = np.asarray(parameter.value, np.float64).ravel()
    group = {"key": parameter.key, "more": 0, "swatch": _swatch(parameter)}
    if parameter.space == "direction":
        return group | {"rows": [_direction_row(parameter)]}
    if parameter.space == "large-steps":
        return group | {"rows": [_points_row(parameter)]}
    known = parameter.standard_error is not None or parameter.truth is not None
    if 1 < value.size <= 4 and not known:
        return group | {"rows": [_joined_row(parameter)]}
    names = component_names(parameter)

    def pick(array: Array | None, i: int) -> float:
        return math.nan if array is None else float(np.asarray(array).ravel()[i])

    rows = []
    for i in range(min(value.size, MAX_ROWS)):
        error, truth = pick(parameter.standard_error, i), pick(parameter.truth, i)
        start, off = pick(parameter.start, i), value[i] - truth
        percent = f" ({_percent(off / abs(truth))})" if math.isfinite(off) and truth else ""
        rows.append(
            {
                "name": names[i],
                "start": _blank(start),
                "value": number(value[i], error),
                "error": f"± {error:.2g}" if math.isfinite(error) else "–",
                "truth": _blank(truth),
                "off": f"{off:+.2g}{percent}" if math.isfinite(off) else "–",
                "pull": f"{off / error:+.1f}" if math.isfinite(off) and error > 0 else "–",
            }
        )
    if parameter.space == "pose" and parameter.truth is not None and value.size == 6:
        rows.append(_pose_row(parameter))
    return group | {"rows": rows, "more": max(0, value.size - MAX_ROWS)}


def _pose_row(parameter: ParameterReport) -> dict[str, str]:
    """How far a pose is from the truth, at the start and in the end: the angle that is left, and a distance."""
    from ..inverse.result import Recovered

    start = parameter.value if parameter.start is None else parameter.start
    pose = Recovered("", (), "pose", start, parameter.value, parameter.truth, measure="pose")
    row = dict.fromkeys(("error", "truth", "off", "pull"), "–")
    return row | {"name": "distance", "start": pose.error_text(pose.start), "value": pose.error_text()}


def _percent(fraction: float) -> str:
    return f"{100 * fraction:+.0f} %" if abs(fraction) >= 0.1 else f"{100 * fraction:+.2g} %"


def _joined_row(parameter: ParameterReport) -> dict[str, str]:
    """A few numbers of which nothing but their start is known."""

    def joined(array: Array | None) -> str:
        numbers = [] if array is None else [float(v) for v in np.asarray(array).ravel()]
        return "  ".join(f"{v:.4g}" for v in numbers) if np.isfinite(numbers).all() and numbers else "–"

    missing = dict.fromkeys(("error", "truth", "off", "pull"), "–")
    return {"name": "", "start": joined(parameter.start), "value": joined(parameter.value), **missing}


def _direction_row(parameter: ParameterReport) -> dict[str, str]:
    """A unit vector in one row: what it is off by is an angle."""

    def unit(array: Array) -> Array:
        a = np.asarray(array, np.float64).ravel()
        return a / (float(np.linalg.norm(a)) or 1.0)

    def told(array: Array | None) -> str:
        return "–" if array is None else "  ".join(f"{v:.3f}" for v in unit(array))

    row = {"name": "", "start": told(parameter.start), "value": told(parameter.value), "truth": told(parameter.truth)}
    row |= {"error": "–", "off": "–", "pull": "–"}
    if parameter.standard_error is not None:
        # a small error across a unit vector is an angle in radians
        row["error"] = f"± {math.degrees(float(np.linalg.norm(parameter.standard_error))):.2g}°"
    if parameter.truth is not None:
        a, b = unit(parameter.value), unit(parameter.truth)
        row["off"] = f"{math.degrees(math.atan2(float(np.linalg.norm(np.cross(a, b))), float(a @ b))):.2f}°"
    return row


def _points_row(parameter: ParameterReport) -> dict[str, str]:
    """Vertices in one row: how many there are, and how far they went."""
    value = np.asarray(parameter.value, np.float64).reshape(-1, 3)
    row = {
        "name": "",
        "start": f"{len(value)} points",
        "value": "–",
        "error": "–",
        "truth": "–",
        "off": "–",
        "pull": "–",
    }
    if parameter.start is not None:
        way = np.linalg.norm(value - np.asarray(parameter.start).reshape(-1, 3), axis=1)
        row["value"] = f"moved by {way.mean():.3g} on average, {way.max():.3g} at most"
    if parameter.truth is not None:
        off = np.linalg.norm(value - np.asarray(parameter.truth).reshape(-1, 3), axis=1)
        row["off"] = f"{off.mean():.3g} on average, {off.max():.3g} at most"
    return row


def _blank(value: float) -> str:
    return number(value) if math.isfinite(value) else "–"


def _swatch(parameter: ParameterReport) -> str:
    """Start and result as two small squares of colour, for reflectances."""
    value = np.asarray(parameter.value, np.float64).ravel()
    if value.size != 3 or parameter.kind != "color" or value.max() > 1 or value.min() < 0:
        return ""
    squares = []
    for label, color in (("start", parameter.start), ("result", parameter.value), ("truth", parameter.truth)):
        if color is not None:
            r, g, b = to_8bit(np.asarray(color, np.float32).reshape(1, 1, 3))[0, 0]
            squares.append(
                f'<svg viewBox="0 0 10 10" role="img" aria-label="{label} colour" '
                f'style="display:inline-block;width:1.2em;height:1.2em;vertical-align:-.2em">'
                f'<title>{label}</title><rect width="10" height="10" fill="rgb({r},{g},{b})"/></svg>'
            )
    return " ".join(squares)


def _choose(views: list[ViewReport]) -> list[ViewReport]:
    """All views, or the held-out and the worst ones when there are too many, in the order of the job."""
    if len(views) <= MAX_PICTURED_VIEWS:
        return views
    ranked = sorted(range(len(views)), key=lambda i: (not views[i].holdout, -(views[i].error() or 0)))
    return [views[i] for i in sorted(ranked[:MAX_PICTURED_VIEWS])]


def _difference_scale(views: list[ViewReport]) -> float:
    """One scale for all difference pictures, large enough for the differences that matter, never for noise alone."""
    differences = [_masked(v.result - v.target, v.mask).mean(axis=-1).ravel() for v in views if v.result is not None]
    if not differences:
        return 1.0
    brightest = max(float(np.percentile(v.target, 99.5)) for v in views)
    # a lamp in view or a bright rim would hide everything else, so that a few per cent of the pixels may saturate
    return max(signed_scale(np.concatenate(differences), 98.0), 1e-3 * brightest) or 1.0


def _masked(image: Array, mask: Array | None) -> Array:
    return image if mask is None else image * mask[..., None]


def _view(view: ViewReport, difference_scale: float) -> dict[str, Any]:
    scale = display_scale(view.target)
    shape = f"{view.target.shape[1]} × {view.target.shape[0]} pixels"
    exposure = "" if scale == 1 else f", shown {scale:.3g} times as bright"
    error, start = view.error(), view.error("start")
    psnr = view.psnr(1 / display_scale(view.target))
    caption = shape + exposure
    if view.lit is not None:
        caption += f"; lit by {', '.join(view.lit)}"
    if error is not None:
        caption += f"; RMS error {error:.3g}" + (f" (start {start:.3g})" if start is not None else "")
        caption += f", PSNR {psnr:.1f} dB" if psnr is not None else ""
    if view.mask is not None:
        caption += f"; {100 * float((view.mask > 0).mean()):.0f} % of the pixels count, the others are dimmed"

    def shown(image: Array | None) -> str | None:
        if image is None:
            return None
        # what the mask leaves out is dimmed rather than hidden: one sees where the mask lies
        dim = 1.0 if view.mask is None else 0.25 + 0.75 * view.mask[..., None]
        return data_uri(to_8bit(_fit(np.asarray(image * dim * scale, np.float32))))

    difference = None
    if view.result is not None:
        signed = _masked(np.asarray(view.result, np.float32) - view.target, view.mask).mean(axis=-1)
        difference = data_uri(diverging_pixels(_fit_signed(signed), difference_scale))
    return {
        "name": view.name,
        "holdout": view.holdout,
        "caption": caption,
        "small": view.target.shape[1] < 200,
        "target": shown(view.target),
        "start": shown(view.start),
        "result": shown(view.result),
        "difference": difference,
    }


def _view_row(view: ViewReport) -> dict[str, str]:
    error, start = view.error(), view.error("start")
    psnr = view.psnr(1 / display_scale(view.target))
    return {
        "name": view.name,
        "use": "prediction" if view.holdout else "fit",
        "start": "–" if start is None else f"{start:.3g}",
        "error": "–" if error is None else f"{error:.3g}",
        "psnr": "–" if psnr is None else f"{psnr:.1f} dB",
    }


def _texture(parameter: ParameterReport) -> dict[str, Any]:
    value = np.asarray(parameter.value, np.float32)
    scale = display_scale(value)
    pictures = []
    for label, array in (("start", parameter.start), ("result", value), ("truth", parameter.truth)):
        if array is not None:
            pictures.append(
                (label, data_uri(to_8bit(_fit(np.asarray(array, np.float32).reshape(value.shape) * scale))))
            )
    caption = f"{value.shape[1]} × {value.shape[0]} texels, {value.min():.3g} to {value.max():.3g}"
    caption += "" if scale == 1 else f", shown {scale:.3g} times as bright"
    if parameter.truth is not None:
        rms = float(np.sqrt(np.mean((value - np.asarray(parameter.truth).reshape(value.shape)) ** 2)))
        caption += f"; RMS difference to the truth {rms:.3g}"
    return {"key": parameter.key, "caption": caption, "pictures": pictures, "small": value.shape[1] < 200}


def _fit(image: Array) -> Array:
    """Average down to `MAX_WIDTH` columns; negative and non-finite values become 0."""
    image = np.nan_to_num(np.maximum(image, 0), posinf=0)
    if image.shape[1] <= MAX_WIDTH:
        return image
    return resample(image, (MAX_WIDTH, max(1, round(image.shape[0] * MAX_WIDTH / image.shape[1]))))


def _fit_signed(image: Array) -> Array:
    if image.shape[1] <= MAX_WIDTH:
        return image
    return _fit(image) - _fit(-image)
