"""Made-up ONNX detectors, whose outputs follow from the mean colour of each cell by a matrix, and their TOML descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def make_detector(
    path: Path,
    matrices: Sequence[np.ndarray],
    strides: Sequence[int],
    side: int | str,
    batch: int | str = 1,
    joined: bool = False,
    channels_first: bool = False,
) -> Path:
    """An ONNX file: for each matrix (channels, 4) and stride the outputs matrix @ (mean of a cell's three colours, 1).

    Outputs are (B, cells, channels), or (B, channels, h, w) if `channels_first`; `joined`: one output, all levels in a row.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, outputs = [], [], []
    for k, (matrix, stride) in enumerate(zip(matrices, strides, strict=True)):
        constants.append(numpy_helper.from_array(matrix[:, :3, None, None].astype(np.float32), f"w{k}"))
        constants.append(numpy_helper.from_array(matrix[:, 3].astype(np.float32), f"b{k}"))
        constants.append(numpy_helper.from_array(np.array([0, -1, len(matrix)]), f"flat{k}"))
        nodes += [
            helper.make_node("AveragePool", ["image"], [f"pool{k}"], kernel_shape=[stride] * 2, strides=[stride] * 2),
            helper.make_node("Conv", [f"pool{k}", f"w{k}", f"b{k}"], [f"map{k}"]),
        ]
        if not channels_first:
            nodes.append(helper.make_node("Transpose", [f"map{k}"], [f"last{k}"], perm=[0, 2, 3, 1]))
            nodes.append(helper.make_node("Reshape", [f"last{k}", f"flat{k}"], [f"rows{k}"]))
        outputs.append(f"map{k}" if channels_first else f"rows{k}")
    if joined:
        nodes.append(helper.make_node("Concat", outputs, ["rows"], axis=1))
        outputs = ["rows"]
    shape = [batch, 3, side, side]
    graph = helper.make_graph(
        nodes,
        "made up",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def make_boxes(path: Path, rows: np.ndarray, side: int) -> Path:
    """An ONNX file that finds the same rows (n, 6) in every image; a second output is the image's mean, (1,)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Add", ["rows", "zero"], ["found"]),
    ]
    constants = [
        numpy_helper.from_array(rows[None].astype(np.float32), "rows"),
        numpy_helper.from_array(np.zeros(1, np.float32), "nothing"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, side, side])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("found", "mean")]
    graph = helper.make_graph(nodes, "made up", [image], outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def cell_means(image: np.ndarray, stride: int) -> np.ndarray:
    """(3, H, W) -> (cells, 4): mean colours of each cell, row by row, and 1."""
    _, height, width = image.shape
    means = image.reshape(3, height // stride, stride, width // stride, stride).mean((2, 4)).reshape(3, -1)
    return np.concatenate([means, np.ones((1, means.shape[1]))]).T


def colours_teacher(folder: Path, side: int = 64, batch: int | str = 1) -> Path:
    """The description of a detector that calls red cells 'red', blue ones 'blue', and sees boxes of 2 strides round them."""
    scores = np.array([[6.0, -3.0, -3.0, -4.0], [-3.0, -3.0, 6.0, -4.0]])
    boxes = np.tile(np.array([[0, 0, 0, 0.0], [0, 0, 0, 4.0], [0, 0, 0, 0.0]]), (4, 1))
    matrices = [np.concatenate([scores, boxes])] * 3
    make_detector(folder / "colours.onnx", matrices, (8, 16, 32), side, batch, joined=True)
    text = """
    weights = "colours.onnx"
    classes = ["red", "blue"]
    [input]
    std = [255, 255, 255]
    [output]
    kind = "distribution"
    sigmoid = true
    """
    (folder / "colours.toml").write_text(text)
    return folder / "colours.toml"
