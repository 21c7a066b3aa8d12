"""The letterbox, in integers: training, reference and engine see the same pixels (docs/numerics.md, section 6)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

FILL = 114
UNIT = 1 << 14  # filter weights are counted in 2^-14


class Placement(NamedTuple):
    """Where a photo lies in the letterboxed input: its corner (left, top) and size (nw, nh); w, h is the photo's own size."""

    left: int
    top: int
    nw: int
    nh: int
    w: int
    h: int

    def to_input(self, xyxy: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) in pixels of the photo -> pixels of the input, float32."""
        scale = np.array([self.nw / self.w, self.nh / self.h] * 2, np.float32)
        return np.asarray(xyxy, np.float32) * scale + np.array([self.left, self.top] * 2, np.float32)

    def to_photo(self, xyxy: np.ndarray) -> np.ndarray:
        """Boxes (n, 4) in pixels of the input -> pixels of the photo, clipped to it, float32."""
        numbers = np.array([self.w, self.h, self.nw, self.nh, self.left, self.top], np.float32)
        w, h, nw, nh, left, top = numbers
        scale = np.array([w / nw, h / nh] * 2, np.float32)
        moved = np.asarray(xyxy, np.float32) - np.array([left, top] * 2, np.float32)
        return np.clip(moved * scale, np.float32(0), np.array([w, h] * 2, np.float32))


def placement(w: int, h: int, width: int, height: int) -> Placement:
    """Where a photo of w x h pixels goes in an input of width x height."""
    if width * h <= height * w:
        nw, nh = width, max(1, (2 * h * width + w) // (2 * w))
    else:
        nw, nh = max(1, (2 * w * height + h) // (2 * h)), height
    return Placement((width - nw) // 2, (height - nh) // 2, nw, nh, w, h)


@lru_cache(maxsize=64)
def _taps(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Sources and their weights, both (taps, m), of a length n resized to m; weights of one output add up to UNIT."""
    reach = 2 * max(n, m)
    centre = (2 * np.arange(m, dtype=np.int64) + 1) * n
    first = (centre - reach) // (2 * m)
    source = first + np.arange(reach // m + 3, dtype=np.int64)[:, None]
    weight = np.maximum(reach - np.abs(centre - (2 * source + 1) * m), 0)
    weight[(source < 0) | (source >= n)] = 0
    q = weight * UNIT // weight.sum(axis=0)
    q[weight.argmax(axis=0), np.arange(m)] += UNIT - q.sum(axis=0)
    used = q.any(axis=1)
    return np.clip(source, 0, n - 1)[used], q[used].astype(np.int32)


def resize_axis(photo: np.ndarray, m: int, axis: int) -> np.ndarray:
    """One pass of the separable triangle filter: uint8 (H, W, C) -> the same with `axis` (0 or 1) of length m."""
    n = photo.shape[axis]
    if n == m:
        return photo
    source, q = _taps(n, m)
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    total = np.full((m, *photo.shape[1:]) if axis == 0 else (photo.shape[0], m, *photo.shape[2:]), UNIT // 2, np.int32)
    for where, weight in zip(source, q, strict=True):
        total += photo.take(where, axis) * weight.reshape(shape)  # at most 255 * 2^14: fits int32
    return (total >> 14).astype(np.uint8)


def resize(photo: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 (h, w, C) -> (height, width, C), horizontal pass first, rounded to uint8 in between."""
    return resize_axis(resize_axis(photo, width, 1), height, 0)


def letterbox(photo: np.ndarray, height: int, width: int) -> tuple[np.ndarray, Placement]:
    """(h, w, C) uint8 -> (height, width, C) uint8, the photo scaled to fit, centred, on grey 114; and where it lies."""
    if photo.ndim != 3 or photo.dtype != np.uint8 or 0 in photo.shape:
        raise ValueError(f"photo must be (h, w, C) uint8 with at least one pixel, got {photo.shape} {photo.dtype}")
    at = placement(photo.shape[1], photo.shape[0], width, height)
    result = np.full((height, width, photo.shape[2]), FILL, np.uint8)
    result[at.top : at.top + at.nh, at.left : at.left + at.nw] = resize(photo, at.nh, at.nw)
    return result, at
