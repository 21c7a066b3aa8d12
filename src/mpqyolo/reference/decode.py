"""Prediction maps -> boxes, and the whole reference detector (docs/numerics.md, sections 5 and 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mpqyolo.core.boxes import select
from mpqyolo.core.detections import Detections
from mpqyolo.core.image import letterbox
from mpqyolo.graph.ir import Model
from mpqyolo.reference.numerics import distance, score, t_min
from mpqyolo.reference.run import run_outputs


class Candidates(NamedTuple):
    """Boxes before suppression, in order of level, cell, class: xyxy (n, 4) float32 in pixels of the input; score, class_id."""

    xyxy: np.ndarray
    score: np.ndarray
    class_id: np.ndarray


def candidates(model: Model, maps: Mapping[str, np.ndarray], min_score: float) -> Candidates:
    """Every (level, cell, class) whose score reaches min_score. maps: the graph's outputs by name, int16 (C, h, w)."""
    boxes, scores, classes = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)], [np.zeros(0, np.int32)]
    lowest = t_min(min_score)
    for level in model.decode.levels if lowest is not None else ():
        logit, reach = maps[level.logit], maps[level.distance]
        y, x, which = np.nonzero(logit.transpose(1, 2, 0) >= lowest)
        centre = [(n.astype(np.float32) + np.float32(0.5)) * np.float32(level.stride) for n in (x, y)]
        left, top, right, bottom = distance(reach[:, y, x], level.stride)
        boxes.append(np.stack([centre[0] - left, centre[1] - top, centre[0] + right, centre[1] + bottom], axis=1))
        scores.append(score(logit[which, y, x]))
        classes.append(which.astype(np.int32))
    return Candidates(np.concatenate(boxes), np.concatenate(scores), np.concatenate(classes))


def decode(model: Model, maps: Mapping[str, np.ndarray], min_score: float = 0.25, iou: float | None = None) -> Detections:
    """Detections in pixels of the letterboxed input, best first. iou: the model's own if None."""
    found = candidates(model, maps, min_score)
    keep = select(*found, iou=model.decode.iou if iou is None else iou)
    return Detections(found.xyxy[keep], found.score[keep], found.class_id[keep], model.classes)


def detect(
    model: Model,
    photo: np.ndarray,
    min_score: float = 0.25,
    iou: float | None = None,
    size: tuple[int, int] | None = None,
) -> Detections:
    """The reference detector: letterbox, run, decode, suppress, and back to the photo.

    photo: (h, w, 3) uint8 RGB. size: (height, width) of the input, the model's own if None.
    """
    height, width = size or model.graph.tensors[model.graph.input].shape[1:]
    image, place = letterbox(photo, height, width)
    found = decode(model, run_outputs(model.graph, image), min_score, iou)
    found.xyxy = place.to_photo(found.xyxy)
    found.size = (photo.shape[1], photo.shape[0])
    return found
