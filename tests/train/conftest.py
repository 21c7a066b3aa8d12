"""What all training tests share."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from train_squares import make_squares

from mpqyolo.detector.points import STRIDES
from mpqyolo.detector.yolov5 import YOLOv5
from mpqyolo.detector.yolov5_load import PLACES


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_squares(tmp_path_factory.mktemp("squares") / "data")


class Published(nn.Module):
    """What users have: one list of layers, `model.0` to `model.24`, and the names of the classes."""

    def __init__(self, detector: YOLOv5, names: list[str]) -> None:
        super().__init__()
        self.model = nn.ModuleDict({str(number): detector.get_submodule(place) for number, place in PLACES.items()})
        self.names = names


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, YOLOv5]:
    torch.manual_seed(3)
    detector = YOLOv5("n", 3, head="anchor")
    for predict in detector.predict.m:  # type: ignore[union-attr]
        nn.init.normal_(predict.bias)
    path = tmp_path_factory.mktemp("pt") / "theirs.pt"
    saved = copy.deepcopy(detector)
    saved.predict.anchors /= torch.tensor(STRIDES).view(-1, 1, 1)  # published in cells
    torch.save({"model": Published(saved, ["dog", "red", "cat"]), "epoch": 3}, path)
    return path, detector
