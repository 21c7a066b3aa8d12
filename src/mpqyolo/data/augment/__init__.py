"""Augmentation: every random number comes from the generator that is passed in."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from mpqyolo.data.augment.colour import jitter
from mpqyolo.data.augment.config import Augment
from mpqyolo.data.augment.geometry import mirror
from mpqyolo.data.augment.mosaic import Boxes, Labelled, mosaic, single

__all__ = ["Augment", "augmented"]


def augmented(
    canvas: np.ndarray,
    take: Callable[[int], Labelled],
    count: int,
    index: int,
    rng: np.random.Generator,
    augment: Augment,
    use_mosaic: bool = True,
) -> Boxes:
    """Fill the canvas (H, W, 3) uint8 RGB with photo `index`, augmented, and photos that `take` gives for indices below `count`.

    Returns (n, 4) float32 xyxy in pixels of the canvas and (n,) int64 labels.
    """
    xyxy, label = _filled(canvas, take, count, index, rng, augment, use_mosaic)
    if rng.random() < augment.mixup:
        other = np.empty_like(canvas)
        more_xyxy, more_label = _filled(other, take, count, int(rng.integers(count)), rng, augment, use_mosaic)
        share = rng.beta(8, 8)
        canvas[:] = cv2.addWeighted(canvas, share, other, 1 - share, 0)
        xyxy, label = np.concatenate([xyxy, more_xyxy]), np.concatenate([label, more_label])
    if augment.hsv_h or augment.hsv_s or augment.hsv_v:
        jitter(canvas, rng, augment.hsv_h, augment.hsv_s, augment.hsv_v)
    horizontal, vertical = rng.random(2) < (augment.flip, augment.flip_vertical)
    return mirror(canvas, xyxy, bool(horizontal), bool(vertical)), label


def _filled(
    canvas: np.ndarray,
    take: Callable[[int], Labelled],
    count: int,
    index: int,
    rng: np.random.Generator,
    augment: Augment,
    use_mosaic: bool,
) -> Boxes:
    if use_mosaic and rng.random() < augment.mosaic:
        return mosaic(canvas, take, [index, *map(int, rng.integers(count, size=3))], rng, augment)
    return single(canvas, take(index), rng, augment)
