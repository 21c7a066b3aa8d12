"""Quantisers against their papers' formulas, one number at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from mpqyolo.core.errors import ConfigError
from mpqyolo.quantize.binary import BinaryActivation, BinaryWeight
from mpqyolo.quantize.layers import QuantConv2d
from mpqyolo.quantize.lsq import SMALLEST_SCALE, Lsq, LsqActivation, LsqWeight, mse_scale


def gradient(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize(
    ("ste", "slope"),
    [
        ("clip", lambda u: float(abs(u) <= 1)),
        ("polynomial", lambda u: max(2 - 2 * abs(u), 0.0)),
        ("identity", lambda u: 1.0),
    ],
)
def test_sign_of_activations(ste: str, slope) -> None:
    quantiser = BinaryActivation(1, ste)
    quantiser.set_strength(1)
    quantiser.shift.data.fill_(0.25)
    values = [-2.0, -0.75, -0.25, 0.0, 0.25, 0.5, 1.0, 3.0]
    x = torch.tensor(values).view(1, 1, 1, -1)
    assert quantiser(x).flatten().tolist() == [1.0 if v >= 0.25 else -1.0 for v in values]
    assert gradient(quantiser, x).flatten().tolist() == pytest.approx([slope(v - 0.25) for v in values])
    assert float(quantiser.shift.grad) == pytest.approx(-sum(slope(v - 0.25) for v in values))
    assert quantiser.pad_value() == -1.0


def test_a_blend_lies_between_float_and_quantised() -> None:
    x = torch.linspace(-2, 2, 24).view(1, 2, 3, 4)
    for quantiser in (BinaryActivation(2), LsqActivation(4), LsqActivation(4, channels=2)):
        quantiser.set_strength(0)
        low = quantiser(x)
        quantiser.set_strength(1)
        high = quantiser(x)
        quantiser.set_strength(0.25)
        assert torch.allclose(quantiser(x), 0.75 * low + 0.25 * high, atol=1e-6)


def test_sign_of_weights_keeps_their_size() -> None:
    quantiser = BinaryWeight()
    quantiser.set_strength(1)
    w = torch.tensor([[0.5, -1.5, 0.0, 2.0], [-0.1, -0.0, 0.4, -0.3]]).view(2, 1, 2, 2)
    assert quantiser(w).flatten().tolist() == pytest.approx([1, -1, 1, 1, -0.2, 0.2, 0.2, -0.2])
    assert gradient(quantiser, w).flatten().tolist() == [1, 0, 1, 0, 1, 1, 1, 1]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1000), st.sampled_from([4, 8]), st.booleans(), st.sampled_from([1, 2]))
def test_lsq(seed: int, bits: int, activation: bool, scales: int) -> None:
    """Forward and both gradients of Esser et al. 2020, equations 1 to 5, in plain Python."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(0, 1, (2, 3, 2, 2)).astype(np.float32))
    quantiser: Lsq = LsqActivation(bits) if activation else LsqWeight(bits, scales)
    quantiser.set_strength(1)
    if isinstance(quantiser, LsqWeight):
        quantiser.set_scale(torch.full((scales,), 0.13), x)
    else:
        quantiser.set_scale(torch.tensor(0.13))
    quantiser.initialised.fill_(True)
    low, high = (0, 2**bits - 1) if activation else (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)
    assert quantiser.limits == (low, high)
    s = quantiser.scale_of(x).detach().double()
    assert torch.allclose(s, torch.tensor(0.13, dtype=torch.float64), rtol=1e-5)
    dx, ds = [], np.zeros(2)
    for place, v in enumerate((x.double() / s).flatten().tolist()):
        inside = low <= v <= high
        code = min(max(math.floor(v + 0.5), low), high)
        dx.append(float(inside))
        ds[place // 12] += code - (v if inside else 0)
    one = activation or scales == 1
    scale_gradient = ds.sum() if one else ds
    n = x.numel() if one else x[0].numel()
    got = gradient(quantiser, x)
    assert got.flatten().tolist() == dx
    # The parameter is log s but for a constant, so its gradient is s times that of s.
    expected = s.flatten().numpy() * scale_gradient / math.sqrt(n * high)
    assert np.allclose(quantiser.learned.grad.flatten(), expected, rtol=1e-3, atol=1e-4)
    assert torch.allclose(quantiser(x), quantiser.codes(x) * s.float(), atol=1e-6)
    assert quantiser.codes(x).amax() <= high and quantiser.codes(x).amin() >= low


def test_first_scale_has_the_least_squared_error() -> None:
    x = torch.randn(3, 500, generator=torch.Generator().manual_seed(1))
    found = mse_scale(x, -7, 7)

    def error(scale: torch.Tensor) -> torch.Tensor:
        return (((x / scale[:, None]).round().clamp(-7, 7) * scale[:, None] - x) ** 2).sum(1)

    for factor in (0.7, 0.9, 1.1, 1.4):
        assert (error(found) <= error(found * factor) + 1e-3).all()


def test_scales_of_weights_follow_the_weights() -> None:
    """Weights that grow to twice the size, all alike, keep their codes; the order in memory makes no difference."""
    quantiser = LsqWeight(4, 6)
    quantiser.set_strength(1)
    w = torch.randn(6, 8, 3, 3, generator=torch.Generator().manual_seed(2))
    quantiser(w)
    assert torch.equal(quantiser.codes(2 * w), quantiser.codes(w)) and torch.equal(quantiser(2 * w), 2 * quantiser(w))
    assert torch.equal(quantiser.scale_of(w.to(memory_format=torch.channels_last)), quantiser.scale_of(w))
    nothing = torch.zeros_like(w)
    assert torch.equal(quantiser.codes(nothing), nothing)


def test_a_shared_scale_is_set_from_all_maps_that_share_it() -> None:
    quantiser = LsqActivation(4)
    quantiser.set_strength(1)
    quantiser.uses = 2
    small, large = torch.rand(1, 2, 8, 8), 6 * torch.rand(1, 2, 8, 8)
    quantiser(small)
    assert not bool(quantiser.initialised)
    quantiser(large)
    both = mse_scale(torch.cat([small.flatten(), large.flatten()])[None], 0, 15)
    assert bool(quantiser.initialised) and torch.allclose(quantiser.scale, both)
    quantiser(large)
    assert torch.allclose(quantiser.scale, both)


def test_fixed_scales_do_not_learn_and_bits_can_change() -> None:
    quantiser = LsqWeight(8, 1, trainable=False)
    quantiser.set_strength(1)
    w = torch.randn(1, 4, 3, 3)
    quantiser(w)
    assert not quantiser.learned.requires_grad and bool(quantiser.initialised)
    before = quantiser.scale_of(w)
    quantiser.set_bits(4)
    assert not bool(quantiser.initialised)
    quantiser(w)
    assert float(quantiser.scale_of(w) / before) > 8
    with pytest.raises(ConfigError, match="a LsqWeight cannot have 1 bits, only 2 to 8"):
        quantiser.set_bits(1)
    for sign in (BinaryWeight(), BinaryActivation(4)):
        with pytest.raises(ConfigError, match="cannot have 2 bits, only 1, since it is a sign"):
            sign.set_bits(2)


def test_a_map_goes_from_two_bits_to_one() -> None:
    """Its levels are then those that suit one bit, and its threshold stays where it was."""
    torch.manual_seed(0)
    quantiser, x = LsqActivation(1, channels=3), torch.randn(4, 3, 16, 16)
    quantiser.set_bits(2)
    quantiser.set_strength(1)
    assert len(quantiser(x).unique()) == 4
    wide, shift = float(quantiser.scale.detach()), quantiser.shift.detach().clone()
    quantiser.set_bits(1)
    assert len(quantiser(x).unique()) == 2
    assert float(quantiser.scale.detach()) > 1.2 * wide and torch.equal(quantiser.shift, shift)
    with pytest.raises(ConfigError, match="unknown STE"):
        BinaryActivation(4, "straight")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_map_that_begins_dead_can_live_later(bits: int) -> None:
    """Its scale is neither one that health.py calls dead nor one that clips whatever comes."""
    quantiser = LsqActivation(bits)
    quantiser.set_strength(1)
    assert (quantiser(torch.full((1, 1, 2, 2), -3.0)) == 0).all() and bool(quantiser.initialised)
    assert float(quantiser.scale.detach()) > SMALLEST_SCALE
    x = torch.full((1, 1, 2, 2), 0.75)
    assert (quantiser(x) > 0.5).all() and (gradient(quantiser, x) > 0).all()


def test_bits_are_padded_with_minus_one() -> None:
    conv = QuantConv2d(2, 3, 3)
    conv.input_quantiser = BinaryActivation(2)
    conv.input_quantiser.set_strength(1)
    x = torch.randn(1, 2, 4, 4)
    bits = torch.where(x >= 0, 1.0, -1.0)
    want = functional.conv2d(functional.pad(bits, (1, 1, 1, 1), value=-1), conv.weight)
    assert torch.allclose(conv(x), want, atol=1e-6)
    conv.input_quantiser.set_strength(0)
    assert torch.allclose(conv(x), functional.conv2d(x, conv.weight, padding=1), atol=1e-6)
