"""The paper's family: YOLOv5's weights fit it layer by layer, and its options do what they say."""

from __future__ import annotations

import pytest
import torch

from mpqyolo.core.errors import ConfigError
from mpqyolo.detector.calls import trace
from mpqyolo.detector.model import build_model
from mpqyolo.detector.yolov5 import YOLOv5
from mpqyolo.quantize.layers import QuantConv2d


@pytest.mark.parametrize("size", ["n", "s"])
def test_same_convolutions_as_yolov5(size: str) -> None:
    with torch.device("meta"):
        paper, yolo = build_model("paper", size, ["a"] * 80), YOLOv5(size, 80, "ltrb")
    ours = {name: tuple(m.weight.shape) for name, m in paper.named_modules() if isinstance(m, QuantConv2d)}
    theirs = {name: tuple(m.weight.shape) for name, m in yolo.named_modules() if isinstance(m, torch.nn.Conv2d)}
    assert ours == theirs


def test_maps_and_gradients() -> None:
    model = build_model("paper", "n", ["a", "b"])
    maps = model(torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8))
    assert [tuple(m.shape) for m in maps.distance] == [(1, 4, 8, 12), (1, 4, 4, 6), (1, 4, 2, 3)]
    sum(m.square().sum() for m in (*maps.distance, *maps.logit)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    assert len(trace(model).calls) > 60


@pytest.mark.parametrize("options", [{"shortcut": "none", "act": "none"}, {"shortcut": "plain"}, {"stem": "3x3", "act": "relu"}])
def test_options(options: dict[str, str]) -> None:
    model = build_model("paper", "n", ["a"], **options)
    assert model.options == options
    names = {name for name, _ in model.named_parameters()}
    assert any("slope" in n for n in names) == (options.get("act", "rprelu") == "rprelu")
    assert not any("gain" in n for n in names) or "shortcut" not in options
    assert model.stem.conv.kernel_size == ((3, 3) if options.get("stem") == "3x3" else (6, 6))
    assert model(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).logit[0].shape == (1, 1, 8, 8)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="has no option 'neck'"):
        build_model("paper", "n", ["a"], neck=[1])
    with pytest.raises(ConfigError, match="option 'act' can be rprelu, relu, none, not 'silu'"):
        build_model("paper", "n", ["a"], act="silu")
