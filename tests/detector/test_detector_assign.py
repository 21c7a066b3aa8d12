import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqyolo.detector.assign import assign, inside, iou
from mpqyolo.detector.points import decode_boxes, flatten, points

SHAPES, STRIDES = [(8, 8), (4, 4), (2, 2)], (8, 16, 32)
N = 64 + 16 + 4


def make(seed: int, images: int, counts: list[int], classes: int = 3):
    g = torch.Generator().manual_seed(seed)
    centres, stride = points(SHAPES, STRIDES)
    predicted = decode_boxes(torch.randn(images, N, 4, generator=g) * 0.7 + 0.5, centres, stride)
    logit = torch.randn(images, N, classes, generator=g)
    rows = []
    for image, count in enumerate(counts):
        for _ in range(count):
            x, y, w, h = (torch.rand(4, generator=g) * torch.tensor([50.0, 50.0, 40.0, 40.0])).tolist()
            label = int(torch.randint(classes, (1,), generator=g))
            rows.append([image, label, x, y, min(x + w, 64.0), min(y + h, 64.0)])
    return logit, predicted, torch.tensor(rows).reshape(-1, 6)


def by_loops(logit, predicted, targets, topk, alpha=0.5, beta=6.0):
    """The paper's text in plain loops: {(image, point): (target, quality)}."""
    centres, _ = points(SHAPES, STRIDES)
    taken: dict[tuple[int, int], tuple[float, int, float]] = {}
    for t, (image, label, *box) in enumerate(targets.tolist()):
        image, label = int(image), int(label)
        inner = [p for p, (x, y) in enumerate(centres.tolist()) if box[0] < x < box[2] and box[1] < y < box[3]]
        if not inner:
            inner = [min(7, int((box[1] + box[3]) / 16)) * 8 + min(7, int((box[0] + box[2]) / 16))]
        found = []
        for p in inner:
            overlap = float(iou(predicted[image, p], torch.tensor(box)))
            score = 1 / (1 + math.exp(-float(logit[image, p, label])))
            found.append((score**alpha * overlap**beta, overlap, p))
        for metric, overlap, p in sorted(found, reverse=True)[:topk]:
            if (image, p) not in taken or overlap > taken[image, p][0]:
                taken[image, p] = (overlap, t, metric)
    result = {}
    for key, (_overlap, t, metric) in taken.items():
        mine = [v for v in taken.values() if v[1] == t]
        peak, reach = max(v[2] for v in mine), max(v[0] for v in mine)
        result[key] = (t, metric / peak * reach)
    return result


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 5), min_size=1, max_size=3), st.integers(1, 12))
def test_equals_plain_loops(seed, counts, topk):
    logit, predicted, targets = make(seed, len(counts), counts)
    # A prediction that misses its box entirely has metric 0 in the plain form, where ties are arbitrary: keep overlaps.
    predicted = torch.cat((predicted[..., :2] - 8, predicted[..., 2:] + 8), -1)
    found = assign(logit, predicted, targets, SHAPES, STRIDES, topk=topk)
    got = {(int(i), int(p)): (int(t), float(q)) for i, p, t, q in zip(*found, strict=True)}
    want = by_loops(logit, predicted, targets, topk)
    assert got.keys() == want.keys()
    for key, (target, quality) in want.items():
        assert got[key][0] == target
        assert got[key][1] == pytest.approx(quality, rel=1e-3, abs=1e-6)


def test_images_without_boxes():
    logit, predicted, targets = make(0, 3, [0, 0, 0])
    found = assign(logit, predicted, targets, SHAPES, STRIDES)
    assert all(len(column) == 0 for column in found)
    logit, predicted, targets = make(0, 3, [0, 2, 0])
    assert set(assign(logit, predicted, targets, SHAPES, STRIDES).image.tolist()) == {1}


def test_a_tiny_box_gets_a_point_and_every_point_one_box():
    logit, predicted, _ = make(1, 1, [0])
    targets = torch.tensor([[0, 1, 16.5, 24.5, 17.5, 26.0], [0, 2, 63.9, 63.9, 64.0, 64.0], [0, 0, 5.0, 5.0, 5.0, 5.0]])
    found = assign(logit, predicted, targets, SHAPES, STRIDES)
    assert dict(zip(found.target.tolist(), found.point.tolist(), strict=True)) == {0: 3 * 8 + 2, 1: 63, 2: 0}
    same = torch.tensor([[0, 1, 4.0, 4.0, 60.0, 60.0]] * 2)
    found = assign(logit, predicted, same, SHAPES, STRIDES)
    assert len(set(found.point.tolist())) == len(found.point) and set(found.target.tolist()) == {0}  # ties go to the first box


def test_nan_predictions_do_not_spoil_the_assignment():
    logit, predicted, targets = make(2, 2, [3, 3])
    predicted[0, :40] = torch.nan
    logit[1, 10:] = torch.nan
    found = assign(logit, predicted, targets, SHAPES, STRIDES)
    assert torch.isfinite(found.quality).all() and (found.quality >= 0).all() and (found.quality <= 1).all()
    assert set(found.target.tolist()) <= set(range(6)) and len(found.target) > 6


def test_nan_predictions_give_way_to_finite_ones():
    logit, predicted, _ = make(3, 2, [0, 0])
    targets = torch.tensor([[0, 0, 0.0, 0.0, 32.0, 32.0], [1, 0, 0.0, 0.0, 32.0, 32.0]])
    finite = [0, 1, 2]  # of the 21 points in each box
    predicted[0, 3:] = torch.nan
    predicted[1] = torch.nan
    found = assign(logit, predicted, targets, SHAPES, STRIDES, topk=3)
    assert found.point[found.target == 0].sort().values.tolist() == finite
    assert (found.target == 1).sum() == 3 and (found.quality[found.target == 1] == 0).all()  # nothing finite there to take


def test_inside_on_a_non_square_input():
    mask = inside(torch.tensor([[0.0, 0.0, 32.0, 16.0]]), [(2, 4), (1, 2)], (8, 16))
    assert mask.tolist() == [[True] * 8 + [True] * 2]
    assert inside(torch.tensor([[8.0, 0.0, 16.0, 8.0]]), [(2, 4), (1, 2)], (8, 16)).nonzero()[:, 1].tolist() == [1]


def test_points_and_flatten_agree():
    levels = []
    for (h, w), stride in zip(SHAPES, STRIDES, strict=True):
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        levels.append(torch.stack(((x + 0.5) * stride, (y + 0.5) * stride))[None])
    assert torch.equal(flatten(levels)[0], points(SHAPES, STRIDES)[0])
