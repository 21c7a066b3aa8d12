"""What a run tells while it trains: a progress bar on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_PLAIN_EVERY = 30.0  # seconds between lines where there is no terminal


class Reporter:
    """Says nothing: for processes beside the first, and for tests. Subclasses show what they are told."""

    def begin(self, steps: int, step: int, batch: int, share: Callable[[int], float]) -> None:
        """Training starts at `step` of `steps`, with `batch` images a step. share: of all work, what lies before a step, 0..1."""

    def step(self, step: int, stage: str, loss: float, score: float | None) -> None:
        """A step is done; `score` is the last evaluation's mAP, None before the first."""

    def evaluating(self, done: int, total: int) -> None:
        """`done` of `total` validation photos are through."""

    def row(self, row: Mapping[str, Any]) -> None:
        """An epoch is done; `row` is its line in results.csv."""

    def say(self, message: str) -> None:
        """A message of one line."""

    def end(self) -> None:
        """Training is over, or has failed."""


class TerminalReporter(Reporter):
    """Progress with stage, loss, mAP, images/s and time left."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stderr, highlight=False)
        self.live = self.console.is_terminal
        self.bar = Progress(
            TextColumn("{task.fields[stage]}", markup=False),  # a name may hold brackets
            BarColumn(),
            TextColumn("{task.percentage:5.1f} %  {task.fields[text]}", markup=False),
            console=self.console,
            transient=True,
            disable=not self.live,
        )
        self.task = self.bar.add_task("train", total=1, stage="", text="")
        self.steps = self.batch = self.first = 0
        self.share: Callable[[int], float] = float
        self.started = self.spoke = time.monotonic()
        self.idle = 0.0  # seconds that went into evaluation
        self.paused: float | None = None

    def begin(self, steps: int, step: int, batch: int, share: Callable[[int], float]) -> None:
        self.steps, self.batch, self.first, self.share = steps, batch, step, share
        self.started, self.idle = time.monotonic(), 0.0
        self.bar.update(self.task, total=steps, completed=step)
        self.bar.start()

    def step(self, step: int, stage: str, loss: float, score: float | None) -> None:
        now = time.monotonic()
        if self.paused is not None:
            self.idle += now - self.paused
            self.paused = None
        spent = max(1e-6, now - self.started - self.idle)
        pace = (step - self.first) / spent
        left = spent * (1 - self.share(step)) / max(1e-9, self.share(step) - self.share(self.first))
        known = "" if score is None else f"mAP {score:.3f}  "
        text = f"loss {loss:.3f}  {known}{pace * self.batch:.1f} images/s  {duration(left)} left"
        if self.live:
            self.bar.update(self.task, completed=step, stage=stage, text=text)
        elif now - self.spoke > _PLAIN_EVERY or step == self.steps:
            self.spoke = now
            self.say(f"{stage}: step {step}/{self.steps}  {text}")

    def evaluating(self, done: int, total: int) -> None:
        if self.paused is None:
            self.paused = time.monotonic()
        if self.live:
            self.bar.update(self.task, text=f"evaluating {done}/{total}")

    def row(self, row: Mapping[str, Any]) -> None:
        words = [f"epoch {row['epoch']}", str(row["stage"]), f"loss {row['loss']:.3f}"]
        if row.get("map") is not None:
            words.append(f"mAP {row['map']:.3f}  mAP50 {row['map50']:.3f}")
            self.say("  ".join(words))

    def say(self, message: str) -> None:
        self.console.print(message, markup=False, soft_wrap=True)

    def end(self) -> None:
        self.bar.stop()


def duration(seconds: float) -> str:
    """Seconds as people say them: 40s, 3m 20s, 2h 05m."""
    seconds = int(min(seconds, 359_999_999))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m {seconds % 60:02d}s"
    return f"{seconds // 3600}h {seconds % 3600 // 60:02d}m"
