import math

import numpy as np
import pytest
import torch
from torch import nn

from mpqyolo.core.boxes import iou_matrix
from mpqyolo.detector.decode import Dense, TorchPredictor, decode, dense, suppress
from mpqyolo.detector.maps import Maps
from mpqyolo.detector.points import DISTANCE_LIMIT, STRIDES, decode_boxes


def random_maps(seed: int, images: int = 2, classes: int = 3, shapes=((6, 8), (3, 4), (2, 2))) -> Maps:
    g = torch.Generator().manual_seed(seed)
    distance = tuple(torch.randn(images, 4, h, w, generator=g) * 0.5 + 1 for h, w in shapes)
    # Coarse logits, so that scores tie and the order of ties shows.
    logit = tuple((torch.randn(images, classes, h, w, generator=g) * 4).round() / 2 - 1 for h, w in shapes)
    return Maps(distance, logit)


def by_loops(maps: Maps, image: int, min_score: float, iou: float, most: int, keep: int):
    """docs/numerics.md, section 5, as written."""
    candidates = []
    for level, stride in enumerate(STRIDES):
        distance, logit = maps.distance[level][image], maps.logit[level][image]
        classes, h, w = logit.shape
        for y in range(h):
            for x in range(w):
                left, top, right, bottom = (math.exp(v) * stride for v in distance[:, y, x].tolist())
                cx, cy = (x + 0.5) * stride, (y + 0.5) * stride
                for c in range(classes):
                    score = float(logit[c, y, x].sigmoid())
                    if score >= min_score:
                        candidates.append((-score, level, y * w + x, c, (cx - left, cy - top, cx + right, cy + bottom)))
    kept: list[tuple] = []
    for item in sorted(candidates)[:most]:
        pairs = (iou_matrix(np.float32([k[4]]), np.float32([item[4]]))[0, 0] for k in kept if k[3] == item[3])
        if len(kept) < keep and not any(v > iou for v in pairs):
            kept.append(item)
    return kept


@pytest.mark.parametrize(("seed", "most", "keep"), [(0, 4096, 300), (1, 4096, 20), (2, 37, 300), (3, 100, 5)])
def test_equals_the_text_of_the_specification(seed, most, keep):
    maps = random_maps(seed)
    for image, found in enumerate(decode(maps, STRIDES, 0.3, 0.5, most, keep)):
        want = by_loops(maps, image, 0.3, 0.5, most, keep)
        assert len(want) > 4
        assert found.class_id.tolist() == [k[3] for k in want]
        np.testing.assert_allclose(found.score, [-k[0] for k in want], rtol=1e-6)
        np.testing.assert_allclose(found.xyxy, [k[4] for k in want], rtol=1e-4, atol=1e-3)
        assert found.xyxy.dtype == found.score.dtype == np.float32 and found.class_id.dtype == np.int32


def test_nan_and_nothing():
    maps = random_maps(5)
    maps.logit[0][0] = torch.nan
    maps.logit[1][1:], maps.logit[2][1:], maps.logit[0][1:] = -9, -9, -9
    first, second = decode(maps, min_score=0.3)
    assert len(first) > 0 and np.isfinite(first.score).all() and len(second) == 0 and second.xyxy.shape == (0, 4)
    maps.distance[2][0, 1] = torch.nan  # of boxes that have good scores
    maps.distance[1][0, :, 0, 0] = torch.inf
    maps.logit[2][0], maps.logit[1][0] = 2, 2
    first = decode(maps)[0]
    assert len(first) > 0 and np.isfinite(first.xyxy).all()
    assert len(suppress(Dense(torch.zeros(1, 0, 4), torch.zeros(1, 0, 2)))[0]) == 0


class Bright(nn.Module):
    """Finds the one white 8x8 cell of its input; asserts what it is given."""

    strides = STRIDES

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.sizes: list[int] = []

    def forward(self, images: torch.Tensor) -> Maps:
        assert images.dtype == torch.uint8 and not self.training
        self.sizes.append(len(images))
        grey = images.float().mean(1, keepdim=True)
        levels = [nn.functional.avg_pool2d(grey, s) for s in STRIDES]
        logit = tuple(
            (level - 200) * (1.0 if s == 8 else 0) - (0 if s == 8 else 9) for level, s in zip(levels, STRIDES, strict=True)
        )
        return Maps(tuple(torch.full((*m.shape[:1], 4, *m.shape[2:]), math.log(0.5)) for m in levels), logit)


def test_predictor_brings_boxes_back_to_each_photo():
    model = Bright().train()
    model.frozen = nn.BatchNorm2d(1).eval()
    photos, places = [], []
    for scale, (x, y) in ((1, (3, 5)), (2, (0, 7)), (1, (7, 0)), (4, (2, 2)), (1, (1, 1))):
        photo = np.zeros((64 * scale, 64 * scale, 3), np.uint8)
        photo[y * 8 * scale : (y + 1) * 8 * scale, x * 8 * scale : (x + 1) * 8 * scale] = 255
        photos.append(photo)
        places.append([x * 8 * scale, y * 8 * scale, (x + 1) * 8 * scale, (y + 1) * 8 * scale])
    wide = np.zeros((32, 64, 3), np.uint8)  # 16 grey rows above it in the input
    wide[8:16, 16:24] = 255
    photos.append(wide)
    places.append([16, 8, 24, 16])
    found = TorchPredictor(model, 64, min_score=0.01, batch=4, names=("cell",))(photos)
    assert model.training and not model.frozen.training and model.sizes == [4, 2]
    for detections, place, photo in zip(found, places, photos, strict=True):
        assert len(detections) == 1 and detections.names == ("cell",) and detections.size == photo.shape[1::-1]
        assert detections.score[0] > 0.9

        np.testing.assert_allclose(detections.xyxy[0], place, atol=1e-3)


def test_dense_keeps_the_order_of_levels_and_cells():
    maps = random_maps(4)
    result = dense(maps)
    assert result.box.shape == (2, 64, 4) and result.score.shape == (2, 64, 3)
    assert torch.equal(result.score[1, 48 + 4 + 1], maps.logit[1][1, :, 1, 1].sigmoid())


@pytest.mark.parametrize("value", [6.0, 6.5, 100.0, 1e9, 1e30])
def test_distances_end_at_their_limit(value):
    """However far a logit is beyond it, with a gradient that finds back."""
    logits = torch.tensor([[value, -value, value, -value]], requires_grad=True)
    box = decode_boxes(logits, torch.tensor([[4.0, 4.0]]), torch.tensor([8.0]))
    far, near = 8 * math.exp(DISTANCE_LIMIT), 8 * math.exp(-DISTANCE_LIMIT)
    np.testing.assert_allclose(box[0].tolist(), [4 - far, 4 - near, 4 + far, 4 + near], rtol=1e-5)
    (slope,) = torch.autograd.grad(box.sum(), logits)
    np.testing.assert_allclose(slope[0].tolist(), [-far, -near, far, near], rtol=1e-5)
