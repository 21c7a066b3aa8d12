"""1-bit quantisers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mpqyolo.core.errors import ConfigError
from mpqyolo.quantize.quantiser import Quantiser
from mpqyolo.quantize.ste import STE_KINDS, BinariseActivation, BinariseWeight, binary_scale


class BinaryActivation(Quantiser):
    """sign(x - shift) in -1, +1, shift learned per channel. x: (B, C, H, W).

    Gradient by the named STE: "polynomial" (Bi-Real Net), "clip" or "identity". Distribution-aware in the sense of ReActNet
    (Liu et al. 2020): the shift moves each channel's threshold to where its distribution is informative.
    """

    widths = range(1, 2)

    def __init__(self, channels: int, ste: str = "polynomial", shift: bool = True) -> None:
        super().__init__(bits=1)
        if ste not in STE_KINDS:
            raise ConfigError(f"unknown STE '{ste}'; known: lsq, {', '.join(STE_KINDS)}")
        self.ste = ste
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1), requires_grad=shift)

    @property
    def threshold(self) -> Tensor:
        """(1, C, 1, 1) from where on the bit is 1."""
        return self.shift

    def quantise(self, x: Tensor, strength: float, pad: int) -> Tensor:
        return BinariseActivation.apply(x, self.shift, strength, self.ste, pad)

    def pad_value(self) -> float:
        """What a convolution pads this map with: -1 when quantised (docs/numerics.md), 0 when float, blended alike."""
        return -float(self.strength)


class BinaryWeight(Quantiser):
    """alpha * sign(w) per output channel. w: (O, C, kh, kw)."""

    widths = range(1, 2)

    def __init__(self) -> None:
        super().__init__(bits=1)

    def codes(self, x: Tensor) -> Tensor:
        """1 where the sign is +, else 0: what the packed file stores."""
        return x.ge(0).to(x.dtype)

    def values(self, code: Tensor, x: Tensor) -> Tensor:
        """What weights of these codes are where the others are x."""
        return binary_scale(x) * (2 * code - 1)

    def quantise(self, x: Tensor, strength: float, pad: int) -> Tensor:
        return BinariseWeight.apply(x, strength)
