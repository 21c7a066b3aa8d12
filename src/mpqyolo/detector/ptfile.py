"""`.pt` and `.pth` files of torch >= 1.6, read without executing anything: tensors, and what the model says about itself.

The format: a zip archive, uncompressed, of one pickle `<root>/data.pkl` and the tensors' numbers in `<root>/data/<key>`.
YOLOv5's users have whole pickled models in it, `{"model": ..., "ema": ...}`, or state dicts.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpqyolo.core.errors import CheckpointError, printable
from mpqyolo.detector.pickle_machine import read_pickle
from mpqyolo.detector.pickle_objects import Record, Storage, TensorRef

MAX_ENTRIES, MAX_PICKLE, MAX_NODES, MAX_NAME = 100_000, 8 << 20, 100_000, 256
MAX_SHARED = 4  # times the file that all tensors may be: some share their numbers, and whoever copies them shares no more
DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
}


@dataclass(frozen=True)
class PtFile:
    """A checkpoint's content.

    tensors: by dotted name, in the type they were stored. kinds: class of each module by dotted name, where a model was pickled.
    names: of the classes. strides: px of the prediction levels. meta: plain values beside the model (epoch, date, ...).
    """

    tensors: dict[str, Tensor]
    kinds: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] | None = None
    strides: tuple[int, ...] | None = None
    meta: dict[str, Any] = field(default_factory=dict)


def read_pt(path: str | Path) -> PtFile:
    """Read a checkpoint: its EMA if it holds one, else its model, else its state dict.

    Raises CheckpointError, with the path and the reason, for a file that is missing, broken, hostile or without tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(_Archive(archive, Path(path).stat().st_size))
    except CheckpointError as fault:
        raise CheckpointError(f"{path}: {printable(str(fault))}") from None
    except zipfile.BadZipFile:
        reason = "no complete checkpoint of torch 1.6 or later (a zip file); load it with torch and save it again"
        raise CheckpointError(f"{path}: {reason}") from None
    # zipfile says by a RuntimeError, of whatever kind, that it cannot unpack a part: encrypted, or packed in an unknown way
    except (OSError, EOFError, ValueError, RuntimeError, zlib.error) as fault:
        reason = printable(str(getattr(fault, "strerror", None) or fault))
        raise CheckpointError(f"{path}: cannot be read: {reason}") from None


class _Archive:
    """The zip file: its pickle and its storages, each read once."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        entries = archive.infolist()
        if any(e.compress_type != zipfile.ZIP_STORED for e in entries):
            raise CheckpointError("refused: its parts are compressed, which torch never does; unzip it and zip it with -0")
        if len(entries) > MAX_ENTRIES or sum(e.file_size for e in entries) > size:
            raise CheckpointError("refused: its parts are larger than the file")
        pickles = [e.filename for e in entries if e.filename == "data.pkl" or e.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise CheckpointError("holds no data.pkl: no checkpoint of torch")
        self.archive, self.size, self.pickle = archive, size, pickles[0]
        self.root = self.pickle.removesuffix("data.pkl")
        self.sizes = {e.filename: e.file_size for e in entries}
        self.storages: dict[str, Tensor] = {}

    def read_pickle(self) -> Any:
        order = self.root + "byteorder"
        if order in self.sizes and self.archive.read(order) != b"little":
            raise CheckpointError("is big-endian; load and save it on a little-endian machine")
        if self.sizes[self.pickle] > MAX_PICKLE:
            raise CheckpointError(f"refused: its pickle is larger than {MAX_PICKLE >> 20} MiB")
        return read_pickle(self.archive.read(self.pickle))

    def tensor(self, ref: TensorRef) -> Tensor:
        """The tensor as a view of its storage: shared storages are not copied."""
        return self._storage(ref.storage).as_strided(ref.shape, ref.stride, ref.offset)

    def _storage(self, storage: Storage) -> Tensor:
        name = f"{self.root}data/{storage.key}"
        if storage.kind not in DTYPES:
            raise CheckpointError(f"refused: numbers of type {storage.kind:.40}")
        dtype = DTYPES[storage.kind]
        if self.sizes.get(name) != storage.size * dtype.itemsize:
            raise CheckpointError(f"storage {storage.key!r:.40} is missing, or not of {storage.size} numbers as its pickle says")
        if name not in self.storages:
            data = bytearray(self.archive.read(name))
            if len(data) != self.sizes[name]:
                raise CheckpointError(f"storage {storage.key!r:.40} is cut short")
            self.storages[name] = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
        return self.storages[name].view(dtype)


def _read(archive: _Archive) -> PtFile:
    root = archive.read_pickle()
    top = root if isinstance(root, dict) else {"model": root}
    model = next((top[k] for k in ("ema", "model", "state_dict") if isinstance(top.get(k), Record | dict)), top)
    state = model.state if isinstance(model, Record) else {}
    tensors, kinds = {}, {}
    for name, item in _walk(model):
        if isinstance(item, TensorRef):
            tensors[name] = archive.tensor(item)
        else:
            kinds[name] = item.kind
    if not tensors:
        raise CheckpointError("holds no tensors of a model")
    if sum(tensor.nbytes for tensor in tensors.values()) > MAX_SHARED * archive.size:
        raise CheckpointError("refused: its tensors share their numbers so often that they would not fit into memory")
    meta = {k: v for k, v in top.items() if isinstance(k, str) and isinstance(v, str | int | float | bool)}
    return PtFile(tensors, kinds, _names(state.get("names")), _strides(state.get("stride"), archive), meta)


def _walk(model: Any) -> Iterator[tuple[str, TensorRef | Record]]:
    """(dotted name, tensor or module) of a pickled module or a state dict, depth first."""
    todo = [("", iter([("", model)]))]  # names, and what is left of their parts: no lists, since an object may hold itself
    for _ in range(MAX_NODES):
        if not todo:
            return
        above, parts = todo[-1]
        part = next(parts, None)
        if part is None:
            todo.pop()
            continue
        key, item = part
        if not isinstance(item, TensorRef | Record | dict):
            continue
        name = f"{above}.{key}" if above else str(key)
        if len(name) > MAX_NAME or len(todo) > MAX_NAME:
            break
        if not isinstance(item, dict):
            yield name, item
        if not isinstance(item, TensorRef):
            todo.append((name, _parts(item)))
    raise CheckpointError("refused: its model has no end")


def _parts(item: Record | dict) -> Iterator[tuple[Any, Any]]:
    groups = [item] if isinstance(item, dict) else [item.state.get(name) for name in ("_parameters", "_buffers", "_modules")]
    return chain.from_iterable(group.items() for group in groups if isinstance(group, dict))


def _names(names: Any) -> tuple[str, ...] | None:
    """A list of names, or a dict from 0, 1, ... to names."""
    if isinstance(names, dict):
        names = [names.get(k) for k in range(len(names))]
    return tuple(names) if isinstance(names, list) and names and all(isinstance(n, str) for n in names) else None


def _strides(stride: Any, archive: _Archive) -> tuple[int, ...] | None:
    if not isinstance(stride, TensorRef) or len(stride.shape) != 1 or stride.shape[0] > 8:
        return None
    pixels = archive.tensor(stride).tolist()
    if not all(0 <= n < 1 << 16 for n in pixels):
        raise CheckpointError(f"its strides are {pixels}, which no levels can have")
    return tuple(int(n) for n in pixels)
