"""The result of a check for people: pictures at one scale with the failing blocks outlined, and a page of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from pathtracer.capture.images import atomic_path
from pathtracer.report.pictures import Pixels, data_uri, diverging_pixels, signed_scale, write_png

from .check import Comparison
from .checker import CheckReport
from .statistics import Verdict

_OUTLINE = {Verdict.FAIL: (220, 0, 200), Verdict.INCONCLUSIVE: (230, 160, 0)}
_GAP = 6
_WIDTH = 240

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Gradient check</title><style>
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd;
vertical-align:top}td.n{text-align:right;font-variant-numeric:tabular-nums}
.pass{color:#08702d}.fail{color:#b00020;font-weight:600}.inconclusive{color:#8a5a00}.unsupported{color:#555}
img{image-rendering:pixelated;max-width:100%}figure{margin:.5rem 0 2rem}figcaption{color:#555}
</style></head><body>
<h1>Gradients against finite differences</h1>
<p>Tolerance ±{{ "%.1f" % (100 * s.tolerance) }} % on slope and backward gradient,
±{{ "%.0f" % (100 * s.block_tolerance) }} % of the strongest block on blocks;
confidence {{ "%.0f" % (100 * s.confidence) }} %.
Red positive, blue negative, green not finite; the three pictures of a row share one scale. Outlined: blocks that
<span class="fail">differ</span> (magenta) or are <span class="inconclusive">not yet clear</span> (orange).</p>
{{ table }}
{% for item in items %}<h2>{{ item.c.motion }} · {{ item.c.estimator }} · <span class="{{ item.c.verdict }}">{{
item.c.verdict }}</span></h2>
<p>{{ item.c.reason }}{% if item.c.remedy %}. Instead: {{ item.c.remedy }}{% endif %}.</p>
{% if item.uri %}<figure><img src="{{ item.uri }}" alt="finite differences, {{ item.c.estimator }}, difference">
<figcaption>Finite differences, {{ item.c.estimator }}, difference; ±{{ "%.3g" % item.scale }} per unit of the motion;
{{ item.c.spp }} and {{ item.c.reference_spp }} samples per pixel and replicate, step {{ "%.3g" % item.c.epsilon }}.
</figcaption></figure>{% endif %}
{% for note in item.c.notes %}<p>Note: {{ note }}</p>{% endfor %}
{% endfor %}</body></html>
"""

_TABLE = """<table><tr><th>moves</th><th>estimator</th><th>verdict</th><th>slope</th><th>backward</th>
<th>worst block</th><th>seconds</th></tr>
{% for c in comparisons %}<tr><td>{{ c.motion }}</td><td>{{ c.estimator }}</td><td class="{{ c.verdict }}">{{ c.verdict
}}</td><td class="n">{{ slope(c) }}</td><td class="n">{{ number(c.backward) }}</td><td class="n">{{
number(c.worst_block, 2) }}</td><td class="n">{{ "%.1f" % c.seconds }}</td></tr>
{% endfor %}</table>
"""


def number(value: float, digits: int = 3) -> str:
    """A number, or a dash where there is none."""
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"


def slope_text(c: Comparison) -> str:
    """The slope with its confidence interval."""
    low, high = c.slope_interval()
    return f"{c.slope:.3f} [{low:.3f}, {high:.3f}]" if np.isfinite(c.slope) else "–"


def picture(c: Comparison, blocks: int) -> tuple[Pixels, float] | None:
    """Reference, gradient and difference side by side at one scale; None when there is no gradient.

    Returns:
        8-bit pixels, and the value at the ends of the scale.
    """
    if c.gradient is None or c.reference is None:
        return None
    scale = signed_scale(c.reference.mean(-1))
    factor = max(1, _WIDTH // c.reference.shape[1])
    panels = []
    for image in (c.reference, c.gradient, c.gradient - c.reference):
        pixels = diverging_pixels(image, scale).repeat(factor, 0).repeat(factor, 1)
        panels += [pixels, np.full((pixels.shape[0], _GAP, 3), 255, np.uint8)]
    color = _OUTLINE.get(c.verdict)
    if color is not None:
        for test in c.decisive:
            place = re.match(r"block (\d+),(\d+)", test.name)
            if place:
                _outline(panels[4], c.reference.shape, blocks, int(place[1]), int(place[2]), factor, color)
    return np.concatenate(panels[:-1], axis=1), scale


def _outline(
    pixels: Pixels, shape: tuple[int, ...], blocks: int, row: int, column: int, factor: int, color: tuple[int, int, int]
) -> None:
    rows = np.array_split(np.arange(shape[0]), min(blocks, shape[0]))[row]
    columns = np.array_split(np.arange(shape[1]), min(blocks, shape[1]))[column]
    top, bottom = rows[0] * factor, (rows[-1] + 1) * factor
    left, right = columns[0] * factor, (columns[-1] + 1) * factor
    inner = pixels[top + 2 : bottom - 2, left + 2 : right - 2].copy()
    pixels[top:bottom, left:right] = color
    pixels[top + 2 : bottom - 2, left + 2 : right - 2] = inner


def render_table(report: CheckReport) -> str:
    """The table alone, as HTML."""
    import jinja2

    template = jinja2.Environment(autoescape=True).from_string(_TABLE)
    return template.render(comparisons=report.comparisons, slope=slope_text, number=number)


def render_page(report: CheckReport) -> str:
    """The whole page, which needs no other file."""
    import jinja2
    from markupsafe import Markup

    items = []
    for c in report.comparisons:
        shown = picture(c, report.settings.blocks)
        items.append({"c": c, "uri": data_uri(shown[0]) if shown else "", "scale": shown[1] if shown else 0.0})
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(_PAGE)
    return template.render(s=report.settings, items=items, table=Markup(render_table(report)))


def write_check(report: CheckReport, folder: Path) -> list[Path]:
    """Write `check.html`, one PNG for each comparison, and `check.json` into a folder.

    Returns:
        The files, the page first.

    Raises:
        StorageFault: the folder cannot be written.
    """
    files = [folder / "check.html", folder / "check.json"]
    with atomic_path(files[0]) as temporary:
        temporary.write_text(render_page(report), encoding="utf-8")
    with atomic_path(files[1]) as temporary:
        temporary.write_text(json.dumps(_finite(report.to_dict()), indent=1, allow_nan=False), encoding="utf-8")
    used: set[str] = set()
    for c in report.comparisons:
        shown = picture(c, report.settings.blocks)
        if shown is None:
            continue
        stem = re.sub(r"[^\w.-]+", "-", f"{c.motion}-{c.estimator}").strip("-")[:100]
        name = stem if stem not in used else f"{stem}-{len(used)}"
        used.add(name)
        files.append(folder / f"{name}.png")
        write_png(shown[0], files[-1])
    return files


def _finite(value: Any) -> Any:
    """JSON knows no NaN: null instead."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
