"""Float YOLOv5: with its published anchor head, for checkpoints that users have, or with our anchor-free one, as a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mpqyolo.core.errors import ConfigError
from mpqyolo.detector.blocks import BN_EPS, BN_MOMENTUM, Pixels
from mpqyolo.detector.decode import Dense
from mpqyolo.detector.head import Head
from mpqyolo.detector.maps import Maps
from mpqyolo.detector.points import STRIDES, flatten, points
from mpqyolo.detector.yolov5_body import SIZES, YOLOv5Body
from mpqyolo.quantize.layers import QuantConv2d

__all__ = ["SIZES", "AnchorHead", "ConvUnit", "YOLOv5", "YOLOv5Body"]

# Width and height in px of each level's three anchors, as published with v6.
ANCHORS = (((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (59, 119)), ((116, 90), (156, 198), (373, 326)))
ACTIVATIONS = {"silu": nn.SiLU, "relu": nn.ReLU}
NEVER = -30.0  # a logit whose score no threshold lets through


class ConvUnit(nn.Module):
    """Convolution, batch norm, activation. unit(x, residual) is residual + unit(x)."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, activation: str = "silu") -> None:
        super().__init__()
        padding = 2 if kernel == 6 else kernel // 2
        self.conv = QuantConv2d(c_in, c_out, kernel, stride, padding)
        self.bn: nn.Module = nn.BatchNorm2d(c_out, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.act = ACTIVATIONS[activation](inplace=True)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = self.act(self.bn(self.conv(x)))
        return y if residual is None else residual + y

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold the batch norm's running statistics into the convolution."""
        bn = self.bn
        if not isinstance(bn, nn.BatchNorm2d):  # folded already
            return
        assert bn.running_mean is not None and bn.running_var is not None
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        self.conv.weight.mul_(scale.view(-1, 1, 1, 1))
        self.conv.bias = nn.Parameter(bn.bias - bn.running_mean * scale)
        self.bn = nn.Identity()


class AnchorHead(nn.Module):
    """The published Detect layer: per level one 1x1 convolution to 3 anchors x (x, y, w, h, objectness, classes)."""

    anchors: Tensor  # (level, anchor, 2) px

    def __init__(self, c_in: Sequence[int], classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.m = nn.ModuleList(nn.Conv2d(c, 3 * (5 + classes), 1) for c in c_in)
        self.register_buffer("anchors", torch.tensor(ANCHORS, dtype=torch.float32))

    def forward(self, features: tuple[Tensor, ...]) -> Dense:
        boxes, scores = [], []
        for feature, conv, anchors, stride in zip(features, self.m, self.anchors, STRIDES, strict=True):
            h, w = feature.shape[-2:]
            centres, _ = points([(h, w)], [stride], feature.device)
            for raw, anchor in zip(conv(feature).sigmoid().split(5 + self.classes, 1), anchors, strict=True):
                y = flatten([raw]).float()
                middle = (2 * y[..., :2] - 1) * stride + centres  # (2s - 0.5 + cell) * stride
                half = (2 * y[..., 2:4]).square() * anchor / 2
                boxes.append(torch.cat((middle - half, middle + half), -1))
                scores.append(y[..., 4:5] * y[..., 5:])
        return Dense(torch.cat(boxes, 1), torch.cat(scores, 1))

    @torch.no_grad()
    def select(self, index: Sequence[int]) -> None:
        """Keep the classes `index` in this order (`class_map` of evaluate.names makes it); -1 is a class that is never found."""
        for level, old in enumerate(self.m):
            assert isinstance(old, nn.Conv2d) and old.bias is not None
            new = nn.Conv2d(old.in_channels, 3 * (5 + len(index)), 1).to(old.weight)
            weight, bias = old.weight.unflatten(0, (3, -1)), old.bias.unflatten(0, (3, -1))
            rows = torch.tensor([*range(5), *(5 + max(k, 0) for k in index)], device=weight.device)
            weight, bias = weight[:, rows], bias[:, rows]
            gone = [5 + place for place, k in enumerate(index) if k < 0]
            weight[:, gone], bias[:, gone] = 0.0, NEVER
            new.load_state_dict({"weight": weight.flatten(0, 1), "bias": bias.flatten()})
            self.m[level] = new
        self.classes = len(index)


class YOLOv5(YOLOv5Body):
    """images uint8 or float 0..255 (B, 3, H, W), H and W multiples of 32 -> Maps (head "ltrb") or Dense (head "anchor").

    size: n, s, m, l, x. activation: "silu" as published, or "relu". Fused parameters at 80 classes with the anchor head:
    n 1,867,405, s 7,225,885, m 21,172,173. Raises ConfigError for an unknown size, head or activation.
    """

    strides = STRIDES
    family: str  # this and what follows is given by build_model, to a detector to be trained
    size: str
    classes: tuple[str, ...]
    options: dict[str, Any]

    def __init__(self, size: str, classes: int, head: str = "anchor", activation: str = "silu") -> None:
        heads = {"anchor": AnchorHead, "ltrb": Head}
        if head not in heads:
            raise ConfigError(f"unknown head '{head}'; known: {', '.join(heads)}")
        if activation not in ACTIVATIONS:
            raise ConfigError(f"unknown activation '{activation}'; known: {', '.join(ACTIVATIONS)}")

        def unit(_region: str, c_in: int, c_out: int, kernel: int, stride: int, shortcut: bool = False) -> ConvUnit:
            return ConvUnit(c_in, c_out, kernel, stride, activation)

        super().__init__(size, unit)
        self.pixels = Pixels()
        self.predict = heads[head](self.channels, classes)

    def forward(self, images: Tensor) -> Maps | Dense:
        maps = self.backbone(self.stem(self.pixels(images)))
        found: Maps | Dense = self.predict(self.neck(maps))
        return found._replace(backbone=maps) if isinstance(found, Maps) else found

    def fuse(self) -> YOLOv5:
        """Fold all batch norms into their convolutions, in place: for inference only."""
        for module in self.modules():
            if isinstance(module, ConvUnit):
                module.fuse()
        return self

    def fused_parameters(self) -> int:
        """Parameters that are left when batch norms are folded: a bias a channel instead of gain and shift."""
        saved = sum(m.num_features for m in self.modules() if isinstance(m, nn.BatchNorm2d))
        return sum(p.numel() for p in self.parameters()) - saved
