"""Model files for the contest: our packed models, and float networks for other runtimes, all with random weights.

Speed does not depend on what was learned, so nothing is trained.  Files that exist already are kept.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

os.environ["MPQ_TRAIN_OPS"] = "none"  # a trace can follow torch's own operations alone
CLASSES = tuple(str(k) for k in range(80))


def made(path: Path, make: Callable[[Path], Any]) -> Path:
    """The file, made if it is not there; a fault leaves none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                make(path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return path


def mpqy(folder: Path, family: str, size: str, edge: int, policy: str | None = None) -> Path:
    """Our packed model, with the bits of the policy, or those that the family has by default."""

    def make(path: Path) -> None:
        from mpqyolo.cli.resolve import graph_model
        from mpqyolo.format.writer import dumps

        name = size if family == "mpq" else f"{family}-{size}"
        path.write_bytes(dumps(graph_model(name, (edge, edge), policy=policy)[0]))

    return made(folder / f"{family}-{size}-{edge}{f'-{policy}' if policy else ''}.mpqy", make)


def network(name: str, size: str, decoded: bool = False) -> Any:
    """name: yolov5-relu, yolov5-silu (its own anchor head), mpq-float, paper-float.  Raw maps, or with the decoding of boxes."""
    import torch

    from mpqyolo.detector.yolov5 import YOLOv5
    from mpqyolo.evaluate.predictors import random_network

    family, _, kind = name.partition("-")
    torch.manual_seed(0)
    if family != "yolov5":
        inner = random_network(family, size, CLASSES, "float")
    else:
        inner = YOLOv5(size, len(CLASSES), activation=kind).eval().fuse()

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, image: Any) -> Any:  # 0..1, as the runtimes' users feed it
            if decoded:
                boxes, scores = inner(image * 255)
                middle, edge = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
                return torch.cat((middle, edge, torch.ones_like(scores[..., :1]), scores), -1)
            if family == "yolov5":
                return tuple(conv(x) for conv, x in zip(inner.predict.m, inner.maps(image), strict=True))
            maps = inner(image * 255)
            return (*maps.distance, *maps.logit)

    return Wrapped().eval()


def onnx_float(folder: Path, name: str, size: str, edge: int, decoded: bool = False) -> Path:
    def make(path: Path) -> None:
        import torch

        image = torch.zeros(1, 3, edge, edge)
        torch.onnx.export(
            network(name, size, decoded), (image,), str(path), dynamo=False, opset_version=17, input_names=["image"]
        )

    return made(folder / f"{name}-{size}-{edge}{'-decoded' if decoded else ''}.onnx", make)


def images(photos: Path | None, edge: int, count: int = 32) -> Iterator[np.ndarray]:
    """(1, 3, edge, edge) float32 in 0..1: real photos, or noise where none are given."""
    files = sorted(photos.rglob("*.jpg"))[:count] if photos else []
    if not files:
        rng = np.random.default_rng(0)
        for _ in range(8):
            yield rng.random((1, 3, edge, edge), dtype=np.float32)
    for file in files:
        from mpqyolo.core.image import letterbox
        from mpqyolo.core.photo import as_photo

        yield np.ascontiguousarray(letterbox(as_photo(file), edge, edge)[0].transpose(2, 0, 1)[None] / np.float32(255))


def onnx_int8(folder: Path, name: str, size: str, edge: int, photos: Path | None) -> Path:
    """Static QDQ, weights per channel, calibrated on photos."""
    source = onnx_float(folder, name, size, edge)

    def make(path: Path) -> None:
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.images = images(photos, edge)

            def get_next(self) -> dict[str, np.ndarray] | None:
                image = next(self.images, None)
                return None if image is None else {"image": image}

        ready = path.with_suffix(".tmp.onnx")
        quant_pre_process(str(source), str(ready))
        formats = {"quant_format": quantization.QuantFormat.QDQ, "weight_type": quantization.QuantType.QInt8}
        quantization.quantize_static(
            str(ready), str(path), Reader(), per_channel=True, activation_type=quantization.QuantType.QUInt8, **formats
        )
        ready.unlink()

    return made(folder / f"{name}-{size}-{edge}-int8.onnx", make)


def openvino(folder: Path, name: str, size: str, edge: int, photos: Path | None, int8: bool) -> Path:
    source = onnx_float(folder, name, size, edge)

    def make(path: Path) -> None:
        import openvino

        model = openvino.convert_model(str(source))
        if int8:
            import nncf

            model = nncf.quantize(model, nncf.Dataset(list(images(photos, edge))))
        openvino.save_model(model, str(path), compress_to_fp16=False)

    return made(folder / f"{name}-{size}-{edge}{'-int8' if int8 else ''}.xml", make)


def ncnn(folder: Path, name: str, size: str, edge: int) -> Path:
    """The .param file; its .bin lies beside it."""

    def make(path: Path) -> None:
        import pnnx
        import torch

        scratch = path.with_suffix("")
        scratch.mkdir(exist_ok=True)
        traced = torch.jit.trace(network(name, size), torch.zeros(1, 3, edge, edge), check_trace=False)
        traced.save(str(scratch / "x.pt"))
        command = [pnnx.EXEC_PATH, "x.pt", f"inputshape=[1,3,{edge},{edge}]", "fp16=0"]
        subprocess.run(command, cwd=scratch, check=True, capture_output=True)
        (scratch / "x.ncnn.bin").replace(path.with_suffix(".bin"))
        (scratch / "x.ncnn.param").replace(path)

    return made(folder / f"{name}-{size}-{edge}-ncnn.param", make)
