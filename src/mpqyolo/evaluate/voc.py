"""PASCAL VOC average precision at IoU 0.5.

Per class, detections of all photos are taken best first. Each looks at the box of its class that it overlaps most. IoU below
0.5: a false positive. A `difficult` (or crowd) box: ignored. A box not claimed yet: a true positive, and the box is claimed;
else a false positive. Boxes are continuous, so there is no "+ 1" in widths: the readers turn VOC's inclusive pixels into edges.

All-point AP (VOC 2010 on) is the area under the precision-recall curve made monotone from the right; 11-point AP (VOC 2007) is
the mean of its maxima at recall >= 0, 0.1, ... 1. Everingham et al., IJCV 2010.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpqyolo.core.boxes import iou_matrix
from mpqyolo.core.detections import Detections
from mpqyolo.data.sample import Dataset


def evaluate_voc(detections: Sequence[Detections], dataset: Dataset, iou: float = 0.5) -> dict[str, tuple[float, float] | None]:
    """{class: (all-point AP, 11-point AP)}, None for a class without boxes that count. `detections`: one for each photo."""
    scores: list[list[np.ndarray]] = [[np.zeros(0)] for _ in dataset.classes]
    verdicts: list[list[np.ndarray]] = [[np.zeros(0, np.int8)] for _ in dataset.classes]
    counts = np.zeros(len(dataset.classes), np.int64)
    for found, item in zip(detections, dataset.items, strict=True):
        ignored = item.difficult | item.crowd
        counts += np.bincount(item.label[~ignored], minlength=len(counts))
        for label in set(found.class_id.tolist()) & set(range(len(counts))):
            chosen, boxes = np.flatnonzero(found.class_id == label), np.flatnonzero(item.label == label)
            chosen = chosen[np.argsort(-found.score[chosen], kind="stable")]
            scores[label].append(found.score[chosen])
            verdicts[label].append(_judge(found.xyxy[chosen], item.xyxy[boxes], ignored[boxes], iou))
    aps: dict[str, tuple[float, float] | None] = {}
    for label, name in enumerate(dataset.classes):
        score, verdict = np.concatenate(scores[label]), np.concatenate(verdicts[label])
        curve = precision_recall(score, verdict, int(counts[label]))
        aps[name] = (all_point(*curve), eleven_point(*curve)) if counts[label] else None
    return aps


def _judge(found: np.ndarray, boxes: np.ndarray, ignored: np.ndarray, iou: float) -> np.ndarray:
    """1 true, 0 false, -1 ignored for each detection (n, 4), best first, against one photo's boxes (m, 4) of the class."""
    verdict = np.zeros(len(found), np.int8)
    if not len(boxes):
        return verdict
    overlaps = iou_matrix(found.astype(np.float64), boxes.astype(np.float64))
    best = overlaps.argmax(1)
    claimed = np.zeros(len(boxes), bool)
    for k in np.flatnonzero(overlaps.max(1) >= iou):
        box = best[k]
        verdict[k] = -1 if ignored[box] else int(not claimed[box])
        claimed[box] = True
    return verdict


def precision_recall(score: np.ndarray, verdict: np.ndarray, boxes: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall after each detection that counts, best first; equal scores keep their order."""
    verdict = verdict[np.argsort(-score, kind="stable")]
    verdict = verdict[verdict >= 0]
    true = np.cumsum(verdict == 1)
    return true / np.arange(1, len(verdict) + 1), true / max(boxes, 1)


def all_point(precision: np.ndarray, recall: np.ndarray) -> float:
    """Area under the monotone curve."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def eleven_point(precision: np.ndarray, recall: np.ndarray) -> float:
    """Mean of the best precision at recall >= 0, 0.1, ... 1."""
    return float(np.mean([precision[recall >= k / 10].max(initial=0.0) for k in range(11)]))
