"""The mpq backbone: an 8-bit stem, then 1-bit 3x3 convolutions only, each with a shortcut around it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mpqyolo.detector.blocks import StreamConv


class Stage(nn.Sequential):
    """One stride-2 layer (2x2 average and repeated channels beside a 1-bit 3x3), then `depth` 1-bit 3x3 layers."""

    def __init__(self, c_in: int, c_out: int, depth: int, shortcut: str, act: str) -> None:
        layers = [StreamConv(c_in, c_out, 3, 2, shortcut=shortcut, act=act)]
        layers += [StreamConv(c_out, c_out, 3, 1, shortcut=shortcut, act=act) for _ in range(depth)]
        super().__init__(*layers)


class Backbone(nn.Module):
    """Stem stream (B, c, H/2, W/2) -> streams at strides 8, 16, 32. After ReActNet (Liu et al. 2020) and Bi-Real Net (2018)."""

    def __init__(self, stem: int, widths: Sequence[int], depths: Sequence[int], shortcut: str, act: str) -> None:
        super().__init__()
        sizes = [stem, *widths]
        self.stage4, self.stage8, self.stage16, self.stage32 = (
            Stage(c_in, c_out, depth, shortcut, act) for c_in, c_out, depth in zip(sizes, widths, depths, strict=False)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        p3 = self.stage8(self.stage4(x))
        p4 = self.stage16(p3)
        return p3, p4, self.stage32(p4)
