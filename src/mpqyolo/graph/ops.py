"""The one table of operators: number, inputs, constants, attributes, and the rule that gives the outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mpqyolo.core.errors import MpqError
from mpqyolo.graph.ir import TENSOR_TYPES, Constant, Graph, Node, Shape, Tensor

OUTPUT_TYPES = ("s16", "u4", "b1")  # what a conv can write
MAX_WEIGHT = {"w1": 1, "w4": 7, "w8": 127}
MAX_CODE = {"u8": 255, "u4": 15, "b1": 1}
QUAD = 4  # 1-bit channels that lie together: upper and lower bits never share such a group
WITH_WHAT = {
    "threshold": "exactly with a b1 output",
    "step": "only with a b1 output",
    "planes": "only with a b1 input",
    "fraction": "exactly with a u4 output",
    "residual_last": "exactly with a residual",
}

Typed = tuple[str, Shape]  # (dtype, (C, H, W))
Rule = Callable[[Node, Sequence[Tensor], Mapping[str, Constant]], tuple[Typed, ...]]


class GraphError(MpqError):
    """A node that breaks the rules of its operator."""


@dataclass(frozen=True)
class Range:
    """An integer attribute: low..high, only odd numbers if `odd`, not always there if `optional`."""

    low: int
    high: int
    odd: bool = False
    optional: bool = False


@dataclass(frozen=True)
class OpSpec:
    """One operator. `number` is its name in binary tables and never used again; the first input is one of `types`."""

    name: str
    number: int
    types: tuple[str, ...]
    rule: Rule
    inputs: tuple[int, int] = (1, 1)
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    attributes: Mapping[str, Range] = field(default_factory=dict)
    has_outputs: bool = False  # attribute "outputs", the list of the dtypes it writes
    has_scale: bool = False  # its u4 and s16 outputs have scales of their own, else they have the first input's

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles of its constants, in the order in which a file holds them."""
        return (*self.required, *self.optional)


def _need(ok: bool, node: Node, fault: str) -> None:
    if not ok:
        raise GraphError(f"node '{node.name}' ({node.op}): {fault}")


def planes(node: Node) -> int:
    """1-bit maps that a convolution reads as one: 2 are a map of 2 bits (docs/numerics.md)."""
    count = node.attributes.get("planes", 1)
    assert type(count) is int
    return count


def max_code(node: Node, x: Tensor) -> int:
    """The greatest |value| that a convolution finds in its input x."""
    return MAX_CODE[x.dtype] if planes(node) == 1 else 3


def constant_shape(role: str, node: Node, inputs: Sequence[Tensor], channels: int) -> tuple[int, ...]:
    """The shape of a node's constant: weights are (O, kh, kw, C), all else is one number a channel. channels: of the outputs."""
    if role == "weight":
        return (channels, node.attributes["kernel"], node.attributes["kernel"], inputs[0].shape[0] // planes(node))
    return (inputs[1].shape[0] if role == "gain" else channels,)


def fixed_scale(op: str, dtype: str, first: Tensor) -> float | None:
    """The scale that an output of this dtype must have, `first` being the first input; None where it has one of its own."""
    if dtype == "b1":
        return 1.0
    return None if OPS[op].has_scale else first.scale


def _check_constants(node: Node, inputs: Sequence[Tensor], constants: Mapping[str, Constant], channels: int) -> None:
    for role, constant in constants.items():
        types = tuple(MAX_WEIGHT) if role == "weight" else ("i16",)
        wanted = "w1, w4 or w8" if role == "weight" else "i16"
        _need(constant.dtype in types, node, f"constant '{role}' is {constant.dtype}, must be {wanted}")
        found, right = list(constant.values.shape), list(constant_shape(role, node, inputs, channels))
        _need(found == right, node, f"constant '{role}' has shape {found}, must be {right}")


def _conv(node: Node, inputs: Sequence[Tensor], constants: Mapping[str, Constant]) -> tuple[Typed, ...]:
    weight, at, outputs = constants["weight"], node.attributes, node.attributes["outputs"]
    for name, there, where in (
        ("threshold", "threshold" in constants, "b1" in outputs),
        ("step", "step" in at, "step" in at and "b1" in outputs),
        ("planes", "planes" in at, "planes" in at and inputs[0].dtype == "b1"),
        ("fraction", "fraction" in at, "u4" in outputs),
        ("residual_last", "residual_last" in at, len(inputs) == 2),
    ):
        _need(there == where, node, f"'{name}' is there {WITH_WHAT[name]}")
    _need(len(inputs) == 2 or "gain" not in constants, node, "'gain' needs a residual")
    for r in inputs[1:]:
        _need(r.dtype == "s16", node, f"the residual '{r.name}' is {r.dtype}, must be s16")
    count = weight.values.shape[0] if weight.values.ndim else 0
    _check_constants(node, inputs, constants, count)

    channels, height, width = inputs[0].shape
    pairs = planes(node) == 1 or channels % (2 * QUAD) == 0
    _need(pairs, node, f"{channels} channels are no two planes of a multiple of {QUAD} channels each")
    k, stride, pad = at["kernel"], at["stride"], at["pad"]
    _need(pad < k, node, f"pad {pad} must be less than kernel {k}")
    reach = channels // planes(node) * k * k * MAX_WEIGHT[weight.dtype] * max_code(node, inputs[0])
    _need(reach < 2**31, node, f"the sum can reach {reach}, must stay below 2^31")
    _need(min(height, width) + 2 * pad >= k, node, f"kernel {k} does not fit into {height}x{width} with pad {pad}")
    out = (count, (height + 2 * pad - k) // stride + 1, (width + 2 * pad - k) // stride + 1)
    for r in inputs[1:]:
        _need(r.shape[1:] == out[1:], node, f"the residual has size {list(r.shape[1:])}, must be {list(out[1:])}")
        small, large = sorted((r.shape[0], count))
        _need(large % small == 0, node, f"{r.shape[0]} residual channels and {count} outputs do not divide each other")
    return tuple((dtype, _two_planes(node, out) if dtype == "b1" else out) for dtype in outputs)


def _two_planes(node: Node, shape: Shape) -> Shape:
    """The shape of the bits of a map of this shape: with a step, a map has an upper and a lower bit."""
    if "step" not in node.attributes:
        return shape
    _need(shape[0] % QUAD == 0, node, f"a step needs a multiple of {QUAD} channels, not {shape[0]}")
    return (2 * shape[0], *shape[1:])


def _threshold(node: Node, inputs: Sequence[Tensor], constants: Mapping[str, Constant]) -> tuple[Typed, ...]:
    _check_constants(node, inputs, constants, inputs[0].shape[0])
    return (("b1", _two_planes(node, inputs[0].shape)),)


def _requantise(node: Node, inputs: Sequence[Tensor], constants: Mapping[str, Constant]) -> tuple[Typed, ...]:
    _check_constants(node, inputs, constants, inputs[0].shape[0])
    return (("u4", inputs[0].shape),)


def _avgpool2(node: Node, inputs: Sequence[Tensor], constants: Mapping[str, Constant]) -> tuple[Typed, ...]:
    c, h, w = inputs[0].shape
    _need(h % 2 == 0 and w % 2 == 0, node, f"height and width must be even, got {h}x{w}")
    return (("s16", (c, h // 2, w // 2)),)


def _same(node: Node, inputs: Sequence[Tensor], constants: Mapping[str, Constant]) -> tuple[Typed, ...]:
    return ((inputs[0].dtype, inputs[0].shape),)


def _upsample2(node: Node, inputs: Sequence[Tensor], constants: Mapping[str, Constant]) -> tuple[Typed, ...]:
    c, h, w = inputs[0].shape
    return ((inputs[0].dtype, (c, 2 * h, 2 * w)),)


def _concat(node: Node, inputs: Sequence[Tensor], constants: Mapping[str, Constant]) -> tuple[Typed, ...]:
    first = inputs[0]
    for t in inputs[1:]:
        _need(t.dtype == first.dtype, node, f"'{t.name}' is {t.dtype}, '{first.name}' is {first.dtype}: one dtype is needed")
        _need(t.shape[1:] == first.shape[1:], node, f"'{t.name}' and '{first.name}' differ in height or width")
        same_scale = first.dtype not in ("u4", "s16") or t.scale == first.scale
        _need(same_scale, node, f"'{t.name}' has scale {t.scale}, '{first.name}' {first.scale}: one scale is needed")
    return ((first.dtype, (sum(t.shape[0] for t in inputs), *first.shape[1:])),)


OPS: dict[str, OpSpec] = {
    spec.name: spec
    for spec in (
        OpSpec(
            "conv",
            1,
            ("u8", "u4", "b1"),
            _conv,
            inputs=(1, 2),
            required=("weight", "multiplier", "bias"),
            optional=("slope", "post", "gain", "threshold"),
            attributes={
                "kernel": Range(1, 7),
                "stride": Range(1, 2),
                "pad": Range(0, 6),
                "shift": Range(-15, 16),
                "fraction": Range(0, 14, optional=True),
                "residual_last": Range(0, 1, optional=True),
                "planes": Range(2, 2, optional=True),
                "step": Range(1, 32767, optional=True),
            },
            has_outputs=True,
            has_scale=True,
        ),
        OpSpec(
            "threshold",
            2,
            ("s16",),
            _threshold,
            required=("threshold",),
            attributes={"step": Range(1, 32767, optional=True)},
        ),
        OpSpec(
            "requantise",
            3,
            ("s16", "u8"),
            _requantise,
            required=("multiplier", "bias"),
            attributes={"fraction": Range(0, 14)},
            has_scale=True,
        ),
        OpSpec("avgpool2", 4, ("s16",), _avgpool2),
        OpSpec("maxpool", 5, ("u4", "s16", "b1"), _same, attributes={"kernel": Range(1, 13, odd=True)}),
        OpSpec("upsample2", 6, TENSOR_TYPES, _upsample2),
        OpSpec("concat", 7, TENSOR_TYPES, _concat, inputs=(2, 16)),
    )
}


def _check_attributes(spec: OpSpec, node: Node) -> None:
    known = set(spec.attributes) | ({"outputs"} if spec.has_outputs else set())
    for name in node.attributes:
        _need(name in known, node, f"unknown attribute {name[:40]!r}")
    for name, rule in spec.attributes.items():
        value: Any = node.attributes.get(name)
        if value is None:
            _need(rule.optional, node, f"attribute '{name}' is missing")
            continue
        _need(type(value) is int, node, f"attribute '{name}' must be an integer")
        odd = ", odd" if rule.odd else ""
        fits = rule.low <= value <= rule.high and (not rule.odd or value % 2 == 1)
        _need(fits, node, f"attribute '{name}' is {value}, must be {rule.low}..{rule.high}{odd}")
    if spec.has_outputs:
        value = node.attributes.get("outputs")
        good = isinstance(value, (list, tuple)) and all(type(v) is str and v in OUTPUT_TYPES for v in value)
        _need(
            good and 0 < len(value) == len(set(value)),
            node,
            "attribute 'outputs' must list one to three of s16, u4, b1, each once",
        )


def infer(node: Node, inputs: Sequence[Tensor], constants: Mapping[str, Constant]) -> tuple[Typed, ...]:
    """(dtype, (C, H, W)) of every output of the node.

    inputs: the tensors it reads, in order; constants: by role. Raises GraphError, one line, if the node breaks a rule.
    """
    spec = OPS.get(node.op)
    if spec is None:
        raise GraphError(f"node '{node.name}': unknown operator {node.op[:40]!r}")
    low, high = spec.inputs
    _need(low <= len(inputs) <= high, node, f"has {len(inputs)} inputs, must have {low}..{high}")
    first = inputs[0]
    _need(first.dtype in spec.types, node, f"'{first.name}' is {first.dtype}, must be {' or '.join(spec.types)}")
    for role in constants:
        _need(role in spec.required or role in spec.optional, node, f"unknown constant role {role[:40]!r}")
    for role in spec.required:
        _need(role in constants, node, f"constant '{role}' is missing")
    _check_attributes(spec, node)
    outputs = spec.rule(node, inputs, constants)
    _need(len(outputs) == len(node.outputs), node, f"has {len(node.outputs)} outputs, must have {len(outputs)}")
    return outputs


def infer_node(graph: Graph, node: Node, tensors: Mapping[str, Tensor] | None = None) -> tuple[Typed, ...]:
    """`infer` with the node's inputs and constants looked up in the graph (or inputs in `tensors`)."""
    tensors = graph.tensors if tensors is None else tensors
    constants = {role: graph.constants[name] for role, name in node.constants.items()}
    return infer(node, [tensors[name] for name in node.inputs], constants)


def resize(graph: Graph, height: int, width: int) -> Graph:
    """The same graph for another input height and width. Raises GraphError if an operator cannot take the size."""
    first = graph.tensors[graph.input]
    tensors = {graph.input: replace(first, shape=(first.shape[0], height, width))}
    for node in graph.nodes:
        for name, (dtype, shape) in zip(node.outputs, infer_node(graph, node, tensors), strict=True):
            tensors[name] = replace(graph.tensors[name], dtype=dtype, shape=shape)
    return replace(graph, tensors={name: tensors[name] for name in graph.tensors})
