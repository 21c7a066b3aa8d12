"""QuantConv2d: a convolution with a slot for the quantiser of its input and one for the quantiser of its weights."""

from __future__ import annotations

from torch import Tensor, nn

from mpqyolo.quantize.convolve import conv2d
from mpqyolo.quantize.quantiser import Quantiser


class QuantConv2d(nn.Conv2d):
    """Convolution without groups. x: (B, C, H, W) -> (B, O, H', W').

    `input_quantiser` is None where the producer already quantised the map (4-bit neck) or the policy is float;
    `weight_quantiser` is None in float. Both are put there by quantize/apply.py, once, from the BitPolicy.
    """

    padding: tuple[int, int]  # never a word

    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int = 1, padding: int | None = None, bias: bool = False
    ) -> None:
        super().__init__(c_in, c_out, kernel, stride, kernel // 2 if padding is None else padding, bias=bias)
        self.input_quantiser: Quantiser | None = None
        self.weight_quantiser: Quantiser | None = None

    def forward(self, x: Tensor) -> Tensor:
        padding, border = self.padding[0], 0
        if self.input_quantiser is not None:
            if padding > 0 and self.input_quantiser.pad_value() != 0:
                padding, border = 0, padding
            x = self.input_quantiser(x, border)
        weight = self.weight if self.weight_quantiser is None else self.weight_quantiser(self.weight)
        return conv2d(x, weight, self.bias, self.stride[0], padding, border)
