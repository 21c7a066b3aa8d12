"""`.pt` and `.pth` files of torch >= 1.6, read without executing anything: tensors, and what the model says about itself.

The format: a zip archive, uncompressed, of one pickle `<root>/data.pkl` and the tensors' numbers in `<root>/data/<key>`.
YOLOv5's users have whole pickled models in it, `{"model": ..., "ema": ...}`, or state dicts.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpqyolo.core.errors import CheckpointError
from mpqyolo.detector.pickle_machine import read_pickle
from mpqyolo.detector.pickle_objects import Record, Storage, TensorRef

MAX_ENTRIES, MAX_PICKLE, MAX_NODES, MAX_NAME = 100_000, 8 << 20, 100_000, 256
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
        raise CheckpointError(f"{path}: {fault}") from None
    except zipfile.BadZipFile:
        reason = "no complete checkpoint of torch 1.6 or later (a zip file); load it with torch and save it again"
        raise CheckpointError(f"{path}: {reason}") from None
    # zipfile says by a RuntimeError, of whatever kind, that it cannot unpack a part: encrypted, or packed in an unknown way
    except (OSError, EOFError, ValueError, RuntimeError, zlib.error) as fault:
        raise CheckpointError(f"{path}: cannot be read: {getattr(fault, 'strerror', None) or fault}") from None


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
        self.archive, self.pickle = archive, pickles[0]
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
            raise CheckpointError(f"refused: numbers of type {storage.kind}")
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
    meta = {k: v for k, v in top.items() if isinstance(k, str) and isinstance(v, str | int | float | bool)}
    return PtFile(tensors, kinds, _names(state.get("names")), _strides(state.get("stride"), archive), meta)


def _walk(model: Any) -> Iterator[tuple[str, TensorRef | Record]]:
    """(dotted name, tensor or module) of a pickled module or a state dict, depth first."""
    todo, seen = [("", model)], 0
    while todo:
        name, item = todo.pop()
        seen += 1
        if seen > MAX_NODES or len(name) > MAX_NAME:  # an object may hold itself
            raise CheckpointError("refused: its model has no end")
        if isinstance(item, TensorRef | Record):
            yield name, item
        parts = item if isinstance(item, dict) else {}
        if isinstance(item, Record):
            groups = [item.state.get(group) for group in ("_parameters", "_buffers", "_modules")]
            parts = {k: v for group in groups if isinstance(group, dict) for k, v in group.items()}
        children = [(f"{name}.{k}" if name else str(k), v) for k, v in parts.items()]
        todo += [child for child in reversed(children) if isinstance(child[1], TensorRef | Record | dict)]


def _names(names: Any) -> tuple[str, ...] | None:
    """A list of names, or a dict from 0, 1, ... to names."""
    if isinstance(names, dict):
        names = [names.get(k) for k in range(len(names))]
    return tuple(names) if isinstance(names, list) and names and all(isinstance(n, str) for n in names) else None


def _strides(stride: Any, archive: _Archive) -> tuple[int, ...] | None:
    if not isinstance(stride, TensorRef) or len(stride.shape) != 1 or stride.shape[0] > 8:
        return None
    return tuple(int(n) for n in archive.tensor(stride).tolist())
