"""Several processes as one: torchrun starts them, this averages what they find.

Every process sees its own photos. After each backward pass the gradients are averaged, and so is what a process measures by
itself: batch-norm statistics, and scales that a quantiser has just set from its first batch. Hence all processes hold equal
weights and buffers after every step. A process divides its loss by its own targets, so W processes of B photos follow
the mean of W losses of B photos (what gradient accumulation gives), not the loss of one batch of W*B.

This is less than DistributedDataParallel, and deliberately: quantisers at strength 0 have no gradient, and the layers that
have one change from stage to stage, which DDP's buckets do not like.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mpqyolo.core.errors import ConfigError

T = TypeVar("T")


class Ranks(NamedTuple):
    """This process among all; `local` is its number on this machine (its GPU)."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0


@contextmanager
def processes(device: str = "auto") -> Iterator[Ranks]:
    """Join the group that torchrun's environment describes (NCCL for GPUs, else gloo); alone without it.

    device: as in a recipe. Raises ConfigError for one numbered GPU, which all processes would share."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    ranks = Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ.get("LOCAL_RANK", "0")))
    if ":" in device:
        raise ConfigError(f"device '{device}' cannot serve {ranks.world} processes; say cuda, and each takes its own GPU")
    gpus = device != "cpu" and torch.cuda.is_available()
    # Evaluation happens in the first process while the others wait: hence the patience.
    dist.init_process_group("nccl" if gpus else "gloo", timeout=timedelta(hours=2))
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def from_first(value: T, ranks: Ranks) -> T:
    """The first process's value, in every process."""
    if ranks.world == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def copy_from_first(model: nn.Module, ranks: Ranks) -> None:
    """Give every process the first one's parameters and buffers."""
    if ranks.world > 1:
        for tensor in (*model.parameters(), *model.buffers()):
            whole = tensor.data.contiguous()
            dist.broadcast(whole, src=0)
            tensor.data.copy_(whole)


def average(model: nn.Module, measured: Collection[str], flag: bool, ranks: Ranks) -> bool:
    """Average gradients, floating buffers, and the parameters named in `measured` over all processes, in one exchange.

    A parameter that has a gradient in one process only gets its share in all. Returns whether any process raised `flag`.
    """
    if ranks.world == 1:
        return flag
    parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    has = torch.tensor([p.grad is not None for _, p in parameters] + [flag], dtype=torch.float32)
    values: list[Tensor] = [b for b in model.buffers() if b.is_floating_point()]
    values += [p.data for name, p in parameters if name in measured]
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for _, p in parameters]
    everything = [*gradients, *values]
    flat = torch.cat([has.to(everything[0].device), *(t.reshape(-1).float() for t in everything)])
    dist.all_reduce(flat)
    flags, *parts = flat.split([len(has), *(t.numel() for t in everything)])
    for tensor, part in zip(everything, parts, strict=True):
        tensor.copy_(part.view(tensor.shape) / ranks.world)
    for (_, parameter), gradient, found in zip(parameters, gradients, flags.tolist(), strict=False):
        if found:
            parameter.grad = gradient
    return bool(flags[-1] > 0)
