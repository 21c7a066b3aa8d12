"""A YOLOv5 with its published anchor head as teacher: what a user has in a `.pt` file."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from mpqyolo.detector.decode import Dense
from mpqyolo.detector.points import STRIDES
from mpqyolo.detector.yolov5 import YOLOv5
from mpqyolo.train.teachers.cells import sayable
from mpqyolo.train.teachers.lesson import Lesson, Match

_ANCHORS = 3


class PublishedTeacher:
    """Of a cell's three boxes the one is told whose highest score in a class of the data is highest.

    model: in eval mode. match: its classes to those of the data. amp: the precision to run it in. Its maps are hints for a
    student of the same width.
    """

    dense = True

    def __init__(self, model: YOLOv5, match: Match, amp: AbstractContextManager[object]) -> None:
        self.model, self.match, self.amp = model, match, amp

    def __call__(self, images: Tensor) -> Lesson:
        with torch.enable_grad(), self.amp:  # as NetworkTeacher
            backbone = self.model.backbone(self.model.stem(self.model.pixels(images)))
            features = self.model.neck(backbone)
            seen: Dense = self.model.predict(features)
        size = (images.shape[2], images.shape[3])
        cells = [(size[0] // stride) * (size[1] // stride) for stride in STRIDES]
        levels = [_ANCHORS * count for count in cells]
        boxes, scores = [], []
        for box, score in zip(seen.box.split(levels, 1), self.match.pick(seen.score).split(levels, 1), strict=True):
            box, score = box.unflatten(1, (_ANCHORS, -1)), score.unflatten(1, (_ANCHORS, -1))
            surest = score.amax(-1, keepdim=True).argmax(1, keepdim=True)
            boxes.append(torch.take_along_dim(box, surest, 1).squeeze(1))
            scores.append(torch.take_along_dim(score, surest, 1).squeeze(1))
        box = torch.cat(boxes, 1)
        limit = box.new_tensor([size[1], size[0]] * 2)
        distance, told = sayable(Dense(box.clamp(min=0).minimum(limit), torch.cat(scores, 1)), size)
        known = self.match.known
        return Lesson(told, distance, None if known is None else known.to(images.device), features, backbone)
