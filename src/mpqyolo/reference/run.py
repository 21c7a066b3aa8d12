"""Runs a graph in numpy, operator by operator: slow, plain, exact. What every fast path is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from mpqyolo.graph.ir import NUMPY_TYPE, Graph
from mpqyolo.graph.ops import resize
from mpqyolo.reference.avgpool2 import avgpool2
from mpqyolo.reference.concat import concat
from mpqyolo.reference.conv import conv
from mpqyolo.reference.maxpool import maxpool
from mpqyolo.reference.requantise import requantise
from mpqyolo.reference.threshold import threshold
from mpqyolo.reference.upsample2 import upsample2

OPERATORS: dict[str, Callable[..., tuple[np.ndarray, ...]]] = {
    function.__name__: function for function in (conv, threshold, requantise, avgpool2, maxpool, upsample2, concat)
}


def steps(graph: Graph, image: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """(name, values) of every tensor in the order in which it is written, the input first; see `run`."""
    if image.ndim != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be (H, W, C) uint8, got {image.shape} {image.dtype}")
    height, width, channels = image.shape
    if graph.tensors[graph.input].shape != (channels, height, width):
        graph = resize(graph, height, width)
    last_reader = {name: i for i, node in enumerate(graph.nodes) for name in node.inputs}
    values = {graph.input: np.ascontiguousarray(image.transpose(2, 0, 1))}
    yield graph.input, values[graph.input]
    for i, node in enumerate(graph.nodes):
        constants = {role: graph.constants[name].values for role, name in node.constants.items()}
        results = OPERATORS[node.op]([values[name] for name in node.inputs], constants, node.attributes)
        for name, result in zip(node.outputs, results, strict=True):
            tensor = graph.tensors[name]
            assert result.shape == tensor.shape and result.dtype == NUMPY_TYPE[tensor.dtype], name
            values[name] = result
            yield name, result
        for name in {*node.inputs, *node.outputs}:
            if last_reader.get(name, -1) <= i:
                del values[name]


def run(graph: Graph, image: np.ndarray) -> dict[str, np.ndarray]:
    """Every tensor of the graph by name, dense (C, H, W) in the types of `ir.NUMPY_TYPE` (b1 as -1/+1 int8).

    image: (H, W, C) uint8, RGB, letterboxed; another size than the graph's rebuilds the graph (GraphError if it cannot).
    """
    return dict(steps(graph, image))


def run_outputs(graph: Graph, image: np.ndarray) -> dict[str, np.ndarray]:
    """Only the graph's outputs, by name; holds no more maps in memory than needed."""
    return {name: value for name, value in steps(graph, image) if name in graph.outputs}
