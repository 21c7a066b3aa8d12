"""Models of one convolution on a map of any size and type, for the exam of kernels."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import numpy as np

from mpqyolo.core.errors import EngineError
from mpqyolo.format.writer import dumps
from mpqyolo.graph.build import Builder
from mpqyolo.graph.ir import Decode, Level, Model
from mpqyolo.graph.ops import MAX_WEIGHT
from mpqyolo.graph.sample import random_model
from mpqyolo.runtime.session import Model as EngineModel
from mpqyolo.runtime.session import Session

SCALES = {"u4": 1 / 8, "s16": 2.0**-8}
BITS = {"stem": [8, 8], "backbone": [1, 1], "neck": [4, 4], "predict": [8, 4]}


def isas_here() -> list[str]:
    """The instruction sets that this CPU has, the best last."""
    model, found = EngineModel(dumps(random_model(np.random.default_rng(0)))), []
    for isa in ("serial", "avx2", "avxvnni", "avx512"):
        with contextlib.suppress(EngineError):
            found.append(Session(model, isa=isa).info.isa)
    return found


class Case(NamedTuple):
    """A convolution and the map it reads: (channels, height, width) of `source` type, made from noise by a 2x2 stem."""

    source: str
    weight: str
    channels: int
    outputs: int
    height: int
    width: int
    kernel: int
    stride: int
    pad: int
    writes: tuple[str, ...]
    shift: int = 2
    residual: int = 0
    residual_last: int = 0
    gain: bool = False
    slope: bool = False
    post: bool = False
    extreme: bool = False

    @property
    def fits(self) -> bool:
        return min(self.height, self.width) * (2 if self.source == "u8" else 1) + 2 * self.pad >= self.kernel


def one_conv(case: Case, seed: int) -> Model:
    """A model whose node "conv" is the case. The input is (3, 2h, 2w), and a u8 case reads it; random constants."""
    rng = np.random.default_rng(seed)
    build = Builder(2 * case.height, 2 * case.width)

    def i16(n: int, spread: int, lowest: int = -32768) -> tuple[str, np.ndarray]:
        values = rng.normal(0, spread, n).round()
        edge = rng.random(n) < (0.4 if case.extreme else 0.05)
        return "i16", np.clip(np.where(edge, rng.choice([-32768, 32767, -1, 0], n), values), lowest, 32767).astype(np.int16)

    def weight(dtype: str, *shape: int) -> tuple[str, np.ndarray]:
        largest = MAX_WEIGHT[dtype]
        low = largest if case.extreme else -largest  # all weights at their most: the largest sums that there can be
        values = rng.integers(low, largest + 1, shape)
        return dtype, (np.where(values > 0, 1, -1) if dtype == "w1" else values).astype(np.int8)

    def conv(name: str, inputs: list[str], w: tuple[str, np.ndarray], writes: tuple[str, ...], **at: Any) -> tuple[str, ...]:
        n = w[1].shape[0]
        constants = {"weight": w, "multiplier": i16(n, 16000, -32767), "bias": i16(n, 3000)}
        if at.pop("slope", False):
            constants["slope"] = i16(n, 16000, -32767)
        if at.pop("post", False):
            constants["post"] = i16(n, 2000)
        if at.pop("gain", False):
            constants["gain"] = i16(build.tensors[inputs[1]].shape[0], 16000, -32767)
        if "b1" in writes:
            constants["threshold"] = i16(n, 2000)
        if "u4" in writes:
            at["fraction"] = int(rng.integers(6, 12))
        return build.add("conv", name, inputs, constants, SCALES, outputs=writes, **at)

    stem = weight("w8", case.channels, 2, 2, 3)
    maps = dict(zip(("u4", "b1"), conv("stem", ["image"], stem, ("u4", "b1"), kernel=2, stride=2, pad=0, shift=1), strict=True))
    x = {"u8": "image", **maps}[case.source]
    channels = build.tensors[x].shape[0]
    place = {"kernel": case.kernel, "stride": case.stride, "pad": case.pad}
    inputs, more = [x], {}
    if case.residual:
        shape = (case.residual, case.kernel, case.kernel, channels)
        inputs += conv("side", [x], weight("w1", *shape), ("s16",), shift=-4 if case.source == "b1" else 0, **place)
        more = {"residual_last": case.residual_last, "gain": case.gain}
    w = weight(case.weight, case.outputs, case.kernel, case.kernel, channels)
    found = conv("conv", inputs, w, case.writes, shift=case.shift, slope=case.slope, post=case.post, **place, **more)
    conv("distance", [maps["u4"]], weight("w4", 4, 1, 1, case.channels), ("s16",), kernel=1, stride=1, pad=0, shift=0)
    conv("logit", [maps["b1"]], weight("w4", 1, 1, 1, case.channels), ("s16",), kernel=1, stride=1, pad=0, shift=-4)
    graph = build.graph(["distance", "logit", *found])
    return Model(graph, Decode((Level(2, "distance", "logit"),)), ("a",), {"name": "x", "bits": BITS})
