"""`.mpqy` -> Model. The file is untrusted: sizes, checksum, structure and rules are checked before anything is used."""

from __future__ import annotations

import hashlib
import math
import mmap
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mpqyolo.core.bits import REGIONS
from mpqyolo.core.errors import FileFormatError, printable
from mpqyolo.format import layout as limit
from mpqyolo.format.layout import ALIGNMENT, MAGIC, PREFIX, PREFIX_BYTES, VERSION, WITH, align
from mpqyolo.format.strict import array, integer, obj, parse, real, string
from mpqyolo.format.validate import check_constant_shape, check_name, check_tensor_shape, need, validate
from mpqyolo.graph.ir import Constant, Decode, Graph, Level, Model, Node, Tensor
from mpqyolo.graph.ops import MAX_WEIGHT, OPS, OUTPUT_TYPES, GraphError, constant_shape, fixed_scale, infer
from mpqyolo.reference.numerics import BITS, packed_size, unpack

TOP = ("graph", "decode", "classes", "policy", "card")
CELLS = {"s16": 2, "u4": 3, "b1": 1}  # of a conv's output, without its name


def _sections(data: memoryview) -> tuple[bytes, memoryview]:
    """Header text and data section, after every check that needs no JSON."""
    size = len(data)
    need(size >= PREFIX_BYTES, f"has {size} bytes, a .mpqy file has at least {PREFIX_BYTES}")
    magic, version, flags, header_length, start, data_length, digest, zeros = PREFIX.unpack_from(data)
    need(magic == MAGIC, "is not a .mpqy file (wrong magic)")
    need(version == VERSION, f"has version {version}, this reader knows {VERSION}")
    need(flags == 0, f"has unknown flags {flags:#x}")
    need(not any(zeros), "bytes 72..127 must be zero")
    need(2 <= header_length <= limit.MAX_HEADER_BYTES, f"header_length is {header_length}, must be 2..{limit.MAX_HEADER_BYTES}")
    need(start == align(PREFIX_BYTES + header_length), f"data_offset is {start}, must be {align(PREFIX_BYTES + header_length)}")
    good = data_length <= limit.MAX_DATA_BYTES and data_length % ALIGNMENT == 0
    need(good, f"data_length is {data_length}, must be a multiple of {ALIGNMENT} up to {limit.MAX_DATA_BYTES}")
    need(size == start + data_length, f"has {size} bytes, must have {start + data_length}: it is truncated or has a tail")
    need(hashlib.sha256(data[PREFIX_BYTES:]).digest() == digest, "the checksum is wrong: the file is damaged")
    end = PREFIX_BYTES + header_length
    need(not any(data[end:start]), "the bytes between header and data must be zero")
    return bytes(data[PREFIX_BYTES:end]), data[start:]


class _Details(NamedTuple):
    """What the last item of a node says, with defaults filled in. names, dtypes, scales: of its outputs; channels: of all."""

    attributes: dict[str, Any]
    roles: tuple[str, ...]
    weight: str
    channels: int
    names: tuple[str, ...]
    scales: dict[str, float]


def _conv(value: Any, where: str, name: str, residual: bool) -> _Details:
    ranges = OPS["conv"].attributes
    item = obj(
        value, where, ("weight", "channels", "kernel", "out"), ("stride", "pad", "shift", "residual_last", "planes", "with")
    )

    def number(key: str, default: int | None = None) -> int:
        return integer(item.get(key, default), f"{where} {key}", ranges[key].low, ranges[key].high)

    kernel = number("kernel")
    attributes: dict[str, Any] = {"kernel": kernel, "stride": number("stride", 1)}
    attributes |= {"pad": number("pad", kernel // 2), "shift": number("shift", 0)}
    need(residual or "residual_last" not in item, f"{where}: 'residual_last' needs a residual")
    if residual:
        attributes["residual_last"] = number("residual_last", 0)
    if "planes" in item:
        attributes["planes"] = number("planes")
    weight = string(item["weight"], f"{where} weight")
    need(weight in MAX_WEIGHT, f"{where}: unknown type of weights {weight[:40]!r}, must be {', '.join(MAX_WEIGHT)}")
    channels = integer(item["channels"], f"{where} channels", 1, limit.MAX_CHANNELS)

    names, scales = [], {}
    for i, row in enumerate(array(item["out"], f"{where} out", 1, len(OUTPUT_TYPES))):
        at = f"{where} output {i}"
        cells = array(row, at, 1, 4)
        dtype = string(cells[0], at)
        need(dtype in CELLS, f"{at}: unknown dtype {dtype[:40]!r}")
        need(dtype not in scales, f"{at}: {dtype} comes twice")
        stepped = dtype == "b1" and len(cells) > 1 and type(cells[1]) is int
        fixed = CELLS[dtype] + stepped
        array(row, at, fixed, fixed + 1)
        scales[dtype] = 1.0
        if dtype == "s16":
            scales[dtype] = 2.0 ** -integer(cells[1], f"{at} fraction", 0, limit.MAX_FRACTION)
        elif dtype == "u4":
            attributes["fraction"] = integer(cells[1], f"{at} fraction", ranges["fraction"].low, ranges["fraction"].high)
            scales[dtype] = real(cells[2], f"{at} scale")
        elif stepped:
            attributes["step"] = integer(cells[1], f"{at} step", ranges["step"].low, ranges["step"].high)
        derived = name if i == 0 else f"{name}.{dtype}"
        names.append(derived if len(cells) == fixed else string(cells[-1], f"{at} name"))
    attributes["outputs"] = tuple(scales)

    more = [string(role, f"{where} with") for role in array(item.get("with", []), f"{where} with", 0, len(WITH))]
    need(set(more) <= set(WITH), f"{where}: unknown role in 'with', known are {', '.join(WITH)}")
    need(len(set(more)) == len(more), f"{where}: a role comes twice in 'with'")
    need(residual or "gain" not in more, f"{where}: 'gain' needs a residual")
    there = {*OPS["conv"].required, *more, *(["threshold"] if "b1" in scales else [])}
    return _Details(attributes, tuple(r for r in OPS["conv"].roles if r in there), weight, channels, tuple(names), scales)


def _details(op: str, value: Any, where: str, name: str, inputs: Sequence[Tensor]) -> _Details:
    if op == "conv":
        return _conv(value, where, name, len(inputs) == 2)
    spec = OPS[op]
    always = tuple(key for key, rule in spec.attributes.items() if not rule.optional)
    sometimes = tuple(key for key, rule in spec.attributes.items() if rule.optional)
    item = obj(value, where, (*always, "scale") if spec.has_scale else always, sometimes)
    attributes = {
        key: integer(item[key], f"{where} {key}", rule.low, rule.high) for key, rule in spec.attributes.items() if key in item
    }
    scales = {"u4": real(item["scale"], f"{where} scale")} if spec.has_scale else {}
    return _Details(attributes, spec.roles, "", inputs[0].shape[0], (name,), scales)


class _Reading:
    """The graph, growing node by node, and how much of the data section its constants have taken."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.end = data, 0
        self.tensors: list[Tensor] = []
        self.constants: dict[str, Constant] = {}
        self.nodes: list[Node] = []
        self.names: tuple[set[str], set[str]] = set(), set()  # of tensors, of nodes

    def _name(self, name: str, where: str, taken: set[str]) -> str:
        check_name(name, where)
        need(name not in taken, f"{where}: the name '{name}' comes twice")
        taken.add(name)
        return name

    def tensor(self, name: str, dtype: str, shape: tuple[int, int, int], scale: float, where: str) -> None:
        need(len(self.tensors) < limit.MAX_ITEMS, f"{where}: more than {limit.MAX_ITEMS} tensors")
        check_tensor_shape(shape, where)
        self.tensors.append(Tensor(self._name(name, where, self.names[0]), dtype, shape, scale))

    def index(self, value: Any, where: str) -> str:
        """The name of a tensor that is there already."""
        return self.tensors[integer(value, where, 0, len(self.tensors) - 1)].name

    def constant(self, name: str, dtype: str, shape: tuple[int, ...]) -> Constant:
        """The next one of the data section."""
        where = f"constant '{name}'"
        need(len(self.constants) < limit.MAX_ITEMS, f"{where}: more than {limit.MAX_ITEMS} constants")
        check_constant_shape(shape, where)
        count = math.prod(shape)
        start, size = align(self.end), packed_size(dtype, count)
        need(
            start + size <= len(self.data), f"{where}: ends at {start + size}, behind the data section of {len(self.data)} bytes"
        )
        need(not any(self.data[self.end : start]), f"{where}: the gap before it must be zero")
        self.end = start + size
        packed = self.data[start : self.end]
        spare = 8 * size - count * BITS[dtype]
        need(spare == 0 or packed[-1] >> (8 - spare) == 0, f"{where}: unused bits of the last byte must be zero")
        values: np.ndarray = unpack(packed, dtype, count).reshape(shape)
        values.flags.writeable = False
        self.constants[name] = Constant(name, dtype, values)
        return self.constants[name]

    def node(self, value: Any, where: str) -> None:
        op, name, sources, details = array(value, where, 4, 4)
        name = self._name(string(name, f"{where} name"), where, self.names[1])
        where = f"node '{name}'"
        need(string(op, f"{where} operator") in OPS, f"{where}: unknown operator {op[:40]!r}")
        spec, last = OPS[op], len(self.tensors) - 1
        inputs = [self.tensors[integer(i, f"{where} input", 0, last)] for i in array(sources, f"{where} inputs", *spec.inputs)]
        said = _details(op, details, where, name, inputs)
        called = {role: f"{name}.{role}" for role in said.roles}
        node = Node(op, name, tuple(t.name for t in inputs), said.names, called, said.attributes)
        constants = {}
        for role, constant in called.items():
            dtype = said.weight if role == "weight" else "i16"
            constants[role] = self.constant(constant, dtype, constant_shape(role, node, inputs, said.channels))
        try:
            types = infer(node, inputs, constants)
        except GraphError as fault:
            raise FileFormatError(str(fault)) from None
        for output, (dtype, shape) in zip(node.outputs, types, strict=True):
            scale = fixed_scale(op, dtype, inputs[0])
            self.tensor(output, dtype, shape, said.scales[dtype] if scale is None else scale, f"{where} output")
        self.nodes.append(node)


def _graph(value: Any, data: memoryview) -> Graph:
    item = obj(value, "graph", ("input", "nodes", "outputs"))
    reading = _Reading(data)
    name, *size = array(item["input"], "graph input", 3, 3)
    height, width = (integer(n, "graph input size", 1, limit.MAX_EDGE) for n in size)
    reading.tensor(string(name, "graph input name"), "u8", (3, height, width), 1 / 255, "graph input")
    for i, entry in enumerate(array(item["nodes"], "nodes", 1, limit.MAX_ITEMS)):
        reading.node(entry, f"node {i}")
    end = align(reading.end)
    need(len(data) == end, f"the data section has {len(data)} bytes, its constants need {end}")
    need(not any(data[reading.end :]), "the bytes after the last constant must be zero")
    outputs = tuple(reading.index(i, "graph output") for i in array(item["outputs"], "graph outputs", 1, limit.MAX_ITEMS))
    return Graph({t.name: t for t in reading.tensors}, reading.constants, tuple(reading.nodes), name, outputs)


def _decode(value: Any, graph: Graph) -> Decode:
    item = obj(value, "decode", ("kind", "iou", "levels"))
    tensors, levels = list(graph.tensors.values()), []
    for i, entry in enumerate(array(item["levels"], "decode levels", 1, limit.MAX_LEVELS)):
        where = f"decode level {i}"
        pair = [tensors[integer(index, where, 0, len(tensors) - 1)] for index in array(entry, where, 2, 2)]
        stride = graph.tensors[graph.input].shape[1] // pair[0].shape[1]  # exactly: `validate` sees to it
        levels.append(Level(stride, pair[0].name, pair[1].name))
    return Decode(tuple(levels), real(item["iou"], "decode iou"), string(item["kind"], "decode kind"))


def _policy(value: Any) -> dict[str, Any]:
    item = obj(value, "policy", ("name", "bits"))
    bits = obj(item["bits"], "policy bits", REGIONS)
    return {"name": string(item["name"], "policy name"), "bits": bits}


def _model(data: memoryview) -> Model:
    text, constants = _sections(data)
    header = obj(parse(text), "header", TOP, more=True)
    graph = _graph(header["graph"], constants)
    decode = _decode(header["decode"], graph)
    classes = tuple(string(c, "class name") for c in array(header["classes"], "classes", 1, limit.MAX_CLASSES))
    card = obj(header["card"], "card", (), more=True)
    model = Model(graph, decode, classes, _policy(header["policy"]), card)
    validate(model)
    return model


def loads(data: bytes | memoryview | mmap.mmap, source: str = "model") -> Model:
    """The model in these bytes. 8- and 16-bit constants are read-only views of `data`; 1- and 4-bit ones are unpacked to int8.

    Raises FileFormatError, one line that starts with `source`.
    """
    try:
        return _model(memoryview(data).toreadonly())
    except FileFormatError as fault:  # names in the file may hold characters that a terminal obeys
        raise FileFormatError(f"{source}: {printable(str(fault))}") from None


def read_model(path: str | os.PathLike[str]) -> Model:
    """The model in this file, memory-mapped. Raises FileFormatError, one line that starts with the path."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except (OSError, ValueError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) and fault.strerror else str(fault)
        raise FileFormatError(f"{os.fspath(path)}: cannot be read: {reason}") from None
    return loads(data, str(path))
