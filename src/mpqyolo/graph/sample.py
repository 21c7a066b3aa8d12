"""Small random models that are valid and cover every operator, type and attribute: the exam of every backend.

Constants are drawn so that maps stay alive (sums are shifted into 16 bits), and now and then at the edges of their range.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpqyolo.graph.build import Builder
from mpqyolo.graph.ir import Decode, Graph, Level, Model
from mpqyolo.graph.ops import MAX_CODE, MAX_WEIGHT, OUTPUT_TYPES, QUAD

CHANNELS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 33, 48, 63, 64)  # tails of every vector width among them
SCALES = {"u4": 1 / 8, "s16": 2.0**-8}


class _Maker:
    def __init__(self, rng: np.random.Generator, height: int, width: int, channels: tuple[int, ...]) -> None:
        self.rng, self.channels = rng, channels
        self.build = Builder(height, width)
        self.count = 0

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def pick(self, options):
        return options[self.integer(0, len(options) - 1)]

    def name(self, op: str) -> str:
        self.count += 1
        return f"{op}{self.count}"

    def find(self, *dtypes: str, size: tuple[int, int] | None = None) -> list[str]:
        return [t.name for t in self.build.tensors.values() if t.dtype in dtypes and size in (None, t.shape[1:])]

    def i16(self, count: int, spread: int, lowest: int = -32768) -> tuple[str, np.ndarray]:
        """Around zero, one in sixteen anywhere, one in sixteen at an edge."""
        values = self.rng.normal(0, spread, count).round()
        kind = self.rng.random(count)
        values = np.where(kind < 1 / 16, self.rng.integers(-32768, 32768, count), values)
        values = np.where(kind > 15 / 16, self.rng.choice([-32768, 32767, 0, -1, 1], count), values)
        return "i16", np.clip(values, lowest, 32767).astype(np.int16)

    def factor(self, count: int) -> tuple[str, np.ndarray]:
        return self.i16(count, 16000, lowest=-32767)

    def step(self, channels: int) -> dict[str, Any]:
        """Of a b1 output: none, some, or one at an edge."""
        if channels % QUAD or self.chance(0.5):
            return {}
        return {"step": self.pick((1, 32767)) if self.chance(0.1) else self.integer(100, 3000)}

    def weight(self, dtype: str, shape: tuple[int, ...]) -> tuple[str, np.ndarray]:
        largest = MAX_WEIGHT[dtype]
        values = self.rng.integers(-largest, largest + 1, shape)
        if dtype == "w1":
            values = np.where(values > 0, 1, -1)
        return dtype, values.astype(np.int8)

    def conv(
        self,
        x: str,
        outputs: tuple[str, ...],
        channels: int,
        kernel: int,
        stride: int = 1,
        pad: int | None = None,
        residual: str | None = None,
        dtype: str | None = None,
    ) -> tuple[str, ...]:
        source = self.build.tensors[x]
        dtype = dtype or self.pick(("w1", "w4", "w8"))
        planes = 2 if source.dtype == "b1" and source.shape[0] % (2 * QUAD) == 0 and self.chance(0.5) else 1
        reads = source.shape[0] // planes
        pad = kernel // 2 if pad is None else pad
        # The spread of the sum of n random products, scaled to some thousands of the 32767.
        spread = MAX_WEIGHT[dtype] * MAX_CODE[source.dtype] * np.sqrt(reads) * planes * kernel
        shift = int(np.clip(np.round(np.log2(spread / 8000)) + self.integer(-1, 1), -15, 16))
        if self.chance(0.05):
            shift = self.integer(-15, 16)
        constants = {
            "weight": self.weight(dtype, (channels, kernel, kernel, reads)),
            "multiplier": self.factor(channels),
            "bias": self.i16(channels, 2000),
        }
        attributes: dict[str, Any] = {"kernel": kernel, "stride": stride, "pad": pad, "shift": shift, "outputs": outputs}
        if self.chance(0.5):
            constants["slope"] = self.factor(channels)
        if self.chance(0.4):
            constants["post"] = self.i16(channels, 1000)
        if "b1" in outputs:
            constants["threshold"] = self.i16(channels, 2000)
            attributes |= self.step(channels)
        if planes > 1:
            attributes["planes"] = planes
        if "u4" in outputs:
            attributes["fraction"] = self.integer(0, 14) if self.chance(0.2) else self.integer(8, 11)
        inputs = [x]
        if residual is not None:
            inputs.append(residual)
            attributes["residual_last"] = self.integer(0, 1)
            if self.chance(0.5):
                constants["gain"] = self.factor(self.build.tensors[residual].shape[0])
        return self.build.add("conv", self.name("conv"), inputs, constants, SCALES, **attributes)

    def random_conv(self) -> None:
        x = self.pick(self.find("u8", "u4", "b1"))
        _, height, width = self.build.tensors[x].shape
        kernel = min(self.pick((1, 1, 3, 3, 3, 5, 2, 4, 6, 7)), height, width)
        stride = self.pick((1, 1, 2))
        pad = kernel // 2 if self.chance(0.8) else self.integer(0, kernel - 1)
        size = ((height + 2 * pad - kernel) // stride + 1, (width + 2 * pad - kernel) // stride + 1)
        outputs = tuple(self.rng.permutation(OUTPUT_TYPES)[: self.integer(1, 3)].tolist())
        channels, residual = self.pick(self.channels), None
        partners = self.find("s16", size=size)
        if partners and self.chance(0.7):
            residual = self.pick(partners)
            cr = self.build.tensors[residual].shape[0]
            divides = [c for c in self.channels if c % cr == 0 or cr % c == 0]
            channels = self.pick(divides) if divides else cr
        self.conv(x, outputs, channels, kernel, stride, pad, residual)

    def random_node(self) -> None:
        op = self.pick(("conv", "conv", "conv", "threshold", "requantise", "avgpool2", "maxpool", "upsample2", "concat"))
        sources = {
            "threshold": ("s16",),
            "requantise": ("s16", "u8"),
            "avgpool2": ("s16",),
            "maxpool": ("u4", "s16", "b1"),
            "upsample2": ("u4", "s16", "b1", "u8"),
            "concat": ("u4", "s16", "b1", "u8"),
        }.get(op, ())
        names = self.find(*sources)
        if op == "avgpool2":
            names = [n for n in names if all(s % 2 == 0 for s in self.build.tensors[n].shape[1:])]
        elif op == "upsample2":
            names = [n for n in names if max(self.build.tensors[n].shape[1:]) <= 32]
        if op == "conv" or not names:
            return self.random_conv()
        x = self.build.tensors[self.pick(names)]
        add, channels = self.build.add, x.shape[0]
        if op == "threshold":
            add(op, self.name(op), [x.name], {"threshold": self.i16(channels, 3000)}, **self.step(channels))
        elif op == "requantise":
            constants = {"multiplier": self.factor(channels), "bias": self.i16(channels, 2000)}
            add(op, self.name(op), [x.name], constants, SCALES, fraction=self.integer(6, 11))
        elif op == "maxpool":
            add(op, self.name(op), [x.name], kernel=self.pick((3, 5, 5, 13)))
        elif op == "concat":
            others = [t for t in self.find(x.dtype, size=x.shape[1:]) if self.build.tensors[t].scale == x.scale]
            inputs = [self.pick(others) for _ in range(self.integer(1, 3))] + [x.name]
            if sum(self.build.tensors[t].shape[0] for t in inputs) <= 256:
                add(op, self.name(op), inputs)
        else:
            add(op, self.name(op), [x.name])

    def level(self, stride: int, classes: int, height: int, width: int) -> Level:
        """Predictions from a map of this stride, which is made from the image if there is none."""
        size = (height // stride, width // stride)
        names = self.find("u4", "b1", size=size)
        if names:
            x = self.pick(names)
        else:
            x, edge = self.build.input, height
            while edge > size[0]:
                (x,) = self.conv(x, (self.pick(("u4", "b1")),), self.pick(self.channels), 3, 2)
                edge //= 2
        (distance,) = self.conv(x, ("s16",), 4, 1, residual=None)
        (logit,) = self.conv(x, ("s16",), classes, self.pick((1, 3)))
        return Level(stride, distance, logit)


def random_graph(
    rng: np.random.Generator,
    nodes: int = 14,
    size: tuple[int, int] | None = None,
    strides: tuple[int, ...] = (4, 8),
    classes: int = 3,
    channels: tuple[int, ...] = CHANNELS,
) -> tuple[Graph, Decode]:
    """A valid graph of about `nodes` random nodes and its predictions. size: (height, width), multiples of the largest stride."""
    unit = max(strides)
    height, width = size or (unit * int(rng.integers(2, 6)), unit * int(rng.integers(2, 6)))
    make = _Maker(rng, height, width, channels)
    make.conv(make.build.input, ("s16", "u4", "b1"), make.pick(channels), make.pick((3, 6)), 2, 2 if make.chance(0.5) else 1)
    for _ in range(nodes):
        make.random_node()
    levels = tuple(make.level(stride, classes, height, width) for stride in strides)
    read = {name for node in make.build.nodes for name in node.inputs}
    wanted = [name for level in levels for name in (level.distance, level.logit)]
    wanted += [name for name in make.build.tensors if name not in read and name not in wanted]
    return make.build.graph(wanted), Decode(levels, 0.65)


def random_model(
    rng: np.random.Generator,
    nodes: int = 14,
    size: tuple[int, int] | None = None,
    strides: tuple[int, ...] = (4, 8),
    classes: int = 3,
    channels: tuple[int, ...] = CHANNELS,
) -> Model:
    """A small random valid model; the same generator state gives the same model. See `random_graph`."""
    graph, decode = random_graph(rng, nodes, size, strides, classes, channels)
    names = tuple(f"class {i}" for i in range(classes))
    bits = {"stem": [8, 8], "backbone": [1, 1], "neck": [4, 4], "predict": [8, 4]}
    return Model(graph, decode, names, {"name": "default", "bits": bits}, {"name": "random", "nodes": len(graph.nodes)})


def random_image(rng: np.random.Generator, graph: Graph) -> np.ndarray:
    """(H, W, C) uint8 that fits the graph's input: noise at full range, in coarse blocks so that neighbours agree."""
    channels, height, width = graph.tensors[graph.input].shape
    coarse = rng.integers(0, 256, ((height + 3) // 4, (width + 3) // 4, channels))
    fine = coarse.repeat(4, axis=0).repeat(4, axis=1)[:height, :width] + rng.integers(-64, 65, (height, width, channels))
    return np.clip(fine, 0, 255).astype(np.uint8)
