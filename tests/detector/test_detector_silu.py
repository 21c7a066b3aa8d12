"""SiLU by two straight lines: for one layer, and through a whole network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mpqyolo.detector.blocks import CodeConv, StreamConv
from mpqyolo.detector.maps import Maps
from mpqyolo.detector.model import build_model
from mpqyolo.detector.paper import PaperDetector
from mpqyolo.detector.silu import like_silu, silu_hinge
from mpqyolo.train.ema import reestimate_bn

MEAN, STD = torch.tensor([0.0, -1.0, 0.5, 2.0, -6.0]), torch.tensor([1.5, 1.0, -0.3, 0.5, 0.2])


def samples() -> Tensor:
    torch.manual_seed(0)
    return MEAN[:, None] + STD[:, None] * torch.randn(5, 20_000)


@pytest.mark.parametrize(("flat", "limits"), [(False, (0.08, 0.05, 0.02, 0.01, 0.01)), (True, (0.09, 0.09, 0.06, 0.02, 0.01))])
def test_a_hinge_is_near_to_silu_for_each_channels_own_distribution(flat: bool, limits: tuple[float, ...]) -> None:
    x = samples()
    corner, right, left, offset = (value[:, None] for value in silu_hinge(MEAN, STD, flat))
    y = offset + right * (x - corner).clamp(min=0) + left * (x - corner).clamp(max=0)
    errors = (y - functional.silu(x)).square().mean(1).sqrt().tolist()
    assert all(error < limit for error, limit in zip(errors, limits, strict=True)), errors
    assert not flat or not left.any()


@pytest.mark.parametrize("kind", ["stream", "relu", "codes"])
def test_a_layer_resembles_silu_but_for_the_constant_it_returns(kind: str) -> None:
    layer = (
        CodeConv(5, 5, 1)
        if kind == "codes"
        else StreamConv(5, 5, 1, shortcut="none", act="rprelu" if kind == "stream" else "relu")
    )
    layer.eval()
    nn.init.dirac_(layer.conv.weight)
    with torch.no_grad():
        layer.bn.weight.copy_(STD)
        layer.bn.bias.copy_(MEAN)
    before = copy.deepcopy(layer)
    missing = like_silu(layer)
    x = ((samples() - MEAN[:, None]) / STD[:, None]).view(1, 5, 100, 200)
    y = layer(x) + missing.view(1, 5, 1, 1)
    if kind == "relu":
        assert torch.equal(y, before(x)) and not missing.any()
        return
    error = (y - functional.silu(samples().view(1, 5, 100, 200))).detach().square().mean((0, 2, 3)).sqrt()
    assert float(error.max()) < (0.08 if kind == "stream" else 0.09)
    assert kind == "codes" or not missing.any()


def models() -> tuple[nn.Module, nn.Module, nn.Module]:
    """A YOLOv5 of random weights, the paper's network with its weights, and that one fitted."""
    torch.manual_seed(0)
    theirs: nn.Module = build_model("yolov5", "n", ["a", "b"])
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, -0.3, 0.7)
    for predict in (*theirs.predict.distance, *theirs.predict.logit):  # type: ignore[union-attr,misc]
        nn.init.normal_(predict.weight, std=0.2)
    plain = build_model("paper", "n", ["a", "b"])
    plain.load_state_dict(theirs.state_dict(), strict=False)
    fitted = copy.deepcopy(plain)
    assert isinstance(fitted, PaperDetector)
    fitted.like_silu()
    return theirs, plain, fitted


def smooth(channels: int) -> Tensor:
    return functional.interpolate(torch.rand(4, channels, 8, 8), scale_factor=8, mode="bilinear")


def likeness(a: Tensor, b: Tensor) -> float:
    """Mean over the channels of the correlation of two maps."""
    a, b = (x.transpose(0, 1).flatten(1) for x in (a, b))
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return float(((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean())


def test_the_backbones_maps_stay_near() -> None:
    """As far as a network of random weights, which makes much of small differences, can show it."""
    images = [smooth(3).mul(255).byte() for _ in range(4)]
    found: list[dict[str, Tensor]] = []
    for model in models():
        reestimate_bn(model, images)
        maps: dict[str, Tensor] = {}
        for name in ("stem", "backbone.down2", "backbone.c2"):
            model.get_submodule(name).register_forward_hook(lambda _, __, y, maps=maps, name=name: maps.update({name: y}))
        with torch.no_grad():
            model.eval()(images[0])
        found.append(maps)
    theirs, plain, fitted = found
    near = [likeness(theirs[name], fitted[name]) for name in theirs]
    assert all(a > b for a, b in zip(near, (0.97, 0.96, 0.88), strict=True)), near
    assert all(likeness(theirs[name], plain[name]) < 0.9 for name in theirs)
    assert all(float((theirs[name].mean((0, 2, 3)) - fitted[name].mean((0, 2, 3))).abs().max()) < 0.1 for name in theirs)


class Upper(nn.Module):
    """Neck and predictions of a detector, of the same maps whatever is below."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.neck, self.predict = model.neck, model.predict

    def forward(self, x: Tensor) -> Maps:
        p3, p4, p5 = x.split((64, 128, 256), 1)
        return self.predict(self.neck((p3, functional.avg_pool2d(p4, 2), functional.avg_pool2d(p5, 4))))  # type: ignore[operator]


def test_codes_leave_no_constant_missing_in_the_predictions() -> None:
    torch.manual_seed(1)
    maps = [smooth(448) for _ in range(4)]
    answers = []
    for model in models():
        upper = Upper(model)
        reestimate_bn(upper, maps)
        with torch.no_grad():
            answers.append(upper.eval()(maps[0]))
    theirs, plain, fitted = ([*said.logit, *said.distance] for said in answers)

    def constant(found: list[Tensor]) -> float:
        return sum(float((a - b).mean((0, 2, 3)).abs().mean()) for a, b in zip(theirs, found, strict=True))

    assert constant(fitted) < 0.3 * constant(plain)
    assert sum(likeness(a, b) for a, b in zip(theirs, fitted, strict=True)) > 6 * 0.73
