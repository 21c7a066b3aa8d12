"""The way from float to quantised as a pure function of the step: no state, so a resumed run cannot differ."""

from __future__ import annotations

import fnmatch
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mpqyolo.core.bits import REGIONS
from mpqyolo.core.errors import ConfigError
from mpqyolo.train.recipe import Quantise, Recipe, Stage

WARMUP_STEPS = 10  # AdamW's first steps are as long as any, whatever the gradient; an epoch of a tiny data set is one of them


class Slot(NamedTuple):
    """A place where a quantiser sits: dotted layer name, "weight" or "activation", and the bits that the policy gives it."""

    layer: str
    part: str
    bits: int


class Setting(NamedTuple):
    """What a quantiser is set to: strength 0 (float) to 1 (quantised), and its bits."""

    strength: float
    bits: int


@dataclass(frozen=True)
class Plan:
    """Stages laid over the steps of a run. `starts[i]` is the first step of stage i, `steps` the end of the last."""

    stages: tuple[Stage, ...]
    starts: tuple[int, ...]
    steps: int
    warmup: int
    lr_end: float

    def index(self, step: int) -> int:
        """Index of the stage that this step belongs to (the last one from the end on)."""
        return max(0, bisect_right(self.starts, min(step, self.steps - 1)) - 1)

    def stage(self, step: int) -> Stage:
        """The stage that this step belongs to."""
        return self.stages[self.index(step)]

    def span(self, index: int) -> tuple[int, int]:
        """First step of stage `index` and the first after it."""
        return self.starts[index], self.starts[index + 1] if index + 1 < len(self.starts) else self.steps

    def lr(self, step: int) -> float:
        """Factor on the learning rate: the stage's, times warm-up, times cosine, both from the last restart to the next."""
        restarts = [start for start, stage in zip(self.starts, self.stages, strict=True) if stage.restart]
        edges = [0, *(start for start in restarts if 0 < start < self.steps), self.steps]
        place = bisect_right(edges, min(step, self.steps - 1)) - 1
        start, end = edges[place], edges[place + 1]
        warmup = min(self.warmup, (end - start) // 10)
        if step - start < warmup:
            shape = (step - start + 1) / (warmup + 1)
        else:
            progress = (step - start - warmup) / max(1, end - start - warmup)
            shape = self.lr_end + (1 - self.lr_end) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return shape * self.stage(step).lr

    def settings(self, slots: Sequence[Slot], step: int) -> dict[Slot, Setting]:
        """The setting of every slot at this step. Slots are ordered from shallow to deep."""
        current = {slot: Setting(0.0, slot.bits) for slot in slots}
        now = self.index(step)
        for index in range(now + 1):
            stage = self.stages[index]
            wanted = {slot: Setting(1.0, bits) for slot in slots if (bits := _bits(stage.quantise, slot))}
            changed = {slot: setting for slot, setting in wanted.items() if current[slot] != setting}
            if index == now and stage.ramp != "none":
                start, end = self.span(index)
                length = max(1.0, (end - start) * stage.ramp_share)
                changed = _ramp(changed, (step - start + 1) / length, stage.ramp == "deep-first")
            current |= changed
        return current

    def final(self, slots: Sequence[Slot], step: int) -> bool:
        """Whether every slot already is as it will be at the end: only then do two evaluations compare."""
        return self.settings(slots, step) == self.settings(slots, self.steps)

    def check(self, slots: Sequence[Slot]) -> None:
        """Raise ConfigError if a layer that the policy quantises would still be float, or wider, at the end, or if what a stage
        wants to quantise is the name of nothing."""
        layers = list(dict.fromkeys(slot.layer for slot in slots))
        for stage in self.stages if layers else ():  # a policy without bits has nothing to name
            for rule in stage.quantise:
                if rule.layers not in REGIONS and not fnmatch.filter(layers, rule.layers):
                    known = ", ".join(dict.fromkeys(".".join(layer.split(".")[:2]) for layer in layers))
                    raise ConfigError(
                        f"stage '{stage.name}': '{rule.layers}' matches no layer that has bits; it may be one of "
                        f"{', '.join(REGIONS)}, or a wildcard on names that begin with: {known}"
                    )
        for slot, setting in self.settings(slots, self.steps).items():
            if setting != Setting(1.0, slot.bits):
                raise ConfigError(
                    f"no stage brings the {slot.part} of layer '{slot.layer}' to the {slot.bits} bits of the policy; "
                    "add it to a stage's quantise list, or choose another model.policy"
                )


def make_plan(recipe: Recipe, steps_per_epoch: int) -> Plan:
    """Lay the recipe's stages over its steps: shares divide what absolute epochs leave; edges are rounded to whole steps.

    Raises ConfigError if a stage gets no step.
    """
    shares = sum(stage.share for stage in recipe.stages)
    free = max(0.0, recipe.epochs - math.fsum(stage.epochs for stage in recipe.stages))
    starts, edge = [], 0.0
    for stage in recipe.stages:
        starts.append(round(edge * steps_per_epoch))
        edge += stage.epochs or (free * stage.share / shares if shares else 0.0)
    steps = recipe.epochs * steps_per_epoch
    for stage, start, end in zip(recipe.stages, starts, [*starts[1:], steps], strict=True):
        if start == end and not stage.empty:
            raise ConfigError(
                f"stage '{stage.name}' gets no step: {recipe.epochs} epochs of {steps_per_epoch} steps are too few; "
                "give it more epochs, a larger share, or 0 to leave it out"
            )
    warmup = round(recipe.optimiser.warmup_epochs * steps_per_epoch)
    if recipe.optimiser.warmup_epochs:
        warmup = max(warmup, WARMUP_STEPS)
    return Plan(recipe.stages, tuple(starts), steps, warmup, recipe.optimiser.lr_end)


def _bits(rules: Iterable[Quantise], slot: Slot) -> int:
    """Bits that these rules ask for, never below the policy's (the last that matches decides); 0: they do not speak of it.

    Weights of 1 bit are signs, which have no other width; maps of 1 bit may have had more before.
    """
    bits = 0
    for rule in rules:
        pattern = f"{rule.layers}*" if rule.layers in REGIONS else rule.layers
        if rule.part in (slot.part, "both") and fnmatch.fnmatchcase(slot.layer, pattern):
            bits = 1 if slot.bits == 1 and slot.part == "weight" else max(rule.bits, slot.bits)
    return bits


def _ramp(changed: dict[Slot, Setting], progress: float, deep_first: bool) -> dict[Slot, Setting]:
    """Each layer in turn from 0 to 1 while progress goes from 0 to 1; layers whose turn has not come are left out."""
    layers = list(dict.fromkeys(slot.layer for slot in changed))
    if deep_first:
        layers.reverse()
    turn = {layer: place for place, layer in enumerate(layers)}
    blended = {}
    for slot, setting in changed.items():
        # A tiny slack, so that rounding cannot leave the last layer a hair below quantised.
        strength = min(1.0, progress * len(layers) - turn[slot.layer] + 1e-9)
        if strength > 1e-6:
            blended[slot] = Setting(strength, setting.bits)
    return blended
