"""Nodes that compute the same from the same become one: two convolutions often read the stream through one threshold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mpqyolo.graph.ir import Graph, Node
from mpqyolo.pack.passes.common import rebuild


def merge_equal(graph: Graph) -> Graph:
    """The first of equal nodes stays, and its tensors take the others' places. Graph outputs keep their names: they stay."""
    first: dict[Any, Node] = {}
    instead: dict[str, str] = {}
    kept = []
    for node in graph.nodes:
        node = replace(node, inputs=tuple(instead.get(name, name) for name in node.inputs))
        key = _key(graph, node)
        if key in first and not set(node.outputs) & set(graph.outputs):
            instead |= zip(node.outputs, first[key].outputs, strict=True)
            continue
        first.setdefault(key, node)
        kept.append(node)
    return rebuild(graph, kept)


def _key(graph: Graph, node: Node) -> Any:
    constants = {role: graph.constants[name] for role, name in node.constants.items()}
    values = tuple(sorted((role, c.dtype, c.values.shape, c.values.tobytes()) for role, c in constants.items()))
    scales = tuple(graph.tensors[name].scale for name in node.outputs)  # equal codes of unequal meaning stay apart
    attributes = tuple(sorted((key, tuple(v) if isinstance(v, list) else v) for key, v in node.attributes.items()))
    return node.op, node.inputs, attributes, values, scales
