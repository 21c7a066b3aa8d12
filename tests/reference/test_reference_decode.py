"""Decode and detect against sections 5 and 6 of docs/numerics.md, written as plain loops."""

import numpy as np
import pytest

from mpqyolo.core.image import letterbox
from mpqyolo.graph.ir import Decode, Graph, Level, Model, Tensor
from mpqyolo.graph.sample import random_model
from mpqyolo.reference.decode import candidates, decode, detect
from mpqyolo.reference.numerics import distance, score
from mpqyolo.reference.run import run

f = np.float32


def model_of(classes, levels, size=64, iou=0.65):
    """A model without nodes: decode needs only maps."""
    graph = Graph({"image": Tensor("image", "u8", (3, size, size))}, {}, (), "image", ())
    names = tuple(f"c{i}" for i in range(classes))
    return Model(graph, Decode(tuple(Level(s, f"d{s}", f"l{s}") for s in levels), iou), names, {})


def maps_of(rng, model, size=64, spread=3000):
    maps = {}
    for level in model.decode.levels:
        n = size // level.stride
        maps[level.distance] = rng.integers(-1024, 3000, (4, n, n)).astype(np.int16)
        maps[level.logit] = (rng.normal(-1000, spread, (len(model.classes), n, n)) // 500 * 500).astype(np.int16)  # many ties
    return maps


def plain(model, maps, min_score, iou):
    found = []
    for number, level in enumerate(model.decode.levels):
        logit, reach = maps[level.logit], maps[level.distance]
        for y in range(logit.shape[1]):
            for x in range(logit.shape[2]):
                for c in range(logit.shape[0]):
                    s = score(logit[c, y, x])
                    if s >= f(min_score):
                        left, top, right, bottom = (distance(v, level.stride) for v in reach[:, y, x])
                        cx, cy = f((x + 0.5) * level.stride), f((y + 0.5) * level.stride)
                        found.append((-s, number, y * logit.shape[2] + x, c, (cx - left, cy - top, cx + right, cy + bottom)))
    found.sort(key=lambda item: item[:4])
    kept = []
    for negative, _, _, c, box in found[:4096]:
        for other, k, _ in kept:
            w = max(f(0), min(other[2], box[2]) - max(other[0], box[0]))
            h = max(f(0), min(other[3], box[3]) - max(other[1], box[1]))
            inter = w * h
            union = (other[2] - other[0]) * (other[3] - other[1]) + (box[2] - box[0]) * (box[3] - box[1]) - inter
            if k == c and inter > f(iou) * union:
                break
        else:
            kept.append((box, c, -negative))
            if len(kept) == 300:
                break
    return kept


@pytest.mark.parametrize("seed", range(6))
def test_decode_is_the_plain_loop(seed):
    rng = np.random.default_rng(seed)
    model = model_of(1 + seed % 3, (8, 16, 32))
    maps = maps_of(rng, model)
    iou = (0.65, 0.3, 0.9)[seed % 3]
    got = decode(model, maps, 0.25, iou)
    expected = plain(model, maps, 0.25, iou)
    assert len(got) == len(expected) > 5
    assert got.xyxy.tolist() == [[float(v) for v in box] for box, _, _ in expected]
    assert got.class_id.tolist() == [c for _, c, _ in expected] and got.score.tolist() == [float(s) for _, _, s in expected]
    assert got.xyxy.dtype == got.score.dtype == np.float32 and got.class_id.dtype == np.int32


def test_caps_and_thresholds():
    model = model_of(20, (2,))
    maps = {"l2": np.full((20, 32, 32), 5, np.int16), "d2": np.full((4, 32, 32), -4096, np.int16)}
    assert len(candidates(model, maps, 0.5).score) == 20480
    found = decode(model, maps, 0.5)
    # All scores tie, tiny boxes never overlap: cells in order, classes within a cell, and only 300 of them.
    assert len(found) == 300 and found.class_id.tolist() == [i % 20 for i in range(300)]
    assert len(decode(model, maps, 0.51)) == 0 and len(decode(model, maps, 1.5)) == 0
    assert decode(model, maps, 0.51).xyxy.shape == (0, 4)


def test_only_the_first_4096_take_part():
    """One class with identical boxes everywhere but in the last cell, which stands behind 4096 better ones."""
    model = model_of(1, (2,), size=256)
    logit = np.full((1, 128, 128), 2000, np.int16)
    reach = np.full((4, 128, 128), -4096, np.int16)
    logit[0, 127, 127] = 1000
    reach[:, :, :] = 12 * 1024  # boxes of half-width 8192: all overlap nearly fully
    reach[:, 127, 127] = -4096
    found = decode(model, {"l2": logit, "d2": reach}, 0.5)
    assert len(found) == 1


@pytest.mark.parametrize("seed", range(3))
def test_detect_goes_back_to_the_photo(seed):
    rng = np.random.default_rng(seed)
    model = random_model(rng, size=(32, 64))
    photo = rng.integers(0, 256, (50, 70, 3)).astype(np.uint8)
    found = detect(model, photo, 0.3)
    image, place = letterbox(photo, 32, 64)
    boxes = decode(model, run(model.graph, image), 0.3)
    assert found.xyxy.tolist() == place.to_photo(boxes.xyxy).tolist() and found.size == (70, 50)
    assert len(found) == 0 or (found.xyxy.min() >= 0 and found.xyxy[:, 2].max() <= 70 and found.xyxy[:, 3].max() <= 50)
    assert detect(model, photo, 0.3, size=(64, 64)).names == model.classes
