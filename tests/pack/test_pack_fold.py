"""Constants against the real formulas that they stand for, in numbers drawn anew each time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqyolo.core.errors import PackError
from mpqyolo.pack import fold
from mpqyolo.reference.conv import accumulate
from mpqyolo.reference.numerics import bits, mulhrs, quantise_u4, rshift, sat16

seeds = st.integers(0, 2**32 - 1)
EXAMPLES = settings(max_examples=200, deadline=None)


def draw(seed: int, size: float) -> tuple[np.random.Generator, np.ndarray, np.ndarray, fold.Sums]:
    """Channels of a layer whose outputs spread over about `size` units."""
    rng = np.random.default_rng(seed)
    channels = int(rng.integers(1, 12))
    reach = np.ceil(2.0 ** rng.uniform(3, 24) * rng.uniform(0.3, 1, channels))
    std = np.maximum(reach / rng.uniform(3, 30), 0.5)
    mean = rng.normal(0, 0.3, channels) * std
    factor = size * rng.uniform(0.1, 1, channels) * rng.choice([-1, 1], channels) / std
    offset = rng.normal(0, size, channels) - factor * mean
    return rng, factor, offset, fold.Sums(reach.astype(np.int64), mean, std)


def product(acc: np.ndarray, e: fold.Epilogue) -> np.ndarray:
    a = sat16(rshift(acc, e.shift))
    return sat16(mulhrs(a, e.multiplier[:, None]) + e.bias[:, None].astype(np.int64))


def some_sums(rng: np.random.Generator, sums: fold.Sums) -> np.ndarray:
    """(channels, 40) integers: most as the statistics say, some anywhere within reach, and its ends."""
    count = len(sums.reach)
    usual = sums.mean[:, None] + sums.std[:, None] * rng.normal(0, 1, (count, 20))
    acc = np.concatenate([usual, rng.uniform(-1, 1, (count, 18)) * sums.reach[:, None]], 1).round()
    ends = np.stack([sums.reach, -sums.reach], 1)
    return np.clip(np.concatenate([acc, ends], 1), -sums.reach[:, None], sums.reach[:, None]).astype(np.int64)


@given(seeds)
@EXAMPLES
def test_a_stream_is_the_formula_within_its_bound(seed: int) -> None:
    rng, factor, offset, sums = draw(seed, 500)
    e = fold.stream(factor, offset, sums, "layer")
    acc = some_sums(rng, sums)
    real, found = factor[:, None] * acc + offset[:, None], product(acc, e)
    held = (np.abs(rshift(acc, e.shift)) <= 32767) & (np.abs(real - offset[:, None]) < 32766) & (np.abs(real) < 32766)
    assert held[:, :20].mean() > 0.9 and (e.error <= 2).all()
    assert (np.abs(found - real) <= e.error[:, None])[held].all()
    # Nothing that 16 bits can hold is lost but far beyond what training saw.
    near = np.abs(acc - sums.mean[:, None]) < (fold.FAR[-1] - 0.5) * sums.std[:, None]
    assert (np.abs(rshift(acc, e.shift)) <= 32767)[near & (np.abs(real - offset[:, None]) < 32766)].all()


@given(seeds)
@EXAMPLES
def test_codes_are_the_formula_but_near_a_step(seed: int) -> None:
    rng, factor, offset, sums = draw(seed, 4)
    e = fold.codes(factor, offset, sums, "layer")
    acc = some_sums(rng, sums)
    real = factor[:, None] * acc + offset[:, None]
    found = quantise_u4(product(acc, e), e.fraction)
    # The half step that `>>` takes off is in the bias: on either side of a code's edge there are `error` steps of doubt.
    doubt = (e.error[:, None] + 0.5) * 2.0**-e.fraction
    low = np.clip(np.floor(real + 0.5 - doubt), 0, 15)
    high = np.clip(np.floor(real + 0.5 + doubt), 0, 15)
    held = np.abs(acc - sums.mean[:, None]) < (fold.FAR[-1] - 0.5) * sums.std[:, None]
    assert ((low <= found) & (found <= high))[held].all()
    assert e.fraction >= 4 and doubt.max() < 0.2


@given(seeds, st.sampled_from([0, 7]))
@EXAMPLES
def test_requantised_codes_are_the_formula_but_near_a_step(seed: int, left: int) -> None:
    rng = np.random.default_rng(seed)
    scale = float(np.exp(rng.uniform(np.log(1 / 300), np.log(1 / 4))))
    shift = rng.uniform(-30, 30, 5)
    e = fold.requantise(scale, shift, left, "layer")
    x = rng.integers(0, 256, (5, 300)) if left else rng.integers(-3000, 3000, (5, 300))
    found = quantise_u4(sat16(mulhrs(x << left, e.multiplier[:, None]) + e.bias[:, None].astype(np.int64)), e.fraction)
    real = x * scale - shift[:, None]
    doubt = (e.error[:, None] + 0.5) * 2.0**-e.fraction
    low, high = (np.clip(np.floor(real + 0.5 + way), 0, 15) for way in (-doubt, doubt))
    assert ((low <= found) & (found <= high)).all()
    assert (found == np.clip(np.floor(real + 0.5), 0, 15)).mean() > 0.8


@given(st.lists(st.floats(-130, 127.75, width=32), min_size=1, max_size=8), st.sampled_from([0, 8]))
@EXAMPLES
def test_thresholds_are_exact(shift: list[float], fraction: int) -> None:
    values = np.array(shift, np.float64)
    t = fold.thresholds(values, fraction, "layer").astype(np.int64)
    codes = np.clip(t[:, None] + np.arange(-3, 4), -32768, 32767)
    assert ((codes >= t[:, None]) == (codes * 2.0**-fraction >= values[:, None])).all()


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8), st.floats(0.01, 20), seeds)
@EXAMPLES
def test_a_ladder_is_lsq_but_within_a_step_of_an_edge(shift: list[float], scale: float, seed: int) -> None:
    values, unit = np.array(shift), 1 / 256
    t, d = fold.ladder(values, scale, 8, "layer")
    x = np.random.default_rng(seed).integers(-32768, 32768, (len(values), 200))
    planes = bits(x[..., None], t, d).astype(int)
    upper, lower = planes[: len(values), :, 0], planes[len(values) :, :, 0]
    code = (2 * upper + lower + 3) // 2
    real = (x * unit - values[:, None]) / scale + 0.5
    near = np.abs(real - np.rint(real)) * scale <= 1.5 * unit
    assert (near | (code == np.clip(np.floor(real), 0, 3))).all()
    assert (np.abs(code - np.clip(np.floor(real), 0, 3)) <= 1).all()


def test_a_ladder_of_no_height_is_refused() -> None:
    with pytest.raises(PackError, match=r"layer 'a'.*0 steps of the stream"):
        fold.ladder(np.zeros(4), 1e-3, 8, "a")


@pytest.mark.parametrize(("dtype", "low", "high"), [("b1", -1, 1), ("u4", 0, 15), ("u8", 0, 255)])
def test_reach_is_reached_and_not_passed(dtype: str, low: int, high: int) -> None:
    rng = np.random.default_rng(1)
    weight = rng.integers(-7, 8, (6, 3, 3, 4)).astype(np.int8)
    found = fold.reach(weight, dtype)
    kind = np.int8 if dtype == "b1" else np.uint8
    best = np.zeros(6, np.int64)
    for sign in (1, -1):
        for o in range(6):
            x = np.where(sign * weight[o].transpose(2, 0, 1) > 0, high, low).astype(kind)
            best[o] = max(best[o], abs(int(accumulate(x, weight[o : o + 1], 1, 0)[0, 0, 0])))
    assert (best == found).all()


def test_a_dead_channel_is_a_constant_and_does_not_spoil_the_others() -> None:
    sums = fold.Sums(np.array([576, 576]), np.array([3.0, 40.0]), np.array([24.0, 0.0]))
    factor, offset = np.array([10.0, 5000.0]), np.array([5.0, -200000.0 + 77])
    e = fold.stream(factor, offset, sums, "layer")
    alone = fold.stream(factor[:1], offset[:1], fold.Sums(*(v[:1] for v in (sums.reach, sums.mean, sums.std))), "layer")
    assert e.multiplier[1] == 0 and e.bias[1] == 77 and e.multiplier[0] == alone.multiplier[0] and e.shift == alone.shift


def test_a_dead_channel_needs_no_room_for_its_sums() -> None:
    """Its sums may be as large as they like: the shift is the one that the living channel has alone."""
    sums = fold.Sums(np.array([2304, 150_000]), np.array([3.0, 20_000.0]), np.array([20.0, 0.0]))
    one = fold.Sums(*(v[:1] for v in (sums.reach, sums.mean, sums.std)))
    factor, offset = np.array([12.0, 5000.0]), np.array([5.0, 77 - 5000.0 * 20_000])
    for make in (fold.stream, fold.codes):
        scaled = factor / (1 if make is fold.stream else 100)
        e, alone = (make(scaled[:n], offset[:n] / factor[:n] * scaled[:n], s, "layer") for n, s in ((2, sums), (1, one)))
        assert e.multiplier[1] == 0 and e.multiplier[0] == alone.multiplier[0] and not e.held
        assert (e.shift, e.fraction) == (alone.shift, alone.fraction)


@given(seeds)
@EXAMPLES
def test_predictions_of_one_scale_always_fit_and_hold_sixteen_powers_of_two(seed: int) -> None:
    rng = np.random.default_rng(seed)
    channels = int(rng.integers(1, 90))
    factor = np.full(channels, 2.0 ** rng.uniform(-12, 12))
    reach = np.ceil(2.0 ** rng.uniform(3, 20, channels)).astype(np.int64)
    e = fold.stream(factor, np.zeros(channels), fold.Sums(reach), "layer")
    acc = np.rint(np.minimum(2.0**14 / factor, reach) * rng.uniform(-1, 1, channels)).astype(np.int64)[:, None]
    assert (np.abs(product(acc, e) - factor[:, None] * acc) <= 2 + np.abs(acc) * 2.0 ** -(16 + e.shift)).all()


def test_a_channel_too_loud_for_its_neighbours_is_held_down() -> None:
    sums = fold.Sums(np.array([30000, 30000]), np.array([0.0, 0.0]), np.array([1200.0, 1200.0]))
    e = fold.stream(np.array([1.0, 12.0]), np.zeros(2), sums, "a")
    # 12 * 2^12 does not fit 16 bits and 0.65 of it does; one step more to the left, 3 standard deviations would not fit.
    assert np.abs(product(np.array([[900], [900]]), e) - [[900], [0.65 * 12 * 900]]).max() <= 1
    assert e.error[0] < 3 and e.error[1] > 0.35 * 12 * 30000
    assert list(e.held) == [1] and abs(e.held[1] - 0.65) < 1e-9


def test_what_does_not_fit_is_refused_with_the_layer() -> None:
    sums = fold.Sums(np.array([576, 576]), np.array([0.0, 0.0]), np.array([24.0, 24.0]))
    with pytest.raises(PackError, match="layer 'a': its bias reaches 40000"):
        fold.stream(np.ones(2), np.array([0.0, 40000.0]), sums, "a")
    with pytest.raises(PackError, match="layer 'a': channel 1, which hardly moves"):
        fold.stream(np.array([1.0, 5000.0]), np.zeros(2), sums, "a")
    with pytest.raises(PackError, match="layer 'a': channel 1, which"):
        fold.codes(np.array([0.1, 300.0]), np.zeros(2), sums, "a")
    with pytest.raises(PackError, match="layer 'a': its threshold reaches 38400"):
        fold.thresholds(np.array([150.0]), 8, "a")
    assert fold.thresholds(np.array([-500.0]), 8, "a") == -32768
    with pytest.raises(PackError, match="layer 'a': its gain is not finite"):
        fold.q15(np.array([np.nan]), "a", "gain")
    assert fold.q15(np.array([1.0, -1.0 + 2**-15, 0.5]), "a", "gain").tolist() == [32767, -32767, 16384]
    with pytest.raises(PackError, match="a code is smaller than one step"):
        fold.requantise(3.0, np.zeros(1), 0, "a")
    with pytest.raises(PackError, match="a scale of its activations is"):
        fold.requantise(float("nan"), np.zeros(1), 0, "a")
