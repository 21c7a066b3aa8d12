"""Layers that were trained under SiLU, as nearly as the integer layers' own activations can be it.

SiLU near a channel's inputs is nearly two straight lines that meet: the slope on the right and the corner go into the batch norm
before, the slope on the left is RPReLU's (0 where codes begin), and what is left over is a constant.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from mpqyolo.detector.blocks import SLOPE_LIMIT, CodeConv, RPReLU, StreamConv

_POINTS = 400  # quantiles of the normal distribution
_STEEPEST = (0.25, 1.25)  # of the slope on the right; SiLU's own goes to 1.1


class Hinge(NamedTuple):
    """f(x) = offset + right * max(x - corner, 0) + left * min(x - corner, 0); each (C,)."""

    corner: Tensor
    right: Tensor
    left: Tensor
    offset: Tensor


@torch.no_grad()
def silu_hinge(mean: Tensor, std: Tensor, flat: bool = False) -> Hinge:
    """The hinge nearest to SiLU by least squares, for inputs N(mean, std^2) of each channel; both (C,). flat: left = 0.

    Corners are tried in steps of 0.1 from -2 to 1.5; the slopes solve the normal equations there, within what a Q15 slope
    relative to the right one can be.
    """
    normal = torch.special.ndtri((torch.arange(_POINTS, device=mean.device, dtype=torch.float64) + 0.5) / _POINTS)
    x = mean.double()[:, None] + std.double().abs()[:, None] * normal
    wanted = functional.silu(x)
    least = torch.full_like(x[:, 0], torch.inf)
    best = [torch.zeros_like(least) for _ in Hinge._fields]
    for corner in torch.linspace(-2, 1.5, 36).tolist():
        positive, negative = (x - corner).clamp(min=0), (x - corner).clamp(max=0)
        right, left = _slopes(positive, negative, wanted, flat)
        rest = wanted - right[:, None] * positive - left[:, None] * negative
        offset = rest.mean(1)
        error = (rest - offset[:, None]).square().mean(1)
        better = error < least
        least = torch.where(better, error, least)
        found = (torch.full_like(least, corner), right, left, offset)
        best = [torch.where(better, new, old) for new, old in zip(found, best, strict=True)]
    return Hinge(*(value.to(mean.dtype) for value in best))


def _slopes(positive: Tensor, negative: Tensor, wanted: Tensor, flat: bool) -> tuple[Tensor, Tensor]:
    """Of wanted (C, n) on the two sides of the corner and a constant: least squares, then held within their limits."""
    p, n, w = (value - value.mean(1, keepdim=True) for value in (positive, negative, wanted))
    pp, nn, pn, pw, nw = (p * p).mean(1), (n * n).mean(1), (p * n).mean(1), (p * w).mean(1), (n * w).mean(1)
    small = 1e-6
    whole = (pw * nn - nw * pn) / (pp * nn - pn * pn).clamp(min=small * small)
    right = torch.where((pp > small) & (nn > small) & (not flat), whole, pw / pp.clamp(min=small)).clamp(*_STEEPEST)
    right = torch.where(pp > small, right, torch.ones_like(right))
    if flat:
        return right, torch.zeros_like(right)
    left = (nw - right * pn) / nn.clamp(min=small)  # the best beside the right one as it was held
    return right, left.clamp(-SLOPE_LIMIT * right, SLOPE_LIMIT * right)


@torch.no_grad()
def like_silu(layer: StreamConv | CodeConv) -> Tensor:
    """Make act(bn(.)) resemble SiLU(bn(.)), with bn's affine output taken as normal; an act that is fixed stays.

    Returns what is missing, (C,): a constant that a layer of codes cannot add; 0 for a stream.
    """
    bn = layer.bn
    if isinstance(layer, CodeConv):
        hinge = silu_hinge(bn.bias, bn.weight, flat=True)
        bn.weight.mul_(hinge.right)
        bn.bias.sub_(hinge.corner).mul_(hinge.right)
        return hinge.offset
    if isinstance(layer.act, RPReLU):
        hinge = silu_hinge(bn.bias, bn.weight)
        bn.weight.mul_(hinge.right)
        bn.bias.mul_(hinge.right)
        values = (hinge.corner * hinge.right, hinge.left / hinge.right, hinge.offset)
        for parameter, value in zip((layer.act.before, layer.act.slope, layer.act.after), values, strict=True):
            parameter.copy_(value.view_as(parameter))
    return torch.zeros_like(bn.bias)
