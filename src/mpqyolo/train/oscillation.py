"""Holding weights that keep jumping between two codes: Nagel et al., Overcoming Oscillations, ICML 2022 (arXiv 2203.11086)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

MOMENTUM = 0.01  # of the running frequency


class Coder(Protocol):
    """What a quantiser of weights can say: the codes of w, and the values near w that have these codes."""

    def codes(self, w: Tensor, /) -> Tensor: ...

    def values(self, code: Tensor, w: Tensor, /) -> Tensor: ...


class Weight(NamedTuple):
    """A quantised weight: its parameter, its running average, and its quantiser."""

    parameter: Tensor
    average: Tensor
    quantiser: Coder


class Oscillation:
    """Counts, for every quantised weight, how often its code turns back; holds those that do so too often.

    frequency = (1 - m) * frequency + m * [the code changed against its last change]. A weight above the threshold is held, as
    long as `update` is called, at the code of its average, where it mostly was: its value moves with the scale. `state` is flat,
    for the checkpoint.
    """

    def __init__(self, weights: Mapping[str, Weight]) -> None:
        self.weights = dict(weights)
        self.state: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, threshold: float, names: Collection[str]) -> None:
        """Count and hold the weights so named, after an optimiser step. Their bits must not change: codes would."""
        for name, (parameter, average, quantiser) in self.weights.items():
            if name not in names:
                continue
            code = quantiser.codes(parameter).to(torch.int16)
            if f"{name}/code" not in self.state:
                self._begin(name, parameter, code)
                continue
            last, direction, frequency, held, at = (self.state[f"{name}/{key}"] for key in _KEYS)
            step = (code - last).sign()
            turned = (step * direction) < 0
            frequency.mul_(1 - MOMENTUM).add_(turned, alpha=MOMENTUM)
            direction.copy_(torch.where(step == 0, direction, step))
            last.copy_(code)
            new = (frequency > threshold) & ~held
            if new.any():
                at.copy_(torch.where(new, quantiser.codes(average).to(at.dtype), at))
                held.logical_or_(new)
            parameter.copy_(torch.where(held, quantiser.values(at, parameter), parameter))

    def held(self) -> float:
        """Share of weights that are held."""
        masks = [tensor for name, tensor in self.state.items() if name.endswith("/held")]
        return float(sum(mask.sum() for mask in masks)) / max(1, sum(mask.numel() for mask in masks))

    def _begin(self, name: str, parameter: Tensor, code: Tensor) -> None:
        zeros = torch.zeros_like
        made = (code, zeros(code), zeros(parameter), zeros(parameter, dtype=torch.bool), zeros(parameter))
        self.state |= {f"{name}/{key}": tensor for key, tensor in zip(_KEYS, made, strict=True)}


_KEYS = ("code", "direction", "frequency", "held", "at")
