"""From a scene file to live Mitsuba objects, remembering which node every object came from.

Mitsuba's own loader forgets: nodes that nobody references lose their place, and a top-level object without an `id` is
traversed under its memory address. Here every node gets an id before instantiation (its own, or a private one), so that
the live objects can be traced back to their nodes; afterwards top-level objects without an id are called after their
plugin (`rectangle`, `rectangle_1`, ... in the order of the file), which is stable from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PRIVATE = "__node_"


@dataclass
class Child:
    """One edge of the object graph: `parent` holds `obj` under the name `name` (the last part of a parameter key)."""

    key: str
    name: str
    obj: Any
    parent: Any | None


@dataclass
class SceneGraph:
    """A parsed scene: nodes as Mitsuba's parser gives them, references resolved; can be instantiated again and again.

    Attributes:
        state: `mi.parser.ParserState` for reading.
        pristine: a copy that nobody reads: Mitsuba finds unknown properties by what was never read, and instantiation
            replaces references by objects.
        ids: the id that the user gave to each node, "" without one.
        labels: the name under which each top-level node appears in parameter keys; "" for nested nodes without id.
        edits: properties changed after parsing: (node, property) -> value; None removes the property.
    """

    state: Any
    pristine: Any
    ids: list[str]
    labels: list[str]
    edits: dict[tuple[int, str], Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def props(self, index: int) -> Any:
        """The properties of a node, as parsed."""
        return self.state.nodes[index].props

    def plugin(self, index: int) -> str:
        """The plugin name of a node."""
        return str(self.props(index).plugin_name())

    def references(self, index: int) -> dict[str, int]:
        """Property name -> index of the node that it refers to, for every child of a node."""
        import mitsuba as mi

        props = self.props(index)
        return {
            name: props[name].index()
            for name in props.keys()  # noqa: SIM118  (Properties is no mapping)
            if props.type(name) == mi.Properties.Type.ResolvedReference
        }

    def where(self, index: int) -> str:
        """File, line and column of a node."""
        import mitsuba as mi

        return str(mi.parser.file_location(self.state, self.state.nodes[index]))


def parse(path: Path, defines: dict[str, str]) -> SceneGraph:
    """Parse and resolve an XML file without creating any object.

    Raises:
        RuntimeError: what Mitsuba's parser says.
    """
    import mitsuba as mi

    config = _config()
    with resolving(path.parent):
        state = mi.parser.parse_file(config, str(path), **defines)
        mi.parser.transform_upgrade(config, state)
        mi.parser.transform_resolve(config, state)
    return from_state(state)


def from_dict(description: dict[str, Any]) -> SceneGraph:
    """The graph of a Mitsuba scene dictionary."""
    import mitsuba as mi

    config = _config()
    state = mi.parser.parse_dict(config, description)
    mi.parser.transform_upgrade(config, state)
    mi.parser.transform_resolve(config, state)
    return from_state(state)


def from_state(state: Any) -> SceneGraph:
    """Wrap a resolved parser state, naming the nodes that have no id."""
    import mitsuba as mi

    pristine = mi.parser.ParserState(state)
    ids = [str(node.props.id()) for node in state.nodes]
    ids = ["" if value.startswith(("_unnamed_", _PRIVATE)) else value for value in ids]
    graph = SceneGraph(state=state, pristine=pristine, ids=ids, labels=list(ids))
    used = set(ids)
    for index in graph.references(0).values():
        if ids[index]:
            continue
        stem = label = graph.plugin(index)
        count = 0
        while label in used:
            count += 1
            label = f"{stem}_{count}"
        used.add(label)
        graph.labels[index] = label
    return graph


def instantiate(graph: SceneGraph) -> tuple[Any, dict[int, Any]]:
    """Create the Mitsuba scene of a graph, shapes unmerged.

    Returns:
        The `mi.Scene`, and the live object of every node that has one (index -> object).
    """
    import mitsuba as mi

    config = _config()
    state = mi.parser.ParserState(graph.pristine)
    for index, node in enumerate(state.nodes):
        if index and not graph.ids[index]:
            node.props.set_id(f"{_PRIVATE}{index}")
    for (index, name), value in graph.edits.items():
        props = state.nodes[index].props
        if name in props:
            del props[name]
        if value is not None:
            props[name] = value
    scene = mi.parser.instantiate(config, state)
    if isinstance(scene, list):
        scene = scene[0]
    objects = _trace(graph, scene)
    top_level = set(graph.references(0).values())
    for index, obj in objects.items():
        if index:
            obj.set_id(graph.labels[index] if index in top_level else graph.ids[index])
    return scene, objects


def _trace(graph: SceneGraph, scene: Any) -> dict[int, Any]:
    """Which live object belongs to which node.

    By the id where the object kept it; plugins that expand into another object (bitmap, the spectra) lose theirs and
    are found through the property of their parent, or as the only child left over.
    """
    by_id = {graph.ids[i] or f"{_PRIVATE}{i}": i for i in range(1, len(graph))}
    node_of: dict[Any, int] = {scene: 0}
    pending: dict[int, list[tuple[str, Any]]] = {}
    for child in children(scene):
        if child.obj in node_of:
            continue
        index = by_id.get(str(child.obj.id()))
        if index is not None:
            node_of[child.obj] = index
        elif child.parent in node_of:
            parent = node_of[child.parent]
            refs = graph.references(parent)
            if child.name in refs:
                node_of[child.obj] = refs[child.name]
            else:
                pending.setdefault(parent, []).append((child.name, child.obj))
    for parent, orphans in pending.items():
        known = set(node_of.values())
        missing = [i for i in graph.references(parent).values() if i not in known]
        # Same order on both sides: children are traversed in the order of the file.
        candidates = [obj for name, obj in orphans if name.startswith("object_") or parent != 0]
        if parent == 0 or len(missing) == len(candidates) == 1:
            node_of.update(zip(candidates, missing, strict=False))
    return {index: obj for obj, index in node_of.items()}


def children(root: Any) -> Iterator[Child]:
    """Every object below `root`, parents first, each once, with the key prefix that `mi.traverse` would give it."""
    import mitsuba as mi

    class Collect(mi.TraversalCallback):
        def __init__(self, parent: Any) -> None:
            super().__init__()
            self.parent = parent
            self.found: list[tuple[str, Any]] = []

        def put(self, name: str, value: Any, flags: Any, cpptype: Any = None) -> None:
            if isinstance(value, mi.Object):
                self.found.append((name, value))

    seen: set[Any] = {root}

    def walk(obj: Any, prefix: str) -> Iterator[Child]:
        callback = Collect(obj)
        obj.traverse(callback)
        for name, value in callback.found:
            if value in seen:
                continue
            seen.add(value)
            key = f"{prefix}.{name}" if prefix else name
            yield Child(key, name, value, obj)
            yield from walk(value, key)

    yield from walk(root, "")


class resolving:
    """While active, relative file names are looked up beside the scene file (as `mi.load_file` does)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        import mitsuba as mi

        resolver: Any = mi.file_resolver()  # type: ignore[operator]
        self.before = [str(resolver[i]) for i in range(len(resolver))]
        resolver.prepend(str(self.folder))

    def __exit__(self, *_exc: object) -> None:
        import mitsuba as mi

        resolver: Any = mi.file_resolver()  # type: ignore[operator]
        resolver.clear()
        for path in self.before:
            resolver.append(path)


def _config() -> Any:
    import mitsuba as mi

    config = mi.parser.ParserConfig(str(mi.variant()))
    config.merge_equivalent = False
    config.merge_meshes = False
    # `-D` names that a scene does not use are reported by the document reader, with the nearest names.
    config.unused_parameters = mi.LogLevel.Debug
    return config
