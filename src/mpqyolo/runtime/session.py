"""A model file and a session that runs it: thin, typed handles of the C API."""

from __future__ import annotations

import ctypes
import json
import os
import threading
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from mpqyolo.core.detections import Detections
from mpqyolo.core.errors import EngineError, FileFormatError, ImageError
from mpqyolo.runtime._abi import MAX_BOXES, TENSOR_TYPES, Box, Options, TensorInfo, call
from mpqyolo.runtime._load import library

NUMPY_TYPE = {"u8": np.uint8, "b1": np.int8, "u4": np.uint8, "s16": np.int16}
_BOX = np.dtype([("xyxy", "f4", 4), ("score", "f4"), ("class_id", "i4")])
assert _BOX.itemsize == ctypes.sizeof(Box)


class Model:
    """A `.mpqy` file (path or bytes), checked and mapped; read-only, so any number of sessions and threads may share it.

    height, width: the input size of the file, px. stride: input sizes are multiples of it. names: of the classes. iou: default of
    suppression. Raises FileFormatError for a file that breaks a rule of docs/format.md, EngineError without a native library.
    """

    def __init__(self, source: str | os.PathLike[str] | bytes) -> None:
        self._library = library()
        arguments: tuple[Any, ...]
        if isinstance(source, (bytes, bytearray, memoryview)):
            data = bytes(source)
            name, arguments = f"model of {len(data)} bytes", (self._library.mpq_model_open_memory, data, len(data))
        else:
            name, arguments = os.fspath(source), (self._library.mpq_model_open, os.fsencode(source))
        self._handle = call(*arguments, fault=lambda line: FileFormatError(f"{name}: {line}"))
        info = self._library.mpq_model_describe(self._handle)
        self.height, self.width, self.channels, self.stride = info.height, info.width, info.channels, info.stride
        self.iou = float(info.iou)
        class_name = self._library.mpq_model_class_name
        self.names: tuple[str, ...] = tuple(class_name(self._handle, i).decode() for i in range(info.classes))

    @cached_property
    def header(self) -> dict[str, Any]:
        """The file's JSON header: graph, decode, classes, policy, card."""
        length = ctypes.c_size_t()
        text = self._library.mpq_model_header(self._handle, ctypes.byref(length))
        return json.loads(ctypes.string_at(text, length.value))

    def __del__(self) -> None:
        if handle := self.__dict__.pop("_handle", None):
            self._library.mpq_model_free(handle)


class SessionInfo(NamedTuple):
    """isa: instruction set in use. arena_bytes: all that a run writes. prepared_bytes: weights as the kernels want them."""

    height: int
    width: int
    threads: int
    isa: str
    arena_bytes: int
    prepared_bytes: int


class Layer(NamedTuple):
    """One node: the table entry that runs it, or its operator, and nanoseconds of the last run."""

    name: str
    kernel: str
    nanoseconds: int


class Session:
    """Everything that running a model at one input size takes, allocated here once. One thread at a time may use it.

    height, width: px, multiples of the model's stride, default as in the file. threads: 1..64. keep_tensors: `tensor` reads every
    tensor, not only graph outputs. isa: "serial", "avx2", "avxvnni" or "avx512", default $MPQ_ISA, else the best that the CPU
    has. Raises EngineError if the engine refuses one of them.
    """

    def __init__(
        self,
        model: Model,
        height: int | None = None,
        width: int | None = None,
        threads: int = 1,
        keep_tensors: bool = False,
        isa: str | None = None,
    ) -> None:
        for name, value in (("height", height), ("width", width), ("threads", threads)):
            if value is not None and not (isinstance(value, (int, np.integer)) and 1 <= value < 1 << 31):
                raise EngineError(f"{name} must be a whole number from 1 on, not {value!r}")
        self._library, self.model = model._library, model
        options = Options(height or 0, width or 0, threads, keep_tensors, isa.encode() if isa else None)
        arguments = (model._handle, ctypes.byref(options))
        self._handle = call(self._library.mpq_session_new, *arguments, fault=EngineError)
        info = self._library.mpq_session_describe(self._handle)
        self.info = SessionInfo(info.height, info.width, info.threads, info.isa.decode(), info.arena_bytes, info.prepared_bytes)
        self._layers: int = info.layers
        self._shape = (info.height, info.width, model.channels)
        self._lock = threading.Lock()  # a second thread waits instead of writing over the first one's maps

    def run(self, image: np.ndarray) -> None:
        """The network alone. image: (height, width, 3) uint8 RGB, already letterboxed."""
        if image.shape != self._shape or image.dtype != np.uint8:
            raise ImageError(f"the image is {image.shape} {image.dtype}, this session wants {self._shape} uint8")
        image = np.ascontiguousarray(image)
        with self._lock:
            self._library.mpq_session_run(self._handle, image.ctypes.data)

    def decode(self, min_score: float = 0.25, iou: float | None = None) -> Detections:
        """Boxes of the last run, best first, in pixels of the input. iou: the model's own if None."""
        boxes = np.empty(MAX_BOXES, _BOX)
        arguments = (self._handle, min_score, _iou(iou), None, boxes.ctypes.data, MAX_BOXES)
        with self._lock:
            count = call(self._library.mpq_session_decode, *arguments, fault=EngineError)
        return self._detections(boxes[:count], (self.info.width, self.info.height))

    def detect(self, photo: np.ndarray, min_score: float = 0.25, iou: float | None = None) -> Detections:
        """Letterbox, run, decode: boxes in pixels of the photo, best first. photo: (h, w, 3) uint8 RGB."""
        if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or not photo.size:
            raise ImageError(f"the photo is {photo.shape} {photo.dtype}, must be (h, w, 3) uint8 with pixels")
        height, width = photo.shape[:2]
        if photo.strides[1:] != (3, 1) or photo.strides[0] < 3 * width:
            photo = np.ascontiguousarray(photo)
        boxes = np.empty(MAX_BOXES, _BOX)
        place = (photo.ctypes.data, width, height, photo.strides[0])
        arguments = (self._handle, *place, min_score, _iou(iou), boxes.ctypes.data, MAX_BOXES)
        with self._lock:
            count = call(self._library.mpq_session_detect, *arguments, fault=EngineError)
        return self._detections(boxes[:count], (width, height))

    def _detections(self, boxes: np.ndarray, size: tuple[int, int]) -> Detections:
        xyxy, score, class_id = (np.ascontiguousarray(boxes[name]) for name in ("xyxy", "score", "class_id"))
        return Detections(xyxy, score, class_id, self.model.names, size)

    def tensor(self, name: str) -> np.ndarray:
        """A tensor of the last run, dense (C, H, W): u8 and u4 as uint8, b1 as int8 -1 or +1, s16 as int16."""
        info, function = TensorInfo(), self._library.mpq_session_tensor
        head = (self._handle, name.encode("utf-8", "replace"), ctypes.byref(info))
        with self._lock:
            size = call(function, *head, None, 0, fault=EngineError)
            shape = (info.channels, info.height, info.width)
            values = np.empty(shape, NUMPY_TYPE[TENSOR_TYPES[info.dtype]])
            call(function, *head, values.ctypes.data, size, fault=EngineError)
        return values

    def layers(self) -> list[Layer]:
        """Every node in order of execution, with the kernel that runs it and the time it took in the last run."""
        found = (self._library.mpq_session_layer(self._handle, i) for i in range(self._layers))
        return [Layer(layer.name.decode(), layer.kernel.decode(), layer.nanoseconds) for layer in found]

    def __del__(self) -> None:
        if handle := self.__dict__.pop("_handle", None):
            self._library.mpq_session_free(handle)


def _iou(iou: float | None) -> float:
    if iou is not None and not 0 < iou <= 1:
        raise EngineError(f"iou must be above 0 and at most 1, got {iou}")
    return 0.0 if iou is None else iou
