"""The operator table: rules refused one by one, resize, and that the random models cover everything."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mpqyolo.graph.build import Builder
from mpqyolo.graph.ir import NUMPY_TYPE, TENSOR_TYPES, Constant, Node, Tensor
from mpqyolo.graph.ops import OPS, GraphError, infer, resize
from mpqyolo.graph.sample import random_graph, random_image
from mpqyolo.reference.run import run

DOCS = Path(__file__).parents[2] / "docs"


def test_table_agrees_with_the_document():
    rows = re.findall(r"^\| (\d+) \| (\w+) \|([^|]*)\|([^|]*)\|([^|]*)\|$", (DOCS / "format.md").read_text(), re.M)
    assert {int(number): name for number, name, *_ in rows} == {spec.number: spec.name for spec in OPS.values()}
    for _, name, _, details, roles in rows:
        spec = OPS[name]
        assert tuple(re.findall(r"\w+", roles)) == spec.roles, name
        documented = {re.findall(r"\w+", detail)[0] for detail in details.split(",") if detail.strip()}
        if name == "conv":  # its fraction, step and scales are with its outputs
            assert documented == set(spec.attributes) - {"fraction", "step"} | {"weight", "channels", "with", "out"}
        else:
            assert documented == set(spec.attributes) | ({"scale"} if spec.has_scale else set()), name


def i16(n, name="c"):
    return Constant(name, "i16", np.zeros(n, np.int16))


X = Tensor("x", "u4", (4, 8, 6), 0.5)
R = Tensor("r", "s16", (8, 4, 3), 2.0**-8)
CONSTANTS = {
    "weight": Constant("w", "w4", np.zeros((16, 3, 3, 4), np.int8)),
    "multiplier": i16(16),
    "bias": i16(16),
    "threshold": i16(16),
    "gain": i16(8),
}
ATTRIBUTES = {"kernel": 3, "stride": 2, "pad": 1, "shift": 3, "fraction": 8, "residual_last": 0, "outputs": ("u4", "b1", "s16")}
CONV = Node("conv", "n", ("x", "r"), ("a", "b", "c"), {}, ATTRIBUTES)


def with_attributes(**changes):
    return replace(CONV, attributes={k: v for k, v in (ATTRIBUTES | changes).items() if v is not None})


def test_conv_shape():
    assert infer(CONV, [X, R], CONSTANTS) == (("u4", (16, 4, 3)), ("b1", (16, 4, 3)), ("s16", (16, 4, 3)))


@pytest.mark.parametrize(
    ("node", "inputs", "constants", "fault"),
    [
        (replace(CONV, op="dense"), [X, R], {}, "unknown operator"),
        (CONV, [X, R, R], {}, "has 3 inputs"),
        (CONV, [R, R], {}, "must be u8 or u4 or b1"),
        (CONV, [X, X], {}, "must be s16"),
        (CONV, [X], {}, "residual_last"),
        (CONV, [X, replace(R, shape=(8, 8, 6))], {}, "residual has size"),
        (CONV, [X, replace(R, shape=(12, 4, 3))], {"gain": i16(12)}, "do not divide"),
        (CONV, [X, R], {"gain": i16(7)}, r"shape \[7\]"),
        (CONV, [X, R], {"bias": i16((16, 1))}, "shape"),
        (CONV, [X, R], {"bias": Constant("b", "w8", np.zeros(16, np.int8))}, "must be i16"),
        (CONV, [X, R], {"threshold": None}, "threshold"),
        (CONV, [X, R], {"weight": None}, "missing"),
        (CONV, [X, R], {"slop": i16(16)}, "unknown constant role"),
        (CONV, [X, R], {"weight": i16(16)}, "w1, w4 or w8"),
        (CONV, [X, R], {"weight": Constant("w", "w4", np.zeros((16, 3, 3, 5), np.int8))}, "must be"),
        (CONV, [replace(X, shape=(4, 0, 6)), R], {}, "does not fit"),
        (with_attributes(kernel=8), [X, R], {}, "1..7"),
        (with_attributes(kernel=3.0), [X, R], {}, "integer"),
        (with_attributes(kernel=True), [X, R], {}, "integer"),
        (with_attributes(stride=3), [X, R], {}, "1..2"),
        (with_attributes(pad=3), [X, R], {}, "less than kernel"),
        (with_attributes(pad=-1), [X, R], {}, "0..6"),
        (with_attributes(shift=17), [X, R], {}, "-15..16"),
        (with_attributes(shift=None), [X, R], {}, "missing"),
        (with_attributes(fraction=15), [X, R], {}, "0..14"),
        (with_attributes(fraction=None), [X, R], {}, "fraction"),
        (with_attributes(outputs=("u4", "b1", "b1")), [X, R], {}, "each once"),
        (with_attributes(outputs=("u4", "b1", "u8")), [X, R], {}, "outputs"),
        (with_attributes(outputs=()), [X, R], {}, "outputs"),
        (with_attributes(outputs=("u4", "b1")), [X, R], {}, "has 3 outputs"),
        (with_attributes(outputs="u4"), [X, R], {}, "outputs"),
        (with_attributes(groups=2), [X, R], {}, "unknown attribute"),
        (Node("avgpool2", "n", ("r",), ("o",)), [replace(R, shape=(8, 5, 4))], None, "even"),
        (Node("maxpool", "n", ("x",), ("o",), {}, {"kernel": 4}), [X], None, "odd"),
        (Node("maxpool", "n", ("x",), ("o",), {}, {"kernel": 15}), [X], None, "1..13"),
        (Node("concat", "n", ("x", "y"), ("o",)), [X, replace(X, scale=0.25)], None, "scale"),
        (Node("concat", "n", ("x", "y"), ("o",)), [X, R], None, "one dtype"),
        (Node("concat", "n", ("x", "y"), ("o",)), [X, replace(X, shape=(4, 8, 8))], None, "height or width"),
        (Node("concat", "n", ("x",), ("o",)), [X], None, "2..16"),
    ],
)
def test_faults(node, inputs, constants, fault):
    merged = {} if constants is None else {k: v for k, v in (CONSTANTS | constants).items() if v is not None}
    with pytest.raises(GraphError, match=fault) as caught:
        infer(node, inputs, merged)
    assert "\n" not in str(caught.value)


def test_a_sum_that_could_overflow_is_refused():
    x = Tensor("x", "u8", (4096, 8, 8))
    weight = np.broadcast_to(np.int8(0), (1, 7, 7, 4096))
    node = Node("conv", "n", ("x",), ("o",), {}, {"kernel": 7, "stride": 1, "pad": 3, "shift": 0, "outputs": ("s16",)})
    constants = {"weight": Constant("w", "w8", weight), "multiplier": i16(1), "bias": i16(1)}
    with pytest.raises(GraphError, match="2\\^31"):
        infer(node, [x], constants)
    constants["weight"] = Constant("w", "w4", weight)  # 4096 * 49 * 7 * 255 = 358 million
    assert infer(node, [x], constants) == (("s16", (1, 8, 8)),)


def test_builder_names_outputs_and_keeps_scales():
    build = Builder(8, 8)
    constants = {"weight": ("w8", np.ones((4, 3, 3, 3))), "multiplier": ("i16", np.ones(4)), "bias": ("i16", np.ones(4))}
    common = {"kernel": 3, "stride": 1, "pad": 1, "shift": 0}
    one = build.add("conv", "one", ["image"], constants, {"s16": 0.25}, outputs=("s16",), **common)
    assert one == ("one",)
    (pooled,) = build.add("avgpool2", "pool", one)
    assert build.tensors[pooled] == Tensor("pool", "s16", (4, 4, 4), 0.25)
    assert build.graph([pooled]).constant(build.nodes[0], "bias").dtype == np.int16


@pytest.mark.parametrize("seed", range(4))
def test_resize_gives_what_runs(seed):
    rng = np.random.default_rng(seed)
    graph, _ = random_graph(rng, size=(32, 48))
    larger = resize(graph, 64, 56)
    values = run(larger, random_image(rng, larger))
    assert {name: v.shape for name, v in values.items()} == {name: t.shape for name, t in larger.tensors.items()}
    assert all(values[name].dtype == NUMPY_TYPE[t.dtype] for name, t in larger.tensors.items())
    assert resize(larger, 32, 48) == graph


def test_resize_refuses_a_size_that_does_not_halve():
    build = Builder(8, 8)
    constants = {"weight": ("w1", np.ones((1, 1, 1, 3))), "multiplier": ("i16", [1]), "bias": ("i16", [1])}
    (s,) = build.add("conv", "c", ["image"], constants, kernel=1, stride=1, pad=0, shift=0, outputs=("s16",))
    graph = build.graph(build.add("avgpool2", "pool", [s]))
    with pytest.raises(GraphError, match="even"):
        resize(graph, 8, 7)


def test_random_models_cover_the_table():
    ops, meets, attributes, roles, widths = set(), set(), set(), set(), set()
    for seed in range(40):
        graph, _ = random_graph(np.random.default_rng(seed))
        for node in graph.nodes:
            first = graph.tensors[node.inputs[0]]
            ops.add((node.op, first.dtype))
            roles.update(node.constants)
            attributes.update((k, v) for k, v in node.attributes.items() if k in ("stride", "residual_last", "outputs", "kernel"))
            widths.add(first.shape[0])
            if node.op == "conv":
                meets.add((graph.constants[node.constants["weight"]].dtype, first.dtype))
                if len(node.inputs) > 1:
                    o, r = graph.tensors[node.outputs[0]].shape[0], graph.tensors[node.inputs[1]].shape[0]
                    attributes.add(("residual", (r > o) - (r < o)))
    assert ops >= {(spec.name, dtype) for spec in OPS.values() for dtype in spec.types}
    assert meets == {(w, x) for w in ("w1", "w4", "w8") for x in ("u8", "u4", "b1")}
    assert roles == {role for spec in OPS.values() for role in (*spec.required, *spec.optional)}
    assert {1, 3, 33, 63} <= widths and set(TENSOR_TYPES) == {dtype for _, dtype in ops}
    assert {("residual", -1), ("residual", 0), ("residual", 1), ("residual_last", 0), ("residual_last", 1)} <= attributes
    assert {k for name, k in attributes if name == "kernel"} >= {1, 2, 3, 4, 5, 6, 7, 13}
    assert len({v for name, v in attributes if name == "outputs"}) == 15
