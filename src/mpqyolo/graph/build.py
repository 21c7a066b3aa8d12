"""Builder: a graph grown node by node; shapes and types come from the operator table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpqyolo.graph.ir import CONSTANT_NUMPY_TYPE, Constant, Graph, Node, Tensor
from mpqyolo.graph.ops import fixed_scale, infer


class Builder:
    """Starts with the input, a u8 tensor (channels, height, width) in codes of 1/255."""

    def __init__(self, height: int, width: int, channels: int = 3, name: str = "image") -> None:
        self.input = name
        self.tensors: dict[str, Tensor] = {name: Tensor(name, "u8", (channels, height, width), 1 / 255)}
        self.constants: dict[str, Constant] = {}
        self.nodes: list[Node] = []

    def add(
        self,
        op: str,
        name: str,
        inputs: Sequence[str],
        constants: Mapping[str, tuple[str, np.ndarray]] | None = None,
        scales: Mapping[str, float] | None = None,
        **attributes: Any,
    ) -> tuple[str, ...]:
        """Appends a node and returns the names of its outputs: the first is `name`, others are `name.dtype`.

        constants: role -> (dtype, values), named `name.role`. scales: real value of one code by output dtype, of operators that
        have scales of their own; without it the first input's. Raises GraphError if the node breaks a rule.
        """
        mine = {}
        for role, (dtype, values) in (constants or {}).items():
            mine[role] = Constant(f"{name}.{role}", dtype, np.ascontiguousarray(values, CONSTANT_NUMPY_TYPE[dtype]))
        types = tuple(attributes.get("outputs", ("",)))
        outputs = (name, *(f"{name}.{dtype}" for dtype in types[1:]))
        node = Node(op, name, tuple(inputs), outputs, {role: c.name for role, c in mine.items()}, attributes)
        read = [self.tensors[t] for t in inputs]
        for output, (dtype, shape) in zip(outputs, infer(node, read, mine), strict=True):
            fixed = fixed_scale(op, dtype, read[0])
            scale = (scales or {}).get(dtype, read[0].scale) if fixed is None else fixed
            self.tensors[output] = Tensor(output, dtype, shape, scale)
        self.constants.update({c.name: c for c in mine.values()})
        self.nodes.append(node)
        return outputs

    def graph(self, outputs: Sequence[str]) -> Graph:
        """The finished graph."""
        return Graph(dict(self.tensors), dict(self.constants), tuple(self.nodes), self.input, tuple(outputs))
