"""LSQ quantisers for 2 to 8 bits: Esser et al., Learned Step Size Quantization, ICLR 2020."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mpqyolo.quantize.quantiser import Quantiser
from mpqyolo.quantize.ste import LsqQuantise

_SMALLEST_SCALE = 1e-6  # a scale that training drove to zero or below would divide by zero; health.py reports it


def mse_scale(x: Tensor, low: int, high: int, candidates: int = 40) -> Tensor:
    """The scale, per row of x (rows, n), that makes the least squared error of rounding to low..high; shape (rows,)."""
    top = (x.amax(1) if low == 0 else x.abs().amax(1)).clamp(min=1e-8) / high
    best_error = torch.full_like(top, math.inf)
    best = top.clone()
    for step in range(candidates):
        scale = top * (1 - step / candidates)
        code = (x / scale[:, None] + 0.5).floor_().clamp_(low, high)
        error = (code * scale[:, None] - x).square_().sum(1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best = torch.where(better, scale, best)
    return best.clamp(min=_SMALLEST_SCALE)


class LsqWeight(Quantiser):
    """s * clamp(round(w / s), -q, q), q = 2^(bits-1) - 1, s trainable per output channel. w: (O, C, kh, kw).

    `trainable=False` keeps the scale that minimised the squared error (the ablation of trainable scales).
    """

    def __init__(self, bits: int, channels: int, trainable: bool = True) -> None:
        super().__init__(bits)
        self.scale = nn.Parameter(torch.ones(channels, 1, 1, 1), requires_grad=trainable)

    @property
    def limit(self) -> int:
        """Largest code; the smallest is its negative."""
        return 2 ** (self.bits - 1) - 1

    def initialise(self, x: Tensor) -> None:
        self.scale.data.copy_(mse_scale(x.flatten(1), -self.limit, self.limit).view_as(self.scale))

    def quantise(self, x: Tensor, strength: float) -> Tensor:
        gradient_scale = 1 / math.sqrt(x[0].numel() * self.limit)
        return LsqQuantise.apply(x, self.safe_scale(), -self.limit, self.limit, gradient_scale, strength)

    def safe_scale(self) -> Tensor:
        """The scale, kept positive."""
        return self.scale.clamp(min=_SMALLEST_SCALE)

    def codes(self, w: Tensor) -> Tensor:
        """Integer codes of w as float, what the packed file stores."""
        return (w / self.safe_scale() + 0.5).floor_().clamp_(-self.limit, self.limit)


class LsqActivation(Quantiser):
    """s * clamp(round((x - shift) / s), 0, 2^bits - 1), one trainable s a map. x: (B, C, H, W).

    At strength 0 it is ReLU(x - shift). `channels` > 0 gives a learned shift per channel (maps that come from a signed stream).
    The gradient of s is scaled by 1/sqrt(n * q) with n the elements of one sample, so that a batch of any size trains alike.
    """

    def __init__(self, bits: int, channels: int = 0, trainable: bool = True) -> None:
        super().__init__(bits)
        self.scale = nn.Parameter(torch.ones(()), requires_grad=trainable)
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1)) if channels else None

    @property
    def limit(self) -> int:
        """Largest code; the smallest is 0."""
        return 2**self.bits - 1

    def initialise(self, x: Tensor) -> None:
        values = (x if self.shift is None else x - self.shift).clamp(min=0).flatten()
        stride = max(1, values.numel() // 200_000)
        self.scale.data.copy_(mse_scale(values[::stride][None], 0, self.limit)[0])

    def quantise(self, x: Tensor, strength: float) -> Tensor:
        if self.shift is not None:
            x = x - self.shift
        gradient_scale = 1 / math.sqrt(x[0].numel() * self.limit * x.shape[0])
        return LsqQuantise.apply(x, self.safe_scale(), 0, self.limit, gradient_scale, strength)

    def safe_scale(self) -> Tensor:
        """The scale, kept positive."""
        return self.scale.clamp(min=_SMALLEST_SCALE)

    def float_value(self, x: Tensor) -> Tensor:
        return (x if self.shift is None else x - self.shift).clamp(min=0)
