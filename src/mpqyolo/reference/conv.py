"""conv: an exact integer convolution and its 16-bit epilogue (docs/numerics.md, section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpqyolo.reference.numerics import bits, mulhrs, quantise_u4, rshift, sat16


def accumulate(x: np.ndarray, weight: np.ndarray, stride: int, pad: int, planes: int = 1) -> np.ndarray:
    """(O, h, w) int64 exact sums of x (C, H, W) and weight (O, kh, kw, C); outside, b1 (int8) is -1, u8 and u4 (uint8) are 0.

    planes 2: x is (2C, H, W), its value 2h + l of the upper bits h and the lower bits l: -3, -1, +1 or +3.

    It multiplies float matrices: products and every partial sum, in any order and fused or not, are integers of at most `reach`,
    which float32 holds exactly to 2^24 and float64 to 2^53, so the result is the integer one.
    """
    outputs, k, _, channels = weight.shape
    if planes == 2:
        x = 2 * x[:channels] + x[channels:]
    reach = channels * k * k * int(np.abs(weight.astype(np.int64)).max()) * max(1, int(np.abs(x.astype(np.int64)).max()))
    real: type[np.floating] = np.float32 if reach <= 1 << 24 else np.float64
    outside = 1 - 2**planes if x.dtype == np.int8 else 0
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)), constant_values=outside).astype(real)
    height, width = ((n + 2 * pad - k) // stride + 1 for n in x.shape[1:])
    taps = weight.astype(real)
    acc = np.zeros((outputs, height * width), real)
    for dy in range(k):
        for dx in range(k):
            rows = slice(dy, dy + (height - 1) * stride + 1, stride)
            columns = slice(dx, dx + (width - 1) * stride + 1, stride)
            acc += taps[:, dy, dx, :] @ padded[:, rows, columns].reshape(channels, -1)
    return acc.astype(np.int64).reshape(outputs, height, width)


def residual(r: np.ndarray, gain: np.ndarray | None, outputs: int) -> np.ndarray:
    """R (O, h, w) of the residual r (Cr, h, w): repeated if Cr <= O, else summed in groups, saturating after each."""
    r = r.astype(np.int64) if gain is None else mulhrs(r, gain[:, None, None])
    channels = r.shape[0]
    if channels <= outputs:
        return np.tile(r, (outputs // channels, 1, 1))
    total = r[:outputs]
    for first in range(outputs, channels, outputs):
        total = sat16(total + r[first : first + outputs])
    return total


def epilogue(
    acc: np.ndarray, shortcut: np.ndarray | None, constants: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
) -> np.ndarray:
    """v (O, h, w) int64 in s16 range, of the exact sums and the shortcut R."""
    c = {role: values.astype(np.int64)[:, None, None] for role, values in constants.items() if role != "weight"}
    last = attributes.get("residual_last") == 1
    v = sat16(rshift(acc, attributes["shift"]))
    v = sat16(mulhrs(v, c["multiplier"]) + c["bias"])
    if shortcut is not None and not last:
        v = sat16(v + shortcut)
    if "slope" in c:
        v = np.where(v >= 0, v, mulhrs(v, c["slope"]))
    if "post" in c:
        v = sat16(v + c["post"])
    if shortcut is not None and last:
        v = sat16(v + shortcut)
    return v


def conv(
    inputs: Sequence[np.ndarray], constants: Mapping[str, np.ndarray], attributes: Mapping[str, Any]
) -> tuple[np.ndarray, ...]:
    """inputs: x (C, H, W) and perhaps the residual; constants by role. One array for each dtype in attribute `outputs`."""
    acc = accumulate(inputs[0], constants["weight"], attributes["stride"], attributes["pad"], attributes.get("planes", 1))
    shortcut = residual(inputs[1], constants.get("gain"), acc.shape[0]) if len(inputs) > 1 else None
    v = epilogue(acc, shortcut, constants, attributes)
    results = []
    for dtype in attributes["outputs"]:
        if dtype == "s16":
            results.append(v.astype(np.int16))
        elif dtype == "u4":
            results.append(quantise_u4(v, attributes["fraction"]).astype(np.uint8))
        else:
            results.append(bits(v, constants["threshold"], attributes.get("step", 0)))
    return tuple(results)
