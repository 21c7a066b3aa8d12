"""The convolution that writes a stream writes its bits too: the stream is not read again for them.

`conv -> v`, `threshold: v >= T` is the b1 output of the same conv (docs/numerics.md, section 4): both compare the same v.
"""

from __future__ import annotations

from dataclasses import replace

from mpqyolo.graph.ir import Graph, Node
from mpqyolo.pack.passes.common import rebuild


def fuse_threshold(graph: Graph) -> Graph:
    """A conv takes in the first threshold that reads its s16 output, if it writes no bits yet; other thresholds stay nodes."""
    place = {name: i for i, node in enumerate(graph.nodes) for name in node.outputs}
    nodes: list[Node | None] = list(graph.nodes)
    for i, node in enumerate(graph.nodes):
        if node.op != "threshold" or node.inputs[0] not in place:
            continue
        maker = nodes[place[node.inputs[0]]]
        if maker is None or maker.op != "conv" or "b1" in maker.attributes["outputs"]:
            continue
        nodes[place[node.inputs[0]]] = replace(
            maker,
            outputs=(*maker.outputs, *node.outputs),
            constants={**maker.constants, "threshold": node.constants["threshold"]},
            attributes={**maker.attributes, **node.attributes, "outputs": (*maker.attributes["outputs"], "b1")},
        )
        nodes[i] = None
    return rebuild(graph, (node for node in nodes if node is not None))
