"""Layers that move values and compute none. Each is a module of its own, because a tracer lowers modules to graph nodes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Concat(nn.Module):
    """Maps (B, c_i, h, w) -> (B, sum of c_i, h, w)."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(maps), 1)


class Upsample2(nn.Module):
    """(B, c, h, w) -> (B, c, 2h, 2w), nearest."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


class MaxPool(nn.Module):
    """k x k maximum, stride 1, same size; positions outside the map do not take part."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel, 1, self.kernel // 2)

    def extra_repr(self) -> str:
        return str(self.kernel)
