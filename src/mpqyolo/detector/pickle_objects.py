"""What a checkpoint's pickle may hold, and the few calls it may ask for, answered with inert values.

Classes and functions that a pickle names stay names (`Global`), objects become `Record`s that hold their state.
No answer copies its arguments: a small pickle must not grow by repeating a call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mpqyolo.core.errors import CheckpointError, printable


class Global(NamedTuple):
    """The name of a class or function; never the thing itself."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Record:
    """An object of the pickle: the name of its class, what it was made with, its attributes."""

    kind: str
    args: tuple = ()
    state: dict[str, Any] = field(default_factory=dict)


class Storage(NamedTuple):
    """A block of numbers beside the pickle. kind: name of torch's storage class; key: its file; size: how many numbers."""

    kind: str
    key: str
    size: int


class TensorRef(NamedTuple):
    """A tensor that was not made yet: where in a storage its numbers lie. Checked to stay inside."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 40


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_rest: Any) -> TensorRef:
    if not isinstance(storage, Storage) or not all(type(t) is tuple and len(t) <= 8 for t in (shape, stride)):
        raise ValueError("a tensor without storage or shape")
    if len(shape) != len(stride) or not all(map(_is_size, (offset, *shape, *stride))):
        raise ValueError("a tensor whose shape, stride or offset are no numbers")
    count = 1
    for n in shape:
        count *= n
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    if count and (last >= storage.size or count > storage.size):
        raise ValueError(f"a tensor of shape {shape} that is larger than its storage of {storage.size}")
    return TensorRef(storage, offset, shape, stride)


def _parameter(data: Any, *_rest: Any) -> TensorRef:
    if not isinstance(data, TensorRef):
        raise ValueError("a parameter that is no tensor")
    return data


def _record(kind: str) -> Callable[..., Record]:
    return lambda *args: Record(kind, args)


# What a pickle may call, and what we answer. Sets stay lists: their items may be unhashable. Bytes stay text: nobody reads them.
CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": lambda: {},
    "_codecs.encode": lambda text, _encoding: text,
    "torch.Size": lambda shape=(): shape,
    **{f"{module}.{name}": lambda items=(): items for module in ("builtins", "__builtin__") for name in ("set", "frozenset")},
    **{
        name: _record(name)
        for name in (
            *(f"numpy.{core}.multiarray.{call}" for core in ("core", "_core") for call in ("_reconstruct", "scalar")),
            *("numpy.dtype", "torch.device", "datetime.datetime", "datetime.date"),
            *(f"pathlib.{path}" for path in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")),
        )
    },
}


def call(function: Any, args: Any) -> Any:
    """The answer to a call of `function`. Raises CheckpointError if it may not be called."""
    if not isinstance(function, Global) or type(args) is not tuple or str(function) not in CALLS:
        called = printable(f"{function!s:.80}") if isinstance(function, Global) else f"a {type(function).__name__}"
        raise CheckpointError(f"refused: it calls {called}, and a checkpoint may hold only tensors and plain containers")
    return CALLS[str(function)](*args)


def new(kind: Any, args: Any) -> Any:
    """An object of class `kind`, inert."""
    if not isinstance(kind, Global) or type(args) is not tuple:
        raise ValueError("an object of something that is no class")
    return CALLS[str(kind)](*args) if str(kind) == "collections.OrderedDict" else Record(str(kind), args)


def build(target: Any, state: Any) -> None:
    """Give an object its attributes. None of them is ever looked up as a method."""
    if isinstance(target, Record):
        target.state = state if isinstance(state, dict) else {"state": state}
    elif type(target) is not dict:  # an OrderedDict's own attributes (`_metadata` of a state dict) are of no use here
        raise ValueError(f"attributes for a {type(target).__name__}")


def storage(pid: Any) -> Storage:
    """The block of numbers that a persistent id names. Raises CheckpointError for any other id."""
    match pid:
        case ("storage", Global("torch" | "torch.storage", kind), str(key), str(), int(size), *_) if _is_size(size):
            return Storage(kind, key, size)
    raise CheckpointError("refused: it refers to something outside that is no storage of a tensor")
