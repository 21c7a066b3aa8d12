"""LSQ quantisers for 2 to 8 bits: Esser et al., Learned Step Size Quantization, ICLR 2020.

What is learned is a logarithm: a scale stays positive, and a step of the optimiser changes it by a share of itself, whether it is
1e-4 (weights at 8 bits) or 1 (activations at 4). LSQ's gradient is the same but for the factor s.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mpqyolo.quantize.quantiser import Quantiser
from mpqyolo.quantize.ste import LsqQuantise

SMALLEST_SCALE = 1e-7  # a scale below is dead: health.py reports it


def mse_scale(x: Tensor, low: int, high: int, candidates: int = 40) -> Tensor:
    """The scale, per row of x (rows, n), that makes the least squared error of rounding to low..high; shape (rows,)."""
    top = (x.amax(1) if low == 0 else x.abs().amax(1)).clamp(min=1e-6) / high
    best_error = torch.full_like(top, math.inf)
    best = top.clone()
    for step in range(candidates):
        scale = top * (1 - step / candidates)
        code = (x / scale[:, None] + 0.5).floor_().clamp_(low, high)
        error = (code * scale[:, None] - x).square_().sum(1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best = torch.where(better, scale, best)
    return best


class Lsq(Quantiser):
    """What both LSQ quantisers share: a trainable scale, and codes low..high. `trainable=False` keeps the scale, or a weight's
    ratio, that minimised the squared error of the first tensor seen (the ablation of trainable scales).
    """

    @property
    def learned(self) -> nn.Parameter:
        """The logarithm that is trained."""
        raise AssertionError("subclasses define learned")

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest code."""
        raise AssertionError("subclasses define limits")

    def scale_of(self, x: Tensor) -> Tensor:
        """The real value of one code of x, positive; broadcasts against x."""
        raise AssertionError("subclasses define scale_of")

    def codes(self, x: Tensor) -> Tensor:
        """Integer codes of x as float: what the packed file stores, what the engine computes."""
        low, high = self.limits
        return (x / self.scale_of(x) + 0.5).floor_().clamp_(low, high)

    def values(self, code: Tensor, x: Tensor) -> Tensor:
        """What these codes are worth by the scale of x."""
        return code * self.scale_of(x)


class LsqWeight(Lsq):
    """s * clamp(round(w / s), -q, q), q = 2^(bits-1) - 1, s = r * mean |w|, the ratio r trainable. w: (O, C, kh, kw).

    The mean is a constant to the gradient, as the scale of 1-bit weights is. Adam moves a weight by the learning rate, a tenth of
    what it is; a scale of its own would move by the learning rate's share of itself, and fall behind weights that grow: these are
    clipped then, and learn no more (study `four-bits` of docs/results.md).

    scales: O, one for each output channel, or 1 for all of them.
    """

    widths = range(2, 9)

    def __init__(self, bits: int, scales: int, trainable: bool = True) -> None:
        super().__init__(bits)
        self.log_ratio = nn.Parameter(torch.zeros(scales, 1, 1, 1), requires_grad=trainable)

    @property
    def learned(self) -> nn.Parameter:
        return self.log_ratio

    @property
    def limits(self) -> tuple[int, int]:
        top = 2 ** (self.bits - 1) - 1
        return -top, top

    def initialise(self, seen: list[Tensor]) -> None:
        x = seen[-1]
        self.set_scale(mse_scale(x.reshape(self.log_ratio.numel(), -1), *self.limits), x)

    def set_scale(self, scale: Tensor, w: Tensor) -> None:
        """Give the scale of these weights this value."""
        self.log_ratio.data.copy_((scale.view_as(self.log_ratio) / self._magnitude(w)).log())

    def scale_of(self, x: Tensor) -> Tensor:
        return self.log_ratio.exp() * self._magnitude(x)

    def _magnitude(self, w: Tensor) -> Tensor:
        """Mean |w| of the weights that share a scale; rows first, so that the sum is one whatever the memory's order."""
        rows = w.detach().reshape(self.log_ratio.numel(), -1)
        return rows.abs().mean(1).clamp_(min=SMALLEST_SCALE).view_as(self.log_ratio)

    def quantise(self, x: Tensor, strength: float, pad: int) -> Tensor:
        low, high = self.limits
        each = x.numel() // self.log_ratio.numel()
        return LsqQuantise.apply(x, self.scale_of(x), low, high, 1 / math.sqrt(each * high), strength)


class LsqActivation(Lsq):
    """s * clamp(round((x - shift) / s), 0, 2^bits - 1), one trainable s a map. x: (B, C, H, W).

    At strength 0 it is ReLU(x - shift). `channels` > 0 gives a learned shift per channel (maps that come from a signed stream).
    The gradient of s is scaled by 1/sqrt(n * q), n the elements of the batch.
    """

    def __init__(self, bits: int, channels: int = 0, trainable: bool = True, shift: bool = True) -> None:
        super().__init__(bits)
        self.log_scale = nn.Parameter(torch.zeros(()), requires_grad=trainable)
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1), requires_grad=shift) if channels else None

    @property
    def learned(self) -> nn.Parameter:
        return self.log_scale

    @property
    def limits(self) -> tuple[int, int]:
        return 0, 2**self.bits - 1

    @property
    def scale(self) -> Tensor:
        """The real value of one code, positive; a scalar."""
        return self.log_scale.exp()

    def set_scale(self, scale: Tensor) -> None:
        """Give the scale this value."""
        self.log_scale.data.copy_(scale.log().view_as(self.log_scale))

    def scale_of(self, x: Tensor) -> Tensor:
        return self.scale

    def sample(self, x: Tensor) -> Tensor:
        values = self.shifted(x).float().clamp(min=0).flatten()
        return values[:: max(1, values.numel() // 200_000)]

    def initialise(self, seen: list[Tensor]) -> None:
        values = torch.cat(seen)
        if values.any():  # a map that is all 0 does not say how large it will be: a scale of next to nothing would clip it away
            self.set_scale(mse_scale(values[None], *self.limits))

    def quantise(self, x: Tensor, strength: float, pad: int) -> Tensor:
        low, high = self.limits
        return LsqQuantise.apply(x, self.scale, low, high, 1 / math.sqrt(x.numel() * high), strength, self.shift)

    @property
    def threshold(self) -> Tensor:
        """(1, C, 1, 1) where code 1 begins; with 1 bit, from where on it is 1."""
        assert self.shift is not None
        return self.shift + self.scale / 2

    def shifted(self, x: Tensor) -> Tensor:
        """x - shift, where there is a shift."""
        return x if self.shift is None else x - self.shift.to(x.dtype)

    def float_value(self, x: Tensor) -> Tensor:
        return self.shifted(x).relu()
