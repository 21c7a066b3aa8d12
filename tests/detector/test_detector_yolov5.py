import math

import pytest
import torch
from torch import nn

from mpqyolo.core.errors import CheckpointError, ConfigError
from mpqyolo.detector.decode import Dense, TorchPredictor
from mpqyolo.detector.loss import DetectionLoss
from mpqyolo.detector.maps import Maps
from mpqyolo.detector.points import STRIDES
from mpqyolo.detector.yolov5 import ANCHORS, AnchorHead, YOLOv5, YOLOv5Body
from mpqyolo.detector.yolov5_load import PLACES, load_yolov5, open_yolov5

PUBLISHED = {"n": 1_867_405, "s": 7_225_885, "m": 21_172_173, "l": 46_533_693, "x": 86_705_005}


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and running statistics that show every mistake in a place or a sign."""
    g = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in (
                (module.weight, 0.5),
                (module.bias, -0.5),
                (module.running_mean, -0.5),
                (module.running_var, 0.5),
            ):
                tensor.data.copy_(torch.rand(tensor.shape, generator=g) + low)
        elif isinstance(module, nn.Conv2d):
            fan = module.weight[0].numel()
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=g) * (1.5 / fan) ** 0.5)
    return model.eval()


def published(model: YOLOv5) -> dict[str, torch.Tensor]:
    """The model's state under the published names, half precision, anchors in cells: what read_pt returns."""
    back = {ours: number for number, ours in PLACES.items()}
    state = {}
    for name, tensor in model.state_dict().items():
        head = next(p for p in sorted(back, key=len, reverse=True) if name.startswith(p + "."))
        state[f"model.{back[head]}{name.removeprefix(head)}"] = tensor.half() if tensor.is_floating_point() else tensor
    state["model.24.anchors"] = torch.tensor(ANCHORS) / torch.tensor(STRIDES).view(-1, 1, 1)
    return state


@pytest.mark.parametrize("size", "nsmlx")
def test_published_parameter_counts(size):
    with torch.device("meta"):
        assert YOLOv5(size, 80).fused_parameters() == PUBLISHED[size]


@pytest.mark.parametrize("head", ["anchor", "ltrb"])
def test_fuse_changes_nothing_but_the_count(head):
    model = randomised(YOLOv5("n", 3, head))
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    want, count = model(images), model.fused_parameters()
    got = model.fuse()(images)
    assert sum(p.numel() for p in model.parameters()) == count == model.fused_parameters()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    leaves = [(*m.distance, *m.logit, *m.feature) if isinstance(m, Maps) else m for m in (want, got)]
    for a, b in zip(*leaves, strict=True):
        assert a.std() > 1e-3
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_maps_and_gradients_of_the_anchor_free_head():
    model = YOLOv5("n", 5, "ltrb", "relu").train()
    maps = model(torch.rand(2, 3, 64, 96) * 255)
    assert [m.shape for m in maps.logit] == [(2, 5, 8, 12), (2, 5, 4, 6), (2, 5, 2, 3)]
    assert [m.shape for m in maps.distance] == [(2, 4, 8, 12), (2, 4, 4, 6), (2, 4, 2, 3)]
    assert [m.shape[1] for m in maps.feature] == [64, 128, 256]
    total, _ = DetectionLoss(5)(maps, torch.tensor([[0, 1, 8.0, 8.0, 60.0, 50.0]]), (64, 96))
    total.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_anchor_decoding_as_published():
    head = AnchorHead((1, 1, 1), 2)
    for conv in head.m:
        nn.init.zeros_(conv.weight)
        conv.bias.data.copy_(torch.tensor([0.3, -0.2, 1.0, -1.0, 2.0, 0.5, -0.5] * 3))
    dense = head(tuple(torch.zeros(1, 1, 64 // s, 64 // s) for s in STRIDES))
    assert dense.box.shape == (1, 3 * (64 + 16 + 4), 4) and dense.score.shape[2] == 2

    def s(v: float) -> float:
        return 1 / (1 + math.exp(-v))

    x, y, row = 2, 1, 3 * 64 + 1 * 16 + 1 * 4 + 2  # level 1, anchor 1, cell (2, 1)
    cx, cy = (2 * s(0.3) - 0.5 + x) * 16, (2 * s(-0.2) - 0.5 + y) * 16
    w, h = (2 * s(1.0)) ** 2 * 62, (2 * s(-1.0)) ** 2 * 45
    torch.testing.assert_close(dense.box[0, row], torch.tensor([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]))
    torch.testing.assert_close(dense.score[0, row], torch.tensor([s(2.0) * s(0.5), s(2.0) * s(-0.5)]))


def test_select_reorders_classes_and_adds_silent_ones():
    model = randomised(YOLOv5("n", 4))
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    before = model(images)
    model.predict.select([2, -1, 0])
    after = model(images)
    torch.testing.assert_close(after.box, before.box)
    torch.testing.assert_close(after.score[..., [0, 2]], before.score[..., [2, 0]])
    assert after.score[..., 1].max().item() < 1e-9


def test_a_published_checkpoint_and_back(tmp_path):
    model = randomised(YOLOv5("n", 6)).half().float()
    torch.save({"model": published(model)}, tmp_path / "a.pt")
    loaded, names = open_yolov5(tmp_path / "a.pt")
    assert names == tuple("012345") and not loaded.training
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    for a, b in zip(model(images), loaded(images), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    found = TorchPredictor(loaded, 64, min_score=0.0, names=names)([images[0].permute(1, 2, 0).numpy()])
    assert len(found[0]) > 0 and isinstance(loaded(images), Dense)


def test_weights_go_into_other_heads_and_bodies():
    source = randomised(YOLOv5("n", 6))
    target = YOLOv5("n", 2, "ltrb")
    missing, extra = load_yolov5(published(source), target)
    assert missing and all(name.startswith("predict.") for name in missing)
    assert all(name.startswith("predict.") for name in extra) and len(extra) == 7
    torch.testing.assert_close(target.neck.out5.cv3.conv.weight, source.neck.out5.cv3.conv.weight, rtol=1e-3, atol=1e-4)

    body = YOLOv5Body("n", lambda region, c_in, c_out, kernel, stride, shortcut=False: BareUnit(c_in, c_out, kernel, stride))
    missing, extra = load_yolov5(published(source), body)
    assert missing == [] and all(name.startswith("predict.") or ".bn." in name for name in extra)


class BareUnit(nn.Module):
    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, 2 if kernel == 6 else kernel // 2, bias=False)


def test_the_unit_factory_sees_every_convolution_of_its_region():
    seen: list[tuple] = []

    def unit(region, c_in, c_out, kernel, stride, shortcut=False):
        seen.append((region, kernel, shortcut))
        return Spy(c_in, c_out, kernel, stride)

    class Spy(BareUnit):
        calls = 0

        def forward(self, x, residual=None):
            Spy.calls += residual is not None
            y = self.conv(x)
            return y if residual is None else residual + y

    maps = YOLOv5Body("s", unit)(torch.zeros(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == [128, 256, 512]
    assert [sum(r == region for r, _, _ in seen) for region in ("stem", "backbone", "neck")] == [1, 32, 24]
    assert Spy.calls == sum(shortcut for _, _, shortcut in seen) == 1 + 2 + 3 + 1


def test_faults_are_one_line(tmp_path, monkeypatch):
    for arguments in (("q", 3), ("n", 3, "round"), ("n", 3, "anchor", "tanh")):
        with pytest.raises(ConfigError, match="known:"):
            YOLOv5(*arguments)
    state = published(YOLOv5("n", 2))
    with pytest.raises(CheckpointError, match="size"):
        load_yolov5({name.replace("model.", "layer."): tensor for name, tensor in state.items()}, YOLOv5("n", 2))
    cases = {
        "head": {name: tensor for name, tensor in state.items() if ".24." not in name},
        "stem has 17 channels": state | {"model.0.conv.weight": torch.zeros(17, 3, 6, 6)},
        "head of three levels": state | {"model.24.m.0.bias": torch.tensor(1.0)},
        "head of three levels with": state | {"model.24.anchors": torch.ones(4, 3, 2)},
        "stem has 0 channels": state | {"model.0.conv.weight": torch.tensor(1.0)},
        r"stray\\x1b\\n does not fit": state | {"model.24.stray\x1b\n": torch.ones(1)},
        "does not fit": state | {"model.3.conv.weight": torch.zeros(64, 32, 5, 5)},
    }
    for reason, broken in cases.items():
        torch.save(broken, tmp_path / "a.pt")
        with pytest.raises(CheckpointError, match=reason) as fault:
            open_yolov5(tmp_path / "a.pt")
        assert str(tmp_path) in str(fault.value) and str(fault.value).isprintable()
    torch.save(state | {"model.24.m.0.bias": torch.zeros(3 * (5 + 10**5))}, tmp_path / "a.pt")
    monkeypatch.setattr(torch.nn.Module, "to_empty", lambda *_, **__: pytest.fail("took memory for a hundred thousand classes"))
    with pytest.raises(CheckpointError, match=r"predict\.m\.0\.weight does not fit"):
        open_yolov5(tmp_path / "a.pt")
