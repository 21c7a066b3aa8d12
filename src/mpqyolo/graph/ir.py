"""The integer graph: frozen tensors, constants, nodes. What a `.mpqy` file holds and every backend runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Shape = tuple[int, int, int]

TENSOR_TYPES = ("u8", "b1", "u4", "s16")
CONSTANT_TYPES = ("w1", "w4", "w8", "i16")
NUMPY_TYPE = {"u8": np.uint8, "b1": np.int8, "u4": np.uint8, "s16": np.int16}
CONSTANT_NUMPY_TYPE = {"w1": np.int8, "w4": np.int8, "w8": np.int8, "i16": np.int16}
STREAM_FRACTION = 8  # the s16 stream between blocks counts in 2^-8
PREDICT_FRACTION = 10  # distance and logit maps count in 2^-10, in powers of two


@dataclass(frozen=True)
class Tensor:
    """An edge: `shape` is (C, H, W), `dtype` one of TENSOR_TYPES, real value = code * scale."""

    name: str
    dtype: str
    shape: Shape
    scale: float = 1.0


@dataclass(frozen=True)
class Constant:
    """Numbers that belong to one node. `values` is int8 (w1: -1/+1, w4, w8) or int16 (i16); weights are (O, kh, kw, C).

    A file holds no names of constants: the reader calls them `node.role`.
    """

    name: str
    dtype: str
    values: np.ndarray

    @property
    def nbytes_packed(self) -> int:
        """Bytes at true width, as stored in the file."""
        bits = {"w1": 1, "w4": 4, "w8": 8, "i16": 16}[self.dtype]
        return (self.values.size * bits + 7) // 8


@dataclass(frozen=True)
class Node:
    """One operator call. Inputs and outputs are tensor names, `constants` maps a role to a constant's name."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Level:
    """One prediction level: `distance` (4, h, w) and `logit` (classes, h, w) tensors, s16 in 2^-10 powers of two."""

    stride: int
    distance: str
    logit: str


@dataclass(frozen=True)
class Decode:
    """How predictions become boxes (docs/numerics.md, section 5)."""

    levels: tuple[Level, ...]
    iou: float = 0.65
    kind: str = "ltrb_exp2"


@dataclass(frozen=True)
class Graph:
    """Nodes in execution order over named tensors and constants."""

    tensors: Mapping[str, Tensor]
    constants: Mapping[str, Constant]
    nodes: tuple[Node, ...]
    input: str
    outputs: tuple[str, ...]

    def constant(self, node: Node, role: str) -> np.ndarray | None:
        """Values of the node's constant in this role, or None if it has none."""
        name = node.constants.get(role)
        return None if name is None else self.constants[name].values

    def dump(self) -> str:
        """One line a node, for people."""
        lines = []
        for node in self.nodes:
            outs = ", ".join(f"{t}:{self.tensors[t].dtype}{list(self.tensors[t].shape)}" for t in node.outputs)
            consts = " ".join(f"{role}:{self.constants[c].dtype}" for role, c in node.constants.items())
            attrs = " ".join(f"{key}={value}" for key, value in node.attributes.items())
            lines.append(f"{outs} = {node.op}({', '.join(node.inputs)}) {attrs} {consts}".rstrip())
        return "\n".join(lines)


@dataclass(frozen=True)
class Model:
    """Everything in a `.mpqy` file: the graph, how to decode it, what its classes are, and its card."""

    graph: Graph
    decode: Decode
    classes: tuple[str, ...]
    policy: Mapping[str, Any]  # {"name": str, "bits": {region: [weight, activation]}}
    card: Mapping[str, Any] = field(default_factory=dict)
