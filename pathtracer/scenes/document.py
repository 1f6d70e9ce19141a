"""Reading scene XML with our own eyes before Mitsuba sees it.

Everything that could hurt is refused here, with file, line and column: files that are absent, huge, nested too deeply
or malformed, document type declarations and entities, include loops, files outside the scene's root folder, `$names`
that nobody defines. What comes out is the list of elements that stand for objects, in the order in which Mitsuba's
parser numbers its nodes; export patches these elements in place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lxml import etree

from ..errors import InputError, UsageError, nearest_names

#: Larger files are refused before parsing.
MAX_BYTES = 64 * 1024 * 1024
#: Deeper nesting of elements is refused.
MAX_DEPTH = 100
#: Mitsuba's own limit on includes inside includes.
MAX_INCLUDES = 15

#: Elements that stand for a Mitsuba object.
OBJECT_TAGS = frozenset(
    re.findall(r"\w+", "scene bsdf emitter film integrator medium phase rfilter sampler sensor shape texture volume")
)
_PROPERTY_TAGS = frozenset(
    re.findall(r"\w+", "boolean integer float string point vector spectrum rgb ref include alias default path")
)
_TRANSFORM_TAGS = frozenset(re.findall(r"\w+", "transform translate matrix rotate scale lookat"))
_DOLLAR = re.compile(r"(?<!\\)\$([A-Za-z0-9_]+)")


@dataclass
class Document:
    """One XML file of a scene.

    Attributes:
        path: as it was found.
        tree: the parsed file, comments and all.
        defines: the `$names` in force, shared by all documents of a scene.
        include: the `<include>` element that brought this file in, None for the scene file itself.
        parent: the document with that element.
    """

    path: Path
    tree: Any
    defines: dict[str, str]
    include: Any | None = None
    parent: Document | None = None

    def where(self, element: Any, attribute: str | None = None) -> str:
        """File and line of an element (lxml keeps no columns; they are found in the text)."""
        line = element.sourceline
        column = _column(self.path, line, element.tag)
        spot = f"{self.path}, line {line}" + (f", column {column}" if column else "")
        return f"{spot}, attribute {attribute!r}" if attribute else spot

    def value(self, element: Any, attribute: str, default: str = "") -> str:
        """An attribute with its `$names` replaced."""
        return substitute(element.get(attribute, default), self.defines)


@dataclass
class ObjectElement:
    """An XML element that stands for a Mitsuba object."""

    element: Any
    document: Document

    def child(self, name: str) -> Any | None:
        """The direct child element with attribute `name="..."`, the last one as in Mitsuba."""
        found = None
        for child in self.element.iterchildren(etree.Element):
            if self.document.value(child, "name") == name:
                found = child
        return found


@dataclass
class SceneFile:
    """A scene and all the files that it includes.

    Attributes:
        documents: the scene file first, then every included file in order of appearance (once per `<include>`).
        objects: the elements of all objects, numbered as the nodes of `mi.parser`.
        search: folders in which relative file names are looked up.
        root: folder that files may not leave, resolved; None when anything goes.
        unused: `-D` names that stand nowhere in the scene.
    """

    documents: list[Document]
    objects: list[ObjectElement]
    search: list[Path]
    root: Path | None
    unused: list[str] = field(default_factory=list)

    def resolve(self, name: str) -> Path:
        """Where Mitsuba would find a file: beside the scene, in its `<path>`s, else the name itself."""
        return _resolve(name, self.search)

    def check_inside(self, path: Path, name: str, where: str) -> None:
        """Refuse a file that lies outside the root folder, symbolic links followed."""
        check_inside(path, name, where, self.root)


def read_scene_file(path: Path, root: Path | None, defines: Mapping[str, str]) -> SceneFile:
    """Read a scene and its includes.

    Args:
        path: the XML file.
        root: folder that no file may leave; None allows everything.
        defines: `-D` values.

    Raises:
        InputError: anything wrong with the files.
        UsageError: a `-D` name that the scene does not know.
    """
    reader = _Reader(path, root, dict(defines))
    reader.read(path, None, None, ())
    for name in defines:
        if name not in reader.used and name not in reader.defaults:
            known = sorted(reader.defaults)
            raise UsageError(
                f"the scene has no default named {name!r}",
                where=path,
                nearest=nearest_names(name, known),
                remedy="it has " + ", ".join(known) if known else 'the scene has no <default name="..." value="..."/>',
            )
    reader.scene.unused = [name for name in defines if name not in reader.used]
    return reader.scene


def substitute(text: str, defines: Mapping[str, str]) -> str:
    """Replace `$name`, longest names first, as Mitsuba does; `\\$` is a plain dollar."""
    if "$" not in text:
        return text
    for name in sorted(defines, key=len, reverse=True):
        value = defines[name]
        text = re.sub(r"(?<!\\)\$" + re.escape(name), lambda _match, value=value: value, text)  # type: ignore[misc]
    return text.replace("\\$", "$")


def check_inside(path: Path, name: str, where: str, root: Path | None) -> None:
    """Refuse a file outside `root`, symbolic links followed.

    Raises:
        InputError: it is outside.
    """
    if root is None:
        return
    real = Path(os.path.realpath(path))
    if real.is_relative_to(root):
        return
    via = " through a symbolic link" if Path(os.path.abspath(path)).is_relative_to(root) else ""
    raise InputError(
        f"the file {name!r} leaves the scene's folder {root}{via}",
        where=where,
        remedy="copy it there, name a wider folder as root, or pass --allow-outside",
    )


def read_bytes(path: Path, what: str = "scene") -> bytes:
    """The contents of an XML file, after the checks that need no parsing."""
    if path.is_dir():
        inside = sorted(p.name for p in path.glob("*.xml"))
        raise InputError(f"is a folder, not a {what} file", where=path, nearest=[str(path / n) for n in inside[:2]])
    if not path.exists():
        try:
            beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        except OSError:
            beside = []
        close = nearest_names(path.name, beside)
        raise InputError(f"no such {what} file", where=path, nearest=[str(path.parent / n) for n in close])
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(
            f"the {what} file has {size / 2**20:.0f} MB, more than the {MAX_BYTES // 2**20} MB that are accepted",
            where=path,
            remedy="move the data into mesh or texture files",
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"the {what} file cannot be read: {error.strerror}", where=path) from error
    if not data.strip():
        raise InputError(f"the {what} file is empty", where=path)
    return data


def parse_xml(path: Path, what: str = "scene") -> Any:
    """Parse one file without following entities or touching the network.

    Raises:
        InputError: refused or malformed, with line and column.
    """
    data = read_bytes(path, what)
    match = re.search(rb"<!\s*(DOCTYPE|ENTITY)", re.sub(rb"<!--.*?-->", b"", data, flags=re.S))
    if match:
        raise _no_doctype(path)
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        message = re.sub(r", line \d+, column \d+.*$", "", str(error.msg)).strip()
        if "xcessive depth" in message:
            raise _too_deep(path, error.position[0]) from error
        line, column = error.position
        raise InputError(f"malformed XML: {message}", where=f"{path}, line {line}, column {column}") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise _no_doctype(path)
    for element, depth in _with_depth(root):
        if depth > MAX_DEPTH:
            raise _too_deep(path, element.sourceline)
    return root.getroottree()


def _no_doctype(path: Path) -> InputError:
    return InputError(
        "the file declares a document type or entities, which are refused",
        where=path,
        remedy="remove <!DOCTYPE ...> and <!ENTITY ...>; a scene needs neither",
    )


def _too_deep(path: Path, line: int) -> InputError:
    return InputError(f"elements are nested more than {MAX_DEPTH} deep", where=f"{path}, line {line}")


def _with_depth(root: Any) -> Iterator[tuple[Any, int]]:
    stack = [(root, 1)]
    while stack:
        element, depth = stack.pop()
        yield element, depth
        stack.extend((child, depth + 1) for child in element)


def _column(path: Path, line: int, tag: str) -> int | None:
    """Column of the first `<tag` at or before a line (lxml counts the line where a start tag ends)."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    if not 1 <= line <= len(lines):
        return None
    found = lines[line - 1].find(f"<{tag}")
    return found + 1 if found >= 0 else None


def _resolve(name: str, search: list[Path]) -> Path:
    path = Path(name)
    if path.is_absolute():
        return path
    for folder in search:
        if (folder / path).exists():
            return folder / path
    return search[0] / path if search else path


class _Reader:
    """Walks the documents of a scene in the order of Mitsuba's parser."""

    def __init__(self, path: Path, root: Path | None, defines: dict[str, str]) -> None:
        self.given = set(defines)
        self.defines = defines
        self.defaults: set[str] = set()
        self.used: set[str] = set()
        self.scene = SceneFile([], [], [path.parent], root)

    def read(self, path: Path, include: Any | None, parent: Document | None, chain: tuple[Path, ...]) -> None:
        real = Path(os.path.realpath(path))
        if real in chain:
            names = " -> ".join(p.name for p in (*chain[chain.index(real) :], real))
            where = parent.where(include) if parent is not None and include is not None else path
            raise InputError(f"the files include each other in a loop: {names}", where=where)
        if len(chain) >= MAX_INCLUDES:
            raise InputError(f"includes are nested more than {MAX_INCLUDES} deep", where=path)
        tree = parse_xml(path, "scene" if include is None else "included")
        document = Document(path, tree, self.defines, include, parent)
        self.scene.documents.append(document)
        root = tree.getroot()
        if root.tag not in OBJECT_TAGS:
            raise InputError(
                f"the root element is <{root.tag}>, not a Mitsuba scene",
                where=document.where(root),
                remedy='a scene starts with <scene version="3.0.0">',
            )
        # The root of an included <scene> is no node of its own: Mitsuba merges its children into the parent.
        merged = include is not None and root.tag == "scene"
        self.walk(root, document, (*chain, real), counted=not merged)

    def walk(self, element: Any, document: Document, chain: tuple[Path, ...], counted: bool = True) -> None:
        self.check_names(element, document)
        tag = element.tag
        if tag in OBJECT_TAGS or (tag == "spectrum" and element.get("type") is not None):
            if counted:
                self.scene.objects.append(ObjectElement(element, document))
        elif tag == "default":
            name = document.value(element, "name")
            self.defaults.add(name)
            self.defines.setdefault(name, document.value(element, "value"))
        elif tag == "path":
            self.add_path(element, document)
        elif tag == "include":
            self.follow(element, document, chain)
        elif tag == "spectrum" and element.get("filename") is not None:
            self.check_spectrum(element, document)
        elif tag not in _PROPERTY_TAGS | _TRANSFORM_TAGS:
            raise InputError(
                f"unknown element <{tag}>",
                where=document.where(element),
                nearest=nearest_names(str(tag), OBJECT_TAGS | _PROPERTY_TAGS | _TRANSFORM_TAGS),
            )
        for child in element.iterchildren(etree.Element):
            self.walk(child, document, chain)

    def check_names(self, element: Any, document: Document) -> None:
        for attribute, text in element.attrib.items():
            if "$" not in text:
                continue
            rest = text
            for name in sorted(self.defines, key=len, reverse=True):
                pattern = r"(?<!\\)\$" + re.escape(name)
                if re.search(pattern, rest):
                    self.used.add(name)
                    rest = re.sub(pattern, "", rest)
            missing = _DOLLAR.search(rest)
            if missing:
                known = sorted(self.defines)
                raise InputError(
                    f"${missing.group(1)} is used but nowhere defined",
                    where=document.where(element, attribute),
                    nearest=["$" + n for n in nearest_names(missing.group(1), known)],
                    remedy=f'pass -D {missing.group(1)}=VALUE or add <default name="{missing.group(1)}" value="..."/>',
                )

    def add_path(self, element: Any, document: Document) -> None:
        name = document.value(element, "value")
        folder = Path(name) if Path(name).is_absolute() else document.path.parent / name
        if not folder.is_dir():
            folder = _resolve(name, self.scene.search)
        if not folder.is_dir():
            raise InputError(f"<path>: no such folder {name!r}", where=document.where(element))
        check_inside(folder, name, document.where(element), self.scene.root)
        if document.parent is None:
            self.scene.search.insert(0, folder)

    def follow(self, element: Any, document: Document, chain: tuple[Path, ...]) -> None:
        name = document.value(element, "filename")
        path = _resolve(name, [document.path.parent, *self.scene.search])
        check_inside(path, name, document.where(element), self.scene.root)
        if not path.is_file():
            raise InputError(
                f"no such included file {name!r}",
                where=document.where(element),
                nearest=nearest_names(name, [p.name for p in document.path.parent.glob("*.xml")]),
            )
        self.read(path, element, document, chain)

    def check_spectrum(self, element: Any, document: Document) -> None:
        name = document.value(element, "filename")
        path = _resolve(name, self.scene.search)
        check_inside(path, name, document.where(element), self.scene.root)
        if not path.is_file():
            raise InputError(f"no such spectrum file {name!r}", where=document.where(element))
