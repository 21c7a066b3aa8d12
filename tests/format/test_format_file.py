"""Round trips, damage, atomic writing, and random structured edits with a right checksum."""

import copy
import hashlib
import json
import os
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqyolo.core.errors import FileFormatError
from mpqyolo.format import writer
from mpqyolo.format.reader import loads, read_model
from mpqyolo.format.writer import assemble, dumps, parts, write_model
from mpqyolo.graph.ir import Model
from mpqyolo.graph.sample import random_image, random_model
from mpqyolo.reference.run import run_outputs

SMALL = random_model(np.random.default_rng(5), nodes=3, channels=(1, 3, 4))
GOOD = dumps(SMALL)


def same(a: Model, b: Model) -> bool:
    constants = a.graph.constants.keys() == b.graph.constants.keys() and all(
        c.dtype == b.graph.constants[k].dtype and np.array_equal(c.values, b.graph.constants[k].values)
        for k, c in a.graph.constants.items()
    )
    graphs = replace(a.graph, constants={}) == replace(b.graph, constants={})
    return constants and graphs and (a.decode, a.classes, a.policy, a.card) == (b.decode, b.classes, b.policy, b.card)


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
    header = json.loads(GOOD[128 : 128 + header_length])
    for entry in header["graph"]["constants"]:
        values = SMALL.graph.constants[entry["name"]].values
        assert entry["offset"] % 64 == 0 and entry["shape"] == list(values.shape)
        raw = GOOD[start + entry["offset"] :][: entry["bytes"]]
        bits = {"w1": 1, "w4": 4, "w8": 8, "i16": 16}[entry["dtype"]]
        number = int.from_bytes(raw, "little")
        for i, v in enumerate(values.reshape(-1).tolist()):
            assert number >> (i * bits) & ((1 << bits) - 1) == (v > 0 if bits == 1 else v & ((1 << bits) - 1))


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


HEADER, DATA = parts(SMALL)
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


def test_same_model_same_bytes():
    assert writer.dumps(SMALL) == GOOD
