"""What every attack starts from: a small valid model, and the shape of an attack."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mpqyolo.graph.build import Builder
from mpqyolo.graph.ir import Decode, Level, Model
from mpqyolo.graph.ops import OPS


class Attack(NamedTuple):
    """A file that must be refused. `fault`: a pattern in the Python reader's line."""

    name: str
    data: bytes
    fault: str


def base_model() -> Model:
    """A small valid model with every operator, every type and every role."""
    rng = np.random.default_rng(7)
    build = Builder(16, 16)

    def i16(n: int) -> tuple[str, np.ndarray]:
        return "i16", rng.integers(-9000, 9000, n)

    def weight(dtype: str, *shape: int) -> tuple[str, np.ndarray]:
        largest = {"w1": 1, "w4": 7, "w8": 127}[dtype]
        values = rng.integers(-largest, largest + 1, shape)
        return dtype, np.where(values > 0, 1, -1) if dtype == "w1" else values

    def conv(name: str, inputs: list[str], w: tuple[str, np.ndarray], outputs: tuple[str, ...], more=None, **at: Any):
        n = w[1].shape[0]
        attributes = {"kernel": w[1].shape[1], "stride": 1, "pad": w[1].shape[1] // 2, "shift": 2, "outputs": outputs} | at
        scales = {"u4": 0.125, "s16": 2.0**-8}
        return build.add(
            "conv", name, inputs, {"weight": w, "multiplier": i16(n), "bias": i16(n)} | (more or {}), scales, **attributes
        )

    s, b = conv("stem", ["image"], weight("w8", 7, 3, 3, 3), ("s16", "b1"), {"threshold": i16(7)}, stride=2)
    (pool,) = build.add("avgpool2", "pool", [s])
    more = {"slope": i16(7), "post": i16(7), "gain": i16(7)}
    u, v = conv("body", [b, pool], weight("w1", 7, 3, 3, 7), ("u4", "s16"), more, stride=2, fraction=9, residual_last=1)
    (bits,) = build.add("threshold", "bits", [v], {"threshold": i16(7)})
    (again,) = build.add("requantise", "again", [v], {"multiplier": i16(7), "bias": i16(7)}, {"u4": 0.125}, fraction=9)
    (most,) = build.add("maxpool", "most", [again], kernel=5)
    (both,) = build.add("concat", "both", [u, most])
    (up,) = build.add("upsample2", "up", [both])
    (low,) = conv("low", [bits], weight("w1", 5, 3, 3, 7), ("u4",), stride=2, fraction=9)
    outputs = []
    for stride, source, channels in ((2, up, 14), (8, low, 5)):
        distance = conv(f"distance{stride}", [source], weight("w8", 4, 1, 1, channels), ("s16",))
        outputs.append(Level(stride, distance[0], conv(f"logit{stride}", [source], weight("w4", 3, 1, 1, channels), ("s16",))[0]))
    graph = build.graph([name for level in outputs for name in (level.distance, level.logit)])
    bits_of = {"stem": [8, 8], "backbone": [1, 1], "neck": [4, 4], "predict": [8, 4]}
    return Model(graph, Decode(tuple(outputs)), ("a", "b", "c"), {"name": "default", "bits": bits_of}, {"name": "base"})


def places() -> dict[str, tuple[int, int]]:
    """Constants of the base model in their order: where each lies in the data section, and its bytes."""
    graph, found, end = base_model().graph, {}, 0
    for node in graph.nodes:
        for role in OPS[node.op].roles:
            if role in node.constants:
                size = graph.constants[node.constants[role]].nbytes_packed
                found[node.constants[role]] = end, size
                end = -(-(end + size) // 64) * 64
    return found
