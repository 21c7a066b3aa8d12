"""Everything that finds boxes, behind one face: packed files, torch modules, users' YOLOv5 `.pt`, ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpqyolo.core.detections import Detections
from mpqyolo.core.errors import ConfigError
from mpqyolo.evaluate.names import class_map, rename

Size = tuple[int, int]
PUBLISHED_SIZE = (640, 640)  # what YOLOv5's users train and run at
DEFAULT_IOU = 0.65


@dataclass(frozen=True)
class Predictor:
    """A list of (h, w, 3) uint8 RGB photos -> one Detections each, in pixels of the photo.

    names: of the classes. image_size: (height, width) of the network's input, px. backend: who computes.
    """

    find: Any
    names: tuple[str, ...]
    image_size: Size
    backend: str

    def __call__(self, photos: Sequence[np.ndarray]) -> list[Detections]:
        return self.find(list(photos))

    def over(self, classes: Sequence[str]) -> Predictor:
        """The same with class ids of `classes`, matched by name; other findings are dropped.

        Raises ConfigError if no name matches.
        """
        if tuple(classes) == self.names:
            return self
        mapping = class_map(self.names, classes)
        if (mapping < 0).all():
            ours, theirs = ", ".join(self.names[:5]), ", ".join(classes[:5])
            raise ConfigError(f"the model finds none of the data's classes: it knows {ours}, ...; the data have {theirs}, ...")
        names = tuple(classes)
        return Predictor(lambda photos: [rename(found, mapping, names) for found in self(photos)], names, *self._rest())

    def missing(self, classes: Sequence[str]) -> list[str]:
        """Those of `classes` that the model cannot find."""
        found = set(class_map(self.names, classes))
        return [name for label, name in enumerate(classes) if label not in found]

    def _rest(self) -> tuple[Size, str]:
        return self.image_size, self.backend


def packed(path: Path, image_size: Size | None, min_score: float, threads: int, iou: float | None = None) -> Predictor:
    """A `.mpqy` file in the native engine; needs no torch."""
    from mpqyolo.runtime.detector import Detector

    detector = Detector(path, image_size, threads, min_score, iou)
    return Predictor(detector, detector.names, (detector.info.height, detector.info.width), f"engine ({detector.info.isa})")


def published(path: Path, image_size: Size | None, min_score: float, threads: int, iou: float | None = None) -> Predictor:
    """A `.pt` file of YOLOv5's users, with its own anchors, in torch. Nothing in it is executed."""
    from mpqyolo.detector.yolov5_load import open_yolov5

    model, names = open_yolov5(path)
    return module(model.fuse(), names, image_size or PUBLISHED_SIZE, min_score, threads, iou)


def module(
    model: Any, names: Sequence[str], image_size: Size, min_score: float, threads: int, iou: float | None = None
) -> Predictor:
    """A torch module that returns Maps or Dense."""
    import torch

    from mpqyolo.detector.decode import TorchPredictor

    torch.set_num_threads(threads)
    find = TorchPredictor(model, image_size, min_score, DEFAULT_IOU if iou is None else iou, names=tuple(names))
    return Predictor(find, tuple(names), image_size, "torch")


def onnx(path: Path, image_size: Size | None, min_score: float, threads: int, iou: float | None = None) -> Predictor:
    """An ONNX file of a YOLO detector in ONNX Runtime (evaluate/onnx_predictor.py says which)."""
    from mpqyolo.evaluate.onnx_predictor import OnnxPredictor

    predictor = OnnxPredictor(path, image_size, threads, min_score, DEFAULT_IOU if iou is None else iou)
    return Predictor(predictor, predictor.names, predictor.image_size, "onnxruntime")


def random_network(family: str, size: str, classes: Sequence[str], policy: str) -> Any:
    """A torch module with random weights, always the same ones, quantisers of the policy in place. Raises ConfigError."""
    import torch

    from mpqyolo.core.bits import policy as named_policy
    from mpqyolo.detector.model import build_model
    from mpqyolo.quantize.apply import apply_policy

    torch.manual_seed(0)
    model = build_model(family, size, classes)
    apply_policy(model, named_policy(policy))
    return model.eval()
