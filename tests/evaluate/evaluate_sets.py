"""Data sets in memory, with labels only, and detections that are near them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mpqyolo.core.detections import Detections
from mpqyolo.data.sample import Dataset, Item

CLASSES = ("a", "b", "c", "never")


def item(
    boxes: list[tuple[float, ...]], labels: list[int], crowd: list[bool] | None = None, difficult: list[bool] | None = None
) -> Item:
    n = len(labels)
    return Item(
        Path("none.png"),
        640,
        480,
        np.array(boxes, np.float32).reshape(n, 4),
        np.array(labels, np.int64),
        np.array(difficult or [False] * n, bool),
        np.array(crowd or [False] * n, bool),
        np.zeros(n, np.int64),
    )


def dataset(*items: Item, classes: tuple[str, ...] = CLASSES) -> Dataset:
    return Dataset("made", Path("made"), "val", classes, items)


def found(boxes: list[tuple[float, ...]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(len(scores), 4), np.array(scores, np.float32), np.array(labels, np.int32), CLASSES
    )


def random_case(seed: int, photos: int = 30) -> tuple[Dataset, list[Detections]]:
    """Boxes of all sizes, crowds among them; detections that are moved copies, doubles and inventions, with many equal scores."""
    rng = np.random.default_rng(seed)
    items, detections = [], []
    for _ in range(photos):
        n = int(rng.integers(0, 7))
        corner = rng.uniform(0, 300, (n, 2))
        boxes = np.concatenate([corner, corner + rng.choice([12, 40, 150], (n, 1)) * rng.uniform(0.7, 1.4, (n, 2))], 1)
        labels = rng.integers(0, 3, n)
        items.append(item(boxes.tolist(), labels.tolist(), crowd=(rng.random(n) < 0.15).tolist()))
        moved = boxes + rng.normal(0, 4, boxes.shape)
        twice = rng.random(n) < 0.3
        made = rng.uniform(0, 300, (int(rng.integers(0, 4)), 2))
        all_boxes = np.concatenate([moved, boxes[twice] + 2, np.concatenate([made, made + 50], 1)])
        all_labels = np.concatenate([np.where(rng.random(n) < 0.1, 2, labels), labels[twice], rng.integers(0, 3, len(made))])
        scores = rng.choice(np.linspace(0.05, 0.95, 10), len(all_boxes))
        order = np.argsort(-scores, kind="stable")
        detections.append(found(all_boxes[order].tolist(), scores[order].tolist(), all_labels[order].tolist()))
    return dataset(*items), detections
