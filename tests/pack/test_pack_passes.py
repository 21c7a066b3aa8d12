"""Passes change no number: random graphs, before and after, at every tensor that remains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mpqyolo.evaluate.parity import first_difference
from mpqyolo.format.writer import dumps
from mpqyolo.graph.build import Builder
from mpqyolo.graph.ir import Graph
from mpqyolo.graph.sample import random_image, random_model
from mpqyolo.pack.passes import drop_unread, fuse_threshold, merge_equal, optimise, split_threshold
from mpqyolo.reference.run import run

ALL: tuple[Callable[[Graph], Graph], ...] = (drop_unread, fuse_threshold, merge_equal, split_threshold, optimise)


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.__name__)
def test_random_graphs_stay_what_they_are(one: Callable[[Graph], Graph]) -> None:
    changed = 0
    for seed in range(25):
        rng = np.random.default_rng(seed)
        model = random_model(rng, nodes=16)
        graph = model.graph
        if seed % 2:  # only the predictions are wanted: much is dead
            wanted = tuple(name for level in model.decode.levels for name in (level.distance, level.logit))
            graph = replace(graph, outputs=wanted)
        image, result = random_image(rng, graph), one(graph)
        assert result.outputs == graph.outputs and set(graph.outputs) <= set(result.tensors)
        before, after = run(graph, image), run(result, image)
        assert first_difference(before, after, (name for name in result.tensors if name in before)) is None
        if one in (optimise, drop_unread) and seed % 2:
            dumps(replace(model, graph=result))  # it keeps every rule of the format
        changed += result.nodes != graph.nodes
    assert changed


def i16(count: int, seed: int) -> tuple[str, np.ndarray]:
    return "i16", np.random.default_rng(seed).integers(-2000, 2000, count)


def streams() -> tuple[Builder, str, str]:
    """Two streams of 8 and 4 channels."""
    build, made = Builder(16, 16), []
    for channels in (8, 4):
        weight = "w8", np.random.default_rng(channels).integers(-127, 128, (channels, 3, 3, 3))
        constants = {"weight": weight, "multiplier": ("i16", np.full(channels, 9000)), "bias": i16(channels, 1)}
        at = {"kernel": 3, "stride": 1, "pad": 1, "shift": 4}
        made += build.add("conv", f"conv{channels}", ["image"], constants, {"s16": 2.0**-8}, **at, outputs=("s16",))
    return build, made[0], made[1]


def use(build: Builder, bits: str, name: str) -> str:
    count = build.tensors[bits].shape[0]
    constants = {"weight": ("w1", np.ones((2, 1, 1, count))), "multiplier": ("i16", np.full(2, 30000)), "bias": i16(2, 2)}
    at = {"kernel": 1, "stride": 1, "pad": 0, "shift": -3}
    return build.add("conv", name, [bits], constants, {"s16": 2.0**-10}, **at, outputs=("s16",))[0]


def summary(graph: Graph) -> list[str]:
    return sorted(f"{node.op}:{'+'.join(node.attributes.get('outputs', ()))}".rstrip(":") for node in graph.nodes)


def test_equal_thresholds_become_one_and_go_into_the_convolution() -> None:
    build, x, _ = streams()
    bits = [build.add("threshold", f"bits{i}", [x], {"threshold": i16(8, 5)})[0] for i in range(2)]
    other = build.add("threshold", "other", [x], {"threshold": i16(8, 6)})[0]
    outputs = [use(build, name, f"use{i}") for i, name in enumerate((*bits, other))]
    graph = build.graph(outputs)
    merged = merge_equal(graph)
    assert summary(merged).count("threshold") == 2
    # The convolution writes the first one's bits; the other still needs the stream; conv4 is dead.
    assert summary(optimise(graph)) == ["conv:s16", "conv:s16", "conv:s16", "conv:s16+b1", "threshold"]
    assert optimise(graph).tensors.keys() == {"image", x, "bits0", "other", *outputs}


def test_a_stream_that_is_only_compared_is_not_written() -> None:
    build, x, y = streams()
    (both,) = build.add("concat", "both", [x, y])
    (again,) = build.add("concat", "again", [both, y])
    (bits,) = build.add("threshold", "bits", [again], {"threshold": i16(16, 5)})
    graph = build.graph([use(build, bits, "use")])
    result = optimise(graph)
    assert summary(result) == ["concat", "concat", "conv:b1", "conv:b1", "conv:s16", "threshold"] or "s16" not in {
        result.tensors[name].dtype for node in result.nodes if node.op == "concat" for name in node.outputs
    }
    image = random_image(np.random.default_rng(0), graph)
    before, after = run(graph, image), run(result, image)
    assert np.array_equal(before["use"], after["use"]) and np.array_equal(before["bits"], after["bits"])


def test_outputs_of_the_graph_stay() -> None:
    build, x, _ = streams()
    bits = [build.add("threshold", f"bits{i}", [x], {"threshold": i16(8, 5)})[0] for i in range(2)]
    graph = build.graph([*bits, x])
    result = optimise(graph)
    assert set(result.tensors) == {"image", x, *bits}
