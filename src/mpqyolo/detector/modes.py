"""Running a detector without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from mpqyolo.quantize.quantiser import Quantiser


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; afterwards each module is in the mode that it was in (batch norms may be frozen)."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def unquantised(model: nn.Module) -> Iterator[None]:
    """The model with its quantisers at strength 0: what it is shown is no sample to set scales from."""
    strengths = {module: float(module.strength) for module in model.modules() if isinstance(module, Quantiser)}
    for quantiser in strengths:
        quantiser.set_strength(0)
    try:
        yield
    finally:
        for quantiser, strength in strengths.items():
            quantiser.set_strength(strength)
