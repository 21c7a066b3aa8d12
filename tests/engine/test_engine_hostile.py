"""What a file, a caller or what memory held before may do to the engine: nothing but a clear refusal."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from engine_models import isas_here

from mpqyolo.core.errors import EngineError, FileFormatError
from mpqyolo.format.writer import dumps
from mpqyolo.graph.build import Builder
from mpqyolo.graph.ir import Decode, Level
from mpqyolo.graph.ir import Model as Graph
from mpqyolo.reference.run import run
from mpqyolo.runtime._abi import Options, Placement, call
from mpqyolo.runtime._load import library
from mpqyolo.runtime.session import Model, Session

pytestmark = pytest.mark.usefixtures("engine")
SCALES = {"u4": 1 / 8, "s16": 2.0**-8, "b1": 1.0}
POLICY = {"name": "x", "bits": {"stem": [8, 8], "backbone": [1, 1], "neck": [4, 4], "predict": [8, 4]}}


def conv(build: Builder, name: str, x: str, outputs: int, kind: str, kernel: int = 1, stride: int = 1) -> str:
    rng = np.random.default_rng(len(build.tensors))
    channels, wide = build.tensors[x].shape[0], 127 if x == "image" else 7
    constants = {
        "weight": ("w8", rng.integers(-wide, wide + 1, (outputs, kernel, kernel, channels))),
        "multiplier": ("i16", rng.integers(8000, 30000, outputs)),
        "bias": ("i16", rng.integers(800, 3000, outputs)),
    }
    more = {"fraction": 7} if kind == "u4" else {}
    if kind == "b1":
        constants["threshold"] = ("i16", rng.integers(-500, 500, outputs))
    shift = 5 if x == "image" else 4 if build.tensors[x].dtype == "u4" else -4
    at = {"kernel": kernel, "stride": stride, "pad": kernel // 2, "shift": shift, "outputs": (kind,)}
    return build.add("conv", name, [x], constants, SCALES, **at, **more)[0]


def finished(build: Builder, x: str) -> Graph:
    distance, logit = conv(build, "d", x, 4, "s16"), conv(build, "l", x, 1, "s16")
    return Graph(build.graph([distance, logit]), Decode((Level(2, distance, logit),)), ("a",), POLICY)


@pytest.mark.parametrize("kind", ["u4", "b1"])
@pytest.mark.parametrize("widths", [(16, 16), (8, 24), (6, 10)])
def test_a_map_in_two_concats_has_a_clean_border(kind: str, widths: tuple[int, int]):
    """Of the two that a map is in, one holds a copy: what a padded convolution reads round it must be zeros, and the arena of
    the build that is tested begins with other bytes."""
    build = Builder(32, 32)
    x = conv(build, "stem", "image", 16, kind, 3, 2)
    a, c = (conv(build, name, x, channels, kind) for name, channels in zip("ac", widths, strict=True))
    (one,) = build.add("concat", "one", [a, c])
    z = conv(build, "z", one, 16, kind, 3)
    (two,) = build.add("concat", "two", [a, z])
    model = finished(build, conv(build, "zz", two, 16, kind, 3))
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    right = run(model.graph, image)
    for isa in isas_here():
        for threads in (1, 3):
            for keep in (False, True):
                session = Session(Model(dumps(model)), threads=threads, keep_tensors=keep, isa=isa)
                session.run(image)
                for name in right if keep else model.graph.outputs:
                    assert np.array_equal(session.tensor(name), right[name]), (isa, threads, keep, name)


def test_weights_that_overflow_everywhere_are_prepared_at_once():
    build = Builder(8, 8)
    x = conv(build, "stem", "image", 1024, "u4", 1, 2)
    weights = np.zeros((16, 7, 7, 1024), np.int8)
    weights[-1].reshape(-1, 4)[:, 2:] = 127
    none = ("i16", np.zeros(16, np.int16))
    constants = {"weight": ("w8", weights), "multiplier": none, "bias": none}
    at = {"kernel": 7, "stride": 1, "pad": 3, "shift": 0, "outputs": ("u4",), "fraction": 0}
    model = finished(build, build.add("conv", "wide", [x], constants, SCALES, **at)[0])
    engine = Model(dumps(model))
    start = time.monotonic()
    session = Session(engine)
    assert time.monotonic() - start < 1
    image = np.full((8, 8, 3), 255, np.uint8)
    session.run(image)
    right = run(model.graph, image)
    assert all(np.array_equal(session.tensor(name), right[name]) for name in model.graph.outputs)


@pytest.fixture(scope="module")
def small(engine: Path) -> Model:
    build = Builder(8, 8)
    return Model(dumps(finished(build, conv(build, "stem", "image", 16, "u4", 3, 2))))


def test_null_arguments_are_refused(small: Model):
    functions, session = library(), Session(small)
    box, place = np.empty(400, np.uint8).ctypes.data, Placement(0, 0, 4, 4, -5, -7)
    photo = np.zeros((4, 4, 3), np.uint8).ctypes.data
    calls: list[tuple[Callable[..., object], tuple[object, ...], str]] = [
        (functions.mpq_session_new, (None, ctypes.byref(Options())), "no model"),
        (functions.mpq_session_detect, (None, photo, 4, 4, 12, 0.5, 0.5, box, 9), "no session"),
        (functions.mpq_session_detect, (session._handle, photo, 4, 4, 12, 0.5, 0.5, None, 9), "no room for boxes"),
        (functions.mpq_session_detect, (session._handle, None, 4, 4, 12, 0.5, 0.5, box, 9), "no pixels"),
        (functions.mpq_session_decode, (None, 0.5, 0.5, None, box, 9), "no session"),
        (functions.mpq_session_decode, (session._handle, 0.5, 0.5, None, None, 9), "no room for boxes"),
        (functions.mpq_session_decode, (session._handle, 0.5, 0.5, ctypes.byref(place), box, 9), "placement is empty"),
        (functions.mpq_session_tensor, (session._handle, None, None, None, 0), "no name"),
        (functions.mpq_model_open, (None,), "no path"),
        (functions.mpq_model_open_memory, (None, 5), "empty"),
    ]
    for function, arguments, words in calls:
        with pytest.raises(EngineError, match=words):
            call(function, *arguments, fault=EngineError)


def test_a_pipe_is_no_model(engine: Path, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.mpqy")
    with pytest.raises(FileFormatError, match="not a file"):
        Model(tmp_path / "pipe.mpqy")


def test_memory_of_all_threads_is_limited(engine: Path):
    """Scratch is needed for each thread: the limit counts that, too, before anything is allocated."""
    build = Builder(4, 8192)
    x = conv(build, "stem", "image", 4096, "s16")
    (pooled,) = build.add("avgpool2", "pool", [x])
    numbers = {"multiplier": ("i16", np.full(4096, 9)), "bias": ("i16", np.zeros(4096))}
    (codes,) = build.add("requantise", "codes", [pooled], numbers, SCALES, fraction=3)
    distance, logit = conv(build, "d", codes, 4, "s16"), conv(build, "l", codes, 1, "s16")
    graph = build.graph([distance, logit])
    model = Model(dumps(Graph(graph, Decode((Level(2, distance, logit),)), ("a",), POLICY)))
    with pytest.raises(EngineError, match="image size and number of threads need more than 4 GiB"):
        Session(model, threads=64)
