"""Model -> `.mpqy`. The same model always gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

from mpqyolo.core.errors import FileFormatError
from mpqyolo.format.layout import MAGIC, PREFIX, PREFIX_BYTES, VERSION, align
from mpqyolo.format.validate import validate
from mpqyolo.graph.ir import Decode, Graph, Model
from mpqyolo.reference.numerics import pack


def _attribute(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _graph(graph: Graph) -> tuple[dict[str, Any], bytes]:
    tensor = {name: i for i, name in enumerate(graph.tensors)}
    constant = {name: i for i, name in enumerate(graph.constants)}
    data, constants = bytearray(), []
    for c in graph.constants.values():
        data.extend(bytes(align(len(data)) - len(data)))
        packed = pack(c.values, c.dtype)
        shape = list(c.values.shape)
        constants.append({"name": c.name, "dtype": c.dtype, "shape": shape, "offset": len(data), "bytes": len(packed)})
        data.extend(packed)
    data.extend(bytes(align(len(data)) - len(data)))
    header = {
        "tensors": [
            {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "scale": float(t.scale)} for t in graph.tensors.values()
        ],
        "constants": constants,
        "nodes": [
            {
                "op": node.op,
                "name": node.name,
                "inputs": [tensor[name] for name in node.inputs],
                "outputs": [tensor[name] for name in node.outputs],
                "constants": {role: constant[name] for role, name in node.constants.items()},
                "attributes": {name: _attribute(value) for name, value in node.attributes.items()},
            }
            for node in graph.nodes
        ],
        "input": tensor[graph.input],
        "outputs": [tensor[name] for name in graph.outputs],
    }
    return header, bytes(data)


def _decode(decode: Decode, graph: Graph) -> dict[str, Any]:
    index = {name: i for i, name in enumerate(graph.tensors)}
    levels = [{"stride": v.stride, "distance": index[v.distance], "logit": index[v.logit]} for v in decode.levels]
    return {"kind": decode.kind, "iou": float(decode.iou), "levels": levels}


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
        graph, data = _graph(model.graph)
        decode = _decode(model.decode, model.graph)
    except KeyError as missing:
        raise FileFormatError(f"the graph names {missing}, which it does not hold") from None
    header = {"graph": graph, "decode": decode, "classes": list(model.classes), "policy": dict(model.policy)}
    return header | {"card": dict(model.card)}, data


def dumps(model: Model) -> bytes:
    """The bytes of the file. Raises FileFormatError if the model breaks a rule of docs/format.md."""
    validate(model)
    header, data = parts(model)
    return assemble(header, data)


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
        temporary.unlink(missing_ok=True)
