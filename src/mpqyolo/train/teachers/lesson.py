"""Lesson: what a teacher says of a batch, in terms of the data's classes and the student's cells, whoever the teacher is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mpqyolo.core.errors import ConfigError
from mpqyolo.detector.decode import Dense, suppress
from mpqyolo.detector.points import STRIDES, decode_boxes, points
from mpqyolo.evaluate.names import class_map


class Lesson(NamedTuple):
    """What a teacher sees at every cell of strides 8, 16, 32, in the order of `points`.

    score: (B, N, classes) float32 in 0..1, of the data's classes. distance: (B, N, 4) float32, as in Maps.
    known: (classes,) bool, the classes that the teacher knows; the scores of others are 0 and mean nothing. None: all are known.
    feature, backbone: as in Maps, for hints; empty where the teacher has none to show.
    """

    score: Tensor
    distance: Tensor
    known: Tensor | None = None
    feature: tuple[Tensor, ...] = ()
    backbone: tuple[Tensor, ...] = ()


class Boxes(NamedTuple):
    """What a teacher sees as boxes alone: targets (n, 6) float32 as in a Batch; known as in Lesson."""

    targets: Tensor
    known: Tensor | None = None


class Teacher(Protocol):
    """images (B, 3, H, W) uint8, H and W multiples of 32 -> what it sees there. `dense`: that it gives a Lesson, not Boxes."""

    dense: bool

    def __call__(self, images: Tensor) -> Lesson | Boxes: ...


class Match(NamedTuple):
    """Which class of the teacher each class of the data is.

    place: (classes,) int64, 0 where there is none. known: as in Lesson.
    """

    place: Tensor
    known: Tensor | None

    def pick(self, score: Tensor) -> Tensor:
        """Scores (..., teacher's classes) as scores (..., data's classes)."""
        picked = score[..., self.place.to(score.device)]
        return picked if self.known is None else picked * self.known.to(picked)


def match(classes: Sequence[str], names: Sequence[str], who: str) -> Match:
    """By name (`aeroplane` is `airplane`). Raises ConfigError if the teacher `who` knows none of the data's classes."""
    found = torch.from_numpy(class_map(classes, names))
    known = found >= 0
    if not known.any():
        theirs = ", ".join(names[:5])
        raise ConfigError(f"{who}: the teacher knows none of the data's classes {', '.join(classes[:5])}; it knows {theirs}, ...")
    return Match(found.clamp(min=0), None if bool(known.all()) else known)


class AsBoxes:
    """A teacher of whose maps only the boxes that stay after suppression, with scores of at least `score`, are told."""

    dense = False

    def __init__(self, teacher: Teacher, score: float) -> None:
        self.teacher, self.score = teacher, score

    def __call__(self, images: Tensor) -> Boxes:
        said = self.teacher(images)
        if isinstance(said, Boxes):
            return said
        shapes = [(images.shape[2] // stride, images.shape[3] // stride) for stride in STRIDES]
        centres, stride = points(shapes, STRIDES, said.score.device)
        found = suppress(Dense(decode_boxes(said.distance, centres, stride), said.score), self.score)
        rows = [
            torch.cat((torch.tensor([[place, label]]), torch.from_numpy(box)[None]), 1)
            for place, boxes in enumerate(found)
            for label, box in zip(boxes.class_id.tolist(), boxes.xyxy, strict=True)
        ]
        targets = torch.cat(rows) if rows else torch.zeros(0, 6)
        return Boxes(targets.to(said.score), said.known)
