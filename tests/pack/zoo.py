"""A small network with every kind of layer and every way to join them, its numbers anything but fresh."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mpqyolo.core.bits import policy
from mpqyolo.detector.blocks import CodeConv, Pixels, Predict, RPReLU, Shortcut, Stem, StreamConv, ToCode
from mpqyolo.detector.blocks_common import Concat, MaxPool, Upsample2
from mpqyolo.detector.maps import Maps
from mpqyolo.quantize.apply import apply_policy, handles
from mpqyolo.train.ema import reestimate_bn


class Backbone(nn.Module):
    """Stride-2 layers with averages, gains and repeats; a bottleneck; two branches of one stream, joined; a sum of groups."""

    def __init__(self) -> None:
        super().__init__()
        self.down4 = StreamConv(8, 16, 3, 2, act="relu")
        self.down8 = StreamConv(16, 32, 3, 2, shortcut="gain")
        self.squeeze = StreamConv(32, 16, 1, shortcut="none")
        self.expand = StreamConv(16, 32, 3, shortcut="none", act="relu")
        self.left, self.right = StreamConv(32, 8, 1, shortcut="none"), StreamConv(32, 24, 1, shortcut="none", act="none")
        self.join = Concat()
        self.fold = StreamConv(32, 16, 3, act="none")
        self.down16, self.down32 = StreamConv(16, 32, 3, 2, shortcut="none"), StreamConv(32, 16, 3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.down8(self.down4(x))
        x = self.expand(self.squeeze(x), x)
        p3 = self.fold(self.join([self.left(x), self.right(x)]))
        p4 = self.down16(p3)
        return p3, p4, self.down32(p4)


class Neck(nn.Module):
    """Codes that meet, pooled and upsampled."""

    def __init__(self) -> None:
        super().__init__()
        self.code3, self.code4, self.code5 = ToCode(16), ToCode(32), ToCode(16)
        self.pool, self.up, self.join = MaxPool(5), Upsample2(), Concat()
        self.mix, self.down = CodeConv(48, 24, 3), CodeConv(24, 16, 3, 2)

    def forward(self, streams: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        p3, p4, p5 = (code(x) for code, x in zip((self.code3, self.code4, self.code5), streams, strict=True))
        t4 = self.mix(self.join([p4, self.up(self.pool(self.pool(p5)))]))
        return p3, t4, self.down(t4)


class Head(nn.Module):
    """One prediction of each kind a level."""

    def __init__(self) -> None:
        super().__init__()
        self.distance = nn.ModuleList(Predict(c, 4) for c in (16, 24, 16))
        self.logit = nn.ModuleList(Predict(c, 2) for c in (16, 24, 16))

    def forward(self, features: tuple[Tensor, ...]) -> Maps:
        return Maps(*(tuple(m(x) for m, x in zip(maps, features, strict=True)) for maps in (self.distance, self.logit)))


class Zoo(nn.Module):
    """images (B, 3, H, W) uint8 -> Maps."""

    family, size, classes, strides = "zoo", "n", ("a", "b"), (8, 16, 32)

    def __init__(self) -> None:
        super().__init__()
        self.pixels, self.stem, self.backbone, self.neck, self.predict = Pixels(), Stem(8, 3), Backbone(), Neck(), Head()

    def forward(self, images: Tensor) -> Maps:
        return self.predict(self.neck(self.backbone(self.stem(self.pixels(images)))))


def noise(count: int, side: int = 64, seed: int = 0) -> Tensor:
    """(count, 3, side, side) uint8: blocks of colour under noise."""
    make = torch.Generator().manual_seed(seed)
    coarse = (
        torch.randint(0, 256, (count, 3, side // 8, side // 8), generator=make).repeat_interleave(8, 2).repeat_interleave(8, 3)
    )
    return (coarse + torch.randint(-40, 41, (count, 3, side, side), generator=make)).clamp(0, 255).to(torch.uint8)


def quantise(model: nn.Module, bits: str) -> None:
    """Quantisers of the policy, fully on, shifts anywhere near 0, scales and batch-norm statistics from noise."""
    apply_policy(model, policy(bits))
    with torch.no_grad():
        for module in model.modules():
            if getattr(module, "shift", None) is not None:  # ToCode and quantisers of streams
                module.shift.normal_(0, 0.2)
    for handle in handles(model):
        handle.quantiser.set_strength(1)
    for _ in range(2):  # the first sets scales, the second has statistics that belong to them
        reestimate_bn(model, [noise(8)])


def make_zoo(bits: str = "default", seed: int = 0) -> Zoo:
    """Quantised, with random numbers in every parameter and the statistics that belong to them."""
    torch.manual_seed(seed)
    model = Zoo().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, RPReLU):
                module.before.normal_(0, 0.3)
                module.after.normal_(0, 0.3)
                module.slope.uniform_(-0.3, 1.2)
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(-0.5, 1.5)
                module.bias.normal_(0, 0.5)
            elif isinstance(module, Shortcut) and module.gain is not None:
                module.gain.uniform_(-1.2, 1.2)
    quantise(model, bits)
    return model
