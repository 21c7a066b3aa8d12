"""Average precision: COCO's against pycocotools, VOC's against sums done by hand."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from evaluate_sets import dataset, found, item, random_case
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mpqyolo.core.detections import Detections
from mpqyolo.core.errors import DataError
from mpqyolo.data.sample import Dataset
from mpqyolo.evaluate import class_map, evaluate, rename, score_detections
from mpqyolo.evaluate.coco import evaluate_coco, ground_truth, results
from mpqyolo.evaluate.voc import evaluate_voc

BOX = (10.0, 10.0, 110.0, 110.0)
NEAR = (20.0, 10.0, 120.0, 110.0)  # IoU 0.82 with BOX
HALF = (10.0, 10.0, 110.0, 60.0)  # IoU 0.5 with BOX
FAR = (300.0, 300.0, 340.0, 340.0)


def pycocotools(data: Dataset, detections: list[Detections]) -> tuple[float, float, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = ground_truth(data)
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(results(detections, data)), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return tuple(float(value) for value in judge.stats[:3])


@pytest.mark.parametrize("seed", range(4))
def test_coco_is_what_pycocotools_says(seed: int):
    data, detections = random_case(seed)
    ours = evaluate_coco(detections, data)
    expected = pycocotools(data, detections)
    assert (ours["map"], ours["map50"], ours["map75"]) == pytest.approx(expected, abs=1e-9)
    assert 0.2 < ours["map50"] < 0.95
    assert ours["per_class"]["never"] == {"ap": None, "ap50": None}


def test_coco_of_perfect_and_of_no_detections():
    data = dataset(item([BOX, FAR], [0, 1]))
    assert evaluate_coco([found([BOX, FAR], [0.9, 0.8], [0, 1])], data)["map"] == pytest.approx(1.0)
    assert evaluate_coco([found([], [], [])], data)["map"] == 0
    assert evaluate_coco([found([BOX], [0.9], [77])], data)["map"] == 0  # a class that the data do not have


# (labels, detections, all-point AP, 11-point AP), one class, by hand.
CASES = {
    "found": ([item([BOX], [0])], [found([NEAR], [0.5], [0])], 1.0, 1.0),
    "too far": ([item([BOX], [0])], [found([FAR], [0.5], [0])], 0.0, 0.0),
    "overlap of exactly one half": ([item([BOX], [0])], [found([HALF], [0.5], [0])], 1.0, 1.0),
    "twice: the second is wrong": ([item([BOX], [0])], [found([BOX, NEAR], [0.9, 0.8], [0, 0])], 1.0, 1.0),
    "wrong first": ([item([BOX], [0])], [found([FAR, BOX], [0.9, 0.8], [0, 0])], 0.5, 0.5),
    "half found": ([item([BOX, FAR], [0, 0])], [found([BOX], [0.9], [0])], 0.5, 6 / 11),
    "difficult: neither way": (
        [item([BOX, FAR], [0, 0], difficult=[False, True])],
        [found([FAR, FAR, BOX], [0.9, 0.8, 0.7], [0, 0, 0])],
        1.0,
        1.0,
    ),
    "over photos, best first": (
        [item([BOX], [0]), item([BOX], [0])],
        [found([BOX], [0.5], [0]), found([FAR, BOX], [0.9, 0.4], [0, 0])],
        2 / 3,  # precision 0, 1/2, 2/3: made monotone 2/3 everywhere
        2 / 3,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_voc_by_hand(name: str):
    items, detections, all_point, eleven = CASES[name]
    ap = evaluate_voc(detections, dataset(*items))["a"]
    assert ap == (pytest.approx(all_point), pytest.approx(eleven))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_scores_do_not_depend_on_the_order_of_photos(seed: int):
    data, detections = random_case(seed, photos=6)
    if not any((~i.crowd).any() for i in data.items):
        return
    # Equal scores keep the order of photos, so make all scores different first.
    rng = np.random.default_rng(seed)
    for one in detections:
        one.score = np.sort(rng.random(len(one)).astype(np.float32))[::-1].copy()
    order = rng.permutation(len(data))
    there = score_detections(detections, data)
    back = score_detections([detections[k] for k in order], data.subset(order.tolist()))
    assert there.map == pytest.approx(back.map) and there.voc_ap50 == pytest.approx(back.voc_ap50)


def test_evaluate_feeds_photos_in_order(tmp_path):
    from PIL import Image

    items = []
    for shade in range(5):
        path = tmp_path / f"{shade}.png"
        Image.new("RGB", (640, 480), (shade, 0, 0)).save(path)
        items.append(item([(shade, 0, 100 + shade, 100)], [0]).__class__(path, 640, 480, *_labels(shade)))
    data, calls = dataset(*items), []

    def predict(photos):
        return [found([(p[0, 0, 0], 0, 100 + p[0, 0, 0], 100)], [0.9], [0]) for p in photos]

    result = evaluate(predict, data, batch=2, progress=lambda done, total: calls.append((done, total)))
    assert result.map == pytest.approx(1.0) and calls == [(2, 5), (4, 5), (5, 5)]
    assert result.per_class["a"]["boxes"] == 5 and result.per_class["never"]["ap"] is None


@pytest.mark.parametrize("flag", ["crowd", "difficult"])
def test_crowds_and_difficult_objects_count_neither_way(flag: str):
    labels = item([BOX, FAR, (400.0, 10.0, 440.0, 40.0)], [0, 0, 0], **{flag: [False, True, True]})
    found_twice = found([FAR, FAR, BOX], [0.9, 0.8, 0.7], [0, 0, 0])
    result = score_detections([found_twice], dataset(labels))
    assert (result.map, result.voc_ap50, result.voc_ap50_11) == pytest.approx((1, 1, 1))
    assert (result.per_class["a"]["images"], result.per_class["a"]["boxes"]) == (1, 1)


def test_images_are_photos_that_hold_the_class():
    result = score_detections([found([], [], [])] * 2, dataset(item([BOX, FAR, FAR], [0, 0, 1]), item([BOX], [0])))
    assert [(entry["images"], entry["boxes"]) for entry in result.per_class.values()] == [(2, 3), (1, 1), (0, 0), (0, 0)]


def _labels(shade: int):
    made = item([(shade, 0, 100 + shade, 100)], [0])
    return made.xyxy, made.label, made.difficult, made.crowd, made.line


def test_nothing_to_score():
    with pytest.raises(DataError, match="no photos"):
        evaluate(lambda photos: [], dataset())
    with pytest.raises(DataError, match="no boxes"):
        score_detections([found([], [], [])], dataset(item([], [])))


def test_names_are_matched_across_spellings():
    assert class_map(["aeroplane", "tvmonitor", "dining table", "yeti"], ["tv", "airplane", "diningtable"]).tolist() == [
        1,
        0,
        2,
        -1,
    ]
    assert class_map(["sofa", "couch"], ["couch", "sofa"]).tolist() == [1, 0]  # each to its own name before another's
    moved = rename(found([BOX, FAR], [0.9, 0.8], [0, 1]), np.array([-1, 5]), ("x",) * 6)
    assert moved.class_id.tolist() == [5] and moved.score.tolist() == [pytest.approx(0.8)]
