"""The work of a training step in our own loops: element by element in single passes (engine/train/train_ops.cpp), and
convolutions (engine/train/conv.cpp).

Chains of torch operations spend most of a step on temporaries and on broadcasting channels. Each function here does the same
arithmetic in one pass, for float32 and bfloat16 maps in channels-last memory. `usable` says whether a tensor qualifies; if not (a
GPU, no library, a CPU without AVX2), the autograd functions of `ste.py` use torch's own operations: same results, slower.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpqyolo.core.errors import ConfigError
from mpqyolo.runtime._load import places

_NAME, _NAME_WIDE = "libmpqtrain.so", "libmpqtrain_avx512.so"  # one source, registers of 256 and of 512 bits
VERSION = 6  # of the functions' arguments, as in engine/train/train_ops.cpp
_FLOAT, _INT = ctypes.c_float, ctypes.c_int64


@cache
def _library() -> ctypes.CDLL | None:
    """The library: of environment variable MPQ_TRAIN_OPS (a path, or "none"), of the package, or of a development build.

    Raises ConfigError for one that was built from other sources than these, or cannot be loaded.
    """
    chosen = os.environ.get("MPQ_TRAIN_OPS")
    if chosen == "none" or not torch.cpu._is_avx2_supported():
        return None
    names = [_NAME_WIDE, _NAME] if torch.cpu._is_avx512_supported() else [_NAME]
    for place in [Path(chosen)] if chosen else chain.from_iterable(map(places, names)):
        if place.is_file():
            try:
                library = ctypes.CDLL(str(place))
            except OSError as fault:
                raise ConfigError(f"{place}: cannot be loaded: {fault}; build it again (HACKING.md)") from None
            if getattr(library, "mpqt_version", int)() != VERSION:
                raise ConfigError(f"{place}: was built from other sources than this package's; build it again (HACKING.md)")
            return library
    if chosen:  # to go on without it would be several times slower, and say nothing
        raise ConfigError(f"MPQ_TRAIN_OPS: there is no file {chosen}; say none to train by torch's own operations")
    return None


@cache
def _function(name: str) -> Callable[..., None]:
    library = _library()
    assert library is not None
    function = getattr(library, name)
    function.restype = None
    return function


_threads = 0


def _call(name: str, *arguments: Any) -> None:
    global _threads
    if (wanted := torch.get_num_threads()) != _threads:
        _function("mpqt_threads")(ctypes.c_int(wanted), getattr(ctypes.CDLL(None), "GOMP_parallel", None))
        _threads = wanted
    plain = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else a for a in arguments]
    _function(name)(*plain)


def _call_typed(name: str, like: Tensor, *arguments: Any) -> None:
    _call(name, ctypes.c_int(like.dtype == torch.bfloat16), *arguments)


def keep_memory() -> None:
    """Have glibc keep what is freed: a step takes and frees the same maps again and again, and new pages cost 5 % of it."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        trim, top_pad, mmap = (-1, -2, -3)  # M_TRIM_THRESHOLD and so on of malloc.h
        for setting, size in ((mmap, 1 << 25), (trim, (1 << 31) - 1), (top_pad, 1 << 28)):
            mallopt(ctypes.c_int(setting), ctypes.c_int(size))


def _ours(x: Tensor) -> bool:
    """Whether our loops may stand in for torch's operations on x: on the CPU, and not while a trace has to see them."""
    return x.device.type == "cpu" and not torch.jit.is_tracing() and _library() is not None


def usable(x: Tensor) -> bool:
    """Whether x (B, C, H, W) can be worked on in place of torch."""
    return x.dtype in (torch.float32, torch.bfloat16) and x.dim() == 4 and _ours(x)


@cache
def _wide() -> bool:
    """Whether torch's convolutions have registers of 512 bits, where ours have 256."""
    return torch.cpu._is_avx512_supported()


def convolves(x: Tensor, weight: Tensor) -> bool:
    """Whether our convolutions can take these and are the faster ones: float32, 8 channels or more, without AVX-512."""
    exact = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    square = weight.shape[2] == weight.shape[3] and weight.shape[1] >= 8
    return exact and square and usable(x) and not _wide()


def packed(x: Tensor) -> Tensor:
    """x in channels-last memory; itself where it lies so already."""
    return x.contiguous(memory_format=torch.channels_last)


def _rows(x: Tensor) -> tuple[Any, Any]:
    channels = x.shape[1]
    return _INT(x.numel() // max(channels, 1)), _INT(channels)


def _numbers(parameter: Tensor) -> Tensor:
    return parameter.detach().float().contiguous()


def _beside(r: Tensor | None, z: Tensor) -> Tensor | None:
    """r, which our loops read as far as z goes."""
    if r is not None and r.shape != z.shape:
        raise ValueError(f"a map of shape {tuple(r.shape)} cannot be added to one of {tuple(z.shape)}")
    return r


def tail_forward(z: Tensor, r: Tensor | None, before: Tensor, slope: Tensor, after: Tensor, gain: Tensor | None = None) -> Tensor:
    """f(gain * z + r - before) + after, f the PReLU of `slope`; z, r: packed, of one type; others: C numbers each."""
    y = torch.empty_like(z)
    numbers = [_numbers(p) for p in (torch.ones(z.shape[1]) if gain is None else gain, before, slope, after)]
    _call_typed("mpqt_tail_forward", z, *_rows(z), z, _beside(r, z), *numbers, y)
    return y


def tail_backward(
    g: Tensor,
    z: Tensor,
    r: Tensor | None,
    before: Tensor,
    slope: Tensor,
    gain: Tensor | None = None,
    mean: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradient dv of gain * z (and of r), and (4, C) sums: of dv, of g * v where v < 0, of g, of dv * (z - mean)."""
    dv, sums = torch.empty_like(z), torch.empty(4, z.shape[1])
    gain = torch.ones(z.shape[1]) if gain is None else gain
    mean = torch.zeros(z.shape[1]) if mean is None else mean
    numbers = [_numbers(p) for p in (gain, before, slope, mean)]
    _call_typed("mpqt_tail_backward", z, *_rows(z), g, z, r, *numbers, dv, sums)
    return dv, sums


def moments(z: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel, float32; near: C numbers that are not far from the means."""
    sums, near = torch.empty(2, z.shape[1]), _numbers(near)
    _call_typed("mpqt_moments", z, *_rows(z), z, near, sums)
    off, square = sums / (z.numel() / z.shape[1])
    return near + off, (square - off * off).clamp_(min=0)


def norm_backward(dv: Tensor, z: Tensor, gain: Tensor, slope: Tensor, offset: Tensor, reuse: bool) -> Tensor:
    """gain * dv - slope * z + offset, C numbers each; in dv's memory if `reuse`."""
    dz = dv if reuse else torch.empty_like(dv)
    numbers = [_numbers(p) for p in (gain, slope, offset)]
    _call_typed("mpqt_norm_backward", z, *_rows(z), dv, z, *numbers, dz)
    return dz


def _border(x: Tensor, pad: int) -> list[Any]:
    b, c, h, w = x.shape
    return [_INT(v) for v in (b, h, w, c, pad)]


def sign_forward(x: Tensor, shift: Tensor, strength: float, pad: int = 0) -> Tensor:
    """strength * sign(x - shift) + (1 - strength) * (x - shift), in a border of `pad` times -strength."""
    b, c, h, w = x.shape
    y = torch.empty((b, c, h + 2 * pad, w + 2 * pad), dtype=x.dtype, memory_format=torch.channels_last)
    numbers = _numbers(shift)
    _call_typed("mpqt_sign_forward", x, *_border(x, pad), x, numbers, _FLOAT(strength), y)
    return y


def sign_backward(g: Tensor, x: Tensor, shift: Tensor, strength: float, ste: int, pad: int = 0) -> tuple[Tensor, Tensor]:
    """Gradient of x, and its sum over all but channels (C,); g has the border."""
    dx, sums = torch.empty_like(x), torch.empty(x.shape[1])
    numbers = _numbers(shift)
    _call_typed("mpqt_sign_backward", x, *_border(x, pad), g, x, numbers, _FLOAT(strength), ctypes.c_int(ste), dx, sums)
    return dx, sums


def lsq_forward(x: Tensor, shift: Tensor | None, scale: float, low: int, high: int, strength: float) -> Tensor:
    """The forward formula of `ste.LsqQuantise` for one scale a map."""
    y = torch.empty_like(x)
    _call_typed("mpqt_lsq_forward", x, *_rows(x), x, _shift(x, shift), *_lsq(scale, low, high, strength), y)
    return y


def lsq_backward(
    g: Tensor, x: Tensor, shift: Tensor | None, scale: float, low: int, high: int, strength: float
) -> tuple[Tensor, Tensor]:
    """Gradient of x, and (2, C) sums: of that gradient, and of what the scale's gradient is a multiple of."""
    dx, sums = torch.empty_like(x), torch.empty(2, x.shape[1])
    _call_typed("mpqt_lsq_backward", x, *_rows(x), g, x, _shift(x, shift), *_lsq(scale, low, high, strength), dx, sums)
    return dx, sums


def lsq_rows_forward(x: Tensor, scale: Tensor, low: int, high: int, strength: float) -> Tensor:
    """The same for weights (O, C, kh, kw), packed, with a scale for each of O; low is below 0. As `weight_type` says."""
    y = torch.empty_like(x, dtype=weight_type())
    _call_typed("mpqt_lsq_rows_forward", y, *_filters(x), x, _numbers(scale), *_lsq(low, high, strength), y)
    return y


def lsq_rows_backward(g: Tensor, x: Tensor, scale: Tensor, low: int, high: int, strength: float) -> tuple[Tensor, Tensor]:
    """Gradient of x, and (O,) sums that the scales' gradients are multiples of."""
    dx, sums = torch.empty_like(x), torch.empty(x.shape[0])
    _call_typed("mpqt_lsq_rows_backward", g, *_filters(x), g, x, _numbers(scale), *_lsq(low, high, strength), dx, sums)
    return dx, sums


def binarise_forward(w: Tensor, strength: float) -> Tensor:
    """The forward formula of `ste.BinariseWeight` for packed weights, as `weight_type` says."""
    y = torch.empty_like(w, dtype=weight_type())
    _call_typed("mpqt_binarise_forward", y, *_filters(w), w, _FLOAT(strength), y)
    return y


def binarise_backward(g: Tensor, w: Tensor) -> Tensor:
    """g where |w| <= 1, else 0; float32."""
    dw = torch.empty_like(w)
    _call_typed("mpqt_binarise_backward", g, *_filters(w), g, w, dw)
    return dw


def weight_type() -> torch.dtype:
    """In what type convolutions want weights now: made in it, they need not be cast."""
    half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return torch.bfloat16 if half else torch.float32


def weights_usable(w: Tensor) -> bool:
    """Whether `binarise_forward` can take these."""
    return w.dtype == torch.float32 and usable(w)


def divides(images: Tensor) -> bool:
    """Whether `pixels` can take these."""
    dense = images.is_contiguous() or images.is_contiguous(memory_format=torch.channels_last)
    return images.dtype == torch.uint8 and dense and _ours(images)


def pixels(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes divided by 255, rounded once: float32 or bfloat16."""
    y = torch.empty_like(images, dtype=dtype)
    _call_typed("mpqt_pixels", y, _INT(images.numel()), images, y)
    return y


def _filters(w: Tensor) -> tuple[Any, Any]:
    return _INT(w.shape[0]), _INT(w[0].numel())


def by_rows(x: Tensor, scale: Tensor) -> bool:
    """Whether `lsq_rows_forward` can take these."""
    each = scale.dim() == 4 and scale.shape[0] == scale.numel() == x.shape[0]
    return each and weights_usable(x)


def _shift(x: Tensor, shift: Tensor | None) -> Tensor:
    return torch.zeros(x.shape[1]) if shift is None else _numbers(shift)


def _lsq(*numbers: float) -> list[Any]:
    return [_FLOAT(number) for number in numbers]


def pool_forward(x: Tensor, repeat: int) -> Tensor:
    """2x2 average, stride 2, and the channels `repeat` times over: (B, C, H, W) -> (B, repeat * C, H/2, W/2)."""
    b, c, h, w = x.shape
    y = torch.empty((b, repeat * c, h // 2, w // 2), dtype=x.dtype, memory_format=torch.channels_last)
    _call_typed("mpqt_pool_forward", x, *(_INT(v) for v in (b, h, w, c, repeat)), x, y)
    return y


def pool_backward(g: Tensor, repeat: int) -> Tensor:
    """Gradient of `pool_forward`'s input, whose height and width were even."""
    b, c, h, w = g.shape
    dx = torch.empty((b, c // repeat, 2 * h, 2 * w), dtype=g.dtype, memory_format=torch.channels_last)
    _call_typed("mpqt_pool_backward", g, *(_INT(v) for v in (b, 2 * h, 2 * w, c // repeat, repeat)), g, dx)
    return dx


def match_forward(x: Tensor, gain: Tensor, channels: int) -> Tensor:
    """gain * x (C numbers), packed, its channels repeated or summed in groups, so that there are `channels`."""
    b, _, h, w = x.shape
    y = torch.empty((b, channels, h, w), dtype=x.dtype, memory_format=torch.channels_last)
    numbers = _numbers(gain)
    _call_typed("mpqt_match_forward", x, *_rows(x), _INT(channels), x, numbers, y)
    return y


def match_backward(g: Tensor, x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `match_forward`'s x, and of its gain (C,)."""
    dx, sums, numbers = torch.empty_like(x), torch.empty(x.shape[1]), _numbers(gain)
    _call_typed("mpqt_match_backward", x, *_rows(x), _INT(g.shape[1]), g, x, numbers, dx, sums)
    return dx, sums


def _conv(x: Tensor, weight: Tensor, *setting: int) -> list[Any]:
    """What all three convolutions are told: images, h, w, c, o, k, and the setting."""
    b, c, h, w = x.shape
    return [_INT(v) for v in (b, h, w, c, weight.shape[0], weight.shape[2], *setting)]


def conv_forward(x: Tensor, weight: Tensor, stride: int, pad: int) -> Tensor:
    """conv2d of packed x (B, C, H, W) and packed weight (O, C, k, k), zeros around x."""
    b, _, h, w = x.shape
    o, _, k, _ = weight.shape
    shape = (b, o, (h + 2 * pad - k) // stride + 1, (w + 2 * pad - k) // stride + 1)
    y = torch.empty(shape, memory_format=torch.channels_last)
    _call("mpqt_conv_forward", *_conv(x, weight, stride, pad), x, weight, y)
    return y


def conv_data(g: Tensor, x: Tensor, weight: Tensor, stride: int, pad: int, border: int) -> Tensor:
    """The gradient of `conv_forward`'s x; 0 in a border of so many pixels, whatever g is."""
    dx = torch.empty_like(x)
    _call("mpqt_conv_data", *_conv(x, weight, stride, pad, border), g, weight, dx)
    return dx


def conv_weights(g: Tensor, x: Tensor, weight: Tensor, stride: int, pad: int) -> Tensor:
    """The gradient of `conv_forward`'s weight."""
    dw = torch.empty_like(weight)
    _call("mpqt_conv_weights", *_conv(x, weight, stride, pad), x, g, dw)
    return dw
