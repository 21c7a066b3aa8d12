"""COCO average precision, computed by faster-coco-eval (the same numbers as pycocotools; a test compares them)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpqyolo.core.detections import Detections
from mpqyolo.data.sample import Dataset


def ground_truth(dataset: Dataset) -> dict[str, Any]:
    """The data set as a COCO instances dictionary; image ids are indices + 1, category ids labels + 1.

    Crowd regions and VOC's difficult objects become `iscrowd`: COCO has no other way to ignore a box. Detections inside one
    count neither way.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index, item in enumerate(dataset.items, 1):
        images.append({"id": index, "width": item.width, "height": item.height})
        for xyxy, label, ignored in zip(item.xyxy.astype(float).tolist(), item.label, item.crowd | item.difficult, strict=True):
            x1, y1, x2, y2 = xyxy
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": int(label) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(ignored),
                }
            )
    categories = [{"id": label, "name": name} for label, name in enumerate(dataset.classes, 1)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def results(detections: Sequence[Detections], dataset: Dataset) -> np.ndarray:
    """Detections, one for each photo, as (n, 7) float64 [image id, x, y, width, height, score, category id]."""
    rows = [np.zeros((0, 7))]
    for index, found in enumerate(detections, 1):
        known = (found.class_id >= 0) & (found.class_id < len(dataset.classes))
        xyxy = found.xyxy[known].astype(np.float64)
        image = np.full(len(xyxy), float(index))
        rows.append(
            np.column_stack([image, xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2], found.score[known], found.class_id[known] + 1])
        )
    return np.concatenate(rows)


def evaluate_coco(detections: Sequence[Detections], dataset: Dataset) -> dict[str, Any]:
    """AP at IoU 0.50:0.05:0.95, 101 recall points, at most 100 detections a photo; all areas.

    Returns {"map", "map50", "map75", "per_class": {name: {"ap", "ap50"}}}; None for a class without boxes (not in the means).
    """
    from faster_coco_eval import COCO, COCOeval_faster  # not in a deploy installation, where predictors are used without scores

    truth = COCO(ground_truth(dataset))
    evaluation = COCOeval_faster(truth, truth.loadRes(results(detections, dataset)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # IoU, recall, class; all areas, most detections
    ap = precision.mean(1).T if precision.size else np.zeros((0, 10))  # (classes, IoU); -1 where a class has no boxes
    there = ap[:, 0] > -1
    mean = ap[there].mean(0) if there.any() else np.zeros(10)
    return {
        "map": float(mean.mean()),
        "map50": float(mean[0]),
        "map75": float(mean[5]),
        "per_class": {
            name: {"ap": float(row.mean()) if has else None, "ap50": float(row[0]) if has else None}
            for name, row, has in zip(dataset.classes, ap, there, strict=True)
        },
    }
