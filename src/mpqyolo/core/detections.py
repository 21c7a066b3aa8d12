"""Detections: what every detector returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Detections:
    """Boxes of one photo, best first.

    xyxy: (n, 4) float32, pixels of the photo. score: (n,) float32 in 0..1. class_id: (n,) int32.
    names: class names, where known. size: (width, height) of the photo, where known.
    """

    xyxy: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    score: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    class_id: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    names: tuple[str, ...] = ()
    size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, index: object) -> Detections:
        """The chosen boxes (slice, mask or index array)."""
        return Detections(self.xyxy[index], self.score[index], self.class_id[index], self.names, self.size)
