"""Fills the marked tables of the documentation from results, and draws its plots.

    <!-- control table -->
    ... what `publish` wrote ...
    <!-- end of control table -->

A marker without its end gets table and end inserted below it. `publish(write=False)` names what is stale; tests call
it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pathtracer.errors import InputError

from .catalogue_table import catalogue_table
from .plots import PLOTS
from .record import REPOSITORY, read_result
from .tables import TABLES as MORE_TABLES
from .tables import conditions
from .warp_tables import WARP_TABLES

#: Every table that a page may ask for.
TABLES = {**MORE_TABLES, **WARP_TABLES, "catalogue": ("catalogue", catalogue_table)}


def table_text(name: str, results: Path) -> str | None:
    """The table of a marker with the line on its conditions; None when there is no result for it."""
    file, make = TABLES[name]
    path = results / f"{file}.json"
    if not path.is_file():
        return None
    if file.startswith("speed"):  # written by benchmarks/speed.py
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        where = f"{record['processor']}, {record['cores']} cores, {record['variant']}, Mitsuba {record['mitsuba']}"
        size = f"{record['resolution']} x {record['resolution']}, {record['spp']} samples, {record['rounds']} rounds"
        return f"{make(record)}\n\n*{where}; {size}.*"
    record = read_result(path)
    return f"{make(record)}\n\n{conditions(record)}"


def filled(text: str, results: Path, insert: bool = True) -> str:
    """A page with its tables up to date.

    Args:
        insert: fill markers that have no end yet.
    """
    for name in TABLES:
        start, end = f"<!-- {name} table -->", f"<!-- end of {name} table -->"
        if start not in text:
            continue
        table = table_text(name, results)
        if table is None:
            continue
        body = f"{start}\n\n{table}\n\n{end}"
        if end in text:
            text = text[: text.index(start)] + body + text[text.index(end) + len(end) :]
        elif insert:
            text = text.replace(start, body)
    return text


def pages(root: Path) -> list[Path]:
    """The pages that may hold markers."""
    return [p for p in (root / "README.md", *sorted((root / "docs").rglob("*.md"))) if p.is_file()]


def fingerprint(files: list[Path]) -> str:
    """Hash of the results that a plot was made from."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def plot_source(path: Path) -> str:
    """The fingerprint that a picture carries; "" for none."""
    from PIL import Image

    if not path.is_file():
        return ""
    with Image.open(path) as image:
        return str(image.info.get("Source", ""))


def publish(results: Path, write: bool = True, root: Path = REPOSITORY) -> list[Path]:
    """Bring pages and plots up to date.

    Args:
        results: the folder of the JSON files.
        write: whether to change files; else only find what is stale. Markers without an end were never published and
            are not stale.

    Returns:
        The files that were (or would have to be) written.

    Raises:
        InputError: there is no checkout to publish in.
    """
    if not (root / "docs").is_dir():
        raise InputError("no documentation to publish in", where=str(root), remedy="run it in a checkout")
    changed = []
    for page in pages(root):
        old = page.read_text(encoding="utf-8")
        new = filled(old, results, insert=write)
        if new != old:
            changed.append(page)
            if write:
                page.write_text(new, encoding="utf-8")
    for name, (files, draw) in PLOTS.items():
        sources = [results / f for f in files]
        if not all(s.is_file() for s in sources):
            continue
        path, source = root / "docs" / "figures" / f"{name}.png", fingerprint(sources)
        if plot_source(path) == source:
            continue
        changed.append(path)
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure = draw(*sources)
            figure.savefig(path, dpi=130, metadata={"Source": source}, bbox_inches="tight")
    return changed
