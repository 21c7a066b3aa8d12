"""Passes: graph -> graph that computes the same tensors with fewer nodes. Each is a function of its own file."""

from __future__ import annotations

from collections.abc import Callable

from mpqyolo.graph.ir import Graph
from mpqyolo.pack.passes.drop_unread import drop_unread
from mpqyolo.pack.passes.fuse_threshold import fuse_threshold
from mpqyolo.pack.passes.merge_equal import merge_equal
from mpqyolo.pack.passes.split_threshold import split_threshold

PASSES: tuple[Callable[[Graph], Graph], ...] = (merge_equal, split_threshold, merge_equal, fuse_threshold, drop_unread)


def optimise(graph: Graph) -> Graph:
    """The graph after all passes, in their order. Tensors that remain keep their names and, for every image, their values."""
    for one in PASSES:
        graph = one(graph)
    return graph
