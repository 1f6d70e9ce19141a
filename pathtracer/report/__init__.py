"""Pictures, curves and the self-contained page that tells how a run went."""

from __future__ import annotations

from .data import ParameterReport, ReportData, ViewReport, WarningReport
from .page import render_page, write_page
from .pictures import diverging_picture, diverging_png, preview_png

__all__ = [
    "ParameterReport",
    "ReportData",
    "ViewReport",
    "WarningReport",
    "diverging_picture",
    "diverging_png",
    "preview_png",
    "render_page",
    "write_page",
]
