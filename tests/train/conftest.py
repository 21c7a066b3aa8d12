"""What all training tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from train_published import publish
from train_squares import make_squares

from mpqyolo.detector.yolov5 import YOLOv5


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_squares(tmp_path_factory.mktemp("squares") / "data")


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, YOLOv5]:
    path = tmp_path_factory.mktemp("pt") / "theirs.pt"
    return path, publish(path)
