"""Filling a canvas from one photo or from four (mosaic, Bochkovskiy et al., 2020, arXiv:2004.10934)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mpqyolo.core.image import FILL
from mpqyolo.data.augment.config import Augment
from mpqyolo.data.augment.geometry import Placing, clip, draw

Labelled = tuple[np.ndarray, np.ndarray, np.ndarray]  # photo (h, w, 3) uint8, xyxy (n, 4) float32, label (n,) int64
Boxes = tuple[np.ndarray, np.ndarray]  # xyxy (n, 4) float32 on the canvas, label (n,)


def _fit(photo: np.ndarray, width: int, height: int) -> float:
    return min(width / photo.shape[1], height / photo.shape[0])


def single(canvas: np.ndarray, one: Labelled, rng: np.random.Generator, augment: Augment) -> Boxes:
    """Draw one photo, fitted to the canvas, then scaled and moved at random."""
    height, width = canvas.shape[:2]
    photo, xyxy, label = one
    scale = _fit(photo, width, height) * rng.uniform(1 - augment.scale, 1 + augment.scale)
    dx, dy = rng.uniform(-augment.translate, augment.translate, 2)
    h, w = photo.shape[:2]
    placing = Placing(scale, (0.5 + dx) * width - scale * w / 2, (0.5 + dy) * height - scale * h / 2)
    region = (0, 0, width, height)
    draw(canvas, photo, placing, region)
    xyxy, keep = clip(placing.boxes(xyxy), region, augment.min_side, augment.min_visible)
    return xyxy[keep], label[keep]


def mosaic(
    canvas: np.ndarray, take: Callable[[int], Labelled], indices: list[int], rng: np.random.Generator, augment: Augment
) -> Boxes:
    """Draw four photos round a random centre, each in its quadrant, straight at the final scale: no double-sized canvas."""
    height, width = canvas.shape[:2]
    scale = rng.uniform(1 - augment.scale, 1 + augment.scale)
    shift = rng.uniform(-0.5, 0.5, 2) * scale + rng.uniform(-augment.translate, augment.translate, 2)
    cx, cy = round(width * float(0.5 + shift[0])), round(height * float(0.5 + shift[1]))
    canvas[:] = FILL
    all_xyxy, all_label = [], []
    for quadrant, index in enumerate(indices):
        photo, xyxy, label = take(index)
        s = _fit(photo, width, height) * scale
        w, h = photo.shape[1] * s, photo.shape[0] * s
        right, below = quadrant % 2, quadrant // 2
        placing = Placing(s, cx if right else cx - w, cy if below else cy - h)
        x1, x2 = (max(cx, 0), width) if right else (0, min(cx, width))
        y1, y2 = (max(cy, 0), height) if below else (0, min(cy, height))
        if x1 >= x2 or y1 >= y2:
            continue  # the centre lies outside, and with it this quadrant
        draw(canvas, photo, placing, (x1, y1, x2, y2))
        xyxy, keep = clip(placing.boxes(xyxy), (x1, y1, x2, y2), augment.min_side, augment.min_visible)
        all_xyxy.append(xyxy[keep])
        all_label.append(label[keep])
    return np.concatenate(all_xyxy), np.concatenate(all_label)
