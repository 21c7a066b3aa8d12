"""What a graph costs: parameters, multiply-accumulates by bits, element-wise work, OPs, bytes. Every claim is counted here.

Two rules. A MAC counts at max(weight bits, activation bits): 1-bit weights on 4-bit maps are 4-bit work. An element-wise
operation is one add, multiply, shift, compare or clamp of one number; moving codes (concat, upsample2) is none. 1-bit weights on
a 2-bit map are two convolutions of 1-bit maps, which is what the engine computes: two 1-bit MACs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mpqyolo.graph.ir import Graph, Node
from mpqyolo.graph.ops import planes

FORMULA = "OPs = MACs_32 + MACs_8/4 + MACs_4/8 + MACs_1/64; a MAC counts at max(weight bits, activation bits)"
ELEMENTWISE_RULE = (
    "one per add, multiply, shift, compare or clamp of one 16-bit number; with element-wise work: OPs + elementwise_ops/2"
)
MACS_PER_OP = {1: 64, 4: 8, 8: 4, 32: 1}
WEIGHT_BITS = {"w1": 1, "w4": 4, "w8": 8}
CODE_BITS = {"b1": 1, "u4": 4, "u8": 8, "s16": 16}


@dataclass(frozen=True)
class LayerCost:
    """One operator call. weight_bits is 0 without weights. weight_bytes: at true width; constant_bytes: all else that it stores.

    planes: how many 1-bit maps are multiplied to serve as one of more bits; macs counts each.
    """

    name: str
    op: str
    weight_bits: int
    activation_bits: int
    macs: int
    weight_bytes: int
    output_shape: tuple[int, ...]
    constant_bytes: int = 0
    elementwise: Mapping[str, int] = field(default_factory=dict)
    planes: int = 1

    @property
    def mac_bits(self) -> int:
        """The bits at which this layer's MACs count."""
        return max(self.weight_bits, self.activation_bits)


@dataclass(frozen=True)
class Cost:
    """The sums over `layers`. parameters: all stored numbers; size_bytes: of the file where known, else of the constants."""

    layers: tuple[LayerCost, ...]
    parameters: int
    size_bytes: int

    @property
    def macs(self) -> dict[int, int]:
        """MACs by bits: keys 1, 4, 8, 32."""
        total = dict.fromkeys(MACS_PER_OP, 0)
        for layer in self.layers:
            if layer.macs:
                total[layer.mac_bits] += layer.macs
        return total

    @property
    def ops(self) -> float:
        """OPs by FORMULA."""
        return sum(macs / MACS_PER_OP[bits] for bits, macs in self.macs.items())

    @property
    def bops(self) -> int:
        """Bit operations: MACs times weight bits times activation bits."""
        return sum(layer.macs * layer.weight_bits * layer.activation_bits for layer in self.layers)

    @property
    def elementwise(self) -> dict[str, int]:
        """Element-wise operations by kind (multiply, bias, residual, ...)."""
        total: Counter[str] = Counter()
        for layer in self.layers:
            total.update(layer.elementwise)
        return dict(total)

    @property
    def elementwise_ops(self) -> int:
        """All element-wise operations."""
        return sum(self.elementwise.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: the keys of `mpqyolo info --json`."""
        return {
            "parameters": self.parameters,
            "size_bytes": self.size_bytes,
            "macs": {str(bits): macs for bits, macs in self.macs.items()},
            "elementwise_ops": self.elementwise_ops,
            "elementwise": self.elementwise,
            "ops": self.ops,
            "bops": self.bops,
            "formula": FORMULA,
            "elementwise_rule": ELEMENTWISE_RULE,
            "layers": [asdict(layer) | {"output_shape": list(layer.output_shape)} for layer in self.layers],
        }


def _conv_elementwise(graph: Graph, node: Node, outputs: int) -> dict[str, int]:
    at, roles = node.attributes, node.constants
    items = {"shift": outputs if at["shift"] != 0 else 0, "multiply": outputs, "bias": outputs}
    if len(node.inputs) > 1:
        numbers = math.prod(graph.tensors[node.inputs[1]].shape)
        items["gain"] = numbers if "gain" in roles else 0
        # A wide residual folds into the outputs: as many adds as it has numbers. A narrow one repeats: one add an output.
        items["residual"] = max(numbers, outputs)
    if "slope" in roles:
        items["slope"] = 2 * outputs  # compare, multiply
    if "post" in roles:
        items["post"] = outputs
    if "u4" in at["outputs"]:
        items["quantise"] = 2 * outputs  # shift, clamp
    if "b1" in at["outputs"]:
        items["threshold"] = 2 * outputs if "step" in at else outputs
    return {kind: n for kind, n in items.items() if n}


def elementwise(graph: Graph, node: Node) -> dict[str, int]:
    """Element-wise operations of one node by kind."""
    shape = graph.tensors[node.outputs[0]].shape
    outputs = math.prod(shape)
    if node.op == "conv":
        return _conv_elementwise(graph, node, len(graph.constants[node.constants["bias"]].values) * shape[1] * shape[2])
    if node.op == "threshold":
        return {"threshold": outputs}
    if node.op == "requantise":
        return {"multiply": outputs, "bias": outputs, "quantise": 2 * outputs}
    if node.op == "avgpool2":
        return {"pool": 5 * outputs}  # 3 adds, rounding, shift
    if node.op == "maxpool":
        return {"pool": 2 * (node.attributes["kernel"] - 1) * outputs}  # rows, then columns
    return {}


def layer_cost(graph: Graph, node: Node) -> LayerCost:
    """The cost of one node."""
    shape = graph.tensors[node.outputs[0]].shape
    stored = {role: graph.constants[name] for role, name in node.constants.items()}
    weight = stored.pop("weight", None)
    return LayerCost(
        name=node.name,
        op=node.op,
        weight_bits=WEIGHT_BITS[weight.dtype] if weight else 0,
        activation_bits=CODE_BITS[graph.tensors[node.inputs[0]].dtype],
        macs=weight.values.size * shape[1] * shape[2] * planes(node) if weight else 0,
        weight_bytes=weight.nbytes_packed if weight else 0,
        output_shape=shape,
        constant_bytes=sum(c.nbytes_packed for c in stored.values()),
        elementwise=elementwise(graph, node),
        planes=planes(node) if weight else 1,
    )


def cost(graph: Graph, file_bytes: int | None = None) -> Cost:
    """The cost of a graph at its image size. file_bytes: size of its `.mpqy` file, which then is `size_bytes`."""
    packed = sum(c.nbytes_packed for c in graph.constants.values())
    parameters = sum(c.values.size for c in graph.constants.values())
    layers = tuple(layer_cost(graph, node) for node in graph.nodes)
    return Cost(layers, parameters, packed if file_bytes is None else file_bytes)
