"""Points: the cells of all levels in one row, and the boxes that distances from them describe."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mpqyolo.detector.maps import Maps

STRIDES = (8, 16, 32)
DISTANCE_LIMIT = 6.0  # exp(6) * 8 is 3227 px: beyond any input, and far from overflow


def points(
    shapes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Centres (N, 2) float32 px and strides (N,) float32 of all cells, level by level, row by row. `shapes` are (h, w)."""
    centres, sizes = [], []
    for (h, w), stride in zip(shapes, strides, strict=True):
        y, x = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
        centres.append((torch.stack((x, y), -1).reshape(-1, 2) + 0.5) * stride)
        sizes.append(torch.full((h * w,), float(stride), device=device))
    return torch.cat(centres), torch.cat(sizes)


def map_shapes(maps: Maps) -> list[tuple[int, int]]:
    """(h, w) of each level."""
    return [(m.shape[-2], m.shape[-1]) for m in maps.logit]


def map_points(maps: Maps, strides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """`points` of these maps, on their device."""
    return points(map_shapes(maps), strides, maps.logit[0].device)


def flatten(levels: Sequence[Tensor]) -> Tensor:
    """Maps (B, c, h, w) of all levels as (B, N, c), points in the order of `points`."""
    return torch.cat([level.flatten(2) for level in levels], 2).transpose(1, 2)


def decode_boxes(distance: Tensor, centres: Tensor, stride: Tensor) -> Tensor:
    """Boxes (..., 4) x1 y1 x2 y2 in px from distance logits (..., 4) at centres (..., 2) with strides (...,).

    The exponent is clamped to ±DISTANCE_LIMIT; its gradient passes the clamp, so that a logit beyond the limit finds back.
    """
    bounded = distance.detach().clamp(-DISTANCE_LIMIT, DISTANCE_LIMIT) + (distance - distance.detach())
    left_top, right_bottom = (bounded.exp() * stride.unsqueeze(-1)).split(2, -1)
    return torch.cat((centres - left_top, centres + right_bottom), -1)
