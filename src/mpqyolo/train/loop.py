"""The training loop."""

from __future__ import annotations

import shlex
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpqyolo.core.errors import ConfigError, InterruptError, TrainingError
from mpqyolo.data.loader import Batch
from mpqyolo.data.preview import draw_batch
from mpqyolo.quantize import health
from mpqyolo.quantize.fused import keep_memory
from mpqyolo.train import checkpoint, curves
from mpqyolo.train.culprit import culprit
from mpqyolo.train.distil import distil, first, follow, last
from mpqyolo.train.ema import batch_norms
from mpqyolo.train.files import held
from mpqyolo.train.interrupt import interruptible
from mpqyolo.train.judge import SCORES, judge
from mpqyolo.train.log import Reporter, TerminalReporter
from mpqyolo.train.optim import set_rate
from mpqyolo.train.parallel import average, from_first, processes
from mpqyolo.train.recipe import Recipe
from mpqyolo.train.recipe_file import RUN_FILE, differs, placed, run_recipe, save_recipe
from mpqyolo.train.run import Exact, Run
from mpqyolo.train.stages import Stage
from mpqyolo.train.teachers.lesson import Lesson

HEALTH_STEPS = 100
PAUSE = 20.0  # seconds between two drawings of results.png, and between checkpoints that only an epoch's end asks for


@dataclass(frozen=True)
class RunResult:
    """out: the run folder. best, best_epoch: mAP of the weights in `checkpoint` and when they were found.

    rows: results.csv. finished: why training is over.
    """

    out: Path
    checkpoint: Path
    best: float
    best_epoch: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    finished: str = ""


def train(
    recipe: Recipe | None,
    out: Path | str,
    resume: bool = False,
    from_: Path | str | None = None,
    progress: Reporter | None = None,
    exact: Exact | None = None,
) -> RunResult:
    """Train by the recipe into the folder `out`; with `resume` go on where a run in it stopped, to the same numbers.

    recipe: with `resume` it may be None: the run's own counts. from_: weights to start from (a run, a checkpoint, a YOLOv5
    `.pt`). exact: `pack.folded.folded`, with which fully quantised networks are judged as the integers that a file would hold.
    Under torchrun every process calls this. Raises ConfigError, DataError, CheckpointError; TrainingError for NaN, a collapsed
    layer, or Ctrl-C.
    """
    out = Path(out)
    keep_memory()
    asked, recipe = recipe, _settled(recipe, out, resume, from_)
    with processes(recipe.device) as ranks, held(out) if ranks.first else nullcontext():
        report = (progress or TerminalReporter()) if ranks.first else Reporter()
        run = Run(recipe, out, ranks)
        run.exact = exact
        resumed = resume and run.restore()
        if not resumed:
            run.fit_start()
        if ranks.first:
            save_recipe(out, run.recipe)
            for note in run.notes:
                report.say(note)
            if resume and differs(asked or recipe, recipe, from_):
                report.say(f"going on by {out / RUN_FILE}: a run keeps its recipe, other options given now do not count")
            if resumed:
                report.say(f"resuming {out} at epoch {run.position.epoch + 1}, step {run.position.step} of {run.plan.steps}")
        with interruptible() as interrupt:
            try:
                _Loop(run, report, interrupt).go()
            finally:
                report.end()
        position = run.position
        best = position.best if position.best is not None else float("nan")
        return RunResult(out, out / checkpoint.BEST, best, position.best_epoch, position.rows, position.finished)


def _settled(recipe: Recipe | None, out: Path, resume: bool, from_: Path | str | None) -> Recipe:
    """The recipe to train by. Raises ConfigError for a folder that holds a run, or, to resume, none or another."""
    if (out / RUN_FILE).is_file():
        if not resume:
            raise ConfigError(f"{out}: holds a run already; add --resume to go on with it, or choose another --out")
        return run_recipe(out)
    if resume or recipe is None:
        raise ConfigError(f"{out}: no {RUN_FILE} in it, so there is no run to resume")
    return placed(recipe, from_)


class _Loop:
    def __init__(self, run: Run, report: Reporter, interrupt: threading.Event) -> None:
        self.run, self.report, self.interrupt = run, report, interrupt
        self.scales = {name for name, kind in run.kinds.items() if kind == "scale"}
        self.began = time.monotonic() - run.position.seconds
        self.stage: Stage | None = None
        self.saved = self.drawn = -PAUSE

    def go(self) -> None:
        run, position, recipe = self.run, self.run.position, self.run.recipe
        self.report.begin(run.plan.steps, position.step, recipe.batch, lambda step: recipe.share(step / len(run.loader)))
        while position.epoch < recipe.epochs and not position.finished:
            mosaics = recipe.mosaics(position.epoch)
            for batch in run.loader.epoch(position.epoch, position.batch, mosaics, recipe.side(position.epoch)):
                self._step(batch)
            self._end_epoch()
        position.finished = position.finished or "all epochs done"
        run.save()
        self._publish(last=True)  # a kill may have come between the last checkpoint and this
        best = f"best mAP {position.best or 0:.3f} at epoch {position.best_epoch}"
        self.report.say(f"{position.finished}: {best}, {run.out / checkpoint.BEST}")

    def _step(self, batch: Batch) -> None:
        run, position, recipe = self.run, self.run.position, self.run.recipe
        # Seeded anew at each step, so there is no generator state that a resumed run would have to find again.
        torch.manual_seed(((recipe.seed << 40) + (position.step << 8) + run.ranks.rank) % (1 << 63))
        if position.step == 0 and run.ranks.first:
            draw_batch(batch, run.recipe.model.classes).save(run.out / "train_batch.png")
        stage = self._enter_stage()
        fresh = run.configure()
        run.prepare_teacher()
        rate = recipe.optimiser.lr * run.plan.lr(position.step)
        set_rate(run.optimiser, rate, recipe.optimiser, stage.train)

        images = batch.images if run.teacher is not None and run.listens(stage) else batch.images[: batch.labelled]
        images = images.to(run.device, non_blocking=True)
        loss, parts = self._price(images, batch.targets.to(run.device), batch.labelled, stage)
        names, values = list(parts), torch.stack([loss.detach(), *parts.values()]).tolist()
        if values[0] - values[0] != 0:  # NaN or infinite
            where = culprit(run.model, images, run.amp)
            raise TrainingError(f"the loss is {values[0]} at step {position.step}, first in {where}; try a lower optimiser.lr")
        run.optimiser.zero_grad(set_to_none=True)
        run.scaler.scale(loss).backward()
        stop = average(run.model, self.scales, self.interrupt.is_set(), run.ranks)
        run.scaler.unscale_(run.optimiser)
        self._clip(recipe.optimiser.clip)
        run.scaler.step(run.optimiser)
        run.scaler.update()
        if stage.freeze_oscillating:
            run.hold_oscillating(stage.freeze_oscillating)
        run.ema.update(recipe.ema_decay if stage.ema_decay is None else stage.ema_decay, fresh)

        position.step += 1
        position.batch += 1
        position.seconds = time.monotonic() - self.began
        for name, value in zip(("loss", *names), values, strict=True):
            position.sums[name] = position.sums.get(name, 0.0) + value
        if position.step % HEALTH_STEPS == 0:
            health.check(run.model)
        self.report.step(position.step, stage.name, values[0], position.score)
        if stop:
            run.save()
            raise self._interrupted()
        if position.step % recipe.save_steps == 0:
            run.save()

    def _price(self, images: Tensor, targets: Tensor, labelled: int, stage: Stage) -> tuple[Tensor, dict[str, Tensor]]:
        """Labels price the first `labelled` images, maps of a teacher all of them, boxes of a teacher those without labels."""
        run, part = self.run, self.run.recipe.teacher
        with run.amp:
            maps = run.model(images)
        height, width = images.shape[-2:]
        loss, parts = run.loss(first(maps, labelled), targets, (height, width))
        if run.teacher is None or not run.listens(stage):
            return loss, parts
        with torch.no_grad():
            said = run.teacher(images if run.teacher.dense else images[labelled:])
        if isinstance(said, Lesson):
            lesson, more = distil(maps, said, part)
        else:
            lesson, more = follow(last(maps, labelled), said, part, run.loss, (height, width))
        return loss + lesson, {**parts, **more}

    def _enter_stage(self) -> Stage:
        """This step's stage; at its first step (and after resuming) the modes that it asks for."""
        run, position = self.run, self.run.position
        stage = run.plan.stage(position.step)
        if stage is not self.stage:
            self.stage = stage
            run.model.train()
            for layer in batch_norms(run.model):
                layer.train(not stage.freeze_bn)
            if stage.quantise and position.step == run.plan.span(run.plan.index(position.step))[0]:
                run.ema.restart()  # what the average knows belongs to other bits
        return stage

    def _clip(self, limit: float) -> None:
        parameters = [p for group in self.run.optimiser.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit or float("inf"), foreach=True)
        if not torch.isfinite(norm) and not self.run.scaler.is_enabled():  # the scaler skips such a step by itself
            named = self.run.model.named_parameters()
            bad = next(name for name, p in named if p.grad is not None and not p.grad.isfinite().all())
            step = self.run.position.step
            raise TrainingError(f"the gradient of '{bad}' is not finite at step {step}; try a lower optimiser.lr")

    def _end_epoch(self) -> None:
        run, position, recipe = self.run, self.run.position, self.run.recipe
        health.check(run.model)
        last = position.step - 1
        epoch = position.epoch + 1
        ends = run.plan.stage(last) is not run.plan.stage(last + len(run.loader))
        row: dict[str, Any] = {"epoch": epoch, "step": position.step, "stage": run.plan.stage(last).name}
        row["lr"] = recipe.optimiser.lr * run.plan.lr(last)
        row |= {name: position.sums[name] / len(run.loader) for name in sorted(position.sums)}
        row |= {"held": run.oscillation.held(), **dict.fromkeys(SCORES), "seconds": round(position.seconds, 1)}
        if epoch % recipe.evaluate.every == 0 or epoch == recipe.epochs or ends:
            run.save()  # evaluation takes a while: a kill in it must not cost the epoch
            row |= self._evaluate(epoch, last)
        position.rows.append(row)
        position.epoch, position.batch, position.sums = epoch, 0, {}
        position.seconds = time.monotonic() - self.began
        if row["map"] is not None or time.monotonic() - self.saved >= PAUSE:  # small data sets have epochs of a second
            run.save()
            self.saved = time.monotonic()
        self._publish()
        self.report.row(row)

    def _publish(self, last: bool = False) -> None:
        """results.csv and results.png, made anew from the rows in the checkpoint: none is lost or doubled by a kill."""
        run, rows = self.run, self.run.position.rows
        if run.ranks.first:
            curves.write_csv(run.out / "results.csv", rows)
            if last or time.monotonic() - self.drawn >= PAUSE:
                stages = [(s.name, start / len(run.loader)) for s, start in zip(run.plan.stages, run.plan.starts, strict=True)]
                curves.draw_curves(run.out / "results.png", rows, stages)
                self.drawn = time.monotonic()

    def _evaluate(self, epoch: int, last: int) -> dict[str, float]:
        """Scores of the averaged weights; in the final stage also: are they the best, and is it time to give up?"""
        run, position = self.run, self.run.position
        grown = run.recipe.side(epoch - 1) == run.recipe.image_size
        final = grown and run.plan.final(run.slots, last)
        scores: dict[str, float] = {}
        if run.ranks.first:
            scores, model = judge(run, run.plan.stage(last).reestimate_bn, final, self._evaluating, self.report.say)
            if final and (position.best is None or scores["map"] > position.best):
                record = {"epoch": epoch, "step": position.step, **scores}
                checkpoint.save_tensors(run.out / checkpoint.BEST, model.state_dict(), record)
        scores = from_first(scores, run.ranks)
        position.score = scores["map"]
        if run.compare(scores["map"]):
            self.report.say(f"epoch {epoch}: better than its own float network, which teaches no more")
        if final:
            if position.best is None or scores["map"] > position.best:
                position.best, position.best_epoch, position.waited = scores["map"], epoch, 0
            elif run.plan.stage(last) is run.plan.stage(run.plan.steps):  # what comes after the bits is part of the way
                position.waited += 1
            patience = run.recipe.evaluate.patience
            if patience and position.waited >= patience:
                position.finished = f"no better mAP in {patience} evaluations"
        return scores

    def _evaluating(self, done: int, total: int) -> None:
        self.report.evaluating(done, total)
        if self.interrupt.is_set():  # the epoch is saved already
            raise self._interrupted()

    def _interrupted(self) -> InterruptError:
        run = self.run
        command = f"mpqyolo train --resume --out {shlex.quote(str(run.out))}"
        return InterruptError(f"interrupted at step {run.position.step}; go on with: {command}")
