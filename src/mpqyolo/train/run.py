"""Everything that a training run consists of, and how it is saved and found again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mpqyolo.core.errors import CheckpointError, ConfigError, DataError
from mpqyolo.data.augment import Augment
from mpqyolo.data.loader import Loader
from mpqyolo.data.unlabelled import load_unlabelled
from mpqyolo.detector.loss import DetectionLoss
from mpqyolo.quantize.apply import handles, parameter_kind
from mpqyolo.quantize.quantiser import Quantiser
from mpqyolo.train import checkpoint
from mpqyolo.train.ema import Ema, reestimate_bn
from mpqyolo.train.inputs import check_batch, load_data, pick_device, small_batch
from mpqyolo.train.optim import load_optimiser_state, make_optimiser, optimiser_state
from mpqyolo.train.oscillation import Coder, Oscillation, Weight
from mpqyolo.train.parallel import Ranks, copy_from_first
from mpqyolo.train.recipe import Recipe, Stage
from mpqyolo.train.stages import Plan, Setting, Slot, make_plan
from mpqyolo.train.start import Started, fit_start, load_start
from mpqyolo.train.teachers.lesson import AsBoxes, Teacher
from mpqyolo.train.teachers.network import NetworkTeacher
from mpqyolo.train.teachers.open import check_teaching, open_teacher

Exact = Callable[[nn.Module, int], nn.Module]  # (network, image size) -> the integer network that a file would hold


@dataclass
class Position:
    """Where a run stands. Plain values only: it goes into the checkpoint as JSON, and floats survive that exactly."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # losses of this epoch so far
    rows: list[dict[str, Any]] = field(default_factory=list)  # results.csv
    score: float | None = None  # mAP of the last evaluation
    best: float | None = None  # best mAP of the final stage
    best_epoch: int = 0
    waited: int = 0  # evaluations of the last stage since the best
    teacher_score: float | None = None  # mAP of the run's own float network when it began to teach
    passed: bool = False  # whether the pupil has scored higher since
    seconds: float = 0.0
    ema_updates: int = 0
    scaler: dict[str, Any] = field(default_factory=dict)
    finished: str = ""  # why the run is over; empty: it is not


class Run:
    """Data, model, quantisers, plan, optimiser, average and teacher of one run, and its position.

    Raises ConfigError, DataError or CheckpointError for what does not fit together.
    """

    def __init__(self, recipe: Recipe, out: Path, ranks: Ranks) -> None:
        self.out, self.ranks = out, ranks
        self.device = pick_device(recipe.device, ranks)
        self.train_set, self.val_set = load_data(recipe)
        classes = self.train_set.classes
        known: dict[str, Any] = {"model": recipe.model.model_copy(update={"classes": classes})}
        known |= {"optimiser": recipe.optimiser.model_copy(update={"lr": recipe.rate})}
        self.recipe = recipe.model_copy(update=known)
        if recipe.batch % ranks.world:
            raise ConfigError(f"batch {recipe.batch} does not divide by {ranks.world} processes")
        self.loader = Loader(
            self.train_set,
            recipe.image_size,
            recipe.batch // ranks.world,
            Augment(**recipe.augment),
            recipe.seed,
            recipe.data.workers,
            ranks.rank,
            ranks.world,
            recipe.data.cache_mb << 20,
            recipe.data.difficult,
            unlabelled=load_unlabelled(recipe.data.unlabelled, classes) if recipe.data.unlabelled else None,
            share=recipe.data.unlabelled_share,
        )
        check_batch(self.loader, recipe)
        torch.manual_seed(recipe.seed)
        self.model = checkpoint.make_model(self.recipe.model)
        resumed = (out / checkpoint.LAST).is_file()  # then the weights come from there, and those it began with may be gone
        self.started = load_start(self.model, self.recipe) if recipe.start and not resumed else Started([], frozenset())
        self._place(self.model)
        copy_from_first(self.model, ranks)
        self.loss = DetectionLoss(len(classes), cast(Any, self.model).strides, recipe.loss.box, recipe.loss.score)
        self.plan: Plan = make_plan(recipe, len(self.loader))
        self.quantisers: dict[Slot, list[Quantiser]] = {}
        for handle in handles(self.model):
            self.quantisers.setdefault(Slot(handle.name, handle.part, handle.bits), []).append(handle.quantiser)
        self.slots = list(self.quantisers)
        self.settings: dict[Slot, Setting] = {}
        self.plan.check(self.slots)
        self._check_widths()
        self.kinds = parameter_kind(self.model)
        self.optimiser: Optimizer = make_optimiser(self.model, self.kinds, self.recipe.optimiser)
        self.ema = Ema(self.model)
        self.oscillation = self._oscillation()
        half = torch.float16 if self.device.type == "cuda" and not torch.cuda.is_bf16_supported() else torch.bfloat16
        fast = self.device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
        self.amp = torch.autocast(self.device.type, half, enabled=recipe.amp and fast)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.amp and half == torch.float16)
        self.teaching = self._first_lesson()
        self.teacher: Teacher | None = None
        if recipe.teacher.path and self.teaching is not None:
            self.teacher = open_teacher(recipe.teacher, classes, self._place, self.amp)
        self.learned = recipe.side((self.teaching - 1) // len(self.loader)) if self.teaching else recipe.image_size
        self.notes = [
            *self.started.notes,
            *small_batch(self.loader, recipe),
            *check_teaching(self.recipe, self.teacher),
            *self._silence(),
        ]
        self.exact: Exact | None = None
        self.position = Position()

    def fit_start(self) -> None:
        """Before the first step of a run that starts from weights: thresholds and statistics are set from training photos."""
        if self.recipe.start:
            if self.plan.stage(0).freeze_bn:  # what is frozen are the statistics of the network as it is quantised
                self.configure()
            fit_start(self.model, self.started.fresh, self.clean_batches(self.recipe.side(0)))
            for quantiser in chain(*self.quantisers.values()):
                quantiser.set_strength(0.0)  # until the first step: it may have to teach as it is in float
            self.settings = {}
            copy_from_first(self.model, self.ranks)
            self.ema.model.load_state_dict(self.model.state_dict())

    def listens(self, stage: Stage) -> bool:
        """Whether the teacher is asked now. The run's own float network is not, about images larger than those it learned from,
        where it soon sees less than its pupil, nor, with `until_passed`, once it scores less."""
        if self.recipe.teacher.path:
            return self.recipe.listens(stage)
        done = self.position.passed or self.recipe.side(self.position.epoch) > self.learned
        return self.recipe.listens(stage) and not done

    def compare(self, score: float) -> bool:
        """After an evaluation of the pupil: whether its mAP now is above its own teacher's, and was not before."""
        before, position = self.position.passed, self.position
        known = position.teacher_score
        position.passed = before or (self.recipe.teacher.until_passed and known is not None and score > known)
        return position.passed and not before

    def configure(self) -> set[str]:
        """Set the quantisers as the plan wants them at this step. Returns names of parameters that the next batch sets anew."""
        wanted = self.plan.settings(self.slots, self.position.step)
        fresh: set[int] = set()
        for slot, setting in wanted.items():
            old = self.settings.get(slot)
            if setting == old:
                continue
            new = old is None or old.bits != setting.bits or (old.strength == 0) != (setting.strength == 0)
            for quantiser in self.quantisers[slot]:
                quantiser.set_bits(setting.bits)
                quantiser.set_strength(setting.strength)
                if new:
                    fresh |= {id(p) for p in quantiser.parameters()}
        self.settings = wanted
        return {name for name, p in self.model.named_parameters() if id(p) in fresh} if fresh else set()

    def hold_oscillating(self, threshold: float) -> None:
        """After an optimiser step: hold weights whose code keeps turning, in layers whose weights have their final bits."""
        settled = {slot.layer for slot, now in self.settings.items() if slot.part == "weight" and now == Setting(1.0, slot.bits)}
        self.oscillation.update(threshold, settled)

    def prepare_teacher(self) -> None:
        """At the first step that distils, without another teacher: this run's own network as it now is, averaged."""
        if self.teacher is not None or self.teaching is None or self.position.step < self.teaching:
            return
        if self.recipe.side(self.position.epoch) > self.learned:
            return
        file = self.out / checkpoint.TEACHER
        if self.position.step > self.teaching:
            teacher = checkpoint.make_model(self.recipe.model)
            checkpoint.load_exactly(teacher, checkpoint.load_tensors(file)[0], file)
        else:
            teacher = copy.deepcopy(self.ema.model)
            reestimate_bn(teacher, self.clean_batches(self.recipe.side(self.position.epoch)))
            copy_from_first(teacher, self.ranks)
            self.position.teacher_score = self.position.score  # stages end with an evaluation
            if self.ranks.first:
                checkpoint.save_tensors(file, teacher.state_dict(), {})
        own: Teacher = NetworkTeacher(self._place(teacher.eval().requires_grad_(False)), None, self.amp)
        self.teacher = AsBoxes(own, self.recipe.teacher.box_score) if self.recipe.teacher.use == "boxes" else own

    def _place(self, model: nn.Module) -> nn.Module:
        return model.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def clean_batches(self, side: int | None = None) -> Iterator[Tensor]:
        """Labelled images of the first batches of epoch 0, mosaic off, on the device. Batch-norm statistics are theirs: always of
        the same images, so that two evaluations differ by the weights alone."""
        batches = self.loader.epoch(0, mosaic=False, size=side)
        for _, batch in zip(range(self.recipe.evaluate.bn_batches), batches, strict=False):
            yield batch.images[: batch.labelled].to(self.device)

    def save(self) -> None:
        """Write everything that an exact resume needs into one file, atomically; only the first process does."""
        if not self.ranks.first:
            return
        tensors = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"ema/{name}": tensor for name, tensor in self.ema.model.state_dict().items()}
        tensors |= {f"optimiser/{name}": tensor for name, tensor in optimiser_state(self.optimiser).items()}
        tensors |= {f"oscillation/{name}": tensor for name, tensor in self.oscillation.state.items()}
        self.position.ema_updates = self.ema.updates
        self.position.scaler = self.scaler.state_dict()
        checkpoint.save_tensors(self.out / checkpoint.LAST, tensors, {"position": asdict(self.position)})

    def restore(self) -> bool:
        """Go back to the last checkpoint; False if the run was killed before its first. Raises CheckpointError, or DataError if
        an epoch no longer has the steps that it had."""
        file = self.out / checkpoint.LAST
        if not file.is_file():
            return False
        tensors, record = checkpoint.load_tensors(file)

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

        try:
            self.position = Position(**record["position"])
        except (KeyError, TypeError):
            raise CheckpointError(f"{file}: does not say where the run stood; is it of another version of mpqyolo?") from None
        steps, done = len(self.loader), self.position.batch
        if self.position.step != self.position.epoch * steps + done or done > steps:
            raise DataError(
                f"{self.recipe.data.path}: an epoch takes {steps} steps now, other than when the run began, so it cannot go on "
                f"to the same numbers; bring the photos back, or begin another run --from {self.out}"
            )
        checkpoint.load_exactly(self.model, part("model/"), file)
        checkpoint.load_exactly(self.ema.model, part("ema/"), file)
        load_optimiser_state(self.optimiser, part("optimiser/"))
        self.oscillation.state = {name: tensor.to(self.device) for name, tensor in part("oscillation/").items()}
        self.ema.updates = self.position.ema_updates
        if self.position.scaler:
            self.scaler.load_state_dict(self.position.scaler)
        if self.position.step:
            self.settings = self.plan.settings(self.slots, self.position.step - 1)
        return True

    def _check_widths(self) -> None:
        """Raise ConfigError now, not hours from now, if a stage wants bits that a quantiser cannot have."""
        for index, stage in enumerate(self.plan.stages):
            for slot, setting in self.plan.settings(self.slots, self.plan.span(index)[1] - 1).items():
                if any(setting.bits not in quantiser.widths for quantiser in self.quantisers[slot]):
                    raise ConfigError(
                        f"stage '{stage.name}': the {slot.part}s of layer '{slot.layer}' cannot have {setting.bits} bits; "
                        "maps of a sign (model.switches.ste) have 1 alone"
                    )

    def _oscillation(self) -> Oscillation:
        averages = dict(self.ema.model.named_parameters())
        weights = {}
        for slot, found in self.quantisers.items():
            name = f"{slot.layer}.weight"
            if slot.part == "weight" and name in averages:
                weights[slot.layer] = Weight(self.model.get_parameter(name), averages[name], cast(Coder, found[0]))
        return Oscillation(weights)

    def _silence(self) -> list[str]:
        """What to tell if images outgrow the run's own teacher."""
        if self.recipe.teacher.path or self.teaching is None:
            return []
        begin = self.teaching // len(self.loader)
        late = next((e for e in range(begin, self.recipe.epochs) if self.recipe.side(e) > self.learned), None)
        if late is None:
            return []
        words = f"its float network learns from images of {self.learned} px and teaches no more from epoch {late + 1} on"
        return [f"grow: {words}, when they are {self.recipe.side(late)} px; --teacher RUN brings one that does"]

    def _first_lesson(self) -> int | None:
        """First step that distils, or None. Raises ConfigError if there is then no float network to learn from."""
        index = next((i for i, s in enumerate(self.plan.stages) if self.recipe.listens(s) and not s.empty), None)
        if index is None:
            return None
        start, name = self.plan.starts[index], self.plan.stages[index].name
        before = self.plan.settings(self.slots, start - 1).values() if start else ()
        if not self.recipe.teacher.path and any(setting.strength > 0 for setting in before):
            raise ConfigError(f"stage '{name}' distils first, but the network is no longer float then; set teacher.path")
        if not self.recipe.teacher.path and start == 0 and not self.recipe.start:
            raise ConfigError(
                f"stage '{name}' distils from an untrained network; put a float stage before it, or set teacher.path"
            )
        return start
