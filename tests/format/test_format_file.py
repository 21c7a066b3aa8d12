"""Round trips, damage, atomic writing, and random structured edits with a right checksum."""

import copy
import hashlib
import json
import os
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqyolo.core.errors import FileFormatError
from mpqyolo.format.reader import loads, read_model
from mpqyolo.format.writer import assemble, dumps, parts, write_model
from mpqyolo.graph.build import Builder
from mpqyolo.graph.ir import Constant, Decode, Graph, Level, Model
from mpqyolo.graph.sample import random_image, random_model
from mpqyolo.reference.run import run_outputs

SMALL = random_model(np.random.default_rng(5), nodes=3, channels=(1, 3, 4))
GOOD = dumps(SMALL)
HEADER, DATA = parts(SMALL)
BASE = next(m for m in (random_model(np.random.default_rng(s)) for s in range(9)) if "maxpool" in {n.op for n in m.graph.nodes})


def roles(model: Model) -> dict[tuple[str, str], Constant]:
    """Constants by node and role: their names are not in the file."""
    graph = model.graph
    return {(n.name, role): graph.constants[name] for n in graph.nodes for role, name in n.constants.items()}


def same(a: Model, b: Model) -> bool:
    mine, other = roles(a), roles(b)
    constants = mine.keys() == other.keys() and all(
        c.dtype == other[k].dtype and np.array_equal(c.values, other[k].values) for k, c in mine.items()
    )
    graphs = [
        replace(m.graph, constants={}, nodes=tuple(replace(n, constants=dict.fromkeys(n.constants, "")) for n in m.graph.nodes))
        for m in (a, b)
    ]
    rest = (a.decode, a.classes, a.policy, a.card) == (b.decode, b.classes, b.policy, b.card)
    return constants and graphs[0] == graphs[1] and rest


@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.sampled_from([(2,), (4, 8), (2, 8, 16)]), st.integers(1, 20))
@settings(deadline=None, max_examples=40)
def test_round_trip(seed, nodes, strides, classes):
    model = random_model(np.random.default_rng(seed), nodes, strides=strides, classes=classes)
    data = dumps(model)
    again = loads(data)
    assert same(model, again) and dumps(again) == data


def test_layout_is_the_documents():
    magic, version, flags, header_length, start, length = struct.unpack_from("<8sIIQQQ", GOOD)
    assert (magic, version, flags) == (b"MPQY\r\n\x1a\n", 1, 0)
    assert (
        start % 64 == length % 64 == 0 and 128 + header_length <= start < 128 + header_length + 64 and start + length == len(GOOD)
    )
    assert GOOD[40:72] == hashlib.sha256(GOOD[128:]).digest() and not any(GOOD[72:128])
    assert json.loads(GOOD[128 : 128 + header_length]) == HEADER
    order = ["weight", "multiplier", "bias", "slope", "post", "gain", "threshold"]
    at, constants = start, roles(SMALL)
    for node in SMALL.graph.nodes:
        for role in sorted(node.constants, key=order.index):
            values, dtype = constants[node.name, role].values, constants[node.name, role].dtype
            bits = {"w1": 1, "w4": 4, "w8": 8, "i16": 16}[dtype]
            size = (values.size * bits + 7) // 8
            number = int.from_bytes(GOOD[at : at + size], "little")
            for i, v in enumerate(values.reshape(-1).tolist()):
                assert number >> (i * bits) & ((1 << bits) - 1) == (v > 0 if bits == 1 else v & ((1 << bits) - 1))
            end = at + size
            at = (end + 63) // 64 * 64
            assert not any(GOOD[end:at]) and number >> values.size * bits == 0
    assert at == len(GOOD)


def test_nothing_is_written_that_the_rest_says():
    build = Builder(8, 16)

    def conv(name: str, inputs: list[str], count: int, kernel: int, outputs: tuple[str, ...], **more: Any) -> tuple[str, ...]:
        shape = (count, kernel, kernel, build.tensors[inputs[0]].shape[0])
        constants = {"weight": ("w4", np.ones(shape)), "multiplier": ("i16", np.ones(count)), "bias": ("i16", np.ones(count))}
        constants |= {role: ("i16", np.ones(count)) for role in ("threshold", "slope", "gain") if more.pop(role, None)}
        at = {"kernel": kernel, "stride": 1, "pad": kernel // 2, "shift": 0} | more
        return build.add("conv", name, inputs, constants, {"u4": 0.3, "s16": 2.0**-8}, **at, outputs=outputs)

    u, b, s = conv("a", ["image"], 2, 3, ("u4", "b1", "s16"), threshold=True, fraction=5, stride=2)
    (r,) = conv("b", [b, s], 2, 1, ("s16",), slope=True, gain=True, residual_last=0)
    (p,) = build.add("avgpool2", "p", [r])
    (q,) = build.add("requantise", "q", [p], {k: ("i16", np.ones(2)) for k in ("multiplier", "bias")}, {"u4": 0.1}, fraction=7)
    maps = [name for i, x in enumerate((u, q)) for n in (4, 1) for name in conv(f"map{i}{n}", [x], n, 1, ("s16",), shift=-1)]
    decode = Decode((Level(2, maps[0], maps[1]), Level(4, maps[2], maps[3])))
    model = replace(SMALL, graph=build.graph(maps), decode=decode, classes=("a",))
    header, data = parts(model)
    assert header["graph"]["input"] == ["image", 8, 16] and header["graph"]["outputs"] == [7, 8, 9, 10]
    first = {"weight": "w4", "channels": 2, "kernel": 3, "stride": 2, "out": [["u4", 5, 0.3], ["b1"], ["s16", 8]]}
    assert header["graph"]["nodes"][:5] == [
        ["conv", "a", [0], first],
        ["conv", "b", [2, 3], {"weight": "w4", "channels": 2, "kernel": 1, "with": ["slope", "gain"], "out": [["s16", 8]]}],
        ["avgpool2", "p", [4], {}],
        ["requantise", "q", [5], {"fraction": 7, "scale": 0.1}],
        ["conv", "map04", [1], {"weight": "w4", "channels": 4, "kernel": 1, "shift": -1, "out": [["s16", 8]]}],
    ]
    assert header["decode"] == {"kind": "ltrb_exp2", "iou": 0.65, "levels": [[7, 8], [9, 10]]}
    again = loads(assemble(header, data))
    assert same(again, model) and (u, b, s) == ("a", "a.b1", "a.s16")
    assert again.graph.constants.keys() == model.graph.constants.keys() and "b.gain" in again.graph.constants


def test_a_name_that_is_not_derived_is_kept():
    def renamed(graph: Graph, old: str, new: str) -> Graph:
        swap = lambda names: tuple(new if n == old else n for n in names)  # noqa: E731
        nodes = tuple(replace(n, inputs=swap(n.inputs), outputs=swap(n.outputs)) for n in graph.nodes)
        tensors = {new if k == old else k: replace(t, name=new) if k == old else t for k, t in graph.tensors.items()}
        return replace(graph, nodes=nodes, tensors=tensors, outputs=swap(graph.outputs))

    conv = SMALL.graph.nodes[0]
    for i in range(len(conv.outputs)):
        graph = renamed(SMALL.graph, conv.outputs[i], "another name")
        model = replace(SMALL, graph=graph)
        assert same(loads(dumps(model)), model)
        assert parts(model)[0]["graph"]["nodes"][0][3]["out"][i][-1] == "another name"
    other = next(n for n in BASE.graph.nodes if n.op != "conv")
    with pytest.raises(FileFormatError, match="only a conv names its outputs"):
        dumps(replace(BASE, graph=renamed(BASE.graph, other.outputs[0], "another name")))


def test_every_flipped_bit_of_the_prefix_is_refused():
    for bit in range(128 * 8):
        flipped = bytearray(GOOD)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FileFormatError):
            loads(bytes(flipped))


@given(st.integers(0, len(GOOD) * 8 - 1))
@settings(deadline=None, max_examples=300)
def test_any_flipped_bit_is_refused(bit):
    flipped = bytearray(GOOD)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FileFormatError):
        loads(bytes(flipped))


@given(st.integers(0, len(GOOD) - 1))
@settings(deadline=None, max_examples=200)
def test_any_truncation_is_refused(size):
    with pytest.raises(FileFormatError):
        loads(GOOD[:size])


@given(st.binary(max_size=400))
@settings(deadline=None, max_examples=200)
def test_noise_is_refused(noise):
    for data in (noise, GOOD[:8] + noise, assemble(noise, b"")):
        with pytest.raises(FileFormatError):
            loads(data)


def leaves(value, path=()):
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*path, key))


PATHS = [p for p in leaves(HEADER) if p]
SPECIAL = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    16,
    64,
    4096,
    4097,
    8192,
    2**28,
    2**31,
    2**32,
    2**63 - 1,
    -1,
    -16,
    -32768,
    0.5,
    1e308,
    "",
    "s16",
    "u4",
    "b1",
]
VALUES = st.sampled_from([*SPECIAL, "u8", "w1", "w8", None, True, [], {}, [0], [0, 0], {"a": 1}]) | st.integers(-20, 200)


@given(
    st.lists(st.tuples(st.sampled_from(PATHS), st.sampled_from(["set", "delete", "copy"]), VALUES), min_size=1, max_size=3),
    st.data(),
)
@settings(deadline=None, max_examples=400)
def test_structured_edits_are_refused_or_make_a_sound_model(edits, draw):
    header = copy.deepcopy(HEADER)
    for path, kind, value in edits:
        try:
            place = header
            for key in path[:-1]:
                place = place[key]
            if kind == "set":
                place[path[-1]] = value
            elif kind == "delete":
                del place[path[-1]]
            else:
                source = header
                for key in draw.draw(st.sampled_from(PATHS)):
                    source = source[key]
                place[path[-1]] = copy.deepcopy(source)
        except (KeyError, IndexError, TypeError):
            pass  # an earlier edit removed the place
    try:
        model = loads(assemble(header, DATA))
    except FileFormatError as fault:
        assert "\n" not in str(fault)
        return
    assert same(loads(dumps(model)), model)
    shape = model.graph.tensors[model.graph.input].shape
    if max(shape) <= 64:
        run_outputs(model.graph, random_image(np.random.default_rng(0), model.graph))  # asserts every shape and type


def test_constants_are_read_only_views_of_the_map(tmp_path):
    write_model(SMALL, tmp_path / "a.mpqy")
    model = read_model(tmp_path / "a.mpqy")
    for constant in model.graph.constants.values():
        with pytest.raises(ValueError, match="read-only"):
            constant.values[...] = 1
        assert constant.dtype not in ("w8", "i16") or not constant.values.flags.owndata


def test_write_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / "a.mpqy"
    write_model(SMALL, path)
    other = random_model(np.random.default_rng(6), nodes=2)

    def broken(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(FileFormatError, match="No space left"):
        write_model(other, path)
    assert path.read_bytes() == GOOD and [p.name for p in tmp_path.iterdir()] == ["a.mpqy"]
    monkeypatch.undo()
    write_model(other, path)
    assert same(read_model(path), other) and [p.name for p in tmp_path.iterdir()] == ["a.mpqy"]


def test_a_bad_model_is_never_written(tmp_path):
    bad = replace(SMALL, classes=("a",))
    with pytest.raises(FileFormatError, match="logit"):
        write_model(bad, tmp_path / "a.mpqy")
    assert not list(tmp_path.iterdir())
    for card in ({"x": float("nan")}, {"x": {1, 2}}, {1: 2}, {"x": "\ud800"}, {"x": np.float32(1)}, {"x": 2**63}):
        with pytest.raises(FileFormatError, match="card"):
            dumps(replace(SMALL, card=card))
    node = SMALL.graph.nodes[0]
    lost = replace(SMALL.graph, nodes=(replace(node, inputs=("nowhere",)), *SMALL.graph.nodes[1:]))
    with pytest.raises(FileFormatError, match="nowhere"):
        dumps(replace(SMALL, graph=lost))


def test_what_the_file_cannot_say_is_never_written():
    """Scales that a reader would give another value, and constants of two owners."""
    graph = BASE.graph
    moved = next(n for n in graph.nodes if n.op == "maxpool" and graph.tensors[n.outputs[0]].dtype != "b1").outputs[0]
    stream = next(t.name for t in graph.tensors.values() if t.dtype == "s16")
    bits = next(t.name for t in graph.tensors.values() if t.dtype == "b1")
    for name, scale in ((moved, 2.0**-5), (bits, 0.5), ("image", 1.0), (stream, 0.3), (stream, 2.0), (stream, 2.0**-16)):
        tensors = {**graph.tensors, name: replace(graph.tensors[name], scale=scale)}
        with pytest.raises(FileFormatError, match="scale"):
            dumps(replace(BASE, graph=replace(graph, tensors=tensors)))
    first, *others = graph.nodes
    shared = replace(first, constants={**first.constants, "bias": first.constants["multiplier"]})
    lost = {k: c for k, c in graph.constants.items() if k != first.constants["bias"]}
    with pytest.raises(FileFormatError, match="belongs to another node or role"):
        dumps(replace(BASE, graph=replace(graph, nodes=(shared, *others), constants=lost)))


def test_a_card_that_no_reader_takes_is_never_written():
    with pytest.raises(FileFormatError, match="card: more than 1048576 values"):
        dumps(replace(SMALL, card={"x": [0] * (1 << 20)}))
    with pytest.raises(FileFormatError, match="header: more than 1048576 values"):
        dumps(replace(SMALL, card={"x": [0] * ((1 << 20) - 50)}))
    with pytest.raises(FileFormatError, match="header takes"):
        dumps(replace(SMALL, card={"x": "x" * (16 << 20)}))


@pytest.mark.parametrize("dtype", ["w1", "w4", "w8"])
def test_weights_out_of_range_are_never_written(dtype):
    name = next((c.name for c in SMALL.graph.constants.values() if c.dtype == dtype), None)
    model = SMALL
    if name is None:
        model = next(
            m
            for m in (random_model(np.random.default_rng(s)) for s in range(50))
            if dtype in {c.dtype for c in m.graph.constants.values()}
        )
        name = next(c.name for c in model.graph.constants.values() if c.dtype == dtype)
    constant = model.graph.constants[name]
    values = constant.values.copy()
    values.reshape(-1)[-1] = {"w1": 0, "w4": -8, "w8": -128}[dtype]
    constants = {**model.graph.constants, name: replace(constant, values=values)}
    with pytest.raises(FileFormatError, match=dtype if dtype == "w1" else "holds -"):
        dumps(replace(model, graph=replace(model.graph, constants=constants)))


def test_unreadable_paths(tmp_path):
    (tmp_path / "empty.mpqy").write_bytes(b"")
    for path in (tmp_path / "none.mpqy", tmp_path, tmp_path / "empty.mpqy"):
        with pytest.raises(FileFormatError) as caught:
            read_model(path)
        assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(FileFormatError, match="cannot be written"):
        write_model(SMALL, tmp_path / "no folder" / "a.mpqy")


def test_the_bytes_of_a_model_do_not_change():
    """Writers have no choices left (docs/format.md): whoever changes what is written changes this, and the format's version."""
    assert hashlib.sha256(GOOD).hexdigest() == "815091aa7edd5b104a45a7b87ea6686cf69f567c881b63c5097e24fbe374a9dc"
