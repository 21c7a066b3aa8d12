"""Detections: slices, plain forms, and pictures."""

import itertools
import json
import sys

import numpy as np
import pytest
from PIL import Image

from mpqyolo.core.detections import Detections, class_colour
from mpqyolo.core.errors import ConfigError, ImageError


@pytest.fixture
def found():
    boxes = np.array([[10, 20, 60, 80], [0, 0, 30, 30], [90, 5, 100, 90]], np.float32)
    return Detections(boxes, np.array([0.9, 0.5, 0.25], np.float32), np.array([1, 0, 7], np.int32), ("cat", "dog"), (100, 90))


def test_index(found):
    assert len(found) == 3 and len(found[found.score > 0.4]) == 2 and found[0].class_id.tolist() == [1]
    assert [one.name(int(one.class_id[0])) for one in found] == ["dog", "cat", "7"]
    assert found[1:].size == (100, 90) and len(Detections()) == 0


def test_plain_forms_are_json(found):
    assert json.loads(json.dumps(found.to_dict()))[0] == {
        "class_id": 1, "class_name": "dog", "score": pytest.approx(0.9), "xyxy": [10, 20, 60, 80],
    }  # fmt: skip
    coco = json.loads(json.dumps(found.to_coco(17)))
    assert coco[0] == {"image_id": 17, "category_id": 1, "bbox": [10, 20, 50, 60], "score": pytest.approx(0.9)}
    assert [r["category_id"] for r in found.to_coco(1, (3, 5, 0, 0, 0, 0, 0, 90))] == [5, 3, 90]
    assert Detections().to_dict() == Detections().to_coco(1) == []


def test_colours_differ():
    colours = [np.array(class_colour(i)) for i in range(24)]
    assert len({tuple(c) for c in colours}) == 24
    assert min(np.abs(a - b).max() for a, b in itertools.pairwise(colours)) > 60


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_draw_frames_the_box_and_leaves_the_photo(found, mode):
    photo = Image.new(mode, (100, 90), 0)
    picture = found[:1].draw(photo)
    pixels, colour = np.asarray(picture), class_colour(1)
    assert picture.mode == "RGB" and picture.size == (100, 90) and not np.asarray(photo.convert("RGB")).any()
    assert tuple(pixels[79, 35]) == colour and tuple(pixels[50, 10]) == colour and tuple(pixels[50, 59]) == colour
    assert not pixels[50, 20:50].any() and not pixels[85:].any()


def test_draw_takes_arrays_and_odd_boxes():
    boxes = np.array([[0, 0, 0, 0], [-5, -5, 500, 500], [49, 49, 50, 50]], np.float32)
    found = Detections(boxes, np.ones(3, np.float32), np.arange(3, dtype=np.int32), ("a long name of a class that does not fit",))
    assert found.draw(np.zeros((50, 50, 3), np.uint8)).size == (50, 50)
    assert found.draw(np.zeros((1, 1, 3), np.uint8)).size == (1, 1)


def test_save(found, tmp_path):
    path = found.save(tmp_path / "new" / "a.png", np.zeros((90, 100, 3), np.uint8))
    assert Image.open(path).size == (100, 90)
    with pytest.raises(ImageError, match="cannot be written"):
        found.save(tmp_path / "a.unknown", np.zeros((90, 100, 3), np.uint8))


def test_to_supervision_without_the_package(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ConfigError, match=r"mpqyolo\[vision\]"):
        found.to_supervision()


def test_to_supervision(found):
    pytest.importorskip("supervision")
    theirs = found.to_supervision()
    assert np.array_equal(theirs.xyxy, found.xyxy) and theirs.data["class_name"].tolist() == ["dog", "cat", "7"]
    assert len(Detections().to_supervision()) == 0
