"""Every rule of docs/format.md that speaks of a model's meaning. Reader and writer both ask here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpqyolo.core.bits import REGIONS
from mpqyolo.core.errors import FileFormatError
from mpqyolo.format import layout as limit
from mpqyolo.format.strict import check_json
from mpqyolo.graph.ir import CONSTANT_NUMPY_TYPE, CONSTANT_TYPES, TENSOR_TYPES, Constant, Graph, Model, Tensor
from mpqyolo.graph.ops import MAX_WEIGHT, GraphError, fixed_scale, infer_node


def need(ok: bool, fault: str) -> None:
    """Raises FileFormatError(fault) unless ok."""
    if not ok:
        raise FileFormatError(fault)


def check_name(name: Any, where: str) -> None:
    """Non-empty, at most 256 bytes of UTF-8, no control characters (U+0000..U+001F and U+007F)."""
    need(isinstance(name, str) and name != "", f"{where}: the name is empty")
    clean = all(c >= " " and c != "\x7f" and not "\ud800" <= c <= "\udfff" for c in name)
    need(clean, f"{where}: the name {name[:40]!r} holds a control character")
    size = len(name.encode())
    need(size <= limit.MAX_NAME_BYTES, f"{where}: the name {name[:40]!r}... has {size} bytes, at most {limit.MAX_NAME_BYTES}")


def check_classes(classes: Sequence[str]) -> None:
    """1..MAX_CLASSES class names. Raises FileFormatError."""
    need(1 <= len(classes) <= limit.MAX_CLASSES, f"{len(classes)} classes, must be 1..{limit.MAX_CLASSES}")
    for name in classes:
        check_name(name, "class")


def check_tensor_shape(shape: Sequence[int], where: str) -> None:
    """(C, H, W) within the limits."""
    need(len(shape) == 3 and all(n >= 1 for n in shape), f"{where}: shape {list(shape)} must be three positive numbers")
    need(shape[0] <= limit.MAX_CHANNELS, f"{where}: {shape[0]} channels, at most {limit.MAX_CHANNELS}")
    need(max(shape[1:]) <= limit.MAX_EDGE, f"{where}: size {list(shape[1:])}, at most {limit.MAX_EDGE}")
    need(math.prod(shape) <= limit.MAX_ELEMENTS, f"{where}: shape {list(shape)} has more than 2^28 elements")


def check_constant_shape(shape: Sequence[int], where: str) -> None:
    """One to four positive numbers, at most 4096 each and 2^28 elements."""
    good = 1 <= len(shape) <= 4 and all(1 <= n <= limit.MAX_CHANNELS for n in shape)
    need(good, f"{where}: shape {list(shape)} must be one to four numbers in 1..{limit.MAX_CHANNELS}")
    need(math.prod(shape) <= limit.MAX_ELEMENTS, f"{where}: shape {list(shape)} has more than 2^28 elements")


def s16_fraction(scale: float) -> int | None:
    """f of the scale 2^-f, if it is one that an s16 map can have."""
    return next((f for f in range(limit.MAX_FRACTION + 1) if scale == 2.0**-f), None)


def _check_tensor(tensor: Tensor) -> None:
    where = f"tensor '{tensor.name}'"
    check_name(tensor.name, "tensor")
    need(tensor.dtype in TENSOR_TYPES, f"{where}: unknown dtype {str(tensor.dtype)[:40]!r}")
    check_tensor_shape(tensor.shape, where)
    need(math.isfinite(tensor.scale) and tensor.scale > 0, f"{where}: scale {tensor.scale} must be a number above 0")
    power = tensor.dtype != "s16" or s16_fraction(tensor.scale) is not None
    need(power, f"{where}: scale {tensor.scale} must be 2^-f, f in 0..{limit.MAX_FRACTION}")


def _check_constant(constant: Constant) -> None:
    where, values = f"constant '{constant.name}'", constant.values
    need(constant.dtype in CONSTANT_TYPES, f"{where}: unknown dtype {str(constant.dtype)[:40]!r}")
    check_constant_shape(values.shape, where)
    wanted = np.dtype(CONSTANT_NUMPY_TYPE[constant.dtype])
    need(values.dtype == wanted, f"{where}: values are {values.dtype}, must be {wanted}")
    if constant.dtype == "w1":
        need(bool((np.abs(values) == 1).all()), f"{where}: w1 holds only -1 and +1")
    elif constant.dtype in MAX_WEIGHT:
        largest = MAX_WEIGHT[constant.dtype]
        low, high = int(values.min()), int(values.max())
        need(
            low >= -largest and high <= largest,
            f"{where}: holds {low if low < -largest else high}, must be -{largest}..{largest}",
        )


def _check_mapping(items: Mapping[str, Any], kind: str) -> None:
    need(len(items) <= limit.MAX_ITEMS, f"{len(items)} {kind}s, at most {limit.MAX_ITEMS}")
    for key, item in items.items():
        need(key == item.name, f"{kind} '{item.name}' is listed as {key!r}")


def validate_graph(graph: Graph) -> None:
    """Types, limits, order of execution, shapes, and that nothing is unused. Raises FileFormatError."""
    _check_mapping(graph.tensors, "tensor")
    _check_mapping(graph.constants, "constant")
    need(1 <= len(graph.nodes) <= limit.MAX_ITEMS, f"{len(graph.nodes)} nodes, must be 1..{limit.MAX_ITEMS}")
    for tensor in graph.tensors.values():
        _check_tensor(tensor)
    for constant in graph.constants.values():
        _check_constant(constant)

    need(graph.input in graph.tensors, f"the graph's input '{graph.input}' is not a tensor")
    first = graph.tensors[graph.input]
    need(first.dtype == "u8" and first.shape[0] == 3, f"the graph's input '{first.name}' must be u8 with 3 channels")
    need(first.scale == 1 / 255, f"the graph's input '{first.name}' has scale {first.scale}, must be 1/255")
    written, names = {graph.input}, set[str]()
    read, used = set[str](), set[str]()
    for node in graph.nodes:
        check_name(node.name, "node")
        where = f"node '{node.name}'"
        need(node.name not in names, f"{where}: the name comes twice")
        names.add(node.name)
        for name in node.inputs:
            need(name in graph.tensors, f"{where}: input '{name}' is not a tensor")
            need(name in written, f"{where}: reads tensor '{name}' before it is written")
        for role, name in node.constants.items():
            need(name in graph.constants, f"{where}: constant '{name}' does not exist")
            need(name not in used, f"{where}: constant '{name}' belongs to another node or role")
            used.add(name)
            if role in ("multiplier", "slope", "gain"):
                values = graph.constants[name].values
                need(int(values.min()) > -32768, f"{where}: constant '{name}' ({role}) holds -32768")
        try:
            types = infer_node(graph, node)
        except GraphError as fault:
            raise FileFormatError(str(fault)) from None
        # Names and scales that are not in the file must be what its reader makes of them.
        named = node.op == "conv" or node.outputs == (node.name,)
        need(named, f"{where}: its output '{node.outputs[0]}' must be named like it; only a conv names its outputs")
        for name, (dtype, shape) in zip(node.outputs, types, strict=True):
            need(name in graph.tensors, f"{where}: output '{name}' is not a tensor")
            need(name not in written, f"{where}: tensor '{name}' is written twice")
            tensor = graph.tensors[name]
            same = tensor.dtype == dtype and tuple(tensor.shape) == tuple(shape)
            need(same, f"{where}: tensor '{name}' is {tensor.dtype} {list(tensor.shape)}, must be {dtype} {list(shape)}")
            scale = fixed_scale(node.op, dtype, graph.tensors[node.inputs[0]])
            need(scale in (None, tensor.scale), f"{where}: tensor '{name}' has scale {tensor.scale}, must have {scale}")
            written.add(name)
        read.update(node.inputs)

    outputs = set(graph.outputs)
    need(len(outputs) == len(graph.outputs) > 0, "the graph's outputs are none or name a tensor twice")
    for name in graph.outputs:
        need(name in graph.tensors, f"the graph's output '{name}' is not a tensor")
    for name in graph.tensors:
        need(name in written, f"tensor '{name}' is written by no node")
        need(name in read or name in outputs, f"tensor '{name}' is read by no node and is no output")
    for name in graph.constants:
        need(name in used, f"constant '{name}' is used by no node")


def _validate_decode(model: Model) -> None:
    decode, graph = model.decode, model.graph
    need(decode.kind == "ltrb_exp2", f"decode: unknown kind {str(decode.kind)[:40]!r}")
    need(0 < decode.iou <= 1, f"decode: iou {decode.iou} must be above 0 and at most 1")
    need(1 <= len(decode.levels) <= limit.MAX_LEVELS, f"decode: {len(decode.levels)} levels, must be 1..{limit.MAX_LEVELS}")
    _, height, width = graph.tensors[graph.input].shape
    last = 0
    for level in decode.levels:
        where, stride = f"decode level of stride {level.stride}", level.stride
        power = limit.MIN_STRIDE <= stride <= limit.MAX_STRIDE and stride & (stride - 1) == 0
        need(power, f"{where}: must be a power of two in {limit.MIN_STRIDE}..{limit.MAX_STRIDE}")
        need(stride > last, f"{where}: strides must ascend")
        last = stride
        need(height % stride == 0 and width % stride == 0, f"{where}: does not divide the input size {height}x{width}")
        for kind, name, channels in (("distance", level.distance, 4), ("logit", level.logit, len(model.classes))):
            need(name in graph.outputs, f"{where}: {kind} '{name}' is not an output of the graph")
            tensor, shape = graph.tensors[name], (channels, height // stride, width // stride)
            same = tensor.dtype == "s16" and tuple(tensor.shape) == shape
            need(same, f"{where}: {kind} '{name}' is {tensor.dtype} {list(tensor.shape)}, must be s16 {list(shape)}")


def _validate_policy(policy: Mapping[str, Any]) -> None:
    need(set(policy) == {"name", "bits"}, "policy must have the keys name and bits")
    check_name(policy["name"], "policy")
    bits = policy["bits"]
    need(isinstance(bits, Mapping) and set(bits) == set(REGIONS), f"policy: bits must have the keys {', '.join(REGIONS)}")
    for region, pair in bits.items():
        good = isinstance(pair, (list, tuple)) and len(pair) == 2 and all(type(b) is int and 1 <= b <= 32 for b in pair)
        need(good, f"policy: bits of {region} must be two integers in 1..32")


def validate(model: Model) -> None:
    """The whole model. Raises FileFormatError with the first fault, one line."""
    validate_graph(model.graph)
    check_classes(model.classes)
    _validate_decode(model)
    _validate_policy(model.policy)
    need(isinstance(model.card, Mapping), "the card must be an object")
    check_json(dict(model.card), "card", depth=2)
