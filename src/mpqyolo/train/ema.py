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
        self.of = model
        mine, theirs = self.model.named_parameters(), model.parameters()
        self.pairs = [(name, own, other) for (name, own), other in zip(mine, theirs, strict=True)]

    def restart(self) -> None:
        """Follow closely again: called when a stage begins that quantises."""
        self.updates = 0

    @torch.no_grad()
    def update(self, decay: float, fresh: Collection[str] = ()) -> None:
        """Take in the model after a step. Parameters named in `fresh` (scales that were just set anew) are copied."""
        self.updates += 1
        weight = 1 - min(decay, (1 + self.updates) / (10 + self.updates))
        for name, mine, other in self.pairs:
            if name in fresh:
                mine.copy_(other)
        averaged = [pair for pair in self.pairs if pair[0] not in fresh]
        torch._foreach_lerp_([mine for _, mine, _ in averaged], [other for _, _, other in averaged], weight)
        torch._foreach_copy_(list(self.model.buffers()), list(self.of.buffers()))


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
