"""Bringing what a detector sees at its own cells, in an input of its own size, to the student's cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mpqyolo.detector.assign import iou
from mpqyolo.detector.decode import Dense
from mpqyolo.detector.points import DISTANCE_LIMIT, STRIDES, points

Shape = tuple[int, int]  # (height, width)


def bring(seen: Dense, shapes: Sequence[Shape], strides: Sequence[int], scale: tuple[float, float], size: Shape) -> Dense:
    """What the student's cells would see: boxes (B, N, 4) in px of the image, clipped to it, and scores (B, N, classes).

    seen: at the detector's cells, px of its input; shapes and strides of its levels. scale: px of its input for one px of the
    image, in x and y. size: of the image. A student's cell asks the detector's cell under its centre on the level whose cells
    are nearest in size. Levels that no cell of the student is like (PicoDet's stride 64) are asked too, by the student's level
    that is nearest to them, and the most certain answer counts: large objects would be lost otherwise.
    """
    ratio = math.sqrt(scale[0] * scale[1])
    starts = [0]
    for h, w in shapes:
        starts.append(starts[-1] + h * w)
    boxes, scores = [], []
    for stride, asked in zip(STRIDES, _asked([s / ratio for s in strides]), strict=True):
        centre, _ = points([(size[0] // stride, size[1] // stride)], [stride], seen.score.device)
        box = score = None
        for level in asked:
            height, width = shapes[level]
            column = (centre[:, 0] * scale[0] / strides[level]).long().clamp(max=width - 1)
            row = (centre[:, 1] * scale[1] / strides[level]).long().clamp(max=height - 1)
            place = starts[level] + row * width + column
            here_box, here = seen.box[:, place], seen.score[:, place]
            if box is None or score is None:
                box, score = here_box, here
            else:
                surer = here.amax(-1, keepdim=True) > score.amax(-1, keepdim=True)
                box, score = torch.where(surer, here_box, box), torch.where(surer, here, score)
        assert box is not None and score is not None
        boxes.append(box)
        scores.append(score)
    limit = seen.box.new_tensor([size[1], size[0]] * 2)
    box = torch.cat(boxes, 1) / seen.box.new_tensor([*scale] * 2)
    return Dense(box.nan_to_num().clamp(min=0).minimum(limit), torch.cat(scores, 1).nan_to_num().clamp(0, 1))


def sayable(seen: Dense, size: Shape) -> tuple[Tensor, Tensor]:
    """Boxes as the distances (B, N, 4) of Maps, and their scores (B, N, classes).

    A cell of ours lies inside its box. A box that does not hold its cell's centre becomes the nearest one that does, and its
    score falls by how little the two overlap, since our scores say how good the box is.
    """
    shapes = [(size[0] // stride, size[1] // stride) for stride in STRIDES]
    centre, stride = points(shapes, STRIDES, seen.score.device)
    left_top, right_bottom = seen.box.split(2, -1)
    reach = torch.cat((centre - left_top, right_bottom - centre), -1) / stride.unsqueeze(-1)
    reach = reach.clamp(math.exp(-DISTANCE_LIMIT), math.exp(DISTANCE_LIMIT))
    near, far = (reach * stride.unsqueeze(-1)).split(2, -1)
    good = iou(torch.cat((centre - near, centre + far), -1), seen.box).clamp(0, 1)
    return reach.log(), seen.score * good.unsqueeze(-1)


def _asked(strides: Sequence[float]) -> list[list[int]]:
    """For each level of the student the detector's levels that it asks. strides: the detector's, in px of the image."""
    apart = [[abs(math.log2(theirs / ours)) for ours in STRIDES] for theirs in strides]
    asked: list[list[int]] = [[] for _ in STRIDES]
    for level, distances in enumerate(apart):
        asked[distances.index(min(distances))].append(level)
    for own, levels in enumerate(asked):
        if not levels:
            levels.append(min(range(len(strides)), key=lambda level: apart[level][own]))
    return asked
