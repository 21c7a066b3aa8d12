"""YOLO's descriptions and labels: what is read, and what is refused with file and line."""

import re
from pathlib import Path

import numpy as np
import pytest
from data_same import same
from PIL import Image

from mpqyolo.core.errors import DataError
from mpqyolo.data.formats import load


def yolo(root: Path, label: str | None, names: str = "names: [cat, dog]", train: str = "train/images") -> Path:
    (root / "train" / "images").mkdir(parents=True)
    (root / "train" / "labels").mkdir()
    Image.new("RGB", (40, 20)).save(root / "train" / "images" / "a.jpg")
    if label is not None:
        (root / "train" / "labels" / "a.txt").write_text(label)
    (root / "data.yaml").write_text(f"train: {train}\n{names}\n")
    return root / "train" / "labels" / "a.txt"


@pytest.mark.parametrize(
    "names", ["names: [cat, dog]", "names: {0: cat, 1: dog}", "names: {'1': dog, '0': cat}", "names:\n- cat\n- dog\nnc: 2"]
)
@pytest.mark.parametrize("train", ["train/images", "./train/images", "../train/images", "train", "[train/images]", "list.txt"])
def test_yolo_descriptions(names, train, tmp_path):
    yolo(tmp_path, "1 0.5 0.5 0.25 0.5\n\n0 0.1 0.1 0.3 0.1 0.3 0.5 0.1 0.4\n", names, train)
    (tmp_path / "list.txt").write_text("./train/images/a.jpg\n")
    dataset = load(tmp_path, "train")
    assert dataset.classes == ("cat", "dog")
    np.testing.assert_allclose(dataset.items[0].xyxy, [[15, 5, 25, 15], [4, 2, 12, 10]], rtol=1e-6)
    assert dataset.items[0].label.tolist() == [1, 0] and dataset.items[0].line.tolist() == [1, 3]
    same(load(tmp_path / "data.yaml", "train"), dataset)
    same(load(tmp_path / "list.txt", "train"), dataset)


def test_a_photo_without_labels_is_background(tmp_path):
    yolo(tmp_path, None)
    assert len(load(tmp_path, "train").items[0]) == 0


def test_labels_beside_photos_below_a_folder_called_images(tmp_path):
    root = tmp_path / "images" / "set"
    yolo(root, None, train="photos")
    (root / "photos").mkdir()
    Image.new("RGB", (40, 20)).save(root / "photos" / "b.jpg")
    (root / "photos" / "b.txt").write_text("1 0.5 0.5 0.25 0.5\n")
    for hidden in (root / "photos" / "._b.jpg", root / "photos" / ".cache" / "c.jpg"):  # what macOS and notebooks leave behind
        hidden.parent.mkdir(exist_ok=True)
        hidden.write_bytes(b"")
    assert [item.label.tolist() for item in load(root, "train").items] == [[1]]


def test_val_is_found_as_valid(tmp_path):
    yolo(tmp_path, "")
    (tmp_path / "data.yaml").write_text("names: [cat]\nvalid: train/images\n")
    assert len(load(tmp_path, "val")) == 1
    with pytest.raises(DataError, match="no split 'train'; it has: valid"):
        load(tmp_path, "train")


def test_yolo_fractions_are_of_the_upright_photo(tmp_path):
    yolo(tmp_path, "0 0.5 0.5 1 1")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "train" / "images" / "a.jpg", exif=exif)
    dataset = load(tmp_path, "train")
    assert dataset.items[0].xyxy.tolist() == [[0, 0, 20, 40]]
    assert dataset.read(0).shape == (40, 20, 3)


BAD_YOLO = {
    "fields": ("0 0.5 0.5 0.1", "4 fields"),
    "score": ("0 0.5 0.5 0.1 0.1 0.9", "6 fields"),
    "word": ("cat 0.5 0.5 0.1 0.1", "could not convert"),
    "class": ("2 0.5 0.5 0.1 0.1", "unknown class 2"),
    "half": ("0.5 0.5 0.5 0.1 0.1", "unknown class 0.5"),
    "nan class": ("nan 0.5 0.5 0.1 0.1", "unknown class nan"),
    "pixels": ("0 20 10 5 5", "not in fractions"),
    "outline in pixels": ("0 5 5 9 5 9 9", "not in fractions"),
    "nan": ("0 nan 0.5 0.1 0.1", "not a number"),
    "infinite": ("0 0.5 0.5 inf 0.1", "not"),
    "negative": ("0 0.5 0.5 -0.1 0.1", "negative size"),
    "outside": ("0 1.5 0.5 0.1 0.1", "outside the 40x20 photo"),
}


@pytest.mark.parametrize("case", BAD_YOLO)
def test_bad_yolo_is_refused_with_file_and_line(case, tmp_path):
    text, message = BAD_YOLO[case]
    file = yolo(tmp_path, f"0 0.5 0.5 0.1 0.1\n{text}\n")
    with pytest.raises(DataError, match=re.escape(f"{file}:2: ") + ".*" + re.escape(message)):
        load(tmp_path, "train")


def test_zero_size_is_skipped_and_edges_are_clipped(tmp_path):
    yolo(tmp_path, "0 0.5 0.5 0 0.1\n1 0.9 0.5 0.4 1\n")
    item = load(tmp_path, "train").items[0]
    assert item.label.tolist() == [1]
    np.testing.assert_allclose(item.xyxy, [[28, 0, 40, 20]], rtol=1e-6)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("names: {0: cat, 2: dog}", "keys of `names`"),
        ("names: cat", "must list the classes"),
        ("names: [cat, cat]", "twice"),
        ("names: [yes, no]", "put it into quotes"),
        ("names: [cat, dog]\nkpt_shape: [17, 3]", "poses"),
        ("names: [cat", "data.yaml:3: not readable as YAML"),
        ("names: [cat]\nval: nowhere", None),
    ],
)
def test_bad_descriptions(names, message, tmp_path):
    yolo(tmp_path, "", names)
    if message:
        with pytest.raises(DataError, match=message):
            load(tmp_path, "train")
    else:
        with pytest.raises(DataError, match="'nowhere' is neither a folder"):
            load(tmp_path, "val")
