"""From an ONNX detector's outputs to a box and scores at each of its cells."""

from __future__ import annotations

import torch
from torch import Tensor

from mpqyolo.core.errors import ConfigError
from mpqyolo.detector.decode import Dense
from mpqyolo.train.teachers.description import OutputPart


def distribution(scores: Tensor, boxes: Tensor, point: Tensor, stride: Tensor) -> Dense:
    """PicoDet, NanoDet and others with a Generalized Focal head (Li et al., NeurIPS 2020, arXiv 2006.04388).

    scores: (B, N, classes). boxes: (B, N, 4 x bins), for each side the logits of a distribution over 0, 1, ... strides, whose
    mean is the distance from the cell's point. point: (N, 2) px, stride: (N,) px.
    """
    share = boxes.unflatten(-1, (4, -1)).softmax(-1)
    mean = (share * torch.arange(share.shape[-1], dtype=share.dtype, device=share.device)).sum(-1)
    left_top, right_bottom = (mean * stride.unsqueeze(-1)).split(2, -1)
    return Dense(torch.cat((point - left_top, point + right_bottom), -1), scores)


def objectness(rows: Tensor, point: Tensor, stride: Tensor) -> Dense:
    """YOLOX (Ge et al., arXiv 2107.08430).

    rows: (B, N, 5 + classes): middle x, y in strides from the cell's point, logarithm of width and height in strides,
    objectness, and class scores, which count times the objectness.
    """
    middle = point + rows[..., :2] * stride.unsqueeze(-1)
    half = rows[..., 2:4].clamp(max=20).exp() * stride.unsqueeze(-1) / 2
    return Dense(torch.cat((middle - half, middle + half), -1), rows[..., 4:5] * rows[..., 5:])


def decode_outputs(
    part: OutputPart, scores: Tensor, boxes: Tensor | None, classes: int, point: Tensor, stride: Tensor, who: str
) -> Dense:
    """Boxes in px of the detector's input, and scores of its own classes, at all its cells.

    scores, boxes: (B, N, channels), all levels in one row; boxes None where the description names none. Raises ConfigError if
    the channels or cells are not what the description leads one to expect.
    """
    extra = {"distribution": 0 if boxes is not None else 4, "objectness": 5}[part.kind]
    found = scores.shape[-1] - classes
    good = found == extra if extra != 4 else found > 0 and found % 4 == 0
    if boxes is not None:
        good = good and part.kind == "distribution" and boxes.shape[-1] % 4 == 0 and boxes.shape[1] == len(point)
    if not good or scores.shape[1] != len(point):
        shapes = " and ".join(str(list(t.shape[1:])) for t in (scores, boxes) if t is not None)
        raise ConfigError(
            f"{who}: its outputs are {shapes}, no {part.kind} of {classes} classes at {len(point)} cells, as the description says"
        )
    if part.kind == "objectness":
        rows = torch.cat((scores[..., :4], scores[..., 4:].sigmoid()), -1) if part.sigmoid else scores
        return objectness(rows, point, stride)
    if boxes is None:
        scores, boxes = scores[..., :classes], scores[..., classes:]
    return distribution(scores.sigmoid() if part.sigmoid else scores, boxes, point, stride)
