"""One comparison as one picture that explains itself: the view, reference, gradient and difference at one scale.

Above the panels stands what moves, the estimator and the verdict; below, the scale and what is outlined. Nothing else
is needed to read it, since pictures get separated from the pages that they were made for.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

import numpy as np

from pathtracer.capture.images import to_8bit
from pathtracer.report.pictures import Pixels, display_scale, diverging_pixels, signed_scale

from .comparison import Comparison
from .statistics import Verdict

_OUTLINE = {Verdict.FAIL: (220, 0, 200), Verdict.INCONCLUSIVE: (230, 160, 0)}
_OUTLINE_WORDS = {
    Verdict.FAIL: "outlined in magenta: blocks that differ",
    Verdict.INCONCLUSIVE: "outlined in orange: blocks that are not yet clear",
}
_COLORS = {
    Verdict.PASS: (8, 112, 45),
    Verdict.FAIL: (176, 0, 32),
    Verdict.INCONCLUSIVE: (138, 90, 0),
    Verdict.UNSUPPORTED: (85, 85, 85),
}
_GAP, _MARGIN, _LINE = 10, 12, 17
_WIDTH = 216


def number(value: float, digits: int = 3) -> str:
    """A number, or a dash where there is none."""
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"


def slope_text(c: Comparison) -> str:
    """The slope with its confidence interval."""
    low, high = c.slope_interval()
    return f"{c.slope:.3f} [{low:.3f}, {high:.3f}]" if np.isfinite(c.slope) else "–"


def unit_of(motion: str) -> str:
    """What one unit of θ is, by the kinds of motion (`motion.py`): "scene unit", "radian", …"""
    kinds = {re.split("[:@]", step.split()[-1])[0] for step in motion.split(" + ")}
    names = {"translate": "scene unit", "rotate": "radian", "scale": "relative growth"}
    return names.get(next(iter(kinds)), "unit of the parameter") if len(kinds) == 1 else "unit of the motion"


def picture(c: Comparison, blocks: int) -> Pixels | None:
    """The picture of a comparison, (H, W, 3) 8-bit pixels; None when there is no gradient to show.

    Args:
        blocks: the image was divided into blocks × blocks.
    """
    if c.gradient is None or c.reference is None:
        return None
    reference, gradient = (x[..., : x.shape[-1] - c.aovs] for x in (c.reference, c.gradient))
    scale = signed_scale(reference.mean(-1))
    factor = max(1, round(_WIDTH / reference.shape[1]))
    panels = [("finite differences", diverging_pixels(reference, scale))]
    panels.append((c.estimator, diverging_pixels(gradient, scale)))
    panels.append((f"{c.estimator} minus finite differences", diverging_pixels(gradient - reference, scale)))
    if c.view is not None:
        view = c.view[..., : c.view.shape[-1] - c.aovs]
        shown = np.broadcast_to(view, (*view.shape[:2], 3)) * display_scale(view)
        panels.insert(0, ("the view", to_8bit(np.asarray(shown, np.float32))))
    enlarged = [(title, pixels.repeat(factor, 0).repeat(factor, 1)) for title, pixels in panels]
    color = _OUTLINE.get(c.verdict)
    outlined = False
    for test in c.decisive if color is not None else []:
        place = re.match(r"block (\d+),(\d+)", test.name)
        if place and color is not None:
            _outline(enlarged[-1][1], c.reference.shape, blocks, int(place[1]), int(place[2]), factor, color)
            outlined = True
    return _compose(c, enlarged, scale, _OUTLINE_WORDS[c.verdict] if outlined else "")


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


def _compose(c: Comparison, panels: list[tuple[str, Pixels]], scale: float, outline: str) -> Pixels:
    """Heading, titled panels, scale bar and legend on one white canvas."""
    from PIL import Image, ImageDraw, ImageFont

    small, large = ImageFont.load_default(size=12), ImageFont.load_default(size=15)
    height, width = panels[0][1].shape[:2]
    total = len(panels) * width + (len(panels) - 1) * _GAP
    columns = max(24, int(total / 6.6))  # characters of the small font that fit
    name = f"{c.case}: {c.motion}" if c.case else c.motion
    heading = textwrap.wrap(f"{name}   ({c.estimator})", max(20, int(columns * 0.75)))
    found = textwrap.wrap(_findings(c), columns)
    titles = [textwrap.wrap(title, max(8, int(width / 6.6))) for title, _ in panels]
    bar_text = f"change of radiance per {unit_of(c.motion)}, mean of the colours; grows where red, falls where blue"
    others = f"{c.aovs} channels of aovs were checked too, and are not shown" if c.aovs else ""
    legend = textwrap.wrap("; ".join(filter(None, [bar_text, others, outline, _bad_pixels(c)])), columns)

    y_found = _MARGIN + (len(heading) + 0) * (_LINE + 3)
    y_titles = y_found + len(found) * _LINE + 6
    y_panels = y_titles + max(map(len, titles)) * (_LINE - 2) + 3
    y_bar = y_panels + height + 8
    canvas = Image.new("RGB", (total + 2 * _MARGIN, y_bar + 32 + len(legend) * _LINE + _MARGIN // 2), "white")
    draw = ImageDraw.Draw(canvas)
    _lines(draw, heading, _MARGIN, _MARGIN, _LINE + 3, large, (0, 0, 0))
    _lines(draw, found, _MARGIN, y_found, _LINE, small, _COLORS[c.verdict])
    for k, ((_, pixels), title) in enumerate(zip(panels, titles, strict=True)):
        x = _MARGIN + k * (width + _GAP)
        _lines(draw, title, x, y_titles, _LINE - 2, small, (0, 0, 0))
        canvas.paste(Image.fromarray(pixels), (x, y_panels))
        draw.rectangle((x - 1, y_panels - 1, x + width, y_panels + height), outline=(170, 170, 170))
    signed = total - (width + _GAP if c.view is not None else 0)  # the bar belongs to the signed panels
    left = _MARGIN + total - signed
    ramp = diverging_pixels(np.linspace(-1, 1, signed)[None], 1.0).repeat(10, 0)
    canvas.paste(Image.fromarray(ramp), (left, y_bar))
    draw.rectangle((left - 1, y_bar - 1, left + signed, y_bar + 10), outline=(120, 120, 120))
    for x, text, anchor in ((left, f"-{scale:.3g}", "la"), (left + signed // 2, "0", "ma"),
                            (left + signed, f"+{scale:.3g}", "ra")):  # fmt: skip
        draw.text((x, y_bar + 13), text, fill=(0, 0, 0), font=small, anchor=anchor)
    _lines(draw, legend, _MARGIN, y_bar + 31, _LINE, small, (70, 70, 70))
    return np.asarray(canvas)


def _lines(draw: Any, lines: list[str], x: int, y: int, step: int, font: Any, fill: tuple[int, int, int]) -> None:
    for k, line in enumerate(lines):
        draw.text((x, y + k * step), line, fill=fill, font=font)


def _findings(c: Comparison) -> str:
    words = [str(c.verdict).upper() + ":", f"slope {slope_text(c)} (1 is right)"]
    if np.isfinite(c.backward):
        words.append(f"backward {number(c.backward)}")
    if np.isfinite(c.worst_block):
        words.append(f"worst block {number(c.worst_block, 2)} of its margin")
    return f"{words[0]} {', '.join(words[1:])}"


def _bad_pixels(c: Comparison) -> str:
    assert c.gradient is not None
    bad = int((~np.isfinite(c.gradient).all(-1)).sum())
    return f"green: {bad} pixels that are not finite" if bad else ""
