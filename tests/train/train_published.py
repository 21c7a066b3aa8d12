"""What YOLOv5's users have in a `.pt` file. A module of its own: a pickle names the module of its classes."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn

from mpqyolo.detector.points import STRIDES
from mpqyolo.detector.yolov5 import YOLOv5
from mpqyolo.detector.yolov5_load import PLACES


class Published(nn.Module):
    """What users have: one list of layers, `model.0` to `model.24`, and the names of the classes."""

    def __init__(self, detector: YOLOv5, names: list[str]) -> None:
        super().__init__()
        self.model = nn.ModuleDict({str(number): detector.get_submodule(place) for number, place in PLACES.items()})
        self.names = names


def publish(path: Path) -> YOLOv5:
    """Write a small one of random weights, classes dog, red and cat; return it as it is with our names and anchors in px."""
    torch.manual_seed(3)
    detector = YOLOv5("n", 3, head="anchor")
    for predict in detector.predict.m:  # type: ignore[union-attr]
        nn.init.normal_(predict.bias)
    saved = copy.deepcopy(detector)
    saved.predict.anchors /= torch.tensor(STRIDES).view(-1, 1, 1)  # published in cells
    torch.save({"model": Published(saved, ["dog", "red", "cat"]), "epoch": 3}, path)
    return detector
