"""Model -> `.mpqy`. The same model always gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from mpqyolo.core.errors import FileFormatError
from mpqyolo.format.layout import MAGIC, MAX_DATA_BYTES, MAX_HEADER_BYTES, PREFIX, PREFIX_BYTES, VERSION, WITH, align
from mpqyolo.format.strict import check_json
from mpqyolo.format.validate import need, s16_fraction, validate
from mpqyolo.graph.ir import Graph, Model, Node
from mpqyolo.graph.ops import OPS
from mpqyolo.reference.numerics import pack


def _outputs(graph: Graph, node: Node) -> list[list[Any]]:
    """Rows of what a conv writes; a name only where it is not the derived one."""
    rows: list[list[Any]] = []
    for i, (name, dtype) in enumerate(zip(node.outputs, node.attributes["outputs"], strict=True)):
        row: list[Any] = [dtype]
        if dtype == "s16":
            row.append(s16_fraction(graph.tensors[name].scale))
        elif dtype == "u4":
            row += [node.attributes["fraction"], float(graph.tensors[name].scale)]
        elif "step" in node.attributes:
            row.append(node.attributes["step"])
        rows.append(row if name == (f"{node.name}.{dtype}" if i else node.name) else [*row, name])
    return rows


def _details(graph: Graph, node: Node) -> dict[str, Any]:
    """What a node's operator, name and inputs do not say; defaults are left out."""
    at = node.attributes
    if node.op != "conv":
        scale = {"scale": float(graph.tensors[node.outputs[0]].scale)} if OPS[node.op].has_scale else {}
        return dict(at) | scale
    weight = graph.constants[node.constants["weight"]]
    item = {"weight": weight.dtype, "channels": weight.values.shape[0], "kernel": at["kernel"]}
    defaults = {"stride": 1, "pad": at["kernel"] // 2, "shift": 0, "residual_last": 0}
    item |= {key: at[key] for key, default in defaults.items() if at.get(key, default) != default}
    item |= {"planes": at["planes"]} if "planes" in at else {}
    more = [role for role in WITH if role in node.constants]
    return item | ({"with": more} if more else {}) | {"out": _outputs(graph, node)}


def _graph(graph: Graph, index: dict[str, int]) -> tuple[dict[str, Any], bytes]:
    """Header part and data section. index: filled with the numbers of the tensors."""
    index[graph.input] = 0
    data, nodes = bytearray(), []
    for node in graph.nodes:
        nodes.append([node.op, node.name, [index[name] for name in node.inputs], _details(graph, node)])
        index |= {name: len(index) + i for i, name in enumerate(node.outputs)}
        for role in OPS[node.op].roles:
            if role in node.constants:
                constant = graph.constants[node.constants[role]]
                data.extend(bytes(align(len(data)) - len(data)))
                data.extend(pack(constant.values, constant.dtype))
    data.extend(bytes(align(len(data)) - len(data)))
    _, height, width = graph.tensors[graph.input].shape
    outputs = [index[name] for name in graph.outputs]
    return {"input": [graph.input, height, width], "nodes": nodes, "outputs": outputs}, bytes(data)


def assemble(header: dict[str, Any] | bytes, data: bytes) -> bytes:
    """Prefix, header and data with a right checksum; nothing is checked (tests make hostile files with it)."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    start = align(PREFIX_BYTES + len(text))
    body = text + bytes(start - PREFIX_BYTES - len(text)) + data
    digest = hashlib.sha256(body).digest()
    return PREFIX.pack(MAGIC, VERSION, 0, len(text), start, len(data), digest, bytes(56)) + body


def parts(model: Model) -> tuple[dict[str, Any], bytes]:
    """The header object and the data section of a model, unchecked."""
    try:
        index: dict[str, int] = {}
        graph, data = _graph(model.graph, index)
        levels = [[index[level.distance], index[level.logit]] for level in model.decode.levels]
    except KeyError as missing:
        raise FileFormatError(f"the graph names {missing}, which it does not hold") from None
    decode = {"kind": model.decode.kind, "iou": float(model.decode.iou), "levels": levels}
    header = {"graph": graph, "decode": decode, "classes": list(model.classes), "policy": dict(model.policy)}
    return header | {"card": dict(model.card)}, data


def dumps(model: Model) -> bytes:
    """The bytes of the file. Raises FileFormatError if the model breaks a rule of docs/format.md."""
    validate(model)
    header, data = parts(model)
    check_json(header, "header")
    need(len(data) <= MAX_DATA_BYTES, f"the constants take {len(data)} bytes, at most {MAX_DATA_BYTES}")
    file = assemble(header, data)
    length = PREFIX.unpack_from(file)[3]
    need(length <= MAX_HEADER_BYTES, f"the header takes {length} bytes, at most {MAX_HEADER_BYTES}: the card is too long")
    return file


def write_model(model: Model, path: str | os.PathLike[str]) -> None:
    """Writes the file so that `path` holds either all of it or what it held before: temporary file, fsync, rename."""
    data = dumps(model)
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as fault:
        raise FileFormatError(f"{path}: cannot be written: {fault.strerror}") from None
    finally:
        with suppress(OSError):  # a name that is too long cannot be removed either
            temporary.unlink(missing_ok=True)
