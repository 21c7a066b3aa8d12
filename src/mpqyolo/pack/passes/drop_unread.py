"""Outputs that nobody reads are not written; nodes without outputs go."""

from __future__ import annotations

from mpqyolo.graph.ir import Graph
from mpqyolo.pack.passes.common import rebuild, without


def drop_unread(graph: Graph) -> Graph:
    """Backwards, so that what only dropped nodes read is dropped too."""
    wanted = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        read = [name for name in node.outputs if name in wanted]
        if not read:
            continue
        for name in node.outputs:
            if name not in wanted:
                node = without(node, name)
        wanted.update(node.inputs)
        kept.append(node)
    return rebuild(graph, reversed(kept))
