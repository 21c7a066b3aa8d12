"""The fused operators against torch's own, forward and backward, at odd sizes and both types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mpqyolo.core.errors import ConfigError
from mpqyolo.detector.blocks import RPReLU
from mpqyolo.detector.model import build_model
from mpqyolo.quantize import fused
from mpqyolo.quantize.convolve import conv2d
from mpqyolo.quantize.ste import STE_KINDS, BinariseActivation, BinariseWeight, LsqQuantise, Match, PoolRepeat, Tail

pytestmark = pytest.mark.skipif(not torch.cpu._is_avx2_supported(), reason="the training operators need AVX2")

SHAPES = [(2, 16, 6, 10), (2, 8, 6, 8), (1, 3, 4, 2), (3, 33, 8, 8), (2, 64, 20, 18), (1, 1, 2, 2)]


def test_the_library_is_built() -> None:
    assert fused._library() is not None, "build it: cmake -S engine -B build/engine && cmake --build build/engine"


def test_a_library_of_other_sources_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "VERSION", fused.VERSION + 1)
    with pytest.raises(ConfigError, match="build it again"):
        fused._library.__wrapped__()


def test_a_library_that_was_asked_for_and_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training would be slower without it, which nobody would notice."""
    monkeypatch.setenv("MPQ_TRAIN_OPS", str(tmp_path / "ops.so"))
    with pytest.raises(ConfigError, match=r"MPQ_TRAIN_OPS: there is no file .*ops\.so"):
        fused._library.__wrapped__()
    (tmp_path / "ops.so").write_text("no library")
    with pytest.raises(ConfigError, match=r"ops\.so: cannot be loaded"):
        fused._library.__wrapped__()
    monkeypatch.setenv("MPQ_TRAIN_OPS", "none")
    assert fused._library.__wrapped__() is None


def both(monkeypatch: pytest.MonkeyPatch, work: Callable[..., Tensor], *inputs: Tensor) -> list[list[Tensor]]:
    """Output and gradients of `work`, by the fused operators and by torch's."""
    results = []
    for usable in (fused.usable, lambda _: False):
        with monkeypatch.context() as patch:
            patch.setattr(fused, "usable", usable)
            leaves = [x.detach().clone().requires_grad_() for x in inputs]
            y = work(*leaves)
            weight = torch.sin(torch.arange(y.numel(), dtype=torch.float32) * 0.7).view(y.shape).to(y.dtype)
            grads = torch.autograd.grad((y * weight).float().sum(), leaves)
            results.append([y.detach(), *grads])
    return results


def agree(results: list[list[Tensor]], dtype: torch.dtype, kinks: float = 0) -> None:
    """kinks: share of a map's numbers that may differ, where one side rounds a number to the other side of a kink."""
    for got, want in zip(*results, strict=True):
        assert got.dtype == want.dtype and got.shape == want.shape
        tolerance = 2e-2 if dtype == torch.bfloat16 else 2e-5
        scale = want.float().abs().max().clamp(min=1)
        off = (got.float() - want.float()).abs() > tolerance * scale
        assert off.float().mean() <= (kinks if got.shape == results[0][0].shape else 5 * kinks)


def maps(shape: tuple[int, ...], dtype: torch.dtype, count: int = 1) -> list[Tensor]:
    torch.manual_seed(sum(shape))
    found = [torch.randn(shape) for _ in range(count)]
    # Numbers that bfloat16 holds too, away from the kinks, so that both types take the same side.
    return [(x * 16).round().add_(0.25).div_(16).to(dtype) for x in found]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("residual", [False, True])
def test_tail(shape: tuple[int, ...], dtype: torch.dtype, residual: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    z, r = maps(shape, dtype, 2)
    numbers = [torch.randn(1, shape[1], 1, 1) * 0.3 for _ in range(3)]
    if residual:
        agree(both(monkeypatch, Tail.apply, z, r, *numbers), dtype)
    else:
        agree(both(monkeypatch, lambda z, *n: Tail.apply(z, None, *n), z, *numbers), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("residual", [False, True])
def test_batch_norm_and_tail(residual: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against torch's batch norm: result, all gradients, running statistics; channels far from zero keep their digits."""
    for shape in SHAPES[:-1]:
        channels = shape[1]
        z, r = maps(shape, dtype, 2)
        z = (3 * z + torch.arange(channels).view(1, -1, 1, 1) % 5).to(dtype)
        norms: list[torch.nn.BatchNorm2d] = []

        def work(z: Tensor, r: Tensor, *numbers: Tensor, made: list[torch.nn.BatchNorm2d] = norms) -> Tensor:
            act, norm = RPReLU(z.shape[1]), torch.nn.BatchNorm2d(z.shape[1], eps=1e-3, momentum=0.03)
            made.append(norm)
            with torch.no_grad():
                norm.running_mean.fill_(1.5)
            names = ("before", "slope", "after")
            for name, number in zip(names, numbers, strict=False):
                del act._parameters[name]
                setattr(act, name, number)
            for name, number in zip(("weight", "bias"), numbers[3:], strict=True):
                del norm._parameters[name]
                setattr(norm, name, number)
            return act(z, r if residual else None, norm) + (0 if residual else 0 * r)

        numbers = [torch.randn(1, channels, 1, 1) * 0.3 for _ in range(3)] + [torch.randn(channels) for _ in range(2)]
        agree(both(monkeypatch, work, z, r, *numbers), dtype, kinks=0.02 if dtype == torch.bfloat16 else 0)
        ours, theirs = norms
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            assert torch.allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", STE_KINDS)
@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_sign(kind: str, strength: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in SHAPES:
        (x,) = maps(shape, dtype)
        shift = (torch.randn(1, shape[1], 1, 1) * 8).round() / 16
        for pad in (0, 1, 2):
            agree(both(monkeypatch, lambda x, s, p=pad: BinariseActivation.apply(x, s, strength, kind, p), x, shift), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("low", "high"), [(0, 15), (-7, 7), (0, 255)])
@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_lsq(low: int, high: int, strength: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in SHAPES:
        (x,) = maps(shape, dtype)
        scale = torch.tensor(0.11)
        agree(both(monkeypatch, lambda x, s: LsqQuantise.apply(x, s, low, high, 0.1, strength), x, scale), dtype)
        shift = (torch.randn(1, shape[1], 1, 1) * 8).round() / 16

        def shifted(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
            return LsqQuantise.apply(x, scale, low, high, 0.1, strength, shift)

        agree(both(monkeypatch, shifted, x, scale, shift), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_weights(strength: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """LSQ and the sign; where convolutions multiply bfloat16 the result is in it, what torch's cast would have made of it."""
    for shape in SHAPES:
        (x,) = maps(shape, torch.float32)
        scale = torch.rand(shape[0], 1, 1, 1) * 0.1 + 0.05
        assert fused.by_rows(x, scale)
        works: list[tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = [(lambda w: BinariseWeight.apply(w, strength), (x,))]
        for high in (7, 127):
            works.append((lambda w, s, q=high: LsqQuantise.apply(w, s, -q, q, 0.1, strength), (x, scale)))
        for work, inputs in works:

            def cast(*inputs: Tensor, work: Callable[..., Tensor] = work) -> Tensor:
                with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                    made = work(*inputs)
                assert made.dtype == (dtype if fused.usable(inputs[0]) else torch.float32)
                return made.to(dtype)

            agree(both(monkeypatch, cast, *inputs), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pixels(dtype: torch.dtype) -> None:
    images = torch.arange(2 * 3 * 96 * 96).to(torch.uint8).view(2, 96, 96, 3).permute(0, 3, 1, 2)
    assert fused.divides(images) and not fused.divides(images[:, :, ::2])
    made = fused.pixels(images, dtype)
    assert torch.equal(made, images.float().div(255).to(dtype)) and made.stride() == images.stride()


@pytest.mark.parametrize("repeat", [1, 2, 3])
def test_pool(repeat: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            (x,) = maps(shape, dtype)
            agree(both(monkeypatch, lambda x: PoolRepeat.apply(x, repeat), x), dtype)


def test_maps_of_other_shapes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loops would read beyond the smaller one: of a detector that is given images of 60 pixels, for example."""
    z, r = torch.zeros(2, 8, 4, 4), torch.zeros(2, 8, 3, 3)
    numbers = [torch.zeros(8) for _ in range(3)]
    act, norm = RPReLU(8), torch.nn.BatchNorm2d(8)
    for work in (lambda: Tail.apply(z, r, *numbers), lambda: act(z, r, norm)):
        with pytest.raises(ValueError, match=r"a map of shape \(2, 8, 3, 3\) cannot be added to one of \(2, 8, 4, 4\)"):
            work()
    for usable in (fused.usable, lambda _: False):
        monkeypatch.setattr(fused, "usable", usable)
        for shape in ((2, 8, 5, 4), (2, 8, 4, 5)):
            with pytest.raises(ConfigError, match="sides are multiples of 32"):
                PoolRepeat.apply(torch.zeros(shape), 1)
        with pytest.raises(ConfigError, match="a map of 15x15 cannot be halved"):
            build_model("mpq", "n", ["a"])(torch.zeros(1, 3, 60, 60, dtype=torch.uint8))


@pytest.mark.parametrize(("times", "groups"), [(1, 1), (2, 1), (3, 1), (1, 2), (1, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_match(times: int, groups: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in SHAPES:
        least = shape[1]
        (x,) = maps((shape[0], least * groups, *shape[2:]), dtype)
        gain = torch.randn(1, least * groups, 1, 1)
        agree(both(monkeypatch, lambda x, gain, to=least * times: Match.apply(x, gain, to), x, gain), dtype)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    z, r, g = maps((4, 24, 40, 40), torch.float32, 3)
    z, r, g = (fused.packed(x) for x in (z, r, g))
    numbers = [torch.randn(24) for _ in range(2)]
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(fused.tail_backward(g, z, r, *numbers))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.skipif(not torch.cpu._is_avx512_supported(), reason="needs AVX-512")
def test_registers_of_any_width_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[list[Tensor]] = []
    caches = fused._library, fused._function
    try:
        for wide in (True, False):
            monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda wide=wide: wide)
            for cached in caches:
                cached.cache_clear()
            library = fused._library()
            assert library is not None and library._name.endswith("_avx512.so") == wide
            made: list[Tensor] = []
            for dtype in (torch.float32, torch.bfloat16):
                z, r, g = (fused.packed(x) for x in maps((4, 41, 20, 20), dtype, 3))
                numbers = [torch.linspace(-1, 1, 41) for _ in range(3)]
                made += [
                    fused.tail_forward(z, r, *numbers),
                    *fused.tail_backward(g, z, r, *numbers[:2]),
                    *fused.moments(z, numbers[0]),
                ]
                made += [fused.norm_backward(g, z, *numbers, False), fused.match_forward(z, numbers[0], 82)]
                made += [fused.lsq_forward(z, None, 0.3, 0, 15, 1.0), *fused.lsq_backward(g, z, None, 0.3, 0, 15, 0.5)]
            w, g = maps((8, 41, 3, 3), torch.float32, 2)
            made += [fused.binarise_forward(w, 1.0), *fused.lsq_rows_backward(g, w, torch.full((8,), 0.1), -7, 7, 1.0)]
            found.append(made)
    finally:
        monkeypatch.undo()
        for cached in caches:
            cached.cache_clear()
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


# images, h, w, c, o, k, stride, pad, border: odd sizes, channels that fill no vector, and the detectors' own kinds of filters
CONVOLUTIONS = [
    (2, 9, 7, 11, 7, 3, 1, 1, 0),
    (1, 8, 12, 16, 24, 3, 2, 1, 0),
    (3, 12, 8, 8, 8, 6, 2, 2, 0),
    (2, 10, 14, 64, 20, 1, 1, 0, 0),
    (2, 7, 7, 33, 32, 3, 1, 0, 1),
    (2, 10, 12, 8, 32, 3, 2, 0, 1),
    (1, 6, 6, 300, 17, 3, 1, 1, 0),
    (2, 5, 5, 9, 16, 1, 2, 0, 0),
    # By Winograd's way: tiles that reach over the map, panels half full, inputs of more than one pass, every kind of border.
    (3, 21, 19, 40, 24, 3, 1, 1, 0),
    (2, 22, 22, 32, 48, 3, 1, 0, 1),
    (4, 17, 23, 264, 16, 3, 1, 1, 0),
    (4, 20, 20, 16, 64, 3, 1, 2, 0),
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("sizes", CONVOLUTIONS)
def test_convolution(sizes: tuple[int, ...], threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    images, h, w, c, o, k, stride, pad, border = sizes
    torch.manual_seed(sum(sizes))
    x, weight = torch.randn(images, c, h, w), torch.randn(o, c, k, k)
    monkeypatch.setattr(fused, "_wide", lambda: False)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert fused.convolves(x, weight)
        ours, theirs = both(monkeypatch, lambda x, weight: conv2d(x, weight, None, stride, pad, border), x, weight)
    finally:
        torch.set_num_threads(before)
    if border:
        inner = theirs[1][:, :, border:-border, border:-border]
        theirs[1] = torch.nn.functional.pad(inner, (border,) * 4)
    agree([ours, theirs], torch.float32)
    assert ours[0].is_contiguous(memory_format=torch.channels_last)


def test_convolution_is_the_same_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, weight, before = torch.randn(3, 32, 20, 20), torch.randn(48, 32, 3, 3), torch.get_num_threads()
    monkeypatch.setattr(fused, "_wide", lambda: False)
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(both(monkeypatch, lambda x, weight: conv2d(x, weight, None, 1, 1), x, weight)[0])
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_evaluation_and_biases_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_wide", lambda: False)
    monkeypatch.setattr(fused, "conv_forward", lambda *_: pytest.fail("called"))
    x, weight = torch.randn(1, 8, 4, 4), torch.randn(8, 8, 3, 3, requires_grad=True)
    conv2d(x, weight, torch.zeros(8), 1, 1)
    with torch.no_grad():
        conv2d(x, weight, None, 1, 1)
