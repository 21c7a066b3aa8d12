"""What passes share: putting nodes back together to a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from mpqyolo.graph.ir import Constant, Graph, Node, Tensor


def rebuild(
    graph: Graph,
    nodes: Iterable[Node],
    tensors: Mapping[str, Tensor] | None = None,
    constants: Mapping[str, Constant] | None = None,
) -> Graph:
    """The graph with these nodes instead. Tensors and constants, its own and these new ones, that no node has are left out."""
    nodes = tuple(nodes)
    tensors, constants = {**graph.tensors, **(tensors or {})}, {**graph.constants, **(constants or {})}
    written = {graph.input, *(name for node in nodes for name in node.outputs)}
    used = {name for node in nodes for name in node.constants.values()}
    return replace(
        graph,
        nodes=nodes,
        tensors={name: t for name, t in tensors.items() if name in written},
        constants={name: c for name, c in constants.items() if name in used},
    )


def without(node: Node, output: str) -> Node:
    """A convolution that no longer writes this output."""
    place = node.outputs.index(output)
    dtype = node.attributes["outputs"][place]
    left = tuple(v for i, v in enumerate(node.attributes["outputs"]) if i != place)
    attributes = {**node.attributes, "outputs": left}
    constants = dict(node.constants)
    if dtype == "b1":
        del constants["threshold"]
        attributes.pop("step", None)
    elif dtype == "u4":
        del attributes["fraction"]
    return replace(node, outputs=tuple(v for v in node.outputs if v != output), attributes=attributes, constants=constants)
