"""From maps to boxes on a photo, in torch: docs/numerics.md, section 5, with natural instead of binary logarithms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mpqyolo.core.boxes import MAX_CANDIDATES, MAX_DETECTIONS, select
from mpqyolo.core.detections import Detections
from mpqyolo.core.image import Placement, letterbox
from mpqyolo.detector.maps import Maps
from mpqyolo.detector.modes import evaluating
from mpqyolo.detector.points import STRIDES, decode_boxes, flatten, map_points


class Dense(NamedTuple):
    """Every prediction of an input: box (B, N, 4) float32 px of the letterboxed input, score (B, N, classes) float32 in 0..1."""

    box: Tensor
    score: Tensor


def dense(maps: Maps, strides: Sequence[int] = STRIDES) -> Dense:
    """All boxes and scores of maps, in the order of level, cell."""
    centres, stride = map_points(maps, strides)
    return Dense(decode_boxes(flatten(maps.distance).float(), centres, stride), flatten(maps.logit).float().sigmoid())


def suppress(
    predictions: Dense,
    min_score: float = 0.25,
    iou: float = 0.65,
    max_candidates: int = MAX_CANDIDATES,
    max_detections: int = MAX_DETECTIONS,
) -> list[Detections]:
    """The boxes of each input that stay, best first, in px of the letterboxed input. Predictions that are NaN are none."""
    box, score = predictions.box.detach().cpu().numpy(), predictions.score.detach().cpu().numpy()
    classes, found = score.shape[2], []
    for boxes, table in zip(box, score.reshape(len(score), -1), strict=True):
        place = np.flatnonzero(table >= min_score)  # ascending: level, cell, class
        place = place[np.isfinite(boxes).all(1)[place // classes]]
        if len(place) > max_candidates:  # drop what cannot be among the best before anything is sorted
            bar = np.partition(table[place], -max_candidates)[-max_candidates]
            place = place[table[place] >= bar]
        cell, class_id = np.divmod(place, classes)
        kept = select(boxes[cell], table[place], class_id, iou=iou, max_candidates=max_candidates, max_detections=max_detections)
        found.append(Detections(boxes[cell[kept]], table[place[kept]], class_id[kept].astype(np.int32)))
    return found


def decode(
    maps: Maps,
    strides: Sequence[int] = STRIDES,
    min_score: float = 0.25,
    iou: float = 0.65,
    max_candidates: int = MAX_CANDIDATES,
    max_detections: int = MAX_DETECTIONS,
) -> list[Detections]:
    """Detections of each input of a batch, best first, in px of the letterboxed input."""
    return suppress(dense(maps, strides), min_score, iou, max_candidates, max_detections)


class TorchPredictor:
    """Photos -> Detections on them, by a torch model that returns Maps or Dense.

    Each photo is letterboxed as in deployment. The model runs in evaluation mode on its own device; its modes are restored.
    """

    def __init__(
        self,
        model: nn.Module,
        image_size: int | tuple[int, int],
        min_score: float = 0.001,
        iou: float = 0.65,
        batch: int = 16,
        names: tuple[str, ...] = (),
    ) -> None:
        """image_size: side of the input, or (height, width), px."""
        self.model, self.min_score, self.iou, self.batch, self.names = model, min_score, iou, batch, names
        self.height, self.width = (image_size, image_size) if isinstance(image_size, int) else image_size

    def __call__(self, photos: Sequence[np.ndarray]) -> list[Detections]:
        """photos: (h, w, 3) uint8 RGB each, of any sizes. One Detections a photo, in its pixels."""
        return [found for at in range(0, len(photos), self.batch) for found in self._predict(photos[at : at + self.batch])]

    def _predict(self, photos: Sequence[np.ndarray]) -> list[Detections]:
        pairs = [letterbox(photo, self.height, self.width) for photo in photos]
        return self.finish(self.forward(np.stack([canvas for canvas, _ in pairs])), [placement for _, placement in pairs])

    def forward(self, images: np.ndarray | Tensor) -> Dense:
        """Predictions for letterboxed images (B, H, W, 3) uint8."""
        device = next(self.model.parameters()).device
        pixels = torch.as_tensor(images).to(device).permute(0, 3, 1, 2)  # channels-last in memory, as convolutions like it
        with evaluating(self.model), torch.inference_mode():
            result = self.model(pixels)
        return result if isinstance(result, Dense) else dense(result, getattr(self.model, "strides", STRIDES))

    def finish(self, predictions: Dense, placements: Sequence[Placement]) -> list[Detections]:
        """Suppression, and the way back to the photos."""
        found = suppress(predictions, self.min_score, self.iou)
        for detections, at in zip(found, placements, strict=True):
            detections.xyxy = at.to_photo(detections.xyxy)
            detections.names, detections.size = self.names, (at.w, at.h)
        return found
