"""What a detector's maps cost against labelled boxes: binary cross-entropy with quality targets, and CIoU on boxes.

Quality targets: Generalized Focal Loss (Li et al., NeurIPS 2020, arXiv 2006.04388) and TOOD (arXiv 2108.07755);
CIoU: Zheng et al., AAAI 2020 (arXiv 1911.08287).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mpqyolo.core.errors import ConfigError
from mpqyolo.detector.assign import EPSILON, assign, iou
from mpqyolo.detector.maps import Maps
from mpqyolo.detector.points import STRIDES, decode_boxes, flatten, map_points, map_shapes


def ciou(predicted: Tensor, box: Tensor) -> Tensor:
    """Complete IoU of boxes (p, 4) and (p, 4) px, in -1.5..1: IoU less centre distance and aspect mismatch."""
    overlap = iou(predicted, box)
    size, size_b = predicted[:, 2:] - predicted[:, :2], box[:, 2:] - box[:, :2]
    hull = torch.maximum(predicted[:, 2:], box[:, 2:]) - torch.minimum(predicted[:, :2], box[:, :2])
    gap = (predicted[:, :2] + predicted[:, 2:] - box[:, :2] - box[:, 2:]) / 2
    distance = gap.square().sum(1) / (hull.square().sum(1) + EPSILON)
    angle, angle_b = (torch.atan2(s[:, 0], s[:, 1]) for s in (size, size_b))
    aspect = 4 / math.pi**2 * (angle - angle_b).square()
    with torch.no_grad():
        weight = aspect / (1 - overlap + aspect + EPSILON)
    return overlap - distance - weight * aspect


class DetectionLoss:
    """Price of maps: `box_gain * box + class_gain * class`, both divided by the sum of the quality targets (at least 1)."""

    def __init__(
        self,
        classes: int,
        strides: Sequence[int] = STRIDES,
        box_gain: float = 5.0,
        class_gain: float = 1.0,
        topk: int = 10,
        alpha: float = 0.5,
        beta: float = 6.0,
    ) -> None:
        self.classes, self.strides = classes, tuple(strides)
        self.box_gain, self.class_gain = box_gain, class_gain
        self.topk, self.alpha, self.beta = topk, alpha, beta

    def __call__(
        self, maps: Maps, targets: Tensor, size: int | tuple[int, int] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of maps against targets (n, 6) [image, label, x1, y1, x2, y2 in px of the input].

        size: side of the input, or (height, width), in px; boxes are clipped to it. Returns the total and its two unweighted
        parts (detached), all float32 scalars; half-precision maps are priced in float32. Raises ConfigError for other classes.
        """
        if maps.logit[0].shape[1] != self.classes:
            raise ConfigError(f"the model predicts {maps.logit[0].shape[1]} classes, its loss is for {self.classes}")
        centres, stride = map_points(maps, self.strides)
        distance, logit = flatten(maps.distance).float(), flatten(maps.logit).float()
        targets = targets.to(logit)
        if size is not None:
            height, width = (size, size) if isinstance(size, int) else size
            limit = targets.new_tensor((width, height, width, height))
            targets = torch.cat((targets[:, :2], targets[:, 2:].clamp(min=0).minimum(limit)), 1)
        with torch.no_grad():
            boxes = decode_boxes(distance, centres, stride)
        found = assign(logit, boxes, targets, map_shapes(maps), self.strides, self.topk, self.alpha, self.beta)

        label = targets[found.target, 1].long()
        total_quality = found.quality.sum().clamp(min=1)
        # Cross-entropy is softplus(x) - quality * x: positives are sparse, so no dense target is made.
        cost = F.softplus(logit).sum() - (logit[found.image, found.point, label] * found.quality).sum()
        predicted = decode_boxes(distance[found.image, found.point], centres[found.point], stride[found.point])
        miss = (1 - ciou(predicted, targets[found.target, 2:])) * found.quality
        parts = {"box": miss.sum() / total_quality, "class": cost / total_quality}
        total = self.box_gain * parts["box"] + self.class_gain * parts["class"]
        return total, {name: part.detach() for name, part in parts.items()}
