"""Scores of any detector on any data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mpqyolo.core.detections import Detections
from mpqyolo.core.errors import DataError
from mpqyolo.data.prefetch import prefetch
from mpqyolo.data.sample import Dataset
from mpqyolo.evaluate.coco import evaluate_coco
from mpqyolo.evaluate.voc import evaluate_voc

Predict = Callable[[list[np.ndarray]], list[Detections]]


@dataclass(frozen=True)
class Result:
    """images, classes: how many. map, map50, map75: COCO AP. voc_ap50, voc_ap50_11: VOC AP at IoU 0.5, all-point and 11-point.

    All are 0..1, means over the classes that have boxes. per_class: {name: {"ap", "ap50", "voc_ap50", "voc_ap50_11", "images",
    "boxes"}}, APs None for classes without boxes; neither crowd regions nor difficult objects count as boxes.
    """

    images: int
    classes: int
    map: float
    map50: float
    map75: float
    voc_ap50: float
    voc_ap50_11: float
    per_class: dict[str, dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def evaluate(predict: Predict, dataset: Dataset, batch: int = 16, progress: Callable[[int, int], None] | None = None) -> Result:
    """What `score_detections` says of what `detect` finds; the same arguments and errors."""
    return score_detections(detect(predict, dataset, batch, progress), dataset)


def detect(
    predict: Predict, dataset: Dataset, batch: int = 16, progress: Callable[[int, int], None] | None = None
) -> list[Detections]:
    """Run `predict` over all photos, `batch` at a time: one Detections each, in their order.

    predict: list of (h, w, 3) uint8 RGB photos -> one Detections each, in pixels of the photo, class_id as in `dataset.classes`
    (others are left out). For comparable figures it returns everything above a score of about 0.01 or less.
    progress: called with (done, total). Raises DataError for an empty data set, ImageError for a photo that cannot be read.
    """
    if not len(dataset):
        raise DataError(f"{dataset.root}: no photos in '{dataset.split}'; there is nothing to evaluate")
    jobs = [range(at, min(at + batch, len(dataset))) for at in range(0, len(dataset), batch)]
    detections: list[Detections] = []
    for photos in prefetch(lambda job: [dataset.read(index) for index in job], jobs, workers=1):
        found = predict(photos)
        if len(found) != len(photos):
            raise ValueError(f"predict gave {len(found)} Detections for {len(photos)} photos")
        detections += found
        if progress:
            progress(len(detections), len(dataset))
    return detections


def score_detections(detections: list[Detections], dataset: Dataset) -> Result:
    """Score detections, one for each photo of the data set, in its order. Raises DataError if it has no boxes that count."""
    counted = [item.label[~(item.crowd | item.difficult)] for item in dataset.items]
    boxes = np.bincount(np.concatenate(counted), minlength=len(dataset.classes))
    images = np.bincount(np.concatenate([np.unique(label) for label in counted]), minlength=len(dataset.classes))
    if not boxes.any():
        raise DataError(f"{dataset.root}: no boxes in '{dataset.split}'; there is nothing to score against")
    coco, voc = evaluate_coco(detections, dataset), evaluate_voc(detections, dataset)
    per_class = {}
    for label, name in enumerate(dataset.classes):
        both = voc[name] or (None, None)
        per_class[name] = coco["per_class"][name] | {
            "voc_ap50": both[0],
            "voc_ap50_11": both[1],
            "images": int(images[label]),
            "boxes": int(boxes[label]),
        }
    means = np.mean([both for both in voc.values() if both], axis=0)
    return Result(
        len(dataset), len(dataset.classes), coco["map"], coco["map50"], coco["map75"], float(means[0]), float(means[1]), per_class
    )
