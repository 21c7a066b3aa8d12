"""What a detector does, as a list: its layers in the order in which they run, and which value goes where.

A layer is a module of one of the kinds in `LAYERS`; nothing else in a detector may compute. Both the quantisers (which maps meet
in a concat?) and the packer (which node reads which tensor?) ask this list, so no one describes the network twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mpqyolo.core.errors import ConfigError
from mpqyolo.detector.blocks import CodeConv, Pixels, Predict, StreamConv, ToCode
from mpqyolo.detector.blocks_common import Concat, MaxPool, Upsample2
from mpqyolo.detector.maps import Maps
from mpqyolo.detector.modes import evaluating, unquantised

LAYERS = (Pixels, StreamConv, CodeConv, ToCode, Predict, Concat, MaxPool, Upsample2)


@dataclass(frozen=True)
class Call:
    """One layer's call. inputs, output: numbers of values; the image is value 0."""

    name: str
    module: nn.Module
    inputs: tuple[int, ...]
    output: int


@dataclass(frozen=True)
class Calls:
    """All calls in order, and the values of the prediction maps, one of each a level."""

    calls: tuple[Call, ...]
    distance: tuple[int, ...]
    logit: tuple[int, ...]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


@torch.no_grad()
def trace(model: nn.Module, side: int = 64) -> Calls:
    """Run the model once on a blank image and write down its calls. Its modes, statistics and scales stay as they are.

    Raises ConfigError if a layer reads a value that no known layer made: such a network cannot be packed.
    """
    first = next(model.parameters())
    image = torch.zeros(1, 3, side, side, dtype=torch.uint8, device=first.device)
    values: list[Tensor] = [image]  # kept alive, so that no identity is given twice
    number = {id(image): 0}
    calls: list[Call] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            read = []
            for tensor in _tensors(inputs):
                if id(tensor) not in number:
                    raise ConfigError(f"layer '{name}' reads a value that no layer of the network made; it cannot be lowered")
                read.append(number[id(tensor)])
            number[id(output)] = len(values)
            calls.append(Call(name, module, tuple(read), len(values)))
            values.append(output)

        return hook

    hooks = [m.register_forward_hook(note(name)) for name, m in model.named_modules() if isinstance(m, LAYERS)]
    try:
        with evaluating(model), unquantised(model):
            maps = model(image)
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(maps, Maps) or any(id(t) not in number for t in (*maps.distance, *maps.logit)):
        raise ConfigError("the network's predictions are not made by layers that can be lowered; use family 'mpq' or 'paper'")
    return Calls(tuple(calls), tuple(number[id(t)] for t in maps.distance), tuple(number[id(t)] for t in maps.logit))


def meeting(calls: Calls) -> list[list[str]]:
    """Names of the code-making layers (CodeConv, ToCode) whose maps meet in a concat, in groups; alone where none does."""
    leader: dict[str, str] = {}
    makers: dict[int, set[str]] = {}

    def root(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for call in calls.calls:
        if isinstance(call.module, (CodeConv, ToCode)):
            leader[call.name] = call.name
            makers[call.output] = {call.name}
        elif isinstance(call.module, (Concat, MaxPool, Upsample2)):
            makers[call.output] = set().union(*(makers.get(value, set()) for value in call.inputs))
            roots = sorted({root(name) for name in makers[call.output]}, key=list(leader).index)
            for other in roots[1:]:
                leader[other] = roots[0]
    groups: dict[str, list[str]] = {}
    for name in leader:
        groups.setdefault(root(name), []).append(name)
    return list(groups.values())
