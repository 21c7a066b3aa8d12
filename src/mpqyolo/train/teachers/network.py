"""A network of ours as teacher: a run's own float network, or another run of any family and size."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from mpqyolo.detector.maps import Maps
from mpqyolo.detector.points import flatten
from mpqyolo.train.teachers.lesson import Lesson, Match


def lesson_of(maps: Maps, match: Match | None = None) -> Lesson:
    """Maps as a Lesson. match: for a network of other classes."""
    score = flatten(maps.logit).float().sigmoid()
    distance = flatten(maps.distance).float()
    if match is None:
        return Lesson(score, distance, None, maps.feature, maps.backbone)
    return Lesson(match.pick(score), distance, match.known, maps.feature, maps.backbone)


class NetworkTeacher:
    """A model in eval mode that returns Maps. amp: the precision to run it in."""

    dense = True

    def __init__(self, model: nn.Module, match: Match | None, amp: AbstractContextManager[object]) -> None:
        self.model, self.match, self.amp = model, match, amp

    def __call__(self, images: Tensor) -> Lesson:
        # Nothing here has a gradient, so none is kept; but where there may be one, our own convolutions work.
        with torch.enable_grad(), self.amp:
            maps = self.model(images)
        return lesson_of(maps, self.match)
