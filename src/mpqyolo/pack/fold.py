"""Arithmetic of constants: real factors and offsets of a layer's channels -> the 16-bit numbers of its epilogue.

A convolution's real result is `factor * acc + offset` per channel, acc the exact sum of weight codes and map codes. The engine
computes it as `mulhrs(sat16(rshift(acc, shift)), M) + B` in units of the output (docs/numerics.md, section 4). Everything is
float64 and numpy; results are integers that the format can hold, or a PackError that names the layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from mpqyolo.core.errors import PackError
from mpqyolo.graph.ops import MAX_CODE

Q15 = 1 << 15
TOP = 32767
SHIFTS = range(-15, 17)
TOP_CODE = 15
LARGEST_FRACTION = 11  # code 15 and its rounding half, 15.5 * 2^11, is the last that fits 16 bits
QUIETER = [1 - k / 20 for k in range(16)]  # what may be left of the greatest factor where one shift cannot serve all channels
FAR = (16, 8, 5, 3)  # standard deviations: sums beyond are given up where 16 bits cannot hold all that is possible


@dataclass(frozen=True)
class Sums:
    """What is known of a layer's sums, each (O,): greatest |acc| possible; mean and standard deviation in training, if known."""

    reach: np.ndarray
    mean: np.ndarray | None = None
    std: np.ndarray | None = None

    @property
    def needed(self) -> tuple[np.ndarray, ...]:
        """|acc| that 16 bits should hold, the best first: all that is possible, then what no photo exceeds."""
        if self.mean is None or self.std is None:
            return self.reach, self.reach / 4
        return self.reach, *(np.minimum(self.reach, np.abs(self.mean) + far * self.std) for far in FAR)

    @property
    def usual(self) -> np.ndarray:
        """|acc| that most stay below: what errors are weighed at."""
        if self.mean is None or self.std is None:
            return self.reach / 8
        return np.minimum(self.reach, np.abs(self.mean) + 2 * self.std)

    @property
    def widest(self) -> int:
        """The channel whose sums need the most room."""
        return int(self.needed[-1].argmax())


@dataclass(frozen=True)
class Epilogue:
    """Constants of one convolution. fraction: of u4 outputs. error: bound of |engine - real| in output steps, no saturation.

    held: channels whose factor is smaller than it should be, and what is left of it (see _quieter).
    """

    shift: int
    multiplier: np.ndarray
    bias: np.ndarray
    error: np.ndarray
    fraction: int = 0
    held: dict[int, float] = field(default_factory=dict)


def reach(codes: np.ndarray, dtype: str, planes: int = 1) -> np.ndarray:
    """(O,) greatest |acc| of weight codes (O, kh, kw, C) on maps of this dtype: exact, both signs and all paddings thought of."""
    wide = codes.astype(np.int64).reshape(len(codes), -1)
    if dtype == "b1":
        return (2**planes - 1) * np.abs(wide).sum(1)
    # Codes are not negative: the sum is greatest with all positive weights on the largest code and the others on 0.
    return MAX_CODE[dtype] * np.maximum(np.where(wide > 0, wide, 0).sum(1), -np.where(wide < 0, wide, 0).sum(1))


def i16(values: np.ndarray, layer: str, what: str, lowest: int = -32768) -> np.ndarray:
    """Rounded to int16. Raises PackError if one is out of lowest..32767."""
    rounded = np.rint(np.asarray(values, np.float64))
    if not np.isfinite(rounded).all():
        raise PackError(f"layer '{layer}': its {what} is not finite; the training went wrong")
    worst = rounded.flat[np.abs(rounded).argmax()] if rounded.size else 0
    if rounded.min(initial=0) < lowest or rounded.max(initial=0) > TOP:
        raise PackError(
            f"layer '{layer}': its {what} reaches {worst:.0f}, 16 bits hold {lowest}..{TOP}; train it further or anew"
        )
    return rounded.astype(np.int16)


def q15(values: np.ndarray, layer: str, what: str) -> np.ndarray:
    """Factors between -1 and 1 as Q15 numbers; -32768 is no factor, and 1 is the largest one."""
    return i16(np.minimum(np.asarray(values, np.float64) * Q15, TOP), layer, what, lowest=-TOP)


def thresholds(shift: np.ndarray, fraction: int, layer: str) -> np.ndarray:
    """T with `code >= T` exactly where `code * 2^-fraction >= shift`: code >= shift * 2^fraction, and codes are integers."""
    # A threshold below all codes is met by all of them: -32768 says the same.
    return i16(np.maximum(np.ceil(np.asarray(shift, np.float64) * 2.0**fraction), -32768), layer, "threshold")


def ladder(shift: np.ndarray, scale: float, fraction: int, layer: str) -> tuple[np.ndarray, int]:
    """T and D with codes 0..3 of x = clamp(floor((x - shift) / scale + 1/2), 0, 3): its three edges are T - D, T and T + D.

    Code k begins at shift + (k - 1/2) * scale. The edges beside the middle are off by less than half a step of the stream.
    """
    step = int(np.rint(scale * 2.0**fraction))
    if not 1 <= step <= TOP:
        raise PackError(f"layer '{layer}': a code of its activations is {step} steps of the stream, must be 1..{TOP}")
    return thresholds(shift + 1.5 * scale, fraction, layer), step


def best_shift(factor: np.ndarray, needed: np.ndarray, usual: np.ndarray) -> int | None:
    """The shift with the least error, or None if there is none with which M = factor * 2^(15+shift) and acc >> shift fit.

    factor: output steps per unit of acc; needed: |acc| that must not saturate; usual: |acc| that the error is weighed at.
    Errors in half steps: the rounding of acc (only to the right) becomes M * 2^-15, that of M becomes (acc >> shift) * 2^-15.
    """
    best, least = None, np.inf
    for shift in SHIFTS:
        m = np.abs(factor) * 2.0 ** (15 + shift)
        if m.max() > TOP + 0.49 or (needed * 2.0**-shift).max() > TOP + 0.49:
            continue
        error = float(np.hypot(m * (shift > 0), usual * 2.0**-shift).max())
        if error <= least:  # of equals the later: its M are larger
            best, least = shift, error
    return best


def stream(factor: np.ndarray, offset: np.ndarray, sums: Sums, layer: str) -> Epilogue:
    """Constants of an s16 output. factor, offset: (O,) in output steps.

    The multiplication saturates at 2^15 steps, so sums beyond 2^15 / factor need not be held. Where that does not fit 16 bits,
    half or a quarter of it must do (of factors 0.6 and 1.1, one shift cannot hold all): +-32 in the stream, +-8 in predictions,
    which are 2^8 to one, for all that is possible, and most sums are far from that. Then less. A channel whose output moves by
    less than a step becomes constant.
    """
    wanted, offset = steady(factor, offset, sums, 1)
    for factor in _quieter(wanted):
        size = np.abs(factor)  # of a constant, 0: no sum of its needs to be held
        limit = np.divide(TOP - 1, size, out=np.zeros_like(size), where=size > 0)
        for needed in sums.needed:
            for held in (limit, limit / 2, limit / 4):
                shift = best_shift(factor, np.minimum(needed, held), sums.usual)
                if shift is not None:
                    return _epilogue(factor, wanted, offset, sums, shift, layer)
    raise _unequal(wanted, sums, layer)


def codes(factor: np.ndarray, offset: np.ndarray, sums: Sums, layer: str) -> Epilogue:
    """Constants of a u4 output: code = clamp(floor(factor * acc + offset + 1/2), 0, 15); factor, offset: (O,) in codes.

    v counts in 2^-fraction codes. The largest fraction is taken with which all that can become a code from 0 to 15 fits: products
    between -offset and 15.5 - offset, and the sums that make them.
    """
    wanted, offset = steady(factor, offset, sums, 1 / 64)
    product = np.maximum(np.abs(offset), np.abs(TOP_CODE + 0.5 - offset))
    for factor in _quieter(wanted):
        size = np.abs(factor)
        limit = np.divide(product, size, out=np.zeros_like(size), where=size > 0)
        for reachable in sums.needed:
            needed = np.minimum(reachable, limit)
            for fraction in range(LARGEST_FRACTION, 3, -1):
                step = 2.0**fraction
                if (np.minimum(product, needed * size) * step).max() > TOP - 1 or (np.abs(offset) * step + step / 2).max() > TOP:
                    continue
                shift = best_shift(factor * step, needed, np.minimum(sums.usual, needed))
                if shift is not None:
                    # `v >> fraction` rounds down what mulhrs rounded to nearest: half a step less than the half is unbiased.
                    half = step / 2 - 0.5
                    return _epilogue(factor * step, wanted * step, offset * step + half, sums, shift, layer, fraction)
    raise _unequal(wanted, sums, layer)


def _quieter(factor: np.ndarray) -> Iterator[np.ndarray]:
    """The factors as they are; then, for want of a shift, the loudest channels held to 95 % of the loudest, to 90 %, ... to 25 %.

    Mostly the first few are enough. A channel that is much louder than the others hardly moves before its batch norm; the
    integer network is what a run's evaluations judge, so what this costs is seen there.
    """
    loudest = np.abs(factor).max(initial=0)
    for share in QUIETER:
        yield np.clip(factor, -loudest * share, loudest * share)


def _unequal(factor: np.ndarray, sums: Sums, layer: str) -> PackError:
    """One shift serves all channels: the greatest factor and the greatest sum, of whichever channels, must fit together."""
    loudest, widest = int(np.abs(factor).argmax()), sums.widest
    return PackError(
        f"layer '{layer}': channel {loudest}, which hardly moves before its batch norm, and channel {widest} with its large sums "
        "do not fit the same 16 bits; train it longer or at a lower rate"
    )


def steady(factor: np.ndarray, offset: np.ndarray, sums: Sums, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Channels that move by less than `least` as constants, their value at the mean. Dead ones, whose batch norm divides by
    almost nothing, would have huge factors."""
    if sums.mean is None or sums.std is None:
        return factor, offset
    dead = np.abs(factor) * sums.std < least
    return np.where(dead, 0, factor), np.where(dead, factor * sums.mean + offset, offset)


def requantise(scale: float, shift: np.ndarray, left: int, layer: str) -> Epilogue:
    """M, B and fraction of u4 codes clamp(floor(x * scale - shift + 1/2), 0, 15) of integers x that come in as x << left.

    scale: codes per unit of x; shift: (C,) in codes. M = scale * 2^(15 - left + fraction) below 2^15 decides the fraction.
    """
    if not 0 < scale < np.inf:
        raise PackError(f"layer '{layer}': a scale of its activations is {scale}; the training went wrong")
    high = float(np.abs(shift).max(initial=0)) + 1
    for fraction in range(LARGEST_FRACTION, -1, -1):
        m = scale * 2.0 ** (15 - left + fraction)
        if np.rint(m) <= TOP and high * 2.0**fraction <= TOP:
            bias = i16((0.5 - shift) * 2.0**fraction - 0.5, layer, "shift")
            multiplier = np.full(len(bias), np.rint(m), np.int16)
            error = np.full(len(bias), 1 + 0.5 * TOP / Q15)
            return Epilogue(0, multiplier, bias, error, fraction)
    raise PackError(f"layer '{layer}': a code is smaller than one step of its input; train it longer or at a lower rate")


def _epilogue(
    factor: np.ndarray, wanted: np.ndarray, offset: np.ndarray, sums: Sums, shift: int, layer: str, fraction: int = 0
) -> Epilogue:
    """wanted: the factors before the loudest were held down."""
    multiplier = i16(factor * 2.0 ** (15 + shift), layer, "factor", lowest=-TOP)
    # Rounding of acc (to the right), of M, of mulhrs and of B, half a step each of what it rounds; exact for a shift to the left.
    a = sums.reach * 2.0**-shift + 0.5
    error = 0.5 * (np.abs(multiplier.astype(np.float64)) / Q15 * (shift > 0) + np.minimum(a, TOP) / Q15) + 1
    error = error + np.abs(wanted - factor) * sums.reach
    held = {int(channel): float(factor[channel] / wanted[channel]) for channel in np.flatnonzero(wanted != factor)}
    return Epilogue(shift, multiplier, i16(offset, layer, "bias"), error, fraction, held)
