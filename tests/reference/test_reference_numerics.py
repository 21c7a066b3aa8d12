"""The scalar rules against Python's own unbounded integers, and exponentials over their whole range."""

import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqyolo.reference.numerics import (
    distance,
    exp2_q10,
    mulhrs,
    pack,
    packed_size,
    quantise_u4,
    rshift,
    sat16,
    score,
    t_min,
    unpack,
)

S16 = st.integers(-32768, 32767)


@given(S16, S16)
@settings(deadline=None, max_examples=300)
def test_mulhrs_rounds_half_up(a, m):
    exact = Fraction(a * m, 1 << 15) + Fraction(1, 2)
    assert int(mulhrs(np.int16(a), np.int16(m))) == min(exact.numerator // exact.denominator, 32767)


def test_mulhrs_saturates_only_at_the_corner():
    assert int(mulhrs(np.int16(-32768), np.int16(-32768))) == 32767
    assert int(mulhrs(np.int16(-32768), np.int16(-32767))) == 32767 and int(mulhrs(np.int16(-32768), np.int16(32767))) == -32767


@given(st.integers(-(2**31) + 1, 2**31 - 1), st.integers(-15, 16))
@settings(deadline=None, max_examples=300)
def test_rshift_is_exact(x, s):
    exact = Fraction(x) / Fraction(2) ** s + (Fraction(1, 2) if s > 0 else 0)
    assert int(rshift(np.int64(x), s)) == exact.numerator // exact.denominator


def test_clamps():
    assert sat16(np.array([-(2**40), -32769, 5, 32768, 2**40])).tolist() == [-32768, -32768, 5, 32767, 32767]
    assert quantise_u4(np.array([-1, 0, 255, 256, 4095, 4096]), 8).tolist() == [0, 0, 0, 1, 15, 15]


def test_exp2_is_near_the_real_one_and_bit_exact():
    t = np.arange(-32768, 32769)
    real = np.exp2(t / 1024)
    assert exp2_q10(t).dtype == np.float32
    assert np.max(np.abs(exp2_q10(t) / real - 1)) < 3e-6
    assert (exp2_q10(1024 * np.arange(-32, 33)) == 2.0 ** np.arange(-32, 33)).all()


def scalar_exp2(t):
    """Section 5 again, one struct-rounded step at a time."""

    def f32(v):
        return struct.unpack("f", struct.pack("f", v))[0]

    x = f32(t & 1023) * 2.0**-10
    p = f32(1.8775767e-3)
    for c in (8.9893397e-3, 5.5826318e-2, 2.4015361e-1, 6.9315308e-1, 1.0):
        p = f32(f32(p * x) + f32(c))
    return p * 2.0 ** (t >> 10)


def test_exp2_rounds_every_step():
    for t in range(-2048, 2048, 7):
        assert float(exp2_q10(np.array(t))) == scalar_exp2(t)


def test_score_is_monotone_and_symmetric():
    s = score(np.arange(-32768, 32768))
    assert s.dtype == np.float32 and (np.diff(s) >= 0).all() and s[0] > 0 and s[-1] == 1
    assert score(np.array(0)) == np.float32(0.5)
    assert distance(np.array([0, 1024, -1024]), 8).tolist() == [8, 16, 4]


@pytest.mark.parametrize("wanted", [0.0, 1e-9, 0.001, 0.05, 0.25, 0.5, 0.75, 0.999, 1.0])
def test_t_min_is_the_first_that_reaches(wanted):
    lowest = t_min(wanted)
    assert score(np.array(lowest)) >= np.float32(wanted)
    assert lowest == -32768 or score(np.array(lowest - 1)) < np.float32(wanted)


def test_t_min_of_an_unreachable_score():
    assert t_min(1.5) is None


RANGES = {"w1": (-1, 1), "w4": (-7, 7), "w8": (-127, 127), "i16": (-32768, 32767)}


@pytest.mark.parametrize("dtype", RANGES)
def test_pack_is_the_documents_bit_order_for_every_length(dtype):
    rng, (low, high) = np.random.default_rng(1), RANGES[dtype]
    bits = {"w1": 1, "w4": 4, "w8": 8, "i16": 16}[dtype]
    for length in range(1, 70):
        values = rng.integers(low, high + 1, length)
        if dtype == "w1":
            values = np.where(values > 0, 1, -1)
        number = 0  # value i occupies bits i*bits and up of one little-endian integer
        for i, v in enumerate(values.tolist()):
            number |= (int(v > 0) if dtype == "w1" else v & ((1 << bits) - 1)) << (i * bits)
        data = pack(values, dtype)
        assert data == number.to_bytes(packed_size(dtype, length), "little")
        again = unpack(data, dtype, length)
        assert again.tolist() == values.tolist() and again.dtype == (np.int16 if dtype == "i16" else np.int8)


def test_pack_is_row_major():
    values = np.arange(-6, 6).reshape(2, 3, 2)
    assert pack(values, "w8") == pack(values.reshape(-1), "w8")
    assert pack(np.asfortranarray(values), "w4") == pack(values.reshape(-1), "w4")
