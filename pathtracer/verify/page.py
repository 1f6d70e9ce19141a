"""The result of a check for people: one page that needs no other file, and the same pictures as files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from pathtracer.capture.images import atomic_path
from pathtracer.report.pictures import data_uri, write_png

from .checker import CheckReport
from .pictures import number, picture, slope_text

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Gradient check</title><style>
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd;
vertical-align:top}td.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
.pass{color:#08702d}.fail{color:#b00020;font-weight:600}.inconclusive{color:#8a5a00}.unsupported{color:#555}
img{max-width:100%;border:1px solid #ddd}figure{margin:.5rem 0 2rem}figcaption{color:#555}
</style></head><body>
<h1>Gradients against finite differences</h1>
<p>{{ summary }} Tolerance ±{{ "%.1f" % (100 * s.tolerance) }} % on slope and backward gradient,
±{{ "%.0f" % (100 * s.block_tolerance) }} % of the strongest block on blocks;
confidence {{ "%.0f" % (100 * s.confidence) }} %.
<em>slope</em> is estimate over reference for the whole image, with its confidence interval: 1 is right, 0 means that
the estimator sees no change. <em>backward</em> is the same for the backward mode, <em>worst block</em> the largest
error of an image block in units of its margin.</p>
{{ table }}
{% for item in items %}{% set c = item.c %}
<h2>{% if c.case %}{{ c.case }} · {% endif %}{{ c.motion }} · {{ c.estimator }} ·
<span class="{{ c.verdict }}">{{ c.verdict }}</span></h2>
<p>{{ c.reason }}{% if c.remedy %}. Instead: {{ c.remedy }}{% endif %}.
{% if c.expected %}Expected: {{ c.expected }}.{% endif %}</p>
{% if item.uri %}<figure><img src="{{ item.uri }}" alt="the view, finite differences, {{ c.estimator }}, difference">
<figcaption>{{ c.spp }} samples per pixel and replicate of {{ c.estimator }}, {{ c.reference_spp }} of the finite
differences, step {{ "%.3g" % c.epsilon }}; {{ "%.1f" % c.seconds }} s.</figcaption></figure>{% endif %}
{% for note in c.notes %}<p>Note: {{ note }}</p>{% endfor %}
{% endfor %}</body></html>
"""

_TABLE = """<table><tr>{% if cases %}<th>case</th>{% endif %}<th>moves</th><th>estimator</th><th>verdict</th>
{% if cases %}<th>expected</th>{% endif %}<th>slope</th><th>backward</th><th>worst block</th><th>seconds</th></tr>
{% for c in comparisons %}<tr>{% if cases %}<td>{{ c.case }}</td>{% endif %}<td>{{ c.motion }}</td>
<td>{{ c.estimator }}</td><td class="{{ c.verdict }}">{{ c.verdict }}</td>
{% if cases %}<td{% if c.as_expected == False %} class="fail"{% endif %}>{{ c.expected or "–" }}</td>{% endif %}
<td class="n">{{ slope(c) }}</td><td class="n">{{ number(c.backward) }}</td>
<td class="n">{{ number(c.worst_block, 2) }}</td><td class="n">{{ "%.1f" % c.seconds }}</td></tr>
{% endfor %}</table>
"""


def render_table(report: CheckReport) -> str:
    """The table alone, as HTML."""
    import jinja2

    template = jinja2.Environment(autoescape=True).from_string(_TABLE)
    cases = any(c.case for c in report.comparisons)
    return template.render(comparisons=report.comparisons, cases=cases, slope=slope_text, number=number)


def render_page(report: CheckReport) -> str:
    """The whole page, which needs no other file."""
    import jinja2
    from markupsafe import Markup

    items = []
    for c in report.comparisons:
        shown = picture(c, report.settings.blocks)
        items.append({"c": c, "uri": "" if shown is None else data_uri(shown)})
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(_PAGE)
    table = Markup(render_table(report))
    return template.render(s=report.settings, items=items, table=table, summary=report.summary())


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
        stem = re.sub(r"[^\w.-]+", "-", f"{c.case or c.motion}-{c.estimator}").strip("-")[:100]
        name = stem if stem not in used else f"{stem}-{len(used)}"
        used.add(name)
        files.append(folder / f"{name}.png")
        write_png(shown, files[-1])
    return files


def _finite(value: Any) -> Any:
    """JSON knows no NaN: null instead."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
