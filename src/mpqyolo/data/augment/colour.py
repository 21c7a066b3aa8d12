"""Colour jitter in HSV."""

from __future__ import annotations

import cv2
import numpy as np


def jitter(canvas: np.ndarray, rng: np.random.Generator, hue: float, saturation: float, value: float) -> None:
    """Scale hue, saturation and value of the canvas (H, W, 3) uint8 RGB by factors from 1 - gain to 1 + gain, in place."""
    h, s, v = 1 + rng.uniform(-1, 1, 3) * (hue, saturation, value)
    level = np.arange(256)
    table = np.stack([level * h % 180, np.clip(level * s, 0, 255), np.clip(level * v, 0, 255)], 1)  # OpenCV's hue is 0..179
    hsv = cv2.LUT(cv2.cvtColor(canvas, cv2.COLOR_RGB2HSV), table.astype(np.uint8)[None])
    canvas[:] = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
