"""Maps: what every trainable detector returns, whatever its family."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Maps(NamedTuple):
    """Raw predictions, one entry a level (stride 8, 16, 32), natural units.

    distance: (B, 4, h, w); exp(distance) * stride = pixels from the cell's centre to left, top, right, bottom.
    logit: (B, classes, h, w); sigmoid(logit) = score of a class, trained towards the box's quality.
    feature: (B, c, h, w) the maps that the predictions are read from, and backbone: those that the neck reads, for a teacher's
    hints.
    """

    distance: tuple[Tensor, ...]
    logit: tuple[Tensor, ...]
    feature: tuple[Tensor, ...] = ()
    backbone: tuple[Tensor, ...] = ()
