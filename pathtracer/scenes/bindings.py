"""From a parameter key to the node and the property that define it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .graph import SceneGraph


def words(text: str) -> frozenset[str]:
    """A set of names, written as one string."""
    return frozenset(text.split())


@dataclass(frozen=True)
class Binding:
    """Where a parameter comes from.

    `red.reflectance.value` is the leaf "value" of property "reflectance" of the node "red"; `cube.to_world` is the
    property "to_world" of the node "cube" with no leaf.

    Attributes:
        key: the parameter key.
        node: index of the node.
        prefix: the node's own key prefix ("red").
        property: property of the node, whether the file sets it or leaves it at its default.
        leaf: name below the property ("" for the property itself).
    """

    key: str
    node: int
    prefix: str
    property: str
    leaf: str


def find_bindings(graph: SceneGraph, params: Any, objects: dict[int, Any]) -> dict[str, Binding]:
    """The binding of every key of `mi.traverse`.

    Args:
        graph: the parsed scene.
        params: `mi.SceneParameters` with all keys.
        objects: live object of every node (from `graph.instantiate`).
    """
    node_of = {obj: index for index, obj in objects.items()}
    found: dict[str, Binding] = {}
    for key, (_value, _type, owner, _flags) in params.properties.items():
        prefix, _, name = key.rpartition(".")
        names = [name]
        while owner is not None and owner not in node_of:
            prefix, _, name = prefix.rpartition(".")
            names.insert(0, name)
            owner = params.hierarchy[owner][0]
        if owner is not None:
            found[key] = Binding(key, node_of[owner], prefix, names[0], ".".join(names[1:]))
    return found


def parents(graph: SceneGraph) -> dict[int, list[tuple[int, str]]]:
    """Who refers to a node: index -> [(parent, property)]."""
    found: dict[int, list[tuple[int, str]]] = {}
    for index in range(len(graph)):
        for name, child in graph.references(index).items():
            found.setdefault(child, []).append((index, name))
    return found


def role(graph: SceneGraph, binding: Binding, users: dict[int, list[tuple[int, str]]]) -> tuple[str, str]:
    """What a parameter is for: plugin and property of the material, light, ... that uses it.

    The texels of a bitmap are named after the property in which the bitmap stands ("diffuse", "reflectance").
    """
    node, name = binding.node, binding.property
    # An object that the plugin made itself: the diffuse material of a shape without one. (Media wrap colours twice.)
    if "." in binding.leaf.replace("value.value", "value"):
        return "diffuse" if name == "bsdf" else graph.plugin(node), binding.leaf.split(".")[0]
    seen = set()
    while graph.plugin(node) in _TEXTURES and node in users and node not in seen:
        seen.add(node)
        uses = [(parent, prop) for parent, prop in users[node] if parent != 0]
        if not uses:
            break
        node, name = uses[0]
    return graph.plugin(node), name


_TEXTURES = words(
    "bitmap checkerboard mesh_attribute volume gridvolume constvolume uniform srgb rgb spectrum d65 "
    "regular irregular blackbody rawconstant"
)


def used_nodes(graph: SceneGraph, objects: dict[int, Any]) -> set[int]:
    """Nodes that a shape, light or camera refers to; materials and textures that nothing uses are left out."""
    import mitsuba as mi

    pending = [
        index for index in graph.references(0).values() if not isinstance(objects.get(index), mi.BSDF | mi.Texture)
    ]
    used: set[int] = {0}
    while pending:
        index = pending.pop()
        if index not in used:
            used.add(index)
            pending.extend(graph.references(index).values())
    return used
