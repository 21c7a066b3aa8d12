"""Predictors behind one face: class names, ONNX files, and the comparison of engine and reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpqyolo.core.detections import Detections
from mpqyolo.core.errors import CheckpointError, ConfigError
from mpqyolo.evaluate import first_difference
from mpqyolo.evaluate.onnx_predictor import OnnxPredictor
from mpqyolo.evaluate.predictors import Predictor, random_network
from mpqyolo.evaluate.verify import Verifier
from mpqyolo.format.writer import write_model
from mpqyolo.graph.sample import random_model


def test_class_ids_follow_names():
    box = np.array([[0, 0, 9, 9], [1, 1, 5, 5]], np.float32)
    both = Detections(box, np.array([0.9, 0.8], np.float32), np.array([1, 0], np.int32), ("dog", "tvmonitor"))
    predictor = Predictor(lambda photos: [both for _ in photos], ("dog", "tvmonitor"), (32, 32), "none")
    (ours,) = predictor.over(("tv", "cat"))([np.zeros((9, 9, 3), np.uint8)])
    assert ours.class_id.tolist() == [0] and ours.names == ("tv", "cat")
    assert predictor.missing(("tv", "cat")) == ["cat"] and predictor.over(("dog", "tvmonitor")) is predictor
    with pytest.raises(ConfigError, match="none of the data's classes"):
        predictor.over(("cat", "mouse"))


def constant_file(path: Path, rows: np.ndarray, names: str = "", size: object = 64) -> Path:
    """An ONNX file that answers these rows (N, M) to every image."""
    nodes = [
        helper.make_node("ReduceSum", ["image"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["rows", "nothing"], ["output"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, size, size])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
    constants = [
        numpy_helper.from_array(rows[None].astype(np.float32), "rows"),
        numpy_helper.from_array(np.zeros((), np.float32), "zero"),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "constant", [image], [output], constants), opset_imports=[helper.make_opsetid("", 13)]
    )
    model.ir_version = 9
    if names:
        helper.set_model_props(model, {"names": names})
    onnx.save(model, path)
    return path


CELLS = 8 * 8 + 4 * 4 + 2 * 2


def test_onnx_with_anchors(tmp_path: Path):
    rows = np.zeros((3 * CELLS, 5 + 2))
    rows[7] = (32, 32, 16, 8, 0.8, 0.1, 0.9)
    rows[8] = (32, 32, 16, 8, 0.8, 0.1, 0.8)  # suppressed by the one before
    predictor = OnnxPredictor(constant_file(tmp_path / "x.onnx", rows, "{0: 'cat', 1: 'dog'}"), min_score=0.2)
    assert predictor.names == ("cat", "dog") and predictor.image_size == (64, 64)
    (found,) = predictor([np.zeros((128, 256, 3), np.uint8)])
    assert found.class_id.tolist() == [1] and found.score == pytest.approx([0.72])
    # The photo is shrunk four times and lies in rows 16..48 of the input.
    assert found.xyxy.tolist() == [[96, 48, 160, 80]] and found.size == (256, 128)


def test_onnx_without_anchors_and_of_any_size(tmp_path: Path):
    columns = np.zeros((4 + 3, CELLS))
    columns[:, 3] = (10, 10, 4, 4, 0, 0, 0.6)
    file = constant_file(tmp_path / "x.onnx", columns, size="side")
    predictor = OnnxPredictor(file, (64, 64), min_score=0.2)
    assert predictor.names == ("0", "1", "2")
    (found,) = predictor([np.zeros((64, 64, 3), np.uint8)])
    assert found.class_id.tolist() == [2] and found.xyxy.tolist() == [[8, 8, 12, 12]]


def test_onnx_files_that_are_refused(tmp_path: Path):
    odd = constant_file(tmp_path / "odd.onnx", np.zeros((5, 5)))
    with pytest.raises(CheckpointError, match=r"first output is \[1, 5, 5\], no YOLO's"):
        OnnxPredictor(odd)
    good = constant_file(tmp_path / "good.onnx", np.zeros((3 * CELLS, 7)), names="__import__('os').abort()")
    assert OnnxPredictor(good).names == ("0", "1")
    with pytest.raises(ConfigError, match="64x64 only"):
        OnnxPredictor(good, (96, 96))
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(CheckpointError, match=r"text\.onnx: ONNX Runtime cannot read it"):
        OnnxPredictor(tmp_path / "text.onnx")


def test_random_networks_are_always_the_same():
    one, two = (random_network("mpq", "n", ("a", "b"), "default").state_dict() for _ in range(2))
    assert all((one[name] == two[name]).all() for name in one)


@pytest.mark.parametrize("seed", range(3))
def test_engine_and_reference_agree_at_every_tensor(seed: int, engine: Path, tmp_path: Path):
    rng = np.random.default_rng(seed)
    write_model(random_model(rng, size=(32, 64)), tmp_path / "x.mpqy")
    verifier = Verifier(tmp_path / "x.mpqy")
    photo = rng.integers(0, 256, (50, 90, 3), np.uint8)
    assert verifier.difference(photo, 0.5) is None
    assert Verifier(tmp_path / "x.mpqy", (64, 32)).difference(photo, 0.5) is None


def test_a_difference_is_found(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(5)
    model = random_model(rng, size=(32, 32))
    write_model(model, tmp_path / "x.mpqy")
    verifier = Verifier(tmp_path / "x.mpqy")
    names = [name for node in model.graph.nodes for name in node.outputs]
    honest, victim = verifier.session.tensor, names[len(names) // 2]

    def lie(name: str) -> np.ndarray:
        values = honest(name)
        if name == victim:
            values[0, 0, 0] += 1
        return values

    monkeypatch.setattr(verifier.session, "tensor", lie)
    found = verifier.difference(rng.integers(0, 256, (32, 32, 3), np.uint8))
    assert found and found.name == victim and found.count == 1 and found.index == (0, 0, 0)


def test_first_difference():
    a, b = {"x": np.array([1.0, np.nan]), "y": np.zeros(2)}, {"x": np.array([1.0, np.nan]), "y": np.array([0.0, 2.0])}
    assert first_difference(a, a, "xy") is None and first_difference(a, b, "x") is None
    found = first_difference(a, b, "xy")
    assert str(found) == "y: 1 elements differ, first at [1]: 0 and 2"
    assert "shape" in str(first_difference(a, {"x": np.zeros(3)}, "x"))
    assert "only in the first" in str(first_difference(a, {}, "x"))
