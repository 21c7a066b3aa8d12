"""The topology of YOLOv5 v6, with a factory for its convolution units.

Layer shapes as published with release 6.0 (github.com/ultralytics/yolov5, models/yolov5*.yaml, doi 10.5281/zenodo.5563715);
written from the description, no code is shared. Its parts: CSP bottlenecks (Wang et al. 2019, arXiv 1911.11929), spatial pyramid
pooling (He et al. 2014, arXiv 1406.4729), path aggregation (Liu et al. 2018, arXiv 1803.01534).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from mpqyolo.core.errors import ConfigError
from mpqyolo.detector.blocks_common import Concat, MaxPool, Upsample2

SIZES = {"n": (0.33, 0.25), "s": (0.33, 0.5), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}  # depth, width

# unit(region, c_in, c_out, kernel, stride, shortcut=False): convolution, batch norm, activation.
# With shortcut=True it is called as unit(x, residual) and returns residual + activation(...).
Unit = Callable[..., nn.Module]


def widths(size: str) -> tuple[int, ...]:
    """Channels of the maps at strides 2, 4, 8, 16, 32. Raises ConfigError for an unknown size."""
    return tuple(math.ceil(c * _multiples(size)[1] / 8) * 8 for c in (64, 128, 256, 512, 1024))


def depths(size: str) -> tuple[int, ...]:
    """Bottlenecks of the C3 blocks: four of the backbone, then those of the neck."""
    return tuple(max(round(n * _multiples(size)[0]), 1) for n in (3, 6, 9, 3, 3))


def _multiples(size: str) -> tuple[float, float]:
    if size not in SIZES:
        raise ConfigError(f"unknown YOLOv5 size '{size}'; known: {', '.join(SIZES)}")
    return SIZES[size]


class Bottleneck(nn.Module):
    """1x1, 3x3, and a shortcut round both if asked for."""

    def __init__(self, unit: Unit, region: str, c: int, shortcut: bool) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.cv1 = unit(region, c, c, 1, 1)
        self.cv2 = unit(region, c, c, 3, 1, shortcut=shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv1(x)
        return self.cv2(y, x) if self.shortcut else self.cv2(y)


class C3(nn.Module):
    """CSP block: half the channels through bottlenecks, half past them, and 1x1 over both."""

    def __init__(self, unit: Unit, region: str, c_in: int, c_out: int, depth: int, shortcut: bool) -> None:
        super().__init__()
        c = c_out // 2
        self.cv1 = unit(region, c_in, c, 1, 1)
        self.cv2 = unit(region, c_in, c, 1, 1)
        self.m = nn.Sequential(*(Bottleneck(unit, region, c, shortcut) for _ in range(depth)))
        self.concat = Concat()
        self.cv3 = unit(region, 2 * c, c_out, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(self.concat((self.m(self.cv1(x)), self.cv2(x))))


class SPPF(nn.Module):
    """1x1, three 5x5 maxima one after the other, 1x1 over all four."""

    def __init__(self, unit: Unit, region: str, c_in: int, c_out: int) -> None:
        super().__init__()
        c = c_in // 2
        self.cv1 = unit(region, c_in, c, 1, 1)
        self.pool = MaxPool(5)
        self.concat = Concat()
        self.cv2 = unit(region, 4 * c, c_out, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.cv1(x)
        b = self.pool(a)
        c = self.pool(b)
        return self.cv2(self.concat((a, b, c, self.pool(c))))


class Backbone(nn.Module):
    """Stem's map (stride 2) -> maps at strides 8, 16, 32."""

    def __init__(self, size: str, unit: Unit) -> None:
        super().__init__()
        region, c, n = "backbone", widths(size), depths(size)
        self.down2 = unit(region, c[0], c[1], 3, 2)
        self.c2 = C3(unit, region, c[1], c[1], n[0], True)
        self.down3 = unit(region, c[1], c[2], 3, 2)
        self.c3 = C3(unit, region, c[2], c[2], n[1], True)
        self.down4 = unit(region, c[2], c[3], 3, 2)
        self.c4 = C3(unit, region, c[3], c[3], n[2], True)
        self.down5 = unit(region, c[3], c[4], 3, 2)
        self.c5 = C3(unit, region, c[4], c[4], n[3], True)
        self.sppf = SPPF(unit, region, c[4], c[4])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        p3 = self.c3(self.down3(self.c2(self.down2(x))))
        p4 = self.c4(self.down4(p3))
        return p3, p4, self.sppf(self.c5(self.down5(p4)))


class Neck(nn.Module):
    """Maps at strides 8, 16, 32 -> maps of the same shapes: down from the coarse level, and up again."""

    code3: nn.Module  # what makes codes of the backbone's maps: of the paper's family alone, which puts them here (paper.py)
    code4: nn.Module
    code5: nn.Module

    def __init__(self, size: str, unit: Unit) -> None:
        super().__init__()
        region, (_, _, c3, c4, c5), n = "neck", widths(size), depths(size)[4]
        self.lateral5 = unit(region, c5, c4, 1, 1)
        self.up5 = Upsample2()
        self.concat4 = Concat()
        self.top4 = C3(unit, region, 2 * c4, c4, n, False)
        self.lateral4 = unit(region, c4, c3, 1, 1)
        self.up4 = Upsample2()
        self.concat3 = Concat()
        self.out3 = C3(unit, region, 2 * c3, c3, n, False)
        self.down3 = unit(region, c3, c3, 3, 2)
        self.join4 = Concat()
        self.out4 = C3(unit, region, 2 * c3, c4, n, False)
        self.down4 = unit(region, c4, c4, 3, 2)
        self.join5 = Concat()
        self.out5 = C3(unit, region, 2 * c4, c5, n, False)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        p3, p4, p5 = maps
        l5 = self.lateral5(p5)
        l4 = self.lateral4(self.top4(self.concat4((self.up5(l5), p4))))
        n3 = self.out3(self.concat3((self.up4(l4), p3)))
        n4 = self.out4(self.join4((self.down3(n3), l4)))
        return n3, n4, self.out5(self.join5((self.down4(n4), l5)))


class YOLOv5Body(nn.Module):
    """Pixels 0..1 (B, 3, H, W) -> maps at strides 8, 16, 32. Sub-modules carry their region's name: stem, backbone, neck."""

    def __init__(self, size: str, unit: Unit) -> None:
        super().__init__()
        self.channels = widths(size)[2:]
        self.stem = unit("stem", 3, widths(size)[0], 6, 2)
        self.backbone = Backbone(size, unit)
        self.neck = Neck(size, unit)

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.neck(self.backbone(self.stem(x)))

    def forward(self, x: Tensor) -> Any:
        """The maps; of a detector made of this body, its predictions."""
        return self.maps(x)
