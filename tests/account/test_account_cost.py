"""Counts of a graph done by hand, and that every operator is priced."""

import numpy as np
import pytest

from mpqyolo.account.cost import FORMULA, cost
from mpqyolo.format.writer import dumps
from mpqyolo.graph.build import Builder
from mpqyolo.graph.ops import resize
from mpqyolo.graph.sample import random_model


def i16(n):
    return "i16", np.ones(n)


def weight(dtype, *shape):
    return dtype, np.ones(shape)


@pytest.fixture
def graph():
    build = Builder(32, 32)
    common = {"multiplier": i16(16), "bias": i16(16)}
    at = {"kernel": 3, "stride": 2, "pad": 1, "shift": 3}
    stem = {"weight": weight("w8", 16, 3, 3, 3), "threshold": i16(16)} | common
    s16, b1 = build.add("conv", "stem", ["image"], stem, {"s16": 1.0}, **at, outputs=("s16", "b1"))
    (pooled,) = build.add("avgpool2", "pool", [s16])
    body = {"weight": weight("w1", 16, 3, 3, 16), "slope": i16(16), "post": i16(16)} | common
    (u4,) = build.add("conv", "body", [b1, pooled], body, {"u4": 1.0}, **at, outputs=("u4",), fraction=8, residual_last=1)
    (mixed,) = build.add("conv", "mixed", [u4], {"weight": weight("w1", 16, 1, 1, 16)} | common, {"s16": 1.0},
                         kernel=1, stride=1, pad=0, shift=0, outputs=("s16",))  # fmt: skip
    (u,) = build.add("requantise", "q", [mixed], common, {"u4": 1.0}, fraction=8)
    (m,) = build.add("maxpool", "max", [u], kernel=5)
    (both,) = build.add("concat", "cat", [u, m])
    return build.graph(build.add("upsample2", "up", [both]))


def test_by_hand(graph):
    c = cost(graph)
    layers = {layer.name: layer for layer in c.layers}
    assert layers["stem"].macs == 16 * 27 * 256 and layers["body"].macs == 16 * 144 * 64 and layers["mixed"].macs == 256 * 64
    # 1-bit weights on 4-bit maps are 4-bit work.
    assert c.macs == {1: 16 * 144 * 64, 4: 256 * 64, 8: 16 * 27 * 256, 32: 0}
    assert c.ops == 16 * 144 * 64 / 64 + 256 * 64 / 8 + 16 * 27 * 256 / 4 and "MACs_1/64" in FORMULA
    assert c.bops == 16 * 27 * 256 * 64 + 16 * 144 * 64 + 256 * 64 * 4
    assert (layers["body"].weight_bytes, layers["stem"].weight_bytes, layers["mixed"].weight_bytes) == (288, 432, 32)
    assert c.size_bytes == 432 + 288 + 32 + 2 * 16 * (3 + 4 + 2 + 2)
    assert c.parameters == 432 + 2304 + 256 + 16 * 11
    n = 1024  # numbers in a (16, 8, 8) map
    assert layers["stem"].elementwise == {"shift": 4 * n, "multiply": 4 * n, "bias": 4 * n, "threshold": 4 * n}
    body = {"shift": n, "multiply": n, "bias": n, "residual": n, "slope": 2 * n, "post": n, "quantise": 2 * n}
    assert layers["body"].elementwise == body and layers["mixed"].elementwise == {"multiply": n, "bias": n}
    assert layers["pool"].elementwise == {"pool": 5 * n} and layers["max"].elementwise == {"pool": 8 * n}
    assert layers["cat"].elementwise == layers["up"].elementwise == {} and layers["up"].output_shape == (32, 16, 16)
    assert c.elementwise_ops == sum(c.elementwise.values()) == (16 + 9 + 2 + 5 + 8 + 4) * n


def test_two_bits_gains_and_wide_residuals_by_hand():
    build = Builder(32, 32)
    common = {"multiplier": i16(16), "bias": i16(16)}
    at = {"kernel": 3, "pad": 1, "shift": 0, "outputs": ("s16",)}
    stem = {"weight": weight("w8", 16, 3, 3, 3)} | common
    (s16,) = build.add("conv", "stem", ["image"], stem, {"s16": 1.0}, **at, stride=2)
    (two,) = build.add("threshold", "bits", [s16], {"threshold": i16(16)}, None, step=3)
    body = {"weight": weight("w1", 8, 3, 3, 16), "multiplier": i16(8), "bias": i16(8), "gain": i16(16)}
    (out,) = build.add("conv", "body", [two, s16], body, {"s16": 1.0}, **at, stride=1, planes=2, residual_last=0)
    c = cost(build.graph([out]))
    body = c.layers[-1]
    # A map of two bits is multiplied as two of one bit.
    assert c.macs[1] == body.macs == 2 * 8 * 144 * 256 and body.weight_bytes == 8 * 144 // 8
    n = 8 * 256
    assert body.elementwise == {"multiply": n, "bias": n, "gain": 2 * n, "residual": 2 * n}


def test_macs_follow_the_image(graph):
    assert (
        cost(resize(graph, 64, 64)).macs[1] == 4 * cost(graph).macs[1]
        and cost(resize(graph, 64, 64)).parameters == cost(graph).parameters
    )


@pytest.mark.parametrize("seed", range(5))
def test_any_graph_and_its_json(seed):
    model = random_model(np.random.default_rng(seed))
    size = len(dumps(model))
    c = cost(model.graph, size).to_dict()
    assert c["size_bytes"] == size and set(c["macs"]) == {"1", "4", "8", "32"} and len(c["layers"]) == len(model.graph.nodes)
    wanted = {"name", "op", "weight_bits", "activation_bits", "macs", "weight_bytes", "output_shape"}
    assert all(wanted <= set(layer) for layer in c["layers"])
    stored = sum(layer["weight_bytes"] + layer["constant_bytes"] for layer in c["layers"])
    assert stored == cost(model.graph).size_bytes < size
