"""Boxes as (n, 4) arrays x1, y1, x2, y2: overlap, and the one definition of NMS (docs/numerics.md, section 5)."""

from __future__ import annotations

import numpy as np

MAX_CANDIDATES = 4096
MAX_DETECTIONS = 300


def area(xyxy: np.ndarray) -> np.ndarray:
    """(n,) area of boxes (n, 4)."""
    return (xyxy[..., 2] - xyxy[..., 0]) * (xyxy[..., 3] - xyxy[..., 1])


def intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Area in common of boxes a (..., 4) and b (..., 4), which broadcast."""
    zero = a.dtype.type(0)
    width = np.maximum(zero, np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0]))
    height = np.maximum(zero, np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1]))
    return width * height


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n, m) intersection over union of boxes a (n, 4) and b (m, 4); 0 where both are empty."""
    common = intersection(a[:, None], b[None])
    union = area(a)[:, None] + area(b)[None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def nms(
    xyxy: np.ndarray, score: np.ndarray, class_id: np.ndarray, iou: float = 0.65, max_detections: int = MAX_DETECTIONS
) -> np.ndarray:
    """Indices of the boxes that greedy suppression per class keeps, best first; of equal scores the earlier row wins.

    xyxy: (n, 4), score, class_id: (n,). Everything in float32: a box goes if inter > iou * (area_kept + area_box - inter).
    """
    order = np.argsort(-np.asarray(score, np.float32), kind="stable")
    boxes, classes = np.asarray(xyxy, np.float32)[order], np.asarray(class_id)[order]
    areas, limit = area(boxes), np.float32(iou)
    alive, kept = np.ones(len(order), bool), []
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(i)
        if len(kept) == max_detections:
            break
        common = intersection(boxes[i], boxes[i + 1 :])
        over = common > limit * (areas[i] + areas[i + 1 :] - common)
        alive[i + 1 :] &= ~(over & (classes[i + 1 :] == classes[i]))
    return order[np.array(kept, np.intp)]


def select(
    xyxy: np.ndarray,
    score: np.ndarray,
    class_id: np.ndarray,
    *keys: np.ndarray,
    iou: float = 0.65,
    max_candidates: int = MAX_CANDIDATES,
    max_detections: int = MAX_DETECTIONS,
) -> np.ndarray:
    """Indices of the final boxes: the best `max_candidates` in the order of docs/numerics.md go through `nms`.

    keys: (n,) arrays that order equal scores, the most important first (level, cell); then the class. Without keys, as for
    candidates listed in that order already, the row decides.
    """
    score = np.asarray(score, np.float32)
    if keys:
        order = np.lexsort((class_id, *reversed(keys), -score))[:max_candidates]
    else:
        order = np.argsort(-score, kind="stable")[:max_candidates]
    return order[nms(xyxy[order], score[order], class_id[order], iou, max_detections)]
