"""Sign, rounding and the layers' tails with their gradients: one pass forward, one pass backward, few saved tensors.

Notation: u is the function's input, g the incoming gradient, t a quantiser's strength (0 float, 1 quantised; PNQ ramps in
between). Each has two translations, torch's operations and `fused`; a test compares them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from mpqyolo.core.errors import ConfigError
from mpqyolo.quantize import fused

_ABOVE_ONE = 1 + 2**-23  # the next float32
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


def _over_channels(x: Tensor) -> Tensor:
    return x.float().sum((0, 2, 3))


class BinariseActivation(Function):
    """Forward: t*sign(x - shift) + (1-t)*(x - shift). Backward: g * (t*d + (1-t)), d the named STE at x - shift.

    x: (B, C, H, W); shift: (1, C, 1, 1), learned (Liu et al. 2020, ReActNet: RSign). With `pad`, the result lies in a border of
    so many pixels of -t, what a convolution pads bits with.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, strength: float, kind: str, pad: int = 0) -> Tensor:
        ctx.setting = strength, kind, pad
        if fused.usable(x):
            x = fused.packed(x)
            ctx.save_for_backward(x, shift)
            return fused.sign_forward(x, shift, strength, pad)
        ctx.save_for_backward(x, shift)
        u = x - shift
        y = sign(u)
        y = (y if strength == 1 else y.mul_(strength).add_(u, alpha=1 - strength)).to(x.dtype)
        return functional.pad(y, (pad,) * 4, value=-strength) if pad else y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, shift = ctx.saved_tensors
        strength, kind, pad = ctx.setting
        if fused.usable(x):
            d, total = fused.sign_backward(fused.packed(g), x, shift, strength, STE_KINDS.index(kind), pad)
        else:
            d = _sign_gradient(x - shift, kind)
            if strength != 1:
                d.mul_(strength).add_(1 - strength)
            d = d.mul_(g[:, :, pad : g.shape[2] - pad, pad : g.shape[3] - pad]).to(x.dtype)
            total = _over_channels(d)
        return d, total.neg_().view_as(shift), None, None, None


class BinariseWeight(Function):
    """Forward: t*alpha*sign(w) + (1-t)*w, alpha the mean |w| of each output channel. Backward: g where |w| <= 1.

    w: (O, C, kh, kw). The scale (Rastegari et al. 2016, XNOR-Net) is absorbed by the batch norm that follows;
    it keeps the blend of a ramp at one magnitude. It is a constant to the gradient (ReActNet).
    """

    @staticmethod
    def forward(ctx: Any, w: Tensor, strength: float) -> Tensor:
        if fused.weights_usable(w):
            w = fused.packed(w)
            ctx.save_for_backward(w)
            return fused.binarise_forward(w, strength)
        ctx.save_for_backward(w)
        scale = binary_scale(w)
        y = torch.copysign(scale, w + 0.0)  # -0.0 + 0.0 is 0.0, whose sign is +1; a seventh of what `where` takes
        return y if strength == 1 else y.mul_(strength).add_(w, alpha=1 - strength)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        (w,) = ctx.saved_tensors
        if fused.weights_usable(w):
            return fused.binarise_backward(fused.packed(g), w), None
        return torch.ops.aten.hardtanh_backward(g, w, -_ABOVE_ONE, _ABOVE_ONE), None  # one pass; it wants |w| below its limits


def binary_scale(w: Tensor) -> Tensor:
    """(O, 1, 1, 1) mean |w| of each output channel."""
    return w.abs().mean((1, 2, 3), keepdim=True)


class LsqQuantise(Function):
    """LSQ (Esser et al. 2020). Forward: t*s*clamp(floor(u/s + 1/2), low, high) + (1-t)*f(u), f = ReLU if low is 0, else identity.

    u = x - shift; shift: (1, C, 1, 1) of a map, or None. Backward to x: g inside the range, 0 outside (and (1-t)*g where f
    passes). Backward to s: sum g*(q - u/s inside, low or high outside) * gradient_scale, the caller's 1/sqrt(n*high).
    s broadcasts against x.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        low: int,
        high: int,
        gradient_scale: float,
        strength: float,
        shift: Tensor | None = None,
    ) -> Tensor:
        ctx.setting = low, high, gradient_scale, strength
        if scale.dim() == 0 and fused.usable(x):
            x = fused.packed(x)
            ctx.save_for_backward(x, scale, shift)
            return fused.lsq_forward(x, shift, float(scale), low, high, strength)
        if low < 0 and shift is None and fused.by_rows(x, scale):
            x = fused.packed(x)
            ctx.save_for_backward(x, scale, shift)
            return fused.lsq_rows_forward(x, scale, low, high, strength)
        ctx.save_for_backward(x, scale, shift)
        u = x.float() if shift is None else x.float() - shift
        y = torch.div(u, scale).add_(0.5).floor_().clamp_(low, high).mul_(scale)
        if strength != 1:
            y = y.mul_(strength).add_(u.clamp(min=0) if low == 0 else u, alpha=1 - strength)
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None, Tensor | None]:
        x, scale, shift = ctx.saved_tensors
        low, high, gradient_scale, strength = ctx.setting
        if scale.dim() == 0 and fused.usable(x):
            dx, sums = fused.lsq_backward(fused.packed(g), x, shift, float(scale), low, high, strength)
            d_shift = None if shift is None else -sums[0].view_as(shift)
            return dx, sums[1].sum().mul_(gradient_scale * strength), None, None, None, None, d_shift
        if low < 0 and shift is None and fused.by_rows(x, scale):
            dx, sums = fused.lsq_rows_backward(fused.packed(g), x, scale, low, high, strength)
            return dx, sums.mul_(gradient_scale * strength).view_as(scale), None, None, None, None, None
        u = x.float() if shift is None else x.float() - shift
        v = torch.div(u, scale)
        clamped = v.clamp(low, high)
        grad_scale = None
        if ctx.needs_input_grad[1]:
            # floor(v + 1/2) clamped, less v where v is inside: outside, `clamped` equals the bound and v must not enter.
            error = v.add(0.5).floor_().clamp_(low, high).sub_(torch.where(clamped == v, v, torch.zeros_like(v)))
            grad_scale = _sum_to(error.mul_(g).float(), scale.shape).mul_(gradient_scale * strength)
        inside = (clamped == v).float()
        if strength != 1:
            passes = u.gt(0).float() if low == 0 else torch.ones_like(inside)
            inside.mul_(strength).add_(passes, alpha=1 - strength)
        dx = inside.mul_(g)
        d_shift = None if shift is None else _over_channels(dx).neg_().view_as(shift)
        return dx.to(x.dtype), grad_scale, None, None, None, None, d_shift


def _sum_to(x: Tensor, shape: torch.Size) -> Tensor:
    """Sum x (4 axes) over the axes in which shape is 1, or over all for a scalar shape."""
    if len(shape) == 0:
        return x.sum()
    axes = [axis for axis, length in enumerate(shape) if length == 1]
    return x.sum(axes, keepdim=True)


class Tail(Function):
    """f(z + r - before) + after, f(v) = v where v >= 0, else slope*v: a shortcut and RPReLU (Liu et al. 2020, ReActNet) at once.

    z: (B, C, H, W), r: the same or None; before, slope, after: C numbers each. Half-precision maps stay half.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, r: Tensor | None, before: Tensor, slope: Tensor, after: Tensor) -> Tensor:
        if r is not None:
            r = r.to(z.dtype)
        if fused.usable(z):
            z, r = fused.packed(z), None if r is None else fused.packed(r)
            ctx.save_for_backward(z, r, before, slope)
            return fused.tail_forward(z, r, before, slope, after)
        ctx.save_for_backward(z, r, before, slope)
        v = (z if r is None else z + r) - before
        return (torch.where(v < 0, v * slope, v) + after).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor]:
        z, r, before, slope = ctx.saved_tensors
        if fused.usable(z):
            dv, sums = fused.tail_backward(fused.packed(g.to(z.dtype)), z, r, before, slope)
        else:
            v = (z if r is None else z + r) - before
            dv = torch.where(v < 0, g * slope, g).to(z.dtype)
            bent = torch.where(v < 0, g * v, torch.zeros_like(v))
            sums = torch.stack([_over_channels(dv), _over_channels(bent), _over_channels(g)])
        d_before, d_slope, d_after = (total.view_as(before) for total in (-sums[0], sums[1], sums[2]))
        return dv, None if r is None else dv, d_before, d_slope, d_after


class NormTail(Function):
    """Batch norm in training and Tail at once: f(weight * (z - mean) / sqrt(var + eps) + bias + r - before) + after.

    z: (B, C, H, W), `fused.usable`; near: C numbers not far from its means. Returns the result and the batch's mean and (biased)
    variance, which have no gradient. Neither the normalised map nor its gradient is ever in memory.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        r: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        before: Tensor,
        slope: Tensor,
        after: Tensor,
        near: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        z, r = fused.packed(z), None if r is None else fused.packed(r.to(z.dtype))
        mean, var = fused.moments(z, near)
        inverse = (var + eps).rsqrt()
        gain = weight * inverse
        edge = before.flatten() - bias + mean * gain
        ctx.save_for_backward(z, r, gain, edge, slope, mean, inverse)
        ctx.mark_non_differentiable(mean, var)
        return fused.tail_forward(z, r, edge, slope, after, gain), mean, var

    @staticmethod
    def backward(ctx: Any, g: Tensor, _mean: Any, _var: Any) -> tuple[Tensor | None, ...]:
        z, r, gain, edge, slope, mean, inverse = ctx.saved_tensors
        dv, sums = fused.tail_backward(fused.packed(g.to(z.dtype)), z, r, edge, slope, gain, mean)
        # Ioffe & Szegedy 2015: dz = gain * (dv - mean(dv) - u * mean(dv * u)), u = (z - mean) * inverse.
        count = z.numel() / z.shape[1]
        along = sums[3] * inverse * inverse / count
        dz = fused.norm_backward(dv, z, gain, gain * along, gain * (mean * along - sums[0] / count), reuse=r is None)
        d_before, d_slope, d_after = (total.view_as(slope) for total in (-sums[0], sums[1], sums[2]))
        return dz, None if r is None else dv, sums[3] * inverse, sums[0], d_before, d_slope, d_after, None, None


class PoolRepeat(Function):
    """2x2 average, stride 2, channels repeated: (B, C, H, W) -> (B, repeat * C, H/2, W/2). H and W are even."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, repeat: int) -> Tensor:
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise ConfigError(f"a map of {x.shape[2]}x{x.shape[3]} cannot be halved; give images whose sides are multiples of 32")
        ctx.repeat = repeat
        if fused.usable(x):
            return fused.pool_forward(fused.packed(x), repeat)
        return torch.cat([functional.avg_pool2d(x, 2)] * repeat, 1)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        if fused.usable(g):
            return fused.pool_backward(fused.packed(g), ctx.repeat), None
        total = g.unflatten(1, (ctx.repeat, -1)).sum(1) * 0.25
        return functional.interpolate(total, scale_factor=2.0, mode="nearest"), None


class Match(Function):
    """gain * x, channels repeated, or summed in groups: (B, C, H, W) -> (B, channels, H, W). gain: C numbers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, channels: int) -> Tensor:
        if fused.usable(x):
            x = fused.packed(x)
            ctx.save_for_backward(x, gain)
            return fused.match_forward(x, gain, channels)
        ctx.save_for_backward(x, gain)
        y = x * gain
        if channels > x.shape[1]:
            y = torch.cat([y] * (channels // x.shape[1]), 1)
        elif channels < x.shape[1]:
            y = y.unflatten(1, (-1, channels)).sum(1)
        return y.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        x, gain = ctx.saved_tensors
        if fused.usable(x):
            dx, sums = fused.match_backward(fused.packed(g.to(x.dtype)), x, gain)
            return dx, sums.view_as(gain), None
        channels = x.shape[1]
        if channels < g.shape[1]:
            g = g.unflatten(1, (-1, channels)).sum(1)
        elif channels > g.shape[1]:
            g = torch.cat([g] * (channels // g.shape[1]), 1)
        return (g * gain).to(x.dtype), _over_channels(g * x).view_as(gain), None
