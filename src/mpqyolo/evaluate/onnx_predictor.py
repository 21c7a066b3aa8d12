"""ONNX files of YOLO detectors in ONNX Runtime: to compare with, in the same evaluation."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpqyolo.core.boxes import select
from mpqyolo.core.detections import Detections
from mpqyolo.core.errors import CheckpointError, ConfigError
from mpqyolo.core.image import letterbox

STRIDES, ANCHORS = (8, 16, 32), 3
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxPredictor:
    """Photos -> Detections by a file with one image input (1, 3, H, W), RGB in 0..1, whose first output is one of

    (1, 3 cells, 5 + classes): x, y, w, h in px of the input, objectness, class scores (YOLOv5's export), or
    (1, 4 + classes, cells): x, y, w, h, class scores (later, anchor-free exports); cells: of strides 8, 16 and 32.

    names: from the file's metadata `names`, else numbers. image_size: (height, width) for files that leave it open.
    Raises CheckpointError for any other file, ConfigError for a size that the file does not take.
    """

    def __init__(
        self,
        path: Path | str,
        image_size: tuple[int, int] | None = None,
        threads: int = 1,
        min_score: float = 0.001,
        iou: float = 0.65,
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as fault:  # ONNX Runtime's own classes, which share no base but Exception
            raise CheckpointError(f"{path}: ONNX Runtime cannot read it: {_short(fault)}") from None
        self.path, self.min_score, self.iou = path, min_score, iou
        inputs = self.session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        if len(shape) != 4 or shape[1] != 3 or inputs[0].type not in TYPES:
            raise CheckpointError(f"{path}: must have one input (1, 3, H, W) of floats, has {[i.shape for i in inputs]}")
        self.input, self.dtype = inputs[0].name, TYPES[inputs[0].type]
        self.output = self.session.get_outputs()[0].name
        self.image_size = self._size(shape[2:], image_size)
        self.anchored, count = self._layout()
        self.names = _names(self.session.get_modelmeta().custom_metadata_map.get("names", ""), count)

    def __call__(self, photos: Sequence[np.ndarray]) -> list[Detections]:
        """One Detections a photo, in its pixels."""
        return [self._detect(photo) for photo in photos]

    def _detect(self, photo: np.ndarray) -> Detections:
        canvas, place = letterbox(photo, *self.image_size)
        rows = self._run(canvas)
        rows = rows if self.anchored else rows.T
        middle, half = rows[:, :2], rows[:, 2:4] / 2
        boxes = np.concatenate([middle - half, middle + half], 1)
        score = rows[:, 5:] * rows[:, 4:5] if self.anchored else rows[:, 4:]
        cell, class_id = np.nonzero(score >= self.min_score)
        keep = select(boxes[cell], score[cell, class_id], class_id, iou=self.iou)
        cell, class_id = cell[keep], class_id[keep].astype(np.int32)
        return Detections(place.to_photo(boxes[cell]), score[cell, class_id], class_id, self.names, (place.w, place.h))

    def _run(self, canvas: np.ndarray) -> np.ndarray:
        image = (canvas.transpose(2, 0, 1)[None] / np.float32(255)).astype(self.dtype)
        try:
            result = self.session.run([self.output], {self.input: np.ascontiguousarray(image)})[0]
        except Exception as fault:
            raise CheckpointError(f"{self.path}: ONNX Runtime cannot run it: {_short(fault)}") from None
        return np.asarray(result, np.float32).reshape(np.shape(result)[1:])

    def _size(self, sides: Sequence[Any], wanted: tuple[int, int] | None) -> tuple[int, int]:
        if all(isinstance(side, int) for side in sides):
            fixed = int(sides[0]), int(sides[1])
            if wanted not in (None, fixed):
                raise ConfigError(f"{self.path}: takes images of {fixed[0]}x{fixed[1]} only; leave --image-size out")
            return fixed
        return wanted or (640, 640)

    def _layout(self) -> tuple[bool, int]:
        """Whether predictions have anchors and an objectness, and how many classes there are."""
        shape = self._run(np.zeros((*self.image_size, 3), np.uint8)).shape
        cells = sum((self.image_size[0] // stride) * (self.image_size[1] // stride) for stride in STRIDES)
        if len(shape) == 2 and shape[0] == ANCHORS * cells and shape[1] > 5:
            return True, shape[1] - 5
        if len(shape) == 2 and shape[1] == cells and shape[0] > 4:
            return False, shape[0] - 4
        raise CheckpointError(
            f"{self.path}: its first output is {[1, *shape]}, no YOLO's: expected [1, {ANCHORS * cells}, 5 + classes] "
            f"or [1, 4 + classes, {cells}]"
        )


def _names(text: str, count: int) -> tuple[str, ...]:
    """Class names from the metadata: a Python dict or list in words."""
    try:
        value = ast.literal_eval(text)
        names = [value[k] for k in range(count)]
    except (ValueError, SyntaxError, KeyError, IndexError, TypeError, RecursionError, MemoryError):
        names = []
    return tuple(names) if len(names) == count and all(isinstance(n, str) for n in names) else tuple(map(str, range(count)))


def _short(fault: Exception) -> str:
    return " ".join(str(fault).split())[:200]
