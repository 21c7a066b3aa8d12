"""The average of the weights over the last steps, and the batch-norm statistics that belong to it."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Ema:
    """Exponential moving average of all parameters, quantiser scales included; buffers are copied.

    average = d * average + (1 - d) * parameter with d = min(decay, (1 + n) / (10 + n)), n the updates since the last restart:
    a young average follows closely.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.updates = 0

    def restart(self) -> None:
        """Follow closely again: called when a stage begins."""
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module, decay: float, fresh: Collection[str] = ()) -> None:
        """Take in the model after a step. Parameters named in `fresh` (scales that were just set anew) are copied."""
        self.updates += 1
        weight = 1 - min(decay, (1 + self.updates) / (10 + self.updates))
        theirs = dict(model.named_parameters())
        averaged: list[tuple[Tensor, Tensor]] = []
        for name, mine in self.model.named_parameters():
            if name in fresh:
                mine.copy_(theirs[name])
            else:
                averaged.append((mine.data, theirs[name].data))
        torch._foreach_lerp_([mine for mine, _ in averaged], [other for _, other in averaged], weight)
        for buffer, other in zip(self.model.buffers(), model.buffers(), strict=True):
            buffer.copy_(other)


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """All batch-norm layers that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


@torch.no_grad()
def reestimate_bn(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set the running statistics of batch norm to their mean over these image batches (B, 3, H, W), weights as they are.

    Averaged or oscillating quantised weights do not have the statistics that training gathered (Nagel et al. 2022,
    arXiv 2203.11086). The model is left in eval mode.
    """
    layers = batch_norms(model)
    model.eval()
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over the batches
        layer.train()
    for images in batches:
        model(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
