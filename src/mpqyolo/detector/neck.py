"""The mpq neck: a slim path-aggregation network of 4-bit convolutions on 4-bit codes (PANet, Liu et al. 2018; SPPF of YOLOv5)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mpqyolo.detector.blocks import CodeConv, ToCode
from mpqyolo.detector.blocks_common import Concat, MaxPool, Upsample2


class Sppf(nn.Module):
    """1x1, three chained 5x5 max-pools, concat, 1x1: a large field at no cost, since pooling moves codes."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        hidden = c_out // 2
        self.reduce = CodeConv(c_in, hidden, 1)
        self.pool1, self.pool2, self.pool3 = MaxPool(5), MaxPool(5), MaxPool(5)
        self.concat = Concat()
        self.expand = CodeConv(4 * hidden, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        a = self.pool1(x)
        b = self.pool2(a)
        return self.expand(self.concat([x, a, b, self.pool3(b)]))


class Fuse(nn.Module):
    """Two maps of one size -> concat -> 1x1 -> 3x3."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.concat = Concat()
        self.reduce = CodeConv(c_in, c_out, 1)
        self.mix = CodeConv(c_out, c_out, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.mix(self.reduce(self.concat([a, b])))


class Neck(nn.Module):
    """Streams at strides 8, 16, 32 -> codes at strides 8, 16, 32."""

    def __init__(self, c_in: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        w3, w4, w5 = widths
        self.code3, self.code4, self.code5 = (ToCode(c) for c in c_in)
        self.sppf = Sppf(c_in[2], w5)
        self.lateral5, self.up5, self.top4 = CodeConv(w5, w4, 1), Upsample2(), Fuse(w4 + c_in[1], w4)
        self.lateral4, self.up4, self.top3 = CodeConv(w4, w3, 1), Upsample2(), Fuse(w3 + c_in[0], w3)
        self.down3, self.bottom4 = CodeConv(w3, w3, 3, 2), Fuse(w3 + w4, w4)
        self.down4, self.bottom5 = CodeConv(w4, w4, 3, 2), Fuse(w4 + w5, w5)

    def forward(self, streams: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        p3, p4, p5 = streams
        t5 = self.sppf(self.code5(p5))
        t4 = self.top4(self.up5(self.lateral5(t5)), self.code4(p4))
        n3 = self.top3(self.up4(self.lateral4(t4)), self.code3(p3))
        n4 = self.bottom4(self.down3(n3), t4)
        return n3, n4, self.bottom5(self.down4(n4), t5)
