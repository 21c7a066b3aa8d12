"""Model and Session: what they say of themselves, and what they refuse."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

from mpqyolo.core.errors import EngineError, FileFormatError, ImageError
from mpqyolo.format.writer import dumps, parts
from mpqyolo.graph.sample import random_image
from mpqyolo.reference.decode import decode
from mpqyolo.reference.run import run
from mpqyolo.runtime import Model, Session


@pytest.mark.parametrize("as_bytes", [False, True])
def test_model_describes_the_file(model, model_file: Path, as_bytes: bool):
    engine = Model(model_file.read_bytes() if as_bytes else model_file)
    assert (engine.height, engine.width, engine.channels, engine.stride) == (64, 64, 3, 8)
    assert engine.names == model.classes and engine.iou == pytest.approx(0.65)
    assert engine.header == parts(model)[0]


def test_faults_of_files_are_one_line_with_the_path(model, tmp_path: Path):
    cases = {"none.mpqy": None, "empty.mpqy": b"", "text.mpqy": b"hello" * 100, "cut.mpqy": dumps(model)[:-64]}
    faults = {"none.mpqy": "No such file", "empty.mpqy": "empty", "text.mpqy": "magic", "cut.mpqy": "truncated"}
    for name, data in cases.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(FileFormatError, match=faults[name]) as caught:
            Model(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ") and "\n" not in str(caught.value)
    with pytest.raises(FileFormatError, match="not a file"):
        Model(tmp_path)
    with pytest.raises(FileFormatError, match="model of 3 bytes: shorter"):
        Model(b"abc")


def test_session_outlives_its_model(model, model_file: Path):
    session = Session(Model(model_file.read_bytes()), keep_tensors=True)
    session.model = None  # type: ignore[assignment]
    gc.collect()
    image = random_image(np.random.default_rng(1), model.graph)
    session.run(image)
    for name, right in run(model.graph, image).items():
        assert np.array_equal(session.tensor(name), right)


def test_layers_have_kernels_and_times(model, model_file: Path):
    session = Session(Model(model_file))
    session.run(np.zeros((64, 64, 3), np.uint8))
    layers = session.layers()
    assert [k.name for k in layers] == [n.name for n in model.graph.nodes]
    for layer, node in zip(layers, model.graph.nodes, strict=True):
        assert layer.kernel.startswith("conv_") if node.op == "conv" else layer.kernel == node.op
        assert layer.nanoseconds > 0


def test_decode_in_pixels_of_the_input(model, model_file: Path):
    session, image = Session(Model(model_file)), random_image(np.random.default_rng(4), model.graph)
    session.run(image)
    right, found = decode(model, run(model.graph, image), 0.3, 0.5), session.decode(0.3, 0.5)
    assert len(found) and np.array_equal(found.xyxy, right.xyxy) and np.array_equal(found.score, right.score)


def test_what_a_session_refuses(model_file: Path):
    session = Session(Model(model_file))
    with pytest.raises(ImageError, match=r"\(64, 64, 3\) uint8"):
        session.run(np.zeros((64, 32, 3), np.uint8))
    with pytest.raises(ImageError, match="uint8"):
        session.run(np.zeros((64, 64, 3), np.float32))
    for photo in (np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.int16)):
        with pytest.raises(ImageError, match="uint8 with pixels"):
            session.detect(photo)
    with pytest.raises(EngineError, match=r"min_score must be 0\.\.1"):
        session.detect(np.zeros((4, 4, 3), np.uint8), 1.5)
    with pytest.raises(EngineError, match="min_score"):
        session.decode(float("nan"))
    for iou in (0.0, -1.0, 1.1, float("nan")):
        with pytest.raises(EngineError, match="iou must be above 0 and at most 1"):
            session.decode(0.5, iou)
    with pytest.raises(EngineError, match="tensor 'nope' does not exist"):
        session.tensor("nope")
    with pytest.raises(EngineError, match="is not kept; make the session with keep_tensors"):
        session.tensor("image")


@pytest.mark.parametrize("view", ["crop", "flip", "mirror", "transposed", "every other", "channels reversed"])
def test_photos_that_are_views(model, model_file: Path, view: str):
    whole = np.random.default_rng(0).integers(0, 256, (80, 90, 3)).astype(np.uint8)
    photo = {
        "crop": whole[10:50, 20:71],
        "flip": whole[::-1],
        "mirror": whole[:, ::-1],
        "transposed": whole.transpose(1, 0, 2),
        "every other": whole[::2, ::2],
        "channels reversed": whole[:, :, ::-1],
    }[view]
    session = Session(Model(model_file))
    found, right = session.detect(photo, 0.1), session.detect(photo.copy(), 0.1)
    assert np.array_equal(found.xyxy, right.xyxy) and found.size == photo.shape[1::-1]
