"""Reference counts of the float YOLOv5 v6, from its published architecture, without torch. What ratios are taken against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mpqyolo.account.cost import MACS_PER_OP, Cost, LayerCost
from mpqyolo.core.errors import ConfigError

MULTIPLES = {"n": (0.33, 0.25), "s": (0.33, 0.50), "m": (0.67, 0.75), "l": (1.0, 1.0), "x": (1.33, 1.25)}  # depth, width
REGIONS = ("stem", "backbone", "neck", "predict")
ANCHORS = 3


@dataclass(frozen=True)
class Conv:
    """One convolution with its batch normalisation folded in. output: (channels, height, width)."""

    region: str
    name: str
    inputs: int
    kernel: int
    output: tuple[int, int, int]
    activation: bool = True
    residual: bool = False

    @property
    def weights(self) -> int:
        """Numbers in the kernel, without the bias."""
        return self.inputs * self.output[0] * self.kernel**2

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return self.weights * self.output[1] * self.output[2]

    @property
    def elementwise(self) -> dict[str, int]:
        """Bias, SiLU (exponential, add, divide, multiply) and shortcut, one each per output and operation."""
        numbers = math.prod(self.output)
        items = {"bias": numbers, "activation": 4 * numbers * self.activation, "residual": numbers * self.residual}
        return {kind: n for kind, n in items.items() if n}


@dataclass(frozen=True)
class YOLOv5:
    """The reference network. `pooling`: compares of the three 5x5 max-pools."""

    size: str
    classes: int
    layers: tuple[Conv, ...]
    pooling: int

    @property
    def parameters(self) -> int:
        """Fused parameters: weights and one bias a channel."""
        return sum(layer.weights + layer.output[0] for layer in self.layers)

    @property
    def weights(self) -> int:
        """Convolution weights alone."""
        return sum(layer.weights for layer in self.layers)

    @property
    def size_bytes(self) -> int:
        """Bytes of the fused parameters in float32."""
        return 4 * self.parameters

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def elementwise_ops(self) -> int:
        """Element-wise operations for one image, by the rule of account/cost.py."""
        return sum(sum(layer.elementwise.values()) for layer in self.layers) + self.pooling

    def region_macs(self) -> dict[str, int]:
        """MACs by region: stem, backbone (with SPPF), neck, predict."""
        return {region: sum(v.macs for v in self.layers if v.region == region) for region in REGIONS}

    def ops_at(self, bits: dict[str, int]) -> float:
        """OPs of the same layers if the MACs of each region counted at these bits (1, 4, 8 or 32)."""
        return sum(macs / MACS_PER_OP[bits[region]] for region, macs in self.region_macs().items())

    def cost(self) -> Cost:
        """The same counts as a `Cost`, every layer 32-bit: what `mpqyolo info yolov5n` shows."""
        layers = [
            LayerCost(v.name, "conv", 32, 32, v.macs, 4 * v.weights, v.output, 4 * v.output[0], v.elementwise)
            for v in self.layers
        ]
        pool = LayerCost("9.pool", "maxpool", 0, 32, 0, 0, self._pool_shape(), 0, {"pool": self.pooling})
        where = 1 + next(i for i, v in enumerate(self.layers) if v.name == "9.cv1")
        return Cost((*layers[:where], pool, *layers[where:]), self.parameters, self.size_bytes)

    def _pool_shape(self) -> tuple[int, int, int]:
        return next(v.output for v in self.layers if v.name == "9.cv1")


class _Builder:
    def __init__(self, size: str, height: int, width: int) -> None:
        self.depth_multiple, self.width_multiple = MULTIPLES[size]
        self.height, self.width = height, width
        self.layers: list[Conv] = []

    def channels(self, c: int) -> int:
        return math.ceil(c * self.width_multiple / 8) * 8

    def repeats(self, n: int) -> int:
        return max(round(n * self.depth_multiple), 1)

    def conv(self, region: str, name: str, inputs: int, outputs: int, kernel: int, stride: int, **more: bool) -> int:
        shape = (outputs, self.height // stride, self.width // stride)
        self.layers.append(Conv(region, name, inputs, kernel, shape, **more))
        return outputs

    def c3(self, region: str, index: int, inputs: int, outputs: int, n: int, stride: int, shortcut: bool) -> int:
        half = outputs // 2
        self.conv(region, f"{index}.cv1", inputs, half, 1, stride)
        self.conv(region, f"{index}.cv2", inputs, half, 1, stride)
        for i in range(self.repeats(n)):
            self.conv(region, f"{index}.m.{i}.cv1", half, half, 1, stride)
            self.conv(region, f"{index}.m.{i}.cv2", half, half, 3, stride, residual=shortcut)
        return self.conv(region, f"{index}.cv3", 2 * half, outputs, 1, stride)

    def backbone(self) -> tuple[int, int, int]:
        c = self.conv("stem", "0", 3, self.channels(64), 6, 2)
        levels = []
        for index, (wide, n) in enumerate(((128, 3), (256, 6), (512, 9), (1024, 3))):
            stride = 4 << index
            c = self.conv("backbone", str(2 * index + 1), c, self.channels(wide), 3, stride)
            c = self.c3("backbone", 2 * index + 2, c, c, n, stride, shortcut=True)
            levels.append(c)
        self.conv("backbone", "9.cv1", c, c // 2, 1, 32)
        self.conv("backbone", "9.cv2", 2 * c, c, 1, 32)
        return levels[1], levels[2], c

    def head(self, c3: int, c4: int, c5: int, classes: int) -> None:
        w256, w512, w1024 = (self.channels(c) for c in (256, 512, 1024))
        self.conv("neck", "10", c5, w512, 1, 32)
        self.c3("neck", 13, w512 + c4, w512, 3, 16, shortcut=False)
        self.conv("neck", "14", w512, w256, 1, 16)
        self.c3("neck", 17, w256 + c3, w256, 3, 8, shortcut=False)
        self.conv("neck", "18", w256, w256, 3, 16)
        self.c3("neck", 20, 2 * w256, w512, 3, 16, shortcut=False)
        self.conv("neck", "21", w512, w512, 3, 32)
        self.c3("neck", 23, 2 * w512, w1024, 3, 32, shortcut=False)
        for i, inputs in enumerate((w256, w512, w1024)):
            self.conv("predict", f"24.m.{i}", inputs, ANCHORS * (classes + 5), 1, 8 << i, activation=False)


def yolov5(size: str, classes: int = 80, image_size: int | tuple[int, int] = 640) -> YOLOv5:
    """The float YOLOv5 v6 n, s, m, l or x. image_size: (height, width) or both, multiples of 32.

    Raises ConfigError for another size or image size.
    """
    if size not in MULTIPLES:
        raise ConfigError(f"there is no YOLOv5 of size '{size}'; known: {', '.join(MULTIPLES)}")
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width) < 32 or height % 32 or width % 32:
        raise ConfigError(f"image size {height}x{width} must be multiples of 32")
    build = _Builder(size, height, width)
    c3, c4, c5 = build.backbone()
    build.head(c3, c4, c5, classes)
    pooling = 3 * 2 * (5 - 1) * (c5 // 2) * (height // 32) * (width // 32)
    return YOLOv5(size, classes, tuple(build.layers), pooling)


def ratios(cost: Cost, size: str, classes: int, image_size: int | tuple[int, int]) -> dict[str, Any]:
    """How much less `cost` is than the float YOLOv5 of this size and classes, both at the same image size.

    ops_ratio by the formula of account/cost.py, size_ratio by bytes. ops_ratio_elementwise counts the element-wise work of both
    too: 32-bit operations of a float network as one OP each, 16-bit ones as half.
    """
    reference = yolov5(size, classes, image_size)
    with_elementwise = cost.ops + cost.elementwise_ops / (1 if cost.macs[32] else 2)
    return {
        "reference": f"YOLOv5{size} v6, {classes} classes, float32",
        "ops_ratio": reference.macs / cost.ops,
        "size_ratio": reference.size_bytes / cost.size_bytes,
        "ops_ratio_elementwise": (reference.macs + reference.elementwise_ops) / with_elementwise,
    }
