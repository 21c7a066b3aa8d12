"""Augmentation moves photos and boxes together, and the loader gives the same batches whoever makes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqyolo.core.errors import ConfigError, DataError
from mpqyolo.core.image import FILL, letterbox
from mpqyolo.data.augment import Augment, augmented
from mpqyolo.data.augment.colour import jitter
from mpqyolo.data.augment.geometry import Placing, clip, draw, mirror
from mpqyolo.data.augment.mosaic import mosaic, single
from mpqyolo.data.loader import Batch, Loader
from mpqyolo.data.preview import draw_batch

GEOMETRY = Augment(hsv_h=0, hsv_s=0, hsv_v=0, min_visible=0.6, min_side=6)


def square(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A black photo with one white square, and its box."""
    rng = np.random.default_rng(seed)
    height, width = (int(v) for v in rng.integers(60, 120, 2))
    side = int(rng.integers(20, 40))
    x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
    photo = np.zeros((height, width, 3), np.uint8)
    photo[y : y + side, x : x + side] = 255
    return photo, np.array([[x, y, x + side, y + side]], np.float32), np.array([seed % 5])


def white_share(canvas: np.ndarray, box: np.ndarray) -> float:
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    return float((canvas[y1:y2, x1:x2, 0] > 127).mean())


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10_000), st.booleans())
def test_boxes_stay_on_their_objects(seed: int, use_mosaic: bool) -> None:
    """Whatever is drawn where: a box that is kept holds white, and white lies in boxes unless its box was dropped."""
    canvas = np.zeros((96, 128, 3), np.uint8)
    rng = np.random.default_rng(seed)
    boxes, labels = augmented(canvas, lambda index: square(seed + index), 7, 3, rng, GEOMETRY, use_mosaic)
    assert boxes.shape == (len(labels), 4) and boxes.dtype == np.float32
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 128).all() and (boxes[:, 3] <= 96).all()
    for box in boxes:
        # Resampling blurs a pixel on each side of an edge.
        inner = box + np.array([1.5, 1.5, -1.5, -1.5], np.float32)
        assert white_share(canvas, inner) > 0.9
    outside = canvas[:, :, 0] > 200
    for x1, y1, x2, y2 in boxes.round().astype(int):
        outside[max(y1 - 2, 0) : y2 + 2, max(x1 - 2, 0) : x2 + 2] = False
    dropped = (1 if not use_mosaic else 4) - len(boxes)
    assert dropped > 0 or not outside.any()


def test_without_switches_a_single_photo_is_fitted_and_centred() -> None:
    photo, xyxy, label = square(4)
    canvas = np.zeros((64, 64, 3), np.uint8)
    boxes, labels = single(canvas, (photo, xyxy, label), np.random.default_rng(0), Augment.none())
    want, place = letterbox(photo, 64, 64)
    assert np.abs(boxes - place.to_input(xyxy)).max() < 1 and labels.tolist() == label.tolist()
    assert (np.abs(canvas.astype(int) - want) > 60).mean() < 0.05  # two resamplings of one picture


def test_mosaic_takes_four_photos() -> None:
    photos = [np.full((50, 50, 3), 40 * k + 20, np.uint8) for k in range(4)]
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    seen: set[int] = set()
    for seed in range(20):
        canvas = np.zeros((64, 64, 3), np.uint8)
        mosaic(canvas, lambda k: (photos[k], *nothing), [0, 1, 2, 3], np.random.default_rng(seed), Augment())
        seen |= set(np.unique(canvas).tolist())
    assert {20, 60, 100, 140} <= seen


def test_mirrors() -> None:
    photo, xyxy, _ = square(2)
    both = photo.copy()
    boxes = mirror(both, xyxy, True, True)
    assert np.array_equal(both, photo[::-1, ::-1]) and white_share(both, boxes[0]) == 1.0
    assert np.array_equal(mirror(both, boxes, True, True), xyxy) and np.array_equal(both, photo)


@pytest.mark.parametrize(("switch", "axis"), [("flip", 1), ("flip_vertical", 0)])
def test_each_switch_mirrors_its_axis(switch: str, axis: int) -> None:
    photo, xyxy, label = square(2)
    canvas = np.zeros_like(photo)
    rng = np.random.default_rng(0)
    boxes, _ = augmented(canvas, lambda _: (photo, xyxy, label), 1, 0, rng, replace(Augment.none(), **{switch: 1.0}))
    assert np.array_equal(canvas, np.flip(photo, axis)) and white_share(canvas, boxes[0]) == 1.0


def test_mixup_blends_two_photos_and_keeps_the_boxes_of_both() -> None:
    photos = iter([((200, 0, 100), 0), ((0, 200, 100), 1)])
    canvas = np.zeros((8, 8, 3), np.uint8)

    def take(_: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        colour, label = next(photos)
        return np.full((8, 8, 3), colour, np.uint8), np.array([[label, 1, 6, 7]], np.float32), np.array([label])

    boxes, labels = augmented(canvas, take, 2, 0, np.random.default_rng(0), replace(Augment.none(), mixup=1.0))
    assert labels.tolist() == [0, 1] and boxes.tolist() == [[0, 1, 6, 7], [1, 1, 6, 7]]
    first, second, both = canvas.reshape(-1, 3).T.astype(int)
    assert (first > 10).all() and (second > 10).all() and (abs(first + second - 200) <= 1).all() and (both == 100).all()


@pytest.mark.parametrize("scale", [2.5, 0.75, 0.3])
def test_a_drawn_object_is_centred_in_its_box(scale: float) -> None:
    """To a fraction of a pixel: a warp that counts from pixels' centres would be (scale - 1) / 2 pixels off."""
    photo = np.full((49, 53, 3), FILL, np.uint8)
    photo[16:28, 18:38] = 255
    photo = cv2.GaussianBlur(photo, (0, 0), 3)  # without edges, which bilinear sampling moves
    canvas = np.zeros((200, 200, 3), np.uint8)
    placing = Placing(scale, 3.0, 5.0)
    draw(canvas, photo, placing, (0, 0, 200, 200))
    x1, y1, x2, y2 = placing.boxes(np.array([[18, 16, 38, 28]], np.float32))[0]
    white = canvas[:, :, 0] - float(FILL)
    white /= white.sum()
    centre = np.arange(200) + 0.5
    assert white.sum(0) @ centre == pytest.approx((x1 + x2) / 2, abs=0.03)
    assert white.sum(1) @ centre == pytest.approx((y1 + y2) / 2, abs=0.03)


def test_clip_drops_what_is_hardly_left() -> None:
    boxes = np.array([[0, 0, 10, 10], [-9, 0, 1, 10], [5, 5, 6, 40]], np.float32)
    clipped, keep = clip(boxes, (0, 0, 20, 20), min_side=2, min_visible=0.2)
    assert keep.tolist() == [True, False, False] and (clipped >= 0).all() and (clipped <= 20).all()
    _, keep = clip(np.array([[-17, 0, 3, 10], [-9, 0, 3, 10]], np.float32), (0, 0, 20, 20), min_side=2, min_visible=0.2)
    assert keep.tolist() == [False, True]  # sides long enough both; 15 % visible, and 25 %


def test_colour_changes_colours_only() -> None:
    canvas = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    same = canvas.copy()
    jitter(same, np.random.default_rng(1), 0, 0, 0)
    assert np.abs(same.astype(int) - canvas).max() <= 4  # there and back through HSV
    darker = canvas.copy()
    jitter(darker, np.random.default_rng(1), 0, 0, 0.9)
    assert darker.shape == canvas.shape and (darker != canvas).any()


def test_colour_ends_at_its_limits() -> None:
    """More saturated or brighter before is never less so after: nothing wraps round."""
    level = np.arange(256, dtype=np.uint8)
    red = np.stack([np.full(256, 255, np.uint8), 255 - level, 255 - level], 1)
    for seed in range(8):
        both = np.stack([red, np.repeat(level[:, None], 3, 1)])
        jitter(both, np.random.default_rng(seed), 0, 0.9, 0.9)
        pale, bright = both[:, :, 1].astype(int)
        assert (np.diff(pale) <= 0).all() and (np.diff(bright) >= 0).all()


def equal(a: Batch, b: Batch) -> bool:
    return torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets) and a.photos == b.photos


def test_any_number_of_workers_gives_the_same_batches(make) -> None:
    dataset = make(count=9)
    loaders = [Loader(dataset, 64, 2, workers=workers, seed=5) for workers in (0, 1, 3)]
    first, *others = ([*loader.epoch(3)] for loader in loaders)
    assert len(first) == 4 and all(equal(a, b) for other in others for a, b in zip(first, other, strict=True))
    assert not equal(first[0], next(iter(loaders[0].epoch(4))))


def test_an_epoch_can_begin_in_its_middle(make) -> None:
    loader = Loader(make(count=9), 64, 2, seed=1)
    whole = [*loader.epoch(0)]
    assert all(equal(a, b) for a, b in zip(whole[2:], loader.epoch(0, start=2), strict=True))


def test_the_cache_changes_nothing(make) -> None:
    dataset = make(count=6)
    roomy, none = Loader(dataset, 64, 3), Loader(dataset, 64, 3, cache_bytes=0)
    for epoch in range(2):
        assert all(equal(a, b) for a, b in zip(roomy.epoch(epoch), none.epoch(epoch), strict=True))
    assert roomy.cache.left < 1 << 30 and none.cache.left == 0


def test_processes_share_an_epoch_out(make) -> None:
    dataset = make(count=8)
    ranks = [Loader(dataset, 64, 2, rank=rank, world=2) for rank in (0, 1)]
    photos = [number for loader in ranks for batch in loader.epoch(0) for number in batch.photos]
    assert sorted(photos) == list(range(8))


def test_clean_batches_are_what_deployment_sees(make) -> None:
    dataset = make(count=4)
    (batch,) = Loader(dataset, 64, 4, Augment.none()).epoch(0)
    for place, number in enumerate(batch.photos):
        want, at = letterbox(dataset.read(number), 64, 64)
        assert np.array_equal(batch.images[place].permute(1, 2, 0).numpy(), want)
        boxes = batch.targets[batch.targets[:, 0] == place][:, 2:].numpy()
        assert np.allclose(boxes, at.to_input(dataset.items[number].xyxy), atol=1e-3)


def test_sizes_and_counts_that_make_no_sense(make) -> None:
    dataset = make(count=3)
    with pytest.raises(ConfigError, match="must be positive"):
        Loader(dataset, 64, 0)
    with pytest.raises(DataError, match="add photos"):
        Loader(dataset, 64, 2, world=4)


def test_a_preview_can_be_looked_at(make, tmp_path: Path) -> None:
    (batch,) = Loader(make(count=4), (64, 96), 4).epoch(0)
    sheet = draw_batch(batch, ("cat", "dog", "traffic light"))
    assert sheet.size == (192, 128) and np.asarray(sheet).std() > 10
