"""Pictures, curves and the self-contained page that tells how a run went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .data import ParameterReport, ReportData, ViewReport, WarningReport
from .page import render_page, write_page
from .pictures import diverging_picture, diverging_png, preview_png

if TYPE_CHECKING:
    from pathtracer.inverse import Result


def write_report(source: Result | ReportData | str | Path, path: str | Path) -> Path:
    """Write the report of a run folder or of a result in memory as one HTML file, whole or not at all.

    Args:
        source: a run folder (finished or going on), a `Result`, or a `ReportData` that was filled by hand.
        path: the HTML file. While a run goes on the page reloads itself.
    Raises:
        UsageError: the folder is no run folder. InputError: one of its files is damaged.
        StorageFault: the page cannot be written.
    """
    from .sources import gather

    data = gather(source)
    return write_page(data, path, refresh=15 if data.status == "running" else None)


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
    "write_report",
]
