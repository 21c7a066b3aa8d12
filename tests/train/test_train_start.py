"""Starting from a published YOLOv5: body by place, class rows by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from mpqyolo.core.errors import CheckpointError
from mpqyolo.detector.yolov5 import YOLOv5
from mpqyolo.detector.yolov5_load import PLACES
from mpqyolo.train.checkpoint import make_model
from mpqyolo.train.recipe_file import load_recipe
from mpqyolo.train.start import load_start


class Published(nn.Module):
    """What users have: one list of layers, `model.0` to `model.24`, and the names of the classes."""

    def __init__(self, detector: YOLOv5, names: list[str]) -> None:
        super().__init__()
        self.model = nn.ModuleDict({str(number): detector.get_submodule(place) for number, place in PLACES.items()})
        self.names = names


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, YOLOv5]:
    torch.manual_seed(3)
    detector = YOLOv5("n", 3, head="anchor")
    path = tmp_path_factory.mktemp("pt") / "theirs.pt"
    torch.save({"model": Published(detector, ["dog", "red", "cat"]), "epoch": 3}, path)
    return path, detector


def test_published_weights_fill_the_body_and_the_classes_that_are_known(published: tuple[Path, YOLOv5]) -> None:
    path, theirs = published
    overrides = (f"start={path}", "model.family=yolov5", "model.classes=['blue', 'red']")
    recipe = load_recipe("float", overrides)
    model = make_model(recipe.model)
    fresh = model.predict.logit[0].weight[0].clone()
    text = "\n".join(load_start(model, recipe))
    assert torch.equal(model.backbone.c4.cv3.conv.weight, theirs.backbone.c4.cv3.conv.weight)
    rows = theirs.predict.m[0].weight.unflatten(0, (3, 8))
    assert torch.allclose(model.predict.logit[0].weight[1], (rows[:, 5 + 1] + rows[:, 4]).mean(0))
    assert torch.equal(model.predict.logit[0].weight[0], fresh)
    assert "predict.distance.0.weight" in text and "missing in it: 6" in text


def test_another_size_does_not_fit(published: tuple[Path, YOLOv5]) -> None:
    recipe = load_recipe("float", (f"start={published[0]}", "model.family=mpq", "model.classes=['blue']"))
    with pytest.raises(CheckpointError, match="another family or size"):
        load_start(make_model(recipe.model), recipe)
