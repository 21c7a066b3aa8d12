"""Moving photos and boxes together: scale, translate, clip, mirror."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from mpqyolo.core.image import FILL

_HALVE_BELOW = 0.6  # bilinear sampling skips source pixels when it shrinks further than this

Region = tuple[int, int, int, int]  # x1, y1, x2, y2 on the canvas, whole pixels


class Placing(NamedTuple):
    """Where a photo goes: x' = x * scale + left, y' = y * scale + top, in continuous pixel coordinates."""

    scale: float
    left: float
    top: float

    def boxes(self, xyxy: np.ndarray) -> np.ndarray:
        """(n, 4) boxes of the photo -> (n, 4) float32 on the canvas, not clipped."""
        offset = np.array([self.left, self.top, self.left, self.top])
        return (xyxy * self.scale + offset).astype(np.float32)


def draw(canvas: np.ndarray, photo: np.ndarray, placing: Placing, region: Region) -> None:
    """Draw the photo (h, w, 3) uint8 on the canvas (H, W, 3) uint8, inside `region` only; grey where the photo ends."""
    x1, y1, x2, y2 = region
    if x1 >= x2 or y1 >= y2:
        return
    sx = sy = placing.scale
    while sx < _HALVE_BELOW and sy < _HALVE_BELOW and min(photo.shape[:2]) > 1:
        h, w = photo.shape[:2]
        photo = cv2.resize(photo, (w // 2, h // 2), interpolation=cv2.INTER_AREA)
        sx, sy = sx * w / (w // 2), sy * h / (h // 2)
    # OpenCV counts from the centre of the first pixel, we from its edge: hence the halves.
    matrix = np.array([[sx, 0, placing.left - x1 + (sx - 1) / 2], [0, sy, placing.top - y1 + (sy - 1) / 2]])
    canvas[y1:y2, x1:x2] = cv2.warpAffine(photo, matrix, (x2 - x1, y2 - y1), borderValue=(FILL, FILL, FILL))


def clip(xyxy: np.ndarray, region: Region, min_side: float, min_visible: float) -> tuple[np.ndarray, np.ndarray]:
    """Clip boxes (n, 4) to the region. Returns the clipped boxes and a mask (n,) of those still worth learning."""
    x1, y1, x2, y2 = region
    clipped = np.clip(xyxy, np.array([x1, y1, x1, y1], np.float32), np.array([x2, y2, x2, y2], np.float32))
    before, after = xyxy[:, 2:] - xyxy[:, :2], clipped[:, 2:] - clipped[:, :2]
    large = (after > min_side).all(1)
    visible = after.prod(1) >= min_visible * before.prod(1)
    return clipped, large & visible


def mirror(canvas: np.ndarray, xyxy: np.ndarray, horizontal: bool, vertical: bool) -> np.ndarray:
    """Mirror the canvas in place; returns the mirrored boxes (n, 4)."""
    height, width = canvas.shape[:2]
    if horizontal:
        canvas[:] = cv2.flip(canvas, 1)
        xyxy = np.stack([width - xyxy[:, 2], xyxy[:, 1], width - xyxy[:, 0], xyxy[:, 3]], 1)
    if vertical:
        canvas[:] = cv2.flip(canvas, 0)
        xyxy = np.stack([xyxy[:, 0], height - xyxy[:, 3], xyxy[:, 2], height - xyxy[:, 1]], 1)
    return xyxy
