"""Bits of joined streams are joined bits: threshold(concat(a, b)) = concat(threshold(a), threshold(b)).

A sixteenth of the numbers moves, and the parts can be fused into the convolutions that write a and b.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mpqyolo.graph.ir import Constant, Graph, Node, Tensor
from mpqyolo.pack.passes.common import rebuild


def split_threshold(graph: Graph) -> Graph:
    """Every threshold of a concat is split by channels, each part right behind the concat's place; the s16 concat may stay."""
    joins = {node.outputs[0]: node for node in graph.nodes if node.op == "concat"}
    tensors: dict[str, Tensor] = {}
    constants: dict[str, Constant] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if not _splits(node, joins):
            nodes.append(node)
            continue
        join, start, parts = joins[node.inputs[0]], 0, []
        values = graph.constants[node.constants["threshold"]].values
        for place, source in enumerate(join.inputs):
            shape = graph.tensors[source].shape
            name, part = f"{node.name}.{place}", values[start : start + shape[0]]
            tensors[name] = Tensor(name, "b1", shape)
            constants[f"{name}.threshold"] = Constant(f"{name}.threshold", "i16", np.ascontiguousarray(part))
            nodes.append(Node("threshold", name, (source,), (name,), {"threshold": f"{name}.threshold"}))
            parts.append(name)
            start += shape[0]
        nodes.append(replace(node, op="concat", inputs=tuple(parts), constants={}))
    result = rebuild(graph, nodes, tensors, constants)
    # A concat of a concat: its thresholds now read the inner one.
    return split_threshold(result) if any(_splits(n, joins) for n in result.nodes) else result


def _splits(node: Node, joins: Mapping[str, Node]) -> bool:
    """A threshold of a concat. (With a step, all upper bits come before all lower ones, and parts do not join to that.)"""
    return node.op == "threshold" and "step" not in node.attributes and node.inputs[0] in joins
