"""Is every quantised layer alive? What a run asks while it trains, and what a report prints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mpqyolo.core.errors import TrainingError
from mpqyolo.quantize.apply import handles
from mpqyolo.quantize.binary import BinaryActivation, BinaryWeight
from mpqyolo.quantize.lsq import SMALLEST_SCALE, Lsq, LsqActivation, LsqWeight


@torch.no_grad()
def check(model: nn.Module) -> None:
    """Raise TrainingError that names the first layer whose 1-bit weights are all alike, or whose scale went to zero."""
    for handle in handles(model):
        quantiser = handle.quantiser
        if float(quantiser.strength) == 0:
            continue
        if isinstance(quantiser, BinaryWeight):
            bits = model.get_parameter(f"{handle.name}.weight").ge(0)
            if bits.numel() > 1 and (bits.all() or not bits.any()):
                raise TrainingError(f"layer '{handle.name}': all 1-bit weights are alike; try a lower optimiser.lr, or a ramp")
        elif (
            isinstance(quantiser, Lsq)
            and bool(quantiser.initialised)
            and not bool((quantiser.learned.exp() > SMALLEST_SCALE).all())
        ):
            raise TrainingError(
                f"layer '{handle.name}': a scale of its {handle.part}s went to zero; try a lower optimiser.scale_lr"
            )


@contextmanager
def watch_bits(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """While open, gathers for every 1-bit activation map the share of +1 of each channel, summed over calls: {layer: (2, C)}.

    Row 0 are the sums of shares, row 1 counts the calls.
    """
    shares: dict[str, Tensor] = {}

    def note(name: str):
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
            assert isinstance(module, (BinaryActivation, LsqActivation))
            share = inputs[0].ge(module.threshold).float().mean((0, 2, 3))  # of the map without its border
            shares[name] = shares.get(name, 0) + torch.stack([share, torch.ones_like(share)])

        return hook

    hooks = [
        h.quantiser.register_forward_hook(note(h.name))
        for h in handles(model)
        if h.part == "activation" and h.quantiser.bits == 1 and float(h.quantiser.strength) == 1
    ]
    try:
        yield shares
    finally:
        for hook in hooks:
            hook.remove()


def check_bits(shares: dict[str, Tensor]) -> None:
    """Raise TrainingError that names the first layer all of whose input bits were alike in everything that was watched."""
    for name, (total, calls) in shares.items():
        share = total / calls
        if bool((share == 0).all()) or bool((share == 1).all()):
            raise TrainingError(f"layer '{name}': all bits of its input are alike; try a lower optimiser.lr, or a ramp")


@torch.no_grad()
def clip_rate(quantiser: LsqWeight, w: Tensor) -> float:
    """Share of weights beyond the quantiser's range."""
    return float((w.abs() > (quantiser.limits[1] + 0.5) * quantiser.scale_of(w)).float().mean())


def flip_rate(before: Tensor, after: Tensor) -> float:
    """Share of 1-bit weights whose sign changed."""
    return float((before.ge(0) != after.ge(0)).float().mean())
