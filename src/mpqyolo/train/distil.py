"""The float network as teacher of its quantised self."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mpqyolo.detector.maps import Maps
from mpqyolo.detector.points import flatten
from mpqyolo.train.recipe import TeacherPart


def distil(student: Maps, teacher: Maps, part: TeacherPart) -> tuple[Tensor, dict[str, Tensor]]:
    """Price of differing from the teacher at the cells where the teacher sees something.

    Of each image the share `part.cells` of all cells with the highest teacher score take part, weighted by that score
    (imitating the background as well can be worse than nothing: Q-DETR, Xu et al., CVPR 2023; selected regions: IDa-Det, Xu
    et al., ECCV 2022): cross-entropy of class scores, 1 - IoU of boxes seen from one cell, and 1 - cosine of the maps that
    predictions are read from. Each is a weighted mean. Returns the total and the three
    unweighted parts (detached), float32 scalars.
    """
    with torch.no_grad():
        target = flatten(teacher.logit).float().sigmoid()
        score = target.amax(-1)
        weight, cell = score.topk(max(1, round(score.shape[1] * part.cells)), dim=1)
        norm = weight.sum().clamp(min=1.0)

    def chosen(values: Tensor) -> Tensor:
        return values.gather(1, cell.unsqueeze(-1).expand(-1, -1, values.shape[-1]))

    logit = chosen(flatten(student.logit).float())
    cross = F.binary_cross_entropy_with_logits(logit, chosen(target), reduction="none").sum(-1)
    mine, theirs = (chosen(flatten(maps.distance).float()).clamp(-6, 6).exp() for maps in (student, teacher))
    parts = {
        "distil_score": (cross * weight).sum() / norm,
        "distil_box": ((1 - _overlap(mine, theirs)) * weight).sum() / norm,
        "distil_hint": _hint(student, teacher, torch.zeros_like(score).scatter_(1, cell, weight)) / norm,
    }
    total = part.score * parts["distil_score"] + part.box * parts["distil_box"] + part.hint * parts["distil_hint"]
    return total, {name: value.detach() for name, value in parts.items()}


def _overlap(a: Tensor, b: Tensor) -> Tensor:
    """IoU of boxes given as distances (..., 4) left, top, right, bottom from one point."""
    shared = torch.minimum(a, b)
    both = (shared[..., 0] + shared[..., 2]) * (shared[..., 1] + shared[..., 3])
    areas = [(box[..., 0] + box[..., 2]) * (box[..., 1] + box[..., 3]) for box in (a, b)]
    return both / (areas[0] + areas[1] - both + 1e-9)


def _hint(student: Maps, teacher: Maps, weight: Tensor) -> Tensor:
    """Weighted sum over cells of 1 - cosine between the feature maps; weight: (B, cells of all levels). 0 where shapes differ."""
    total = weight.new_zeros(())
    at = 0
    for level, logit in enumerate(student.logit):
        cells = logit.shape[2] * logit.shape[3]
        here, at = weight[:, at : at + cells], at + cells
        if level < min(len(student.feature), len(teacher.feature)):
            mine, theirs = student.feature[level], teacher.feature[level]
            if mine.shape == theirs.shape:
                cosine = F.cosine_similarity(mine.float(), theirs.float(), dim=1).flatten(1)
                total = total + ((1 - cosine) * here).sum()
    return total
