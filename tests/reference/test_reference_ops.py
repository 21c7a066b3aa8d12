"""Every operator against docs/numerics.md spelled out for one output number in Python's own integers."""

import numpy as np
import pytest

from mpqyolo.graph.ops import resize
from mpqyolo.graph.sample import random_image, random_model
from mpqyolo.reference.run import run, run_outputs


def sat(x):
    return min(max(x, -32768), 32767)


def mul(a, m):
    return sat((a * m + (1 << 14)) >> 15)


def u4(v, fraction):
    return min(max(v >> fraction, 0), 15)


def bits(v, threshold, step):
    """The bit of v, or the upper and the lower."""
    upper = v >= threshold
    if step is None:
        return 1 if upper else -1
    edge = sat(threshold + step) if upper else sat(threshold - step)
    return (1 if upper else -1, 1 if v >= edge else -1)


def conv_at(graph, node, ins, o, y, x):
    at, k = node.attributes, node.attributes["kernel"]
    c = {role: graph.constants[name].values for role, name in node.constants.items()}
    dtype, source = graph.tensors[node.inputs[0]].dtype, ins[0]
    outside, reads = -1 if dtype == "b1" else 0, c["weight"].shape[3]
    if at.get("planes") == 2:
        outside, source = -3, 2 * source[:reads] + source[reads:]
    acc = 0
    for dy in range(k):
        for dx in range(k):
            sy, sx = y * at["stride"] + dy - at["pad"], x * at["stride"] + dx - at["pad"]
            inside = 0 <= sy < source.shape[1] and 0 <= sx < source.shape[2]
            for i in range(reads):
                acc += int(c["weight"][o, dy, dx, i]) * (int(source[i, sy, sx]) if inside else outside)
    s = at["shift"]
    a = sat((acc + (1 << (s - 1))) >> s if s > 0 else acc << -s)
    v = sat(mul(a, int(c["multiplier"][o])) + int(c["bias"][o]))
    total = None
    if len(ins) > 1:
        outputs, channels = c["weight"].shape[0], ins[1].shape[0]

        def r(j):
            value = int(ins[1][j, y, x])
            return mul(value, int(c["gain"][j])) if "gain" in c else value

        if channels <= outputs:
            total = r(o % channels)
        else:
            total = r(o)
            for j in range(1, channels // outputs):
                total = sat(total + r(o + j * outputs))
    if total is not None and at["residual_last"] == 0:
        v = sat(v + total)
    if "slope" in c and v < 0:
        v = mul(v, int(c["slope"][o]))
    if "post" in c:
        v = sat(v + int(c["post"][o]))
    if total is not None and at["residual_last"] == 1:
        v = sat(v + total)
    kinds = {"s16": lambda: v, "u4": lambda: u4(v, at["fraction"]), "b1": lambda: bits(v, int(c["threshold"][o]), at.get("step"))}
    return [kinds[dtype]() for dtype in at["outputs"]]


def plain_at(graph, node, ins, o, y, x):
    if node.op == "conv":
        return conv_at(graph, node, ins, o, y, x)
    c = {role: graph.constants[name].values for role, name in node.constants.items()}
    first = ins[0]
    if node.op == "threshold":
        return [bits(int(first[o, y, x]), int(c["threshold"][o]), node.attributes.get("step"))]
    if node.op == "requantise":
        a = int(first[o, y, x]) << (7 if graph.tensors[node.inputs[0]].dtype == "u8" else 0)
        return [u4(sat(mul(a, int(c["multiplier"][o])) + int(c["bias"][o])), node.attributes["fraction"])]
    if node.op == "avgpool2":
        return [(sum(int(first[o, 2 * y + i, 2 * x + j]) for i in (0, 1) for j in (0, 1)) + 2) >> 2]
    if node.op == "maxpool":
        reach = node.attributes["kernel"] // 2
        rows = [j for j in range(y - reach, y + reach + 1) if 0 <= j < first.shape[1]]
        columns = [j for j in range(x - reach, x + reach + 1) if 0 <= j < first.shape[2]]
        return [max(int(first[o, j, i]) for j in rows for i in columns)]
    if node.op == "upsample2":
        return [first[o, y // 2, x // 2]]
    if node.op == "concat":
        for one in ins:
            if o < one.shape[0]:
                return [one[o, y, x]]
            o -= one.shape[0]
    raise AssertionError(node.op)


@pytest.mark.parametrize("seed", range(30))
def test_operators_do_what_the_document_says(seed):
    rng = np.random.default_rng(seed)
    graph = random_model(rng).graph
    image = random_image(rng, graph)
    values = run(graph, image)
    assert np.array_equal(values[graph.input], image.transpose(2, 0, 1)) and values.keys() == graph.tensors.keys()
    for node in graph.nodes:
        ins = [values[name] for name in node.inputs]
        _, height, width = graph.tensors[node.outputs[0]].shape
        stored = [len(graph.constants[name].values) for role, name in node.constants.items() if role != "gain"]
        channels = stored[0] if stored else graph.tensors[node.outputs[0]].shape[0]
        corners = [(channels - 1, height - 1, width - 1), (0, 0, 0)]
        for o, y, x in [
            *corners,
            *zip(rng.integers(0, channels, 4), rng.integers(0, height, 4), rng.integers(0, width, 4), strict=True),
        ]:
            expected = plain_at(graph, node, ins, int(o), int(y), int(x))
            found = [values[name][o::channels, y, x] for name in node.outputs]
            assert [tuple(v) if len(v) > 1 else v[0] for v in found] == expected, (node, o, y, x)


def test_large_sums_are_exact():
    """Sums beyond 2^24, where float32 would round."""
    from mpqyolo.reference.conv import accumulate

    x = np.full((1024, 5, 5), 255, np.uint8)
    x[0, 2, 2] = 254
    weight = np.full((1, 3, 3, 1024), 127, np.int8)
    weight[0, 0, 0, 0] = 126
    acc = accumulate(x, weight, 1, 0)
    taps = weight.astype(object)[0].transpose(2, 0, 1)
    for y in range(3):
        for z in range(3):
            assert acc[0, y, z] == (x[:, y : y + 3, z : z + 3].astype(object) * taps).sum()
    assert acc.max() > 2**24


def test_run_outputs_is_run_and_takes_other_sizes():
    rng = np.random.default_rng(3)
    graph = random_model(rng, size=(32, 32)).graph
    image = random_image(rng, resize(graph, 16, 40))
    every, some = run(graph, image), run_outputs(graph, image)
    assert set(some) == set(graph.outputs)
    assert all(np.array_equal(every[name], some[name]) for name in some)


def test_run_refuses_what_is_no_image():
    graph = random_model(np.random.default_rng(0)).graph
    with pytest.raises(ValueError, match="uint8"):
        run(graph, np.zeros((32, 32, 3), np.float32))
