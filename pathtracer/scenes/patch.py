"""Changing single properties inside a user's scene XML: everything else of the file stays as it was written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lxml import etree

from .document import substitute


def number(value: float) -> str:
    """The shortest text that reads back as the same single-precision number."""
    return str(np.float32(value))


def numbers(values: Any, separator: str = ", ") -> str:
    """Several numbers as Mitsuba writes them."""
    return separator.join(number(v) for v in np.asarray(values).ravel())


class NodePatch:
    """The element of one Mitsuba object, and operations on its properties.

    Args:
        element: the element (of a copy of the user's tree).
        defines: `$names` in force, to recognise properties whose name is substituted.
    """

    def __init__(self, element: Any, defines: Mapping[str, str]) -> None:
        self.element, self.defines = element, defines

    def find(self, name: str) -> Any | None:
        """The child that sets property `name`, the last one as in Mitsuba; also under its Mitsuba 0.6 name."""
        names = (name, re.sub(r"_(\w)", lambda m: m.group(1).upper(), name))
        found = None
        for child in self.element.iterchildren(etree.Element):
            if substitute(child.get("name", ""), self.defines) in names:
                found = child
        return found

    def remove(self, *names: str) -> None:
        """Remove properties where they are set."""
        for name in names:
            while (child := self.find(name)) is not None:
                _drop(child)

    def put(self, tag: str, name: str, children: Sequence[Any] = (), **attributes: str) -> Any:
        """Set a property: in place when the file has it, as the first child otherwise.

        Returns:
            The element.
        """
        fresh = etree.Element(tag)
        fresh.set("name", name)
        for key, value in attributes.items():
            fresh.set(key, value)
        old = self.find(name)
        if old is not None:
            fresh.set("name", old.get("name"))
            fresh.tail = old.tail
            self.element.replace(old, fresh)
        else:
            insert_first(self.element, fresh)
        if children:
            indent, step = _indent_of(fresh), _step_of(self.element)
            inner = indent + step if indent else None
            fresh.text = inner
            for child in children:
                fresh.append(child)
                child.tail = inner
            children[-1].tail = indent or None
        return fresh

    def put_float(self, name: str, value: float) -> None:
        """`<float name=... value=.../>`."""
        self.put("float", name, value=number(value))

    def put_rgb(self, name: str, color: Any) -> None:
        """`<rgb name=... value="r, g, b"/>`."""
        self.put("rgb", name, value=numbers(color))

    def put_string(self, name: str, value: str) -> None:
        """`<string name=... value=.../>`."""
        self.put("string", name, value=value.replace("$", "\\$"))

    def put_boolean(self, name: str, value: bool) -> None:
        """`<boolean name=... value=.../>`."""
        self.put("boolean", name, value="true" if value else "false")

    def put_integer(self, name: str, value: int) -> None:
        """`<integer name=... value=.../>`."""
        self.put("integer", name, value=str(int(value)))

    def put_vector(self, name: str, value: Any, tag: str = "point") -> None:
        """`<point name=... x=... y=... z=.../>`."""
        x, y, z = (number(v) for v in np.asarray(value).ravel())
        self.put(tag, name, x=x, y=y, z=z)

    def put_matrix(self, name: str, matrix: Any) -> None:
        """`<transform name=...><matrix value="16 numbers"/></transform>`."""
        inner = etree.Element("matrix")
        inner.set("value", numbers(matrix, " "))
        self.put("transform", name, [inner])


def insert_first(parent: Any, child: Any) -> None:
    """Insert an element before all others, indented like them."""
    if len(parent):
        child.tail = parent.text if parent.text and not parent.text.strip() else None
        parent.insert(0, child)
        return
    outer = _indent_of(parent)
    parent.text, child.tail = (outer + _step_of(parent.getparent()), outer) if outer else (None, None)
    parent.append(child)


def serialize(tree: Any, original: bytes) -> bytes:
    """The XML of a patched tree, between the very bytes that the user has before and after the root element."""
    encoding = tree.docinfo.encoding or "utf-8"
    text = original.decode(encoding)
    prolog = re.match(r"(?:\s|\ufeff|<!--.*?-->|<\?.*?\?>)*", text, flags=re.S)
    end = f"</{tree.getroot().tag}>"
    epilog = text.rpartition(end)[2] if end in text else "\n"
    body = etree.tostring(tree.getroot(), encoding="unicode", with_tail=False)
    return ((prolog.group() if prolog else "") + body + epilog).encode(encoding, errors="xmlcharrefreplace")


def _drop(child: Any) -> None:
    """Remove an element, leaving the line breaks before it alone."""
    parent, previous = child.getparent(), child.getprevious()
    tail = child.tail or ""
    if previous is not None:
        previous.tail = tail if not tail.strip() and child.getnext() is None else (previous.tail or "")
    elif child.getnext() is None and not (parent.text or "").strip():
        parent.text = None
    parent.remove(child)


def _indent_of(element: Any) -> str:
    """The line break and blanks in front of an element, "" when it stands in the line of its parent."""
    previous = element.getprevious()
    parent = element.getparent()
    text = previous.tail if previous is not None else (parent.text if parent is not None else None)
    return text[text.rindex("\n") :] if text and "\n" in text else ""


def _step_of(element: Any | None) -> str:
    """How much deeper the children of an element stand."""
    if element is None or not element.text or "\n" not in element.text:
        return "    "
    inner, outer = element.text[element.text.rindex("\n") :], _indent_of(element)
    return inner[len(outer) :] if inner.startswith(outer) and len(inner) > len(outer) else "    "
