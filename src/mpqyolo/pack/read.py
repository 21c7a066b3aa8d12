"""Reads what lowering needs out of trained layers: integer weights, batch norms, activations, quantisers; refuses all else."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from mpqyolo.core.errors import PackError
from mpqyolo.detector.blocks import RPReLU, Shortcut
from mpqyolo.pack.fold import Sums, reach
from mpqyolo.quantize.binary import BinaryActivation, BinaryWeight
from mpqyolo.quantize.layers import QuantConv2d
from mpqyolo.quantize.lsq import LsqActivation, LsqWeight
from mpqyolo.quantize.quantiser import Quantiser
from mpqyolo.quantize.ste import binary_scale

SLOPE_TOP = 1 - 2.0**-15


class Weights(NamedTuple):
    """Integer weights (O, kh, kw, C) int8 of type w1, w4 or w8, and the real value of one (O,)."""

    dtype: str
    codes: np.ndarray
    scale: np.ndarray


class Linear(NamedTuple):
    """The real result `factor * acc + offset` of a convolution, each (O,), and what is known of acc."""

    factor: np.ndarray
    offset: np.ndarray
    sums: Sums


class Act(NamedTuple):
    """f(x - before) + after, f(v) = v if v >= 0 else slope * v; each (O,); slope and after None where there is none."""

    before: np.ndarray
    slope: np.ndarray | None = None
    after: np.ndarray | None = None


def numbers(tensor: Tensor) -> np.ndarray:
    """A tensor of one number a channel as (channels,) float64."""
    return tensor.detach().cpu().double().reshape(-1).numpy()


def ready(quantiser: Quantiser | None, layer: str, what: str) -> Quantiser:
    """The quantiser, if it is there and fully on. Raises PackError."""
    if quantiser is None:
        raise PackError(f"layer '{layer}': its {what} are float; only networks with a quantised policy can be packed")
    strength = float(quantiser.strength)
    if strength != 1:
        raise PackError(f"layer '{layer}': its {what} are quantised to {strength:.0%} only; finish the training first")
    if not bool(quantiser.initialised):
        raise PackError(f"layer '{layer}': the quantiser of its {what} never saw data; train it first")
    return quantiser


def code_quantiser(quantiser: Quantiser | None, layer: str, bits: tuple[int, ...] = (4,)) -> LsqActivation:
    """An LSQ quantiser of unsigned codes of so many bits, fully on. Raises PackError."""
    found = ready(quantiser, layer, "activations")
    if not isinstance(found, LsqActivation) or found.bits not in bits:
        known = " or ".join(map(str, bits))
        raise PackError(f"layer '{layer}': its activations have {found.bits} bits; the engine computes here with {known}")
    if not 0 < float(found.scale.detach()) < math.inf:
        raise PackError(f"layer '{layer}': a scale of its activations is {float(found.scale.detach())}; the training went wrong")
    return found


def weights(conv: QuantConv2d, layer: str) -> Weights:
    """The convolution's weights as the file stores them. Raises PackError if they are not quantised."""
    quantiser = ready(conv.weight_quantiser, layer, "weights")
    w = conv.weight.detach()
    if not bool(w.isfinite().all()):
        raise PackError(f"layer '{layer}': its weights are not finite; the training went wrong")
    if isinstance(quantiser, BinaryWeight):
        dtype, code, scale = "w1", 2 * w.ge(0).int() - 1, binary_scale(w)
    elif isinstance(quantiser, LsqWeight) and quantiser.bits in (4, 8):
        dtype, code, scale = f"w{quantiser.bits}", quantiser.codes(w), quantiser.scale_of(w)
    else:
        raise PackError(f"layer '{layer}': weights of {quantiser.bits} bits have no type in the file; it knows 1, 4 and 8")
    codes = code.detach().permute(0, 2, 3, 1).cpu().numpy().astype(np.int8)
    return Weights(dtype, codes, np.broadcast_to(numbers(scale), len(codes)))


def coarser(w: Weights, channel: int) -> Weights:
    """The same weights, those of one channel with a bit less: steps of twice the size."""
    codes, scale = w.codes.copy(), w.scale.copy()
    codes[channel] = np.rint(codes[channel] / 2)
    scale[channel] *= 2
    return Weights(w.dtype, codes, scale)


class Map(NamedTuple):
    """What a convolution reads: the graph's dtype, the real value of a step of 1, planes, and where 0 lies.

    Codes of training from 0 to n - 1 of one or two bits are the graph's odd values from -(n - 1) to n - 1: `zero` is n - 1 then.
    """

    dtype: str
    scale: float
    planes: int = 1
    zero: int = 0


def linear(conv: QuantConv2d, bn: nn.Module | None, w: Weights, x: Map, layer: str) -> Linear:
    """What convolution, bias and batch norm make of acc, in real units. x: the map that the convolution reads."""
    factor = w.scale * x.scale
    offset = x.zero * factor * w.codes.sum((1, 2, 3), dtype=np.int64)
    if conv.bias is not None:
        offset = offset + numbers(conv.bias)
    sums = Sums(reach(w.codes, x.dtype, x.planes))
    if bn is not None:
        if not isinstance(bn, nn.BatchNorm2d) or bn.running_mean is None or bn.running_var is None:
            raise PackError(f"layer '{layer}': {type(bn).__name__} cannot be folded into its convolution")
        mean, var = numbers(bn.running_mean), numbers(bn.running_var)
        # Statistics are of the convolution's real output, bias included.
        with np.errstate(divide="ignore", invalid="ignore"):
            known = np.where(factor > 0, (mean - offset) / factor, 0), np.where(factor > 0, np.sqrt(var) / factor, 0)
        sums = Sums(sums.reach, *known)
        gain = 1 / np.sqrt(var + bn.eps)
        shift = np.zeros_like(gain)
        if bn.affine:
            gain, shift = gain * numbers(bn.weight), numbers(bn.bias)
        factor, offset = factor * gain, (offset - mean) * gain + shift
    if not (np.isfinite(factor).all() and np.isfinite(offset).all()):
        raise PackError(f"layer '{layer}': its batch norm or bias is not finite; the training went wrong")
    return Linear(factor, offset, sums)


def activation(act: nn.Module, channels: int, layer: str) -> Act:
    """Raises PackError for an activation that the graph does not have."""
    zeros = np.zeros(channels)
    if isinstance(act, nn.Identity):
        return Act(zeros)
    if isinstance(act, nn.ReLU):
        return Act(zeros, zeros)
    if isinstance(act, RPReLU):
        return Act(numbers(act.before), np.clip(numbers(act.slope), -SLOPE_TOP, SLOPE_TOP), numbers(act.after))
    raise PackError(f"layer '{layer}': the activation {type(act).__name__} has no integer form; use rprelu, relu or none")


def gain(shortcut: Shortcut) -> np.ndarray | None:
    """Factors of the shortcut's input channels, or None."""
    return None if shortcut.gain is None else np.clip(numbers(shortcut.gain), -SLOPE_TOP, SLOPE_TOP)


def stream_quantiser(conv: QuantConv2d, layer: str) -> BinaryActivation | LsqActivation:
    """How the layer quantises the stream that it reads. Raises PackError."""
    found = ready(conv.input_quantiser, layer, "input activations")
    return found if isinstance(found, BinaryActivation) else code_quantiser(found, layer, (1, 2, 4))
