"""What it costs to differ from a teacher: at every cell, or from its boxes on photos that have no labels."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mpqyolo.detector.loss import DetectionLoss
from mpqyolo.detector.maps import Maps
from mpqyolo.detector.points import flatten
from mpqyolo.train.recipe import TeacherPart
from mpqyolo.train.teachers.lesson import Boxes, Lesson

ALPHA, GAMMA = 0.75, 2.0  # VarifocalNet's


def distil(student: Maps, lesson: Lesson, part: TeacherPart) -> tuple[Tensor, dict[str, Tensor]]:
    """Price of differing from the teacher at the cells that matter.

    Of each image the share `part.cells` of all cells takes part, each with a weight w (imitating the background as well can be
    worse than nothing: Q-DETR, Xu et al., CVPR 2023). region "score": the cells where the teacher's highest score is highest,
    w = that score. "discrepancy": the cells where teacher and student are furthest apart in any class, w = the higher of
    their two highest scores, so that what the student alone sees is priced too (the selected regions of IDa-Det, Xu et al.,
    ECCV 2022, by scores instead of the features' distribution).

    Scores are priced by cross-entropy with the teacher's score q, summed over the classes that the teacher knows. loss
    "weighted": times w. "quality": not weighted, as labels are priced (Li et al. 2020, arXiv 2006.04388). "varifocal": each
    times q + 0.75 p^2 (1 - q), p the student's score (Zhang et al. 2021, arXiv 2008.13367, between its two cases).
    Boxes: 1 - IoU, seen from one cell, times the teacher's highest score; maps that predictions are read from, and those of the
    backbone: 1 - cosine, times w. Each is divided by the sum of its weights, "quality" and "varifocal" by the sum of the highest
    q (at least 1). Returns the total and the parts before part.score, part.box, part.hint and part.backbone (detached; the last
    only where it has a weight), float32 scalars.
    """
    target, known = lesson.score, lesson.known
    logits = flatten(student.logit).float()
    with torch.no_grad():
        score = target.amax(-1)
        count = max(1, round(score.shape[1] * part.cells))
        if part.region == "score":
            weight, cell = score.topk(count, dim=1)
        else:
            mine = logits.sigmoid() if known is None else logits.sigmoid() * known
            cell = (mine - target).abs().amax(-1).topk(count, dim=1).indices
            weight = torch.maximum(score, mine.amax(-1)).gather(1, cell)
        seen = score.gather(1, cell)
        norm, seen_norm = weight.sum().clamp(min=1.0), seen.sum().clamp(min=1.0)

    def chosen(values: Tensor) -> Tensor:
        return values.gather(1, cell.unsqueeze(-1).expand(-1, -1, values.shape[-1]))

    logit, wanted = chosen(logits), chosen(target)
    cross = F.binary_cross_entropy_with_logits(logit, wanted, reduction="none")
    if known is not None:
        cross = cross * known
    if part.loss == "weighted":
        score_price = (cross.sum(-1) * weight).sum() / norm
    elif part.loss == "quality":
        score_price = cross.sum() / seen_norm
    else:
        factor = wanted + ALPHA * logit.detach().sigmoid() ** GAMMA * (1 - wanted)
        score_price = (cross * factor).sum() / seen_norm
    mine, theirs = (d.clamp(-6, 6).exp() for d in (chosen(flatten(student.distance).float()), chosen(lesson.distance)))
    place = torch.zeros_like(score).scatter_(1, cell, weight)
    parts = {
        "distil_score": score_price,
        "distil_box": ((1 - _overlap(mine, theirs)) * seen).sum() / seen_norm,
        "distil_hint": _hint(student.feature, lesson.feature, place) / norm,
    }
    total = part.score * parts["distil_score"] + part.box * parts["distil_box"] + part.hint * parts["distil_hint"]
    if part.backbone:
        parts["distil_backbone"] = _hint(student.backbone, lesson.backbone, place) / norm
        total = total + part.backbone * parts["distil_backbone"]
    return total, {name: value.detach() for name, value in parts.items()}


def follow(
    student: Maps, boxes: Boxes, part: TeacherPart, loss: DetectionLoss, size: tuple[int, int]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Price of maps against a teacher's boxes as if they were labels, in the classes that the teacher knows.

    size: (height, width) of the input, px. Returns part.pseudo times the price, and its two parts (detached).
    """
    targets = boxes.targets
    if boxes.known is not None:
        index = boxes.known.nonzero().squeeze(1)
        place = boxes.known.cumsum(0) - 1
        student = student._replace(logit=tuple(level[:, index] for level in student.logit))
        targets = torch.cat((targets[:, :1], place[targets[:, 1].long()].to(targets)[:, None], targets[:, 2:]), 1)
        loss = copy.copy(loss)
        loss.classes = len(index)
    price, parts = loss(student, targets, size)
    return part.pseudo * price, {f"pseudo_{name}": value for name, value in parts.items()}


def first(maps: Maps, count: int) -> Maps:
    """The maps of a batch's first `count` images."""
    return maps if count == len(maps.logit[0]) else Maps(*(tuple(level[:count] for level in levels) for levels in maps))


def last(maps: Maps, start: int) -> Maps:
    """The maps of a batch's images from `start` on."""
    return Maps(*(tuple(level[start:] for level in levels) for levels in maps))


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes given as distances (..., 4) left, top, right, bottom from one point."""
    shared = torch.minimum(a, b)
    both = (shared[..., 0] + shared[..., 2]) * (shared[..., 1] + shared[..., 3])
    areas = [(box[..., 0] + box[..., 2]) * (box[..., 1] + box[..., 3]) for box in (a, b)]
    return both / (areas[0] + areas[1] - both + 1e-9)


def _hint(student: Sequence[Tensor], teacher: Sequence[Tensor], weight: Tensor) -> Tensor:
    """Weighted sum over cells of 1 - cosine between maps, 0 where shapes differ; weight: (B, cells of all levels)."""
    total = weight.new_zeros(())
    at = 0
    for mine, theirs in zip(student, teacher, strict=False):
        cells = mine.shape[2] * mine.shape[3]
        here, at = weight[:, at : at + cells], at + cells
        if mine.shape == theirs.shape:
            cosine = F.cosine_similarity(mine.float(), theirs.float(), dim=1).flatten(1)
            total = total + ((1 - cosine) * here).sum()
    return total
