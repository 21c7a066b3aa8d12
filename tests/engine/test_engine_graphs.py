"""Whole random graphs: every tensor equals the reference at every instruction set, thread count, size and memory plan."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from engine_models import isas_here

from mpqyolo.core.image import letterbox
from mpqyolo.format.writer import dumps
from mpqyolo.graph.ops import resize
from mpqyolo.graph.sample import random_image, random_model
from mpqyolo.reference.decode import detect
from mpqyolo.reference.run import run
from mpqyolo.runtime._abi import Placement, call
from mpqyolo.runtime._load import library
from mpqyolo.runtime.session import Model, Session

SIZES = (None, (32, 64), (72, 24), (8, 8))


def check(session: Session, image: np.ndarray, right: dict[str, np.ndarray], names) -> None:
    session.run(image)
    for name in names:
        found = session.tensor(name)
        assert found.dtype == right[name].dtype and found.shape == right[name].shape, name
        assert np.array_equal(found, right[name]), (session.info, name, [k for k in session.layers() if name.startswith(k.name)])


@pytest.mark.parametrize("seed", range(48))
def test_every_tensor_equals_the_reference(seed: int):
    rng = np.random.default_rng(seed)
    model = random_model(rng, size=SIZES[seed % len(SIZES)])
    image = random_image(rng, model.graph)
    right, engine = run(model.graph, image), Model(dumps(model))
    for isa in isas_here():
        for threads in (1, 2, 3):
            check(Session(engine, threads=threads, keep_tensors=True, isa=isa), image, right, right)
            check(Session(engine, threads=threads, isa=isa), image, right, model.graph.outputs)


def test_a_session_gives_the_same_twice_and_after_another_image():
    rng = np.random.default_rng(3)
    model = random_model(rng)
    images = [random_image(rng, model.graph) for _ in range(3)]
    session = Session(Model(dumps(model)), threads=2)
    for image in (*images, *images[::-1]):
        check(session, image, run(model.graph, image), model.graph.outputs)


@pytest.mark.parametrize("seed", range(6))
def test_other_image_sizes(seed: int):
    rng = np.random.default_rng(seed)
    model = random_model(rng, nodes=5, size=(32, 32))
    engine = Model(dumps(model))
    for height, width in ((40, 64), (64, 24), (16, 16)):
        graph = resize(model.graph, height, width)
        image = random_image(rng, graph)
        right = run(graph, image)
        check(Session(engine, height, width, threads=1 + seed % 2, keep_tensors=True), image, right, right)


@pytest.mark.parametrize("seed", range(8))
def test_boxes_equal_the_reference(seed: int):
    rng = np.random.default_rng(100 + seed)
    model = random_model(rng, size=(64, 96), classes=1 + seed % 5)
    session = Session(Model(dumps(model)), threads=1 + seed % 3)
    for h, w in ((64, 96), (31, 77), (200, 33), (1, 1)):
        photo = rng.integers(0, 256, (h, w, 3)).astype(np.uint8)
        for min_score, iou in ((0.02, None), (0.5, 0.3), (1.0, None), *([(0.0, 1.0)] if h == 64 else [])):
            right, found = detect(model, photo, min_score, iou), session.detect(photo, min_score, iou)
            assert np.array_equal(found.xyxy, right.xyxy) and np.array_equal(found.score, right.score)
            assert np.array_equal(found.class_id, right.class_id) and found.names == right.names and found.size == (w, h)


@pytest.mark.parametrize("isa", ["serial", "avx2"])
def test_letterbox_equals_python(isa: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MPQ_ISA", isa)
    rng = np.random.default_rng(0)
    shapes = [(480, 640, 320, 320), (9, 500, 64, 64), (500, 3, 64, 96), (64, 64, 64, 64), (1, 1, 32, 32), (900, 1, 32, 32)]
    shapes += [tuple(rng.integers(1, 200, 4).tolist()) for _ in range(60)]
    for h, w, height, width in shapes:
        photo, image = rng.integers(0, 256, (h, w, 3)).astype(np.uint8), np.empty((height, width, 3), np.uint8)
        at = Placement()
        place = (photo.ctypes.data, w, h, 3 * w, image.ctypes.data, width, height, ctypes.byref(at))
        call(library().mpq_letterbox, *place, fault=AssertionError)
        right, where = letterbox(photo, height, width)
        assert np.array_equal(image, right) and (at.left, at.top, at.nw, at.nh, at.w, at.h) == tuple(where), (h, w, height, width)
