"""The scalar rules of docs/numerics.md, vectorised: rounding, saturation, exponentials, bit order. Once, here.

Integers come in as any numpy integer type and go out as int64, which holds every intermediate exactly; floats are float32.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

BITS = {"w1": 1, "w4": 4, "w8": 8, "i16": 16}
EXP2 = tuple(np.float32(c) for c in (1.8775767e-3, 8.9893397e-3, 5.5826318e-2, 2.4015361e-1, 6.9315308e-1))  # c5..c1
ONE = np.float32(1)


def sat16(x: np.ndarray) -> np.ndarray:
    """min(max(x, -32768), 32767)."""
    return np.clip(np.asarray(x, np.int64), -32768, 32767)


def mulhrs(a: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Rounding high multiply of s16 numbers: sat16((a*m + 2^14) >> 15)."""
    return sat16((np.asarray(a, np.int64) * np.asarray(m, np.int64) + (1 << 14)) >> 15)


def rshift(x: np.ndarray, s: int) -> np.ndarray:
    """Rounding shift right by s in -15..16 of an exact sum; a negative s shifts left. The result is exact, it never wraps."""
    x = np.asarray(x, np.int64)
    if s > 0:
        return (x + (1 << (s - 1))) >> s
    return x << -s


def quantise_u4(v: np.ndarray, fraction: int) -> np.ndarray:
    """min(max(v >> fraction, 0), 15)."""
    return np.clip(np.asarray(v, np.int64) >> fraction, 0, 15)


def exp2_q10(t: np.ndarray) -> np.ndarray:
    """2^(t / 1024) of integers t, float32: one polynomial, every step rounded to float32 and none fused."""
    t = np.asarray(t, np.int64)
    x = (t & 1023).astype(np.float32) * np.float32(2.0**-10)
    p = np.full_like(x, EXP2[0])
    for c in (*EXP2[1:], ONE):
        p = p * x + c
    return np.ldexp(p, (t >> 10).astype(np.int32)).astype(np.float32)


def score(t: np.ndarray) -> np.ndarray:
    """1 / (1 + exp2_q10(-t)) of logits t in 2^-10 powers of two, float32."""
    return ONE / (ONE + exp2_q10(-np.asarray(t, np.int64)))


def distance(t: np.ndarray, stride: int) -> np.ndarray:
    """exp2_q10(t) * stride: pixels of the letterboxed input, float32."""
    return exp2_q10(t) * np.float32(stride)


@lru_cache(maxsize=1)
def _scores() -> np.ndarray:
    return score(np.arange(-32768, 32768))


def t_min(min_score: float) -> int | None:
    """The smallest logit in -32768..32767 whose score is at least float32(min_score), or None if none is."""
    index = int(np.searchsorted(_scores(), np.float32(min_score)))
    return index - 32768 if index < 65536 else None


def packed_size(dtype: str, count: int) -> int:
    """Bytes of `count` values at their true width."""
    return (count * BITS[dtype] + 7) // 8


def pack(values: np.ndarray, dtype: str) -> bytes:
    """Constants at their true width, row-major, lowest bits first; unused bits of the last byte are zero."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if dtype == "w1":
        return np.packbits(flat > 0, bitorder="little").tobytes()
    if dtype == "w4":
        nibbles = np.zeros(flat.size + flat.size % 2, np.uint8)
        nibbles[: flat.size] = flat.astype(np.int8).view(np.uint8) & 15
        return (nibbles[0::2] | nibbles[1::2] << 4).tobytes()
    return flat.astype("<i2" if dtype == "i16" else np.int8).tobytes()


def unpack(data: bytes | memoryview, dtype: str, count: int) -> np.ndarray:
    """The first `count` values (1-D): int8 of -1/+1 for w1, int8 for w4 and w8, int16 for i16. w8 and i16 are views of `data`."""
    if dtype == "i16":
        return np.frombuffer(data, "<i2", count)
    if dtype == "w8":
        return np.frombuffer(data, np.int8, count)
    raw = np.frombuffer(data, np.uint8, packed_size(dtype, count))
    if dtype == "w1":
        bits = np.unpackbits(raw, count=count, bitorder="little").view(np.int8)
        return 2 * bits - 1
    nibbles = np.empty(2 * raw.size, np.uint8)
    nibbles[0::2], nibbles[1::2] = raw & 15, raw >> 4
    return ((nibbles[:count] ^ 8).view(np.int8)) - 8


def bits(v: np.ndarray, threshold: np.ndarray, step: int) -> np.ndarray:
    """-1, +1 int8: v (C, h, w) >= threshold; with a step, (2C, h, w): these, then where v lies on its side of the threshold."""
    middle = threshold.astype(np.int64)[:, None, None]
    upper = v >= middle
    if step:
        lower = np.where(upper, v >= sat16(middle + step), v >= sat16(middle - step))
        upper = np.concatenate((upper, lower))
    return np.where(upper, 1, -1).astype(np.int8)
