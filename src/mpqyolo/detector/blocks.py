"""The layers a quantised detector is made of. Each lowers to graph nodes (pack/lower.py); nothing else holds arithmetic.

Three kinds of maps flow between them: the signed *stream* (s16 in the engine), 4-bit *codes*, and pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mpqyolo.graph.ir import STREAM_FRACTION
from mpqyolo.quantize import fused
from mpqyolo.quantize.layers import QuantConv2d
from mpqyolo.quantize.quantiser import Quantiser
from mpqyolo.quantize.ste import Match, NormTail, PoolRepeat, Tail

BN_EPS, BN_MOMENTUM = 1e-3, 0.03
SHORTCUTS, ACTIVATIONS = ("none", "plain", "gain"), ("rprelu", "relu", "none")  # of StreamConv
SLOPE_LIMIT = 1 - 2.0**-15  # slopes and gains are Q15 numbers in the engine


def to_stream(x: Tensor) -> Tensor:
    """x on the grid of the s16 stream (2^-8, saturating at +-128): what the engine stores. For evaluation; training skips it."""
    grid = float(1 << STREAM_FRACTION)
    return x.mul(grid).add_(0.5).floor_().clamp_(-32768, 32767).div_(grid)


class Pixels(nn.Module):
    """uint8 or float (B, 3, H, W) pixels 0..255 -> float 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.input_quantiser: Quantiser | None = None

    def forward(self, images: Tensor) -> Tensor:
        half = self.input_quantiser is None and torch.is_autocast_enabled(images.device.type)
        # 0..255 and 255 are exact in half precision too: rounded once, as the convolution would round the float quotient.
        dtype = torch.get_autocast_dtype(images.device.type) if half else torch.float32
        if images.dtype != torch.uint8:
            x = images / 255
        elif dtype in (torch.float32, torch.bfloat16) and fused.divides(images):
            x = fused.pixels(images, dtype)
        else:
            x = images.to(dtype).div_(255)
        return x if self.input_quantiser is None else self.input_quantiser(x)


@torch.no_grad()
def follow_statistics(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, count: int) -> None:
    """What batch norm does with a batch's mean and biased variance of `count` values a channel."""
    assert norm.momentum is not None and norm.running_mean is not None and norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(var * (count / max(count - 1, 1)), norm.momentum)
    norm.num_batches_tracked.add_(1)


class RPReLU(nn.Module):
    """f(x - before) + after, f(v) = v if v >= 0 else slope * v; all three per channel (ReActNet, Liu et al. 2020)."""

    def __init__(self, channels: int, slope: float = 0.25) -> None:
        super().__init__()
        self.before = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.slope = nn.Parameter(torch.full((1, channels, 1, 1), slope))
        self.after = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor, shortcut: Tensor | None = None, norm: nn.Module | None = None) -> Tensor:
        """Of norm(x) + shortcut, where there are such."""
        slope = self.slope.clamp(-SLOPE_LIMIT, SLOPE_LIMIT)
        if isinstance(norm, nn.BatchNorm2d) and norm.training and norm.momentum is not None and fused.usable(x):
            y, mean, var = NormTail.apply(
                x, shortcut, norm.weight, norm.bias, self.before, slope, self.after, norm.running_mean, norm.eps
            )
            follow_statistics(norm, mean, var, x.numel() // x.shape[1])
            return y
        return Tail.apply(x if norm is None else norm(x), shortcut, self.before, slope, self.after)


class Shortcut(nn.Module):
    """The stream beside a convolution: 2x2 average where the stride is 2; channels repeated, or summed in groups.

    With `gain`, a trainable factor per input channel that starts at 0: a network trained without shortcuts keeps its function.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, gain: bool = False) -> None:
        super().__init__()
        if max(c_in, c_out) % min(c_in, c_out):
            raise ValueError(f"a shortcut needs channel counts that divide each other, got {c_in} and {c_out}")
        self.c_in, self.c_out, self.stride = c_in, c_out, stride
        self.gain = nn.Parameter(torch.zeros(1, c_in, 1, 1)) if gain else None

    def forward(self, x: Tensor) -> Tensor:
        repeat = self.c_out // self.c_in if self.gain is None else 1
        if self.stride == 2:
            x = PoolRepeat.apply(x, max(repeat, 1))
        if self.gain is not None:
            return Match.apply(x, self.gain.clamp(-SLOPE_LIMIT, SLOPE_LIMIT), self.c_out)
        return x if x.shape[1] == self.c_out else Match.apply(x, torch.ones(self.c_in, 1, 1, device=x.device), self.c_out)


class StreamConv(nn.Module):
    """stream -> stream: act(shortcut(x) + BN(conv(q(x)))); q is sign(x - shift) at 1 bit. x: (B, C, H, W).

    shortcut: "none", "plain", or "gain" (starts at 0). act: "rprelu", "relu" or "none".
    With `residual` (a bottleneck's own shortcut) the result is residual + act(...), as in YOLOv5.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        stride: int = 1,
        shortcut: str = "plain",
        act: str = "rprelu",
        padding: int | None = None,
    ) -> None:
        super().__init__()
        self.conv = QuantConv2d(c_in, c_out, kernel, stride, padding)
        self.bn = nn.BatchNorm2d(c_out, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.shortcut = None if shortcut == "none" else Shortcut(c_in, c_out, stride, gain=shortcut == "gain")
        acts: dict[str, Callable[[], nn.Module]] = {"rprelu": lambda: RPReLU(c_out), "relu": nn.ReLU, "none": nn.Identity}
        self.act = acts[act]()

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        y = self.conv(x)
        beside = None if self.shortcut is None else self.shortcut(x)
        if isinstance(self.act, RPReLU):
            y = self.act(y, beside, self.bn)
        else:
            y = self.bn(y)
            y = self.act(y if beside is None else y + beside)
        if residual is not None:
            y = residual + y
        return y if self.training else self.settle(y)

    def settle(self, y: Tensor) -> Tensor:
        """In evaluation a quantised layer's output lies on the engine's grid."""
        return to_stream(y) if self.conv.weight_quantiser is not None and float(self.conv.weight_quantiser.strength) == 1 else y


class Stem(StreamConv):
    """pixels -> stream: act(BN(conv(pixels)))."""

    def __init__(self, c_out: int, kernel: int = 3, stride: int = 2, act: str = "rprelu", padding: int | None = None) -> None:
        super().__init__(3, c_out, kernel, stride, shortcut="none", act=act, padding=padding)


class Code(nn.Module):
    """Makes 4-bit codes of a map: LSQ where quantised, ReLU where float. Maps that meet in a concat share `quantiser`."""

    def __init__(self) -> None:
        super().__init__()
        self.quantiser: Quantiser | None = None

    def forward(self, x: Tensor) -> Tensor:
        return x.relu() if self.quantiser is None else self.quantiser(x)


class CodeConv(nn.Module):
    """codes -> codes: Code(BN(conv(x))). x: (B, C, H, W)."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = QuantConv2d(c_in, c_out, kernel, stride)
        self.bn = nn.BatchNorm2d(c_out, eps=BN_EPS, momentum=BN_MOMENTUM)
        self.code = Code()

    def forward(self, x: Tensor) -> Tensor:
        return self.code(self.bn(self.conv(x)))


class ToCode(nn.Module):
    """stream -> codes: Code(x - shift), shift per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.code = Code()

    def forward(self, x: Tensor) -> Tensor:
        return self.code(x - self.shift.to(x.dtype))


class Predict(QuantConv2d):
    """codes -> one prediction map: a 1x1 convolution with bias. x: (B, C, h, w) -> (B, outputs, h, w)."""

    bias: nn.Parameter  # always there

    def __init__(self, c_in: int, outputs: int) -> None:
        super().__init__(c_in, outputs, 1, bias=True)
