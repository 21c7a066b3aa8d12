"""The paper's family: YOLOv5's own layer shapes with 1-bit convolutions in the backbone and 4-bit ones in neck and head.

Its modules carry YOLOv5's names, so published weights go in layer by layer (`mpqyolo train --from yolov5n.pt`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mpqyolo.core.errors import ConfigError
from mpqyolo.detector.blocks import ACTIVATIONS, SHORTCUTS, CodeConv, Pixels, Predict, Stem, StreamConv, ToCode
from mpqyolo.detector.head import Head
from mpqyolo.detector.maps import Maps
from mpqyolo.detector.points import STRIDES
from mpqyolo.detector.silu import like_silu
from mpqyolo.detector.yolov5_body import YOLOv5Body, widths

OPTIONS = {"shortcut": "gain", "act": "rprelu", "stem": "yolov5"}


class PaperDetector(YOLOv5Body):
    """images uint8 or float 0..255 (B, 3, H, W), H and W multiples of 32 -> Maps.

    shortcut: beside every 1-bit convolution, "none" (naive), "plain", or "gain" (starts at 0: the function of the float network
    it was loaded from); 1x1 convolutions that halve or double channels have one too. act: "rprelu", "relu", or "none", which with
    shortcut "none" is the naive way, Conv-BN-sign. stem: "yolov5" (6x6, stride 2) or "3x3".
    """

    strides = STRIDES

    def __init__(self, size: str, classes: Sequence[str], options: dict[str, Any]) -> None:
        settings = OPTIONS | options
        shortcuts, act = settings["shortcut"], settings["act"]

        def unit(region: str, c_in: int, c_out: int, kernel: int, stride: int, shortcut: bool = False) -> nn.Module:
            if region == "stem":
                small = settings["stem"] == "3x3"
                return Stem(c_out, 3 if small else kernel, stride, act, None if small else 2)
            if region == "neck":
                return CodeConv(c_in, c_out, kernel, stride)
            # A bottleneck's second convolution has the bottleneck's shortcut; one map cannot be added twice.
            fits = max(c_in, c_out) % min(c_in, c_out) == 0
            return StreamConv(c_in, c_out, kernel, stride, shortcuts if fits and not shortcut else "none", act)

        super().__init__(size, unit)
        self.family, self.size, self.classes, self.options = "paper", size, tuple(classes), dict(options)
        self.pixels = Pixels()
        self.neck.code3, self.neck.code4, self.neck.code5 = (ToCode(c) for c in widths(size)[2:])
        self.predict = Head(self.channels, len(classes))

    def forward(self, images: Tensor) -> Maps:
        p3, p4, p5 = maps = self.backbone(self.stem(self.pixels(images)))
        return self.predict(self.neck((self.neck.code3(p3), self.neck.code4(p4), self.neck.code5(p5))))._replace(backbone=maps)

    @torch.no_grad()
    def like_silu(self) -> None:
        """Resemble the YOLOv5 whose weights these are: its activation was SiLU (detector/silu.py).

        A constant that codes cannot hold is added by the convolution that reads them: batch norm's statistics, to be estimated
        anew, have it; the predictions get it in their biases.
        """
        missing = {name: like_silu(layer) for name, layer in self.named_modules() if isinstance(layer, (StreamConv, CodeConv))}
        for predicts in (self.predict.distance, self.predict.logit):
            for level, predict in zip((3, 4, 5), predicts, strict=True):
                assert isinstance(predict, Predict)
                predict.bias.add_(predict.weight[:, :, 0, 0] @ missing[f"neck.out{level}.cv3"])


def build_paper(size: str, classes: Sequence[str], options: dict[str, Any]) -> PaperDetector:
    """The paper family in a size of YOLOv5 (n, s, m). Raises ConfigError for an unknown option or value."""
    for name, value in options.items():
        if name not in OPTIONS:
            raise ConfigError(f"family 'paper' has no option '{name}'; known: {', '.join(OPTIONS)}")
        known = {"shortcut": SHORTCUTS, "act": ACTIVATIONS, "stem": ("yolov5", "3x3")}[name]
        if value not in known:
            raise ConfigError(f"family 'paper': option '{name}' can be {', '.join(known)}, not {value!r}")
    return PaperDetector(size, classes, options)
