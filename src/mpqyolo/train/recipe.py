"""Recipe: everything that decides a training run, in one TOML file."""

from __future__ import annotations

import difflib
import math
from dataclasses import fields
from itertools import pairwise
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mpqyolo.core.errors import ConfigError
from mpqyolo.data.augment.config import Augment

Kind = Literal["weight", "latent", "norm", "scale"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelPart(_Part):
    """What is trained. `options` go to build_model, `switches` to apply_policy; `rules` are asked before the policy's own."""

    family: str = "mpq"
    size: str = "n"
    policy: str = "default"
    rules: tuple[tuple[str, int, int], ...] = ()  # (pattern, weight bits, activation bits)
    options: dict[str, Any] = {}
    switches: dict[str, Any] = {}
    classes: tuple[str, ...] = ()  # empty: as the data says


class DataPart(_Part):
    """Which photos. `cache_mb` bounds the decoded photos that are kept in RAM.

    difficult: whether to learn boxes that VOC marks so; evaluation ignores them always.
    unlabelled: a folder tree of photos that only the teacher says something about; they make up `unlabelled_share` of each batch.
    """

    path: str = ""
    train: str = "train"
    val: str = "val"
    difficult: bool = False
    unlabelled: str = ""
    unlabelled_share: float = Field(default=0.5, gt=0, lt=1)
    workers: int = Field(default=2, ge=0)
    cache_mb: int = Field(default=1024, ge=0)


class OptimiserPart(_Part):
    """AdamW (Loshchilov & Hutter 2019) or SGD with Nesterov momentum; cosine from `lr` to `lr * lr_end` after a linear warm-up
    (of `warmup_epochs`, but never of a few steps alone: train/stages.py).

    lr 0: what suits the network (`Recipe.rate`) with AdamW; SGD has to be told its own. Weight decay touches only plain weights.
    Quantiser scales, by their logarithm, learn at `lr * scale_lr`, weights that become 1-bit at `lr * latent_lr`.
    """

    kind: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=0.0, ge=0)
    lr_end: float = Field(default=0.01, ge=0, le=1)
    weight_decay: float = Field(default=0.02, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    scale_lr: float = Field(default=1.0, ge=0)
    latent_lr: float = Field(default=1.0, ge=0)
    warmup_epochs: float = Field(default=2.0, ge=0)
    clip: float = Field(default=10.0, ge=0)  # greatest gradient norm; 0: no clipping

    @model_validator(mode="after")
    def _sgd_told(self) -> OptimiserPart:
        if self.kind == "sgd" and not (self.lr and "weight_decay" in self.model_fields_set):
            raise ValueError("the defaults are AdamW's; with sgd say lr and weight_decay too, such as lr=0.01, weight_decay=5e-4")
        return self


class LossPart(_Part):
    """Weights of the two prices of labels: of boxes (CIoU) and of class scores."""

    box: float = Field(default=5.0, ge=0)
    score: float = Field(default=1.0, ge=0)


class EvaluatePart(_Part):
    """When to evaluate and when to give up: `patience` evaluations of the last stage without a better mAP; 0: never.

    `bn_batches` training batches (mosaic off) re-estimate the statistics of batch norm before each evaluation.
    """

    every: int = Field(default=5, ge=1)
    patience: int = Field(default=0, ge=0)
    batch: int = Field(default=16, ge=1)
    bn_batches: int = Field(default=20, ge=1)


class TeacherPart(_Part):
    """Who teaches, and how he is listened to (train/distil.py), by stages with `distil`, or `always`: by all.

    path: a run or checkpoint, the TOML description of an ONNX file, or an ONNX file that `model` (a carried description, or a
    TOML file) describes; empty: this run's own network as it is when distillation begins. threads: of ONNX Runtime.
    use: what the teacher sees at every cell, or only its boxes from a score of `box_score` on, as labels of unlabelled photos.
    score, box, hint, backbone, pseudo: weights of the prices. cells: share of an image's cells that is priced.
    region, loss: which and how. until_passed: the run's own network teaches only until its pupil's mAP is above its own.
    """

    path: str = ""
    model: str = ""
    threads: int = Field(default=1, ge=1, le=64)
    always: bool = False
    use: Literal["maps", "boxes"] = "maps"
    box_score: float = Field(default=0.5, gt=0, le=1)
    score: float = Field(default=1.0, ge=0)
    box: float = Field(default=1.0, ge=0)
    hint: float = Field(default=0.5, ge=0)
    backbone: float = Field(default=0.0, ge=0)
    pseudo: float = Field(default=1.0, ge=0)
    cells: float = Field(default=0.05, gt=0, le=1)
    region: Literal["score", "discrepancy"] = "score"
    loss: Literal["weighted", "quality", "varifocal"] = "weighted"
    until_passed: bool = True


class Quantise(_Part):
    """Layers to quantise from a stage on. `layers` is a region or a wildcard on dotted names; bits 0: what the policy says."""

    layers: str
    part: Literal["weight", "activation", "both"] = "both"
    bits: int = Field(default=0, ge=0, le=8)


class Stage(_Part):
    """One stage of the way from float to quantised. What earlier stages quantised stays so.

    share: of the epochs that stages with absolute `epochs` leave. restart: warm-up and cosine begin anew. ramp: the stage's
    layers are blended one after the other over the first `ramp_share` of it. freeze_oscillating: in layers that have their final
    bits, weights whose code turns back more often than this (share of steps) are held while the stage lasts
    (train/oscillation.py); 0: none. train: the kinds of parameters that learn.
    """

    name: str
    share: float = Field(default=0.0, ge=0)
    epochs: float = Field(default=0.0, ge=0)
    lr: float = Field(default=1.0, ge=0)
    restart: bool = False
    quantise: tuple[Quantise, ...] = ()
    ramp: Literal["none", "shallow-first", "deep-first"] = "none"
    ramp_share: float = Field(default=0.8, gt=0, le=1)
    distil: bool = False
    train: tuple[Kind, ...] = ("weight", "latent", "norm", "scale")
    freeze_bn: bool = False
    freeze_oscillating: float = Field(default=0.0, ge=0, lt=1)
    reestimate_bn: bool = True
    ema_decay: float | None = Field(default=None, ge=0, lt=1)  # instead of the recipe's

    @property
    def empty(self) -> bool:
        """Whether it gets no step: a stage that is left out."""
        return not (self.share or self.epochs)


class Recipe(_Part):
    """A whole run. `start` is what `--from` names. `batch` is the sum over all processes.

    grow: sides of the training input before it reaches `image_size`, as (share of the epochs until which, side): at first, small
    images teach nearly as much and cost a fraction (Tan & Le 2021, EfficientNetV2). Evaluations take
    the size that is trained at; `best` is chosen at `image_size`.
    """

    model: ModelPart = ModelPart()
    data: DataPart = DataPart()
    image_size: int = Field(default=320, ge=32, multiple_of=32)
    grow: tuple[tuple[float, int], ...] = ()
    epochs: int = Field(default=100, ge=1)
    batch: int = Field(default=16, ge=1)
    mosaic_off_epochs: int | None = Field(default=None, ge=0)  # None: 15 % of the epochs
    seed: int = Field(default=0, ge=0, lt=2**63)  # what torch takes
    amp: bool = True  # mixed precision in training where there is CUDA, or a CPU that multiplies bfloat16; never in evaluation
    device: str = "auto"
    start: str = ""
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    save_steps: int = Field(default=200, ge=1)
    optimiser: OptimiserPart = OptimiserPart()
    loss: LossPart = LossPart()
    evaluate: EvaluatePart = EvaluatePart()
    teacher: TeacherPart = TeacherPart()
    augment: dict[str, Any] = {}  # fields of data.augment.Augment, which checks them
    stages: tuple[Stage, ...] = (Stage(name="float", share=1.0),)

    @field_validator("augment")
    @classmethod
    def _augment_known(cls, switches: dict[str, Any]) -> dict[str, Any]:
        known = [field.name for field in fields(Augment)]
        for key, value in switches.items():
            if key not in known:
                raise ValueError(f"unknown key '{key}'{guess(key, known)}; known here: {', '.join(known)}")
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"'{key}' must be a number")
        try:
            Augment(**switches)
        except ConfigError as fault:
            raise ValueError(str(fault)) from None
        return switches

    @property
    def rate(self) -> float:
        """The learning rate: `optimiser.lr`, or if that is 0 what serves such a network with AdamW at batch 16 (from trained
        weights on, for YOLOv5's layer shapes, for family mpq: study `rate` of docs/results.md, for float networks), times the
        square root of batch / 16."""
        if self.optimiser.lr:
            return self.optimiser.lr
        alone = 5e-4 if self.start else 5e-3 if self.model.family == "mpq" else 2e-3
        return alone * math.sqrt(self.batch / 16)

    def mosaics(self, epoch: int) -> bool:
        """Whether this epoch (from 0) trains on mosaics. The last ones do not, while the rate still teaches: the network has to
        learn photos as they are (study `settle` of docs/results.md)."""
        off = self.mosaic_off_epochs
        return epoch < self.epochs - (round(0.15 * self.epochs) if off is None else off)

    def side(self, epoch: int) -> int:
        """Side of the training input in this epoch (from 0), px."""
        last = self.epochs - 1  # at full size, however few epochs there are
        return next((side for share, side in self.grow if epoch < min(share * self.epochs, last)), self.image_size)

    def share(self, epochs: float) -> float:
        """How much of the work, 0..1, is done after this many epochs: an epoch's work goes with the pixels of its images."""
        pixels = [self.side(epoch) ** 2 for epoch in range(self.epochs)]
        whole = int(epochs)
        return (sum(pixels[:whole]) + sum(pixels[whole : whole + 1]) * (epochs - whole)) / sum(pixels)

    def listens(self, stage: Stage) -> bool:
        """Whether the stage learns from the teacher."""
        return stage.distil or self.teacher.always

    @field_validator("grow")
    @classmethod
    def _grow_fits(cls, steps: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
        for share, side in steps:
            if not 0 < share < 1 or side < 32 or side % 32:
                raise ValueError(f"[{share:g}, {side}]: a share lies between 0 and 1, a side is a multiple of 32")
        if any(later[0] < share or later[1] < side for (share, side), later in pairwise(steps)):
            raise ValueError("shares and sides must grow")
        return steps

    @model_validator(mode="after")
    def _grow_ends(self) -> Recipe:
        if self.grow and self.grow[-1][1] > self.image_size:
            raise ValueError(
                f"grow: {self.grow[-1][1]} px are more than image_size, {self.image_size} px; say smaller sides, or grow=[]"
            )
        return self

    @model_validator(mode="after")
    def _stages_fit(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        if not names:
            raise ValueError("stages: at least one is needed")
        if len(set(names)) < len(names):
            raise ValueError(f"stages: names must differ, got {', '.join(names)}")
        if clash := set(names) & set(Recipe.model_fields):
            raise ValueError(f"stages: '{clash.pop()}' is a key of the recipe; name the stage otherwise")
        fixed = math.fsum(stage.epochs for stage in self.stages)
        shares = any(stage.share for stage in self.stages)
        if any(stage.epochs and stage.share for stage in self.stages):
            raise ValueError("stages: a stage has either share or epochs, not both")
        if fixed > self.epochs + 1e-6 or (not shares and fixed < self.epochs - 1e-6):
            raise ValueError(f"stages: they take {fixed:g} of {self.epochs} epochs; change epochs, or give a stage a share")
        return self


def guess(key: str, known: list[str]) -> str:
    """Words that propose the known key that looks most like this one, if any does."""
    near = difflib.get_close_matches(key, known, 1)
    return f" (do you mean '{near[0]}'?)" if near else ""
