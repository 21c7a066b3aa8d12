"""Task-aligned assignment: which points answer for which labelled box, and how good their box is.

TOOD, Feng et al., ICCV 2021 (arXiv 2108.07755). Alignment of a box and a point is `score^alpha * iou^beta` with the score of
the box's class at the point; we compute its logarithm, which cannot underflow while predictions are still bad.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-9


class Assignment(NamedTuple):
    """Positive points, one entry each (p,): image and point index, index of the box they answer for, quality target in 0..1."""

    image: Tensor
    point: Tensor
    target: Tensor
    quality: Tensor


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4) and (..., 4), x1 y1 x2 y2, element by element."""
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - overlap
    return overlap / (union + EPSILON)


def inside(box: Tensor, shapes: Sequence[tuple[int, int]], strides: Sequence[int]) -> Tensor:
    """(n, N) bool: the point's centre lies in the box. A box that holds no centre gets the finest cell under its middle."""
    levels, holds_none = [], torch.ones(len(box), dtype=torch.bool, device=box.device)
    for (h, w), stride in zip(shapes, strides, strict=True):
        x = (torch.arange(w, device=box.device) + 0.5) * stride
        y = (torch.arange(h, device=box.device) + 0.5) * stride
        in_x = (x > box[:, 0:1]) & (x < box[:, 2:3])
        in_y = (y > box[:, 1:2]) & (y < box[:, 3:4])
        levels.append((in_y.unsqueeze(2) & in_x.unsqueeze(1)).flatten(1))
        holds_none &= ~(in_x.any(1) & in_y.any(1))
    mask = torch.cat(levels, 1)
    (h, w), stride = shapes[0], strides[0]
    middle = ((box[:, :2] + box[:, 2:]) / (2 * stride)).nan_to_num().long()
    cell = middle[:, 1].clamp(0, h - 1) * w + middle[:, 0].clamp(0, w - 1)
    mask[holds_none, cell[holds_none]] = True
    return mask


@torch.no_grad()
def assign(
    logit: Tensor,
    predicted: Tensor,
    targets: Tensor,
    shapes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    topk: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> Assignment:
    """Assign points to boxes.

    logit: (B, N, classes). predicted: (B, N, 4) px. targets: (n, 6) [image, label, x1, y1, x2, y2 px].
    Each box takes the `topk` best aligned of the points whose centre it holds; a point that several boxes take goes to the one
    that its prediction overlaps most (then to the first). Quality is the alignment, scaled within the box so that its best point
    has the box's best overlap. alpha and beta as in YOLOv8.
    """
    image, label, box = targets[:, 0].long(), targets[:, 1].long(), targets[:, 2:].to(predicted.dtype)
    n, size = len(targets), logit.shape[1]
    pair = inside(box, shapes, strides).flatten().nonzero().squeeze(1)
    t = pair.div(size, rounding_mode="floor")
    place = pair + (image * size - torch.arange(n, device=pair.device) * size).index_select(0, t)  # row of (image, point)
    flat = predicted.reshape(-1, 4)
    overlap = iou(flat.index_select(0, place), box.index_select(0, t))
    score = logit.reshape(-1).index_select(0, place * logit.shape[2] + label.index_select(0, t))
    alignment = alpha * F.logsigmoid(score.float()) + beta * (overlap + EPSILON).log()

    table = predicted.new_full((n * size,), -torch.inf)
    table[pair] = alignment.nan_to_num(nan=-1e6, neginf=-1e6)
    best, chosen = table.view(n, size).topk(min(topk, size), dim=1)
    t, k = (best > -torch.inf).nonzero(as_tuple=True)
    p, alignment = chosen[t, k], best[t, k]
    place = image[t] * size + p
    overlap = iou(flat[place], box[t]).nan_to_num()

    most = overlap.new_zeros(logit.shape[0] * size).scatter_reduce(0, place, overlap, "amax")
    wins = overlap == most[place]
    first = torch.full_like(most, n, dtype=torch.long).scatter_reduce(0, place[wins], t[wins], "amin")
    wins &= t == first[place]
    t, p, alignment, overlap = t[wins], p[wins], alignment[wins], overlap[wins]

    peak = alignment.new_full((n,), -torch.inf).scatter_reduce(0, t, alignment, "amax")
    reach = overlap.new_zeros(n).scatter_reduce(0, t, overlap, "amax")
    return Assignment(image[t], p, t, (alignment - peak[t]).exp() * reach[t])
