"""Overlap and suppression."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqyolo.core.boxes import area, iou_matrix, nms, select


def test_iou_of_known_boxes():
    a = np.array([[0, 0, 10, 10], [0, 0, 0, 0]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 0, 0]], np.float32)
    expected = [[1, 50 / 150, 0, 0], [0, 0, 0, 0]]
    assert np.allclose(iou_matrix(a, b), expected)
    assert iou_matrix(a[:0], b).shape == (0, 4)


def test_area():
    assert area(np.array([[0, 0, 30, 20], [5, 5, 5, 9]], np.float32)).tolist() == [600, 0]


def test_only_the_same_class_suppresses_and_only_above_the_threshold():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 10]], np.float32)
    score = np.array([0.5, 0.9, 0.4, 0.5], np.float32)
    classes = np.array([0, 0, 0, 1])
    assert nms(boxes, score, classes, 0.5).tolist() == [1, 3, 2]  # iou exactly 0.5 stays
    assert nms(boxes, score, classes, 0.49).tolist() == [1, 3]
    assert nms(boxes, score, classes, 0.5, max_detections=2).tolist() == [1, 3]
    assert nms(boxes[:0], score[:0], classes[:0]).tolist() == []


@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
@settings(deadline=None, max_examples=40)
def test_what_is_kept_never_overlaps_and_what_goes_always_does(seed, n):
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 20, (n, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 20, (n, 2))], axis=1).astype(np.float32)
    score, classes = rng.integers(0, 5, n).astype(np.float32) / 5, rng.integers(0, 2, n)
    kept = nms(boxes, score, classes, 0.5)
    over = (iou_matrix(boxes, boxes) > 0.5) & (classes[:, None] == classes[None])
    assert not (over[np.ix_(kept, kept)] & ~np.eye(len(kept), dtype=bool)).any()
    before = (score[:, None] > score[None]) | ((score[:, None] == score[None]) & (np.arange(n)[:, None] < np.arange(n)[None]))
    for i in set(range(n)) - set(kept.tolist()):
        assert any(over[k, i] and before[k, i] for k in kept)
    assert all(before[a, b] for a, b in itertools.pairwise(kept))


def test_select_orders_ties_by_the_keys():
    """Rows in any order and their keys give the same boxes as rows in the document's order."""
    rng = np.random.default_rng(0)
    n = 400
    level, cell, classes = rng.integers(0, 3, n), rng.integers(0, 1000, n), rng.integers(0, 3, n)
    boxes = rng.integers(0, 40, (n, 4)).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2] + 1
    score = rng.integers(0, 4, n).astype(np.float32)
    inorder = np.lexsort((classes, cell, level))
    expected = inorder[select(boxes[inorder], score[inorder], classes[inorder], max_candidates=100, max_detections=30)]
    got = select(boxes, score, classes, level, cell, max_candidates=100, max_detections=30)
    assert boxes[got].tolist() == boxes[expected].tolist() and 0 < len(got) <= 30
