"""Published YOLOv5 v6 weights into our modules, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mpqyolo.core.errors import CheckpointError, printable
from mpqyolo.detector.points import STRIDES
from mpqyolo.detector.ptfile import PtFile, read_pt
from mpqyolo.detector.yolov5 import SIZES, YOLOv5
from mpqyolo.detector.yolov5_body import depths, widths

# The published model is one list, `model.0` .. `model.24`; upsampling and concat (11, 12, 15, 16, 19, 22) have no weights.
PLACES = {
    **{0: "stem", 1: "backbone.down2", 2: "backbone.c2", 3: "backbone.down3", 4: "backbone.c3", 5: "backbone.down4"},
    **{6: "backbone.c4", 7: "backbone.down5", 8: "backbone.c5", 9: "backbone.sppf"},
    **{10: "neck.lateral5", 13: "neck.top4", 14: "neck.lateral4", 17: "neck.out3", 18: "neck.down3", 20: "neck.out4"},
    **{21: "neck.down4", 23: "neck.out5", 24: "predict"},
}


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a published model under our names, float32; others, and what we compute ourselves, are left out."""
    renamed = {}
    for name, tensor in state.items():
        head, _, rest = name.removeprefix("module.").partition(".")
        number, _, rest = rest.partition(".")
        if head == "model" and number.isdecimal() and int(number) in PLACES and rest != "anchor_grid":
            renamed[f"{PLACES[int(number)]}.{rest}"] = tensor.float() if tensor.is_floating_point() else tensor
    anchors = renamed.get("predict.anchors")
    if anchors is not None and anchors.shape[:-2] == (len(STRIDES),):  # published in cells of their level
        renamed["predict.anchors"] = anchors * torch.tensor(STRIDES, dtype=torch.float32).view(-1, 1, 1)
    return renamed


@torch.no_grad()
def load_yolov5(state: Mapping[str, Tensor], model: nn.Module) -> tuple[list[str], list[str]]:
    """Copy published weights into any model made of a YOLOv5Body: all tensors whose place and shape fit.

    Returns (missing, extra): names of the model's tensors that got nothing (a new head, other classes), and published tensors
    under our names that fit nowhere. Raises CheckpointError if not one convolution of the body fits: another size or version.
    """
    renamed, own = rename(state), model.state_dict(keep_vars=True)
    fitting = {name for name, tensor in renamed.items() if name in own and own[name].shape == tensor.shape}
    if not any(name.startswith("backbone.") and name.endswith("conv.weight") for name in fitting):
        raise CheckpointError("holds no YOLOv5 v6 of this model's size; choose the size that it was trained with")
    for name in fitting:
        own[name].copy_(renamed[name])
    return [name for name in own if name not in fitting], [name for name in renamed if name not in fitting]


def open_yolov5(path: str | Path) -> tuple[YOLOv5, tuple[str, ...]]:
    """The detector in a user's `.pt` file, anchors and all, in evaluation mode; and its classes' names ("0", ... if unknown).

    Raises CheckpointError for what is no plain YOLOv5 v6 detector (P6 models, segmentation, other activations, older versions).
    """
    file = read_pt(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in rename(file.tensors).items()}
    outputs = _length(shapes, "predict.m.0.bias")
    classes = outputs // 3 - 5
    if outputs % 3 or classes < 1 or shapes.get("predict.anchors") != (3, 3, 2) or file.strides not in (None, STRIDES):
        raise CheckpointError(f"{path}: has no YOLOv5 v6 head of three levels with three anchors; only such detectors are read")
    with torch.device("meta"):  # no memory is taken for what the file only claims to hold
        model = YOLOv5(_size(shapes, path), classes, "anchor", activation(file, path))
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    odd = next((name for name in own | shapes if own.get(name) != shapes.get(name)), None)
    if odd is not None:
        raise CheckpointError(f"{path}: is no plain YOLOv5 v6: {printable(odd)} does not fit")
    load_yolov5(file.tensors, model.to_empty(device="cpu"))
    names = file.names if file.names and len(file.names) == classes else tuple(str(k) for k in range(classes))
    return model.eval(), names


def _length(shapes: Mapping[str, tuple[int, ...]], name: str) -> int:
    """Of the tensor's first axis; 0 if there is none."""
    return next(iter(shapes.get(name, ())), 0)


def _size(shapes: Mapping[str, tuple[int, ...]], path: str | Path) -> str:
    width = _length(shapes, "stem.conv.weight")
    depth = sum(name.startswith("backbone.c4.m.") and name.endswith("cv1.conv.weight") for name in shapes)
    for size in SIZES:
        if (widths(size)[0], depths(size)[2]) == (width, depth):
            return size
    raise CheckpointError(
        f"{path}: its stem has {width} channels and its third C3 {depth} blocks: no YOLOv5 v6 of size {'/'.join(SIZES)}"
    )


def activation(file: PtFile, path: str | Path) -> str:
    """What the pickled model applies, "silu" or "relu"; state dicts do not say, and get the published SiLU.

    Raises CheckpointError for another one.
    """
    known = {"SiLU": "silu", "ReLU": "relu"}
    found = {kind.rpartition(".")[2] for name, kind in file.kinds.items() if name.endswith(".act")} or {"SiLU"}
    if len(found) > 1 or not found <= known.keys():
        odd = printable(", ".join(sorted(found))[:80])
        raise CheckpointError(f"{path}: its activation {odd} is none of {', '.join(known)}")
    return known[found.pop()]
