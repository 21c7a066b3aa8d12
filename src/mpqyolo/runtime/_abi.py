"""engine/include/mpqyolo.h in ctypes: structures in the header's order, prototypes, and calls that raise."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, c_char_p, c_float, c_int32, c_int64, c_size_t, c_ssize_t, c_uint64, c_void_p
from typing import Any

ABI_VERSION = 1
MAX_BOXES = 300
TENSOR_TYPES = ("u8", "b1", "u4", "s16")  # by number


class Options(ctypes.Structure):
    _fields_ = (
        ("height", c_int32),
        ("width", c_int32),
        ("threads", c_int32),
        ("keep_tensors", c_int32),
        ("isa", c_char_p),
    )


class ModelInfo(ctypes.Structure):
    _fields_ = (
        ("height", c_int32),
        ("width", c_int32),
        ("channels", c_int32),
        ("classes", c_int32),
        ("stride", c_int32),
        ("iou", c_float),
    )


class SessionInfo(ctypes.Structure):
    _fields_ = (
        ("height", c_int32),
        ("width", c_int32),
        ("threads", c_int32),
        ("layers", c_int32),
        ("arena_bytes", c_uint64),
        ("prepared_bytes", c_uint64),
        ("isa", c_char_p),
    )


class Box(ctypes.Structure):
    _fields_ = (
        ("x1", c_float),
        ("y1", c_float),
        ("x2", c_float),
        ("y2", c_float),
        ("score", c_float),
        ("class_id", c_int32),
    )


class Placement(ctypes.Structure):
    _fields_ = (("left", c_int32), ("top", c_int32), ("nw", c_int32), ("nh", c_int32), ("w", c_int32), ("h", c_int32))


class TensorInfo(ctypes.Structure):
    _fields_ = (("dtype", c_int32), ("channels", c_int32), ("height", c_int32), ("width", c_int32))


class LayerInfo(ctypes.Structure):
    _fields_ = (("name", c_char_p), ("kernel", c_char_p), ("nanoseconds", c_uint64))


_ERROR = (c_char_p, c_size_t)  # the buffer that every call which can fail takes last
_PROTOTYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "mpq_version": (c_char_p, ()),
    "mpq_abi_version": (c_int32, ()),
    "mpq_model_open": (c_void_p, (c_char_p, *_ERROR)),
    "mpq_model_open_memory": (c_void_p, (c_void_p, c_size_t, *_ERROR)),
    "mpq_model_free": (None, (c_void_p,)),
    "mpq_model_describe": (ModelInfo, (c_void_p,)),
    "mpq_model_class_name": (c_char_p, (c_void_p, c_int32)),
    "mpq_model_header": (c_void_p, (c_void_p, POINTER(c_size_t))),
    "mpq_session_new": (c_void_p, (c_void_p, POINTER(Options), *_ERROR)),
    "mpq_session_free": (None, (c_void_p,)),
    "mpq_session_describe": (SessionInfo, (c_void_p,)),
    "mpq_session_run": (None, (c_void_p, c_void_p)),
    "mpq_session_decode": (c_int32, (c_void_p, c_float, c_float, POINTER(Placement), c_void_p, c_int32, *_ERROR)),
    "mpq_session_detect": (
        c_int32,
        (c_void_p, c_void_p, c_int32, c_int32, c_ssize_t, c_float, c_float, c_void_p, c_int32, *_ERROR),
    ),
    "mpq_session_tensor": (c_int64, (c_void_p, c_char_p, POINTER(TensorInfo), c_void_p, c_size_t, *_ERROR)),
    "mpq_session_layer": (LayerInfo, (c_void_p, c_int32)),
    "mpq_letterbox": (
        c_int32,
        (c_void_p, c_int32, c_int32, c_ssize_t, c_void_p, c_int32, c_int32, POINTER(Placement), *_ERROR),
    ),
}


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types of all its functions. Raises AttributeError if one is missing."""
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def call(function: Any, *arguments: Any, fault: Callable[[str], Exception]) -> Any:
    """The function's result; raises `fault(line)` if it is NULL or negative."""
    line = ctypes.create_string_buffer(512)
    result = function(*arguments, line, len(line))
    if result is None or result < 0:
        raise fault(line.value.decode("utf-8", "replace"))
    return result
