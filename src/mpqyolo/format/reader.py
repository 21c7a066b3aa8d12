"""`.mpqy` -> Model. The file is untrusted: sizes, checksum, structure and rules are checked before anything is used."""

from __future__ import annotations

import hashlib
import math
import mmap
import os
from typing import Any

from mpqyolo.core.bits import REGIONS
from mpqyolo.core.errors import FileFormatError
from mpqyolo.format import layout as limit
from mpqyolo.format.layout import ALIGNMENT, MAGIC, PREFIX, PREFIX_BYTES, VERSION, align
from mpqyolo.format.strict import array, integer, obj, parse, real, string
from mpqyolo.format.validate import check_constant_shape, check_name, need, validate
from mpqyolo.graph.ir import CONSTANT_TYPES, Constant, Decode, Graph, Level, Model, Node, Tensor
from mpqyolo.reference.numerics import BITS, packed_size, unpack

TOP = ("graph", "decode", "classes", "policy", "card")


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


def _names(items: list[Any], kind: str) -> None:
    seen = set()
    for i, item in enumerate(items):
        check_name(item.name, f"{kind} {i}")
        need(item.name not in seen, f"{kind} {i}: the name '{item.name}' comes twice")
        seen.add(item.name)


def _tensor(value: Any, where: str) -> Tensor:
    item = obj(value, where, ("name", "dtype", "shape", "scale"))
    shape = tuple(integer(n, f"{where} shape", 1, limit.MAX_EDGE) for n in array(item["shape"], f"{where} shape", 3, 3))
    name, dtype = string(item["name"], f"{where} name"), string(item["dtype"], f"{where} dtype")
    return Tensor(name, dtype, (shape[0], shape[1], shape[2]), real(item["scale"], f"{where} scale"))


def _constants(value: Any, data: memoryview) -> list[Constant]:
    constants, end = [], 0
    for i, entry in enumerate(array(value, "constants", 0, limit.MAX_ITEMS)):
        where = f"constant {i}"
        item = obj(entry, where, ("name", "dtype", "shape", "offset", "bytes"))
        name, dtype = string(item["name"], f"{where} name"), string(item["dtype"], f"{where} dtype")
        need(dtype in CONSTANT_TYPES, f"{where}: unknown dtype {dtype[:40]!r}")
        shape = [integer(n, f"{where} shape", 1, limit.MAX_CHANNELS) for n in array(item["shape"], f"{where} shape", 1, 4)]
        check_constant_shape(shape, where)
        count = math.prod(shape)
        offset = integer(item["offset"], f"{where} offset", 0, limit.MAX_DATA_BYTES)
        size = integer(item["bytes"], f"{where} bytes", 0, limit.MAX_DATA_BYTES)
        need(size == packed_size(dtype, count), f"{where}: bytes is {size}, must be {packed_size(dtype, count)}")
        need(offset == align(end), f"{where}: offset is {offset}, must be {align(end)} (no hole, no overlap, multiples of 64)")
        need(offset + size <= len(data), f"{where}: ends at {offset + size}, behind the data section of {len(data)} bytes")
        need(not any(data[end:offset]), f"{where}: the gap before it must be zero")
        end = offset + size
        packed = data[offset:end]
        spare = 8 * size - count * BITS[dtype]
        need(spare == 0 or packed[-1] >> (8 - spare) == 0, f"{where}: unused bits of the last byte must be zero")
        values = unpack(packed, dtype, count).reshape(shape)
        values.flags.writeable = False
        constants.append(Constant(name, dtype, values))
    need(len(data) == align(end), f"the data section has {len(data)} bytes, its constants need {align(end)}")
    need(not any(data[end:]), "the bytes after the last constant must be zero")
    return constants


def _attribute(value: Any, where: str) -> Any:
    if isinstance(value, list):
        return tuple(string(v, where) for v in array(value, where, 1, 8))
    return integer(value, where, -(2**31), 2**31 - 1)


def _node(value: Any, where: str, tensors: list[Tensor], constants: list[Constant]) -> Node:
    item = obj(value, where, ("op", "name", "inputs", "outputs", "constants", "attributes"))
    top = len(tensors) - 1
    inputs = tuple(tensors[integer(i, f"{where} input", 0, top)].name for i in array(item["inputs"], f"{where} inputs", 1, 16))
    outputs = tuple(tensors[integer(i, f"{where} output", 0, top)].name for i in array(item["outputs"], f"{where} outputs", 1, 3))
    mine = {
        role: constants[integer(i, f"{where} constant", 0, len(constants) - 1)].name
        for role, i in obj(item["constants"], f"{where} constants", (), more=True).items()
    }
    attributes = {
        key: _attribute(v, f"{where} attribute {key[:40]!r}")
        for key, v in obj(item["attributes"], f"{where} attributes", (), more=True).items()
    }
    return Node(string(item["op"], f"{where} op"), string(item["name"], f"{where} name"), inputs, outputs, mine, attributes)


def _graph(value: Any, data: memoryview) -> Graph:
    item = obj(value, "graph", ("tensors", "constants", "nodes", "input", "outputs"))
    tensors = [_tensor(t, f"tensor {i}") for i, t in enumerate(array(item["tensors"], "tensors", 1, limit.MAX_ITEMS))]
    _names(tensors, "tensor")
    constants = _constants(item["constants"], data)
    _names(constants, "constant")
    entries = array(item["nodes"], "nodes", 1, limit.MAX_ITEMS)
    nodes = tuple(_node(n, f"node {i}", tensors, constants) for i, n in enumerate(entries))
    top = len(tensors) - 1
    first = tensors[integer(item["input"], "graph input", 0, top)].name
    listed = array(item["outputs"], "graph outputs", 1, limit.MAX_ITEMS)
    outputs = tuple(tensors[integer(i, "graph output", 0, top)].name for i in listed)
    return Graph({t.name: t for t in tensors}, {c.name: c for c in constants}, nodes, first, outputs)


def _decode(value: Any, graph: Graph) -> Decode:
    item = obj(value, "decode", ("kind", "iou", "levels"))
    names, levels = list(graph.tensors), []
    for i, entry in enumerate(array(item["levels"], "decode levels", 1, limit.MAX_LEVELS)):
        where = f"decode level {i}"
        level = obj(entry, where, ("stride", "distance", "logit"))
        stride = integer(level["stride"], f"{where} stride", limit.MIN_STRIDE, limit.MAX_STRIDE)
        maps = [names[integer(level[key], f"{where} {key}", 0, len(names) - 1)] for key in ("distance", "logit")]
        levels.append(Level(stride, *maps))
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
    except FileFormatError as fault:
        raise FileFormatError(f"{source}: {fault}") from None


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
