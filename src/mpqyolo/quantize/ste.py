"""Sign and rounding with straight-through gradients, fused: one pass forward, one pass backward, few saved tensors.

Notation: u is the quantiser's input, g the incoming gradient, t its strength (0 float, 1 quantised; PNQ ramps in between).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

STE_KINDS = ("clip", "polynomial", "identity")


def sign(u: Tensor) -> Tensor:
    """+1 where u >= 0, else -1 (docs/numerics.md: sign(0) = +1), in u's dtype."""
    return u.ge(0).to(u.dtype).mul_(2).sub_(1)


def _sign_gradient(u: Tensor, kind: str) -> Tensor:
    if kind == "clip":  # Hubara et al. 2016: d/du hardtanh(u)
        return u.abs().le(1).to(u.dtype)
    if kind == "polynomial":  # Liu et al. 2018 (Bi-Real Net): derivative of a piecewise quadratic sign
        return u.abs().mul_(-2).add_(2).clamp_(min=0)
    return torch.ones_like(u)


class BinariseActivation(Function):
    """Forward: t*sign(x - shift) + (1-t)*(x - shift). Backward: g * (t*d + (1-t)), d the named STE at x - shift.

    x: (B, C, H, W); shift: (1, C, 1, 1), learned (Liu et al. 2020, ReActNet: RSign).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, strength: float, kind: str) -> Tensor:
        u = x - shift
        ctx.save_for_backward(u)
        ctx.strength, ctx.kind = strength, kind
        y = sign(u)
        return y if strength == 1 else y.mul_(strength).add_(u, alpha=1 - strength)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (u,) = ctx.saved_tensors
        d = _sign_gradient(u, ctx.kind)
        if ctx.strength != 1:
            d.mul_(ctx.strength).add_(1 - ctx.strength)
        d.mul_(g)
        return d, d.sum((0, 2, 3), keepdim=True).neg_(), None, None


class BinariseWeight(Function):
    """Forward: t*alpha*sign(w) + (1-t)*w, alpha the mean |w| of each output channel. Backward: g where |w| <= 1.

    w: (O, C, kh, kw). The scale (Rastegari et al. 2016, XNOR-Net) is absorbed by the batch norm that follows;
    it keeps the blend of a ramp at one magnitude. It is a constant to the gradient (ReActNet).
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, strength: float) -> Tensor:
        ctx.save_for_backward(w)
        y = sign(w).mul_(binary_scale(w))
        return y if strength == 1 else y.mul_(strength).add_(w, alpha=1 - strength)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (w,) = ctx.saved_tensors
        return g * w.abs().le(1), None


def binary_scale(w: Tensor) -> Tensor:
    """(O, 1, 1, 1) mean |w| of each output channel."""
    return w.abs().mean((1, 2, 3), keepdim=True)


class LsqQuantise(Function):
    """LSQ (Esser et al. 2020). Forward: t*s*clamp(floor(x/s + 1/2), low, high) + (1-t)*f(x), f = ReLU if low is 0, else identity.

    Backward to x: g inside the range, 0 outside (and (1-t)*g where f passes). Backward to s:
    sum g*(q - x/s inside, low or high outside) * gradient_scale, the caller's 1/sqrt(n*high). s broadcasts against x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, low: int, high: int, gradient_scale: float, strength: float) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.setting = low, high, gradient_scale, strength
        y = torch.div(x, scale).add_(0.5).floor_().clamp_(low, high).mul_(scale)
        if strength == 1:
            return y
        return y.mul_(strength).add_(x.clamp(min=0) if low == 0 else x, alpha=1 - strength)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        x, scale = ctx.saved_tensors
        low, high, gradient_scale, strength = ctx.setting
        v = torch.div(x, scale)
        clamped = v.clamp(low, high)
        grad_scale = None
        if ctx.needs_input_grad[1]:
            # floor(v + 1/2) clamped, less v where v is inside: outside, `clamped` equals the bound and v must not enter.
            error = v.add(0.5).floor_().clamp_(low, high).sub_(torch.where(clamped == v, v, torch.zeros_like(v)))
            error.mul_(g)
            grad_scale = _sum_to(error, scale.shape).mul_(gradient_scale * strength)
        inside = (clamped == v).to(g.dtype)
        if strength != 1:
            passes = x.gt(0).to(g.dtype) if low == 0 else torch.ones_like(inside)
            inside.mul_(strength).add_(passes, alpha=1 - strength)
        return inside.mul_(g), grad_scale, None, None, None, None


def _sum_to(x: Tensor, shape: torch.Size) -> Tensor:
    """Sum x (4 axes) over the axes in which shape is 1, or over all for a scalar shape."""
    if len(shape) == 0:
        return x.sum()
    axes = [axis for axis, length in enumerate(shape) if length == 1]
    return x.sum(axes, keepdim=True)
