import json
import re
from pathlib import Path

import numpy as np
import pytest
from data_same import same
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mpqyolo.core.errors import DataError
from mpqyolo.data.convert import write_coco, write_voc, write_yolo
from mpqyolo.data.formats import load, recognise
from mpqyolo.data.sample import Dataset, Item

WRITERS = {"voc": write_voc, "coco": write_coco, "yolo": write_yolo}


@pytest.mark.parametrize("form", WRITERS)
def test_every_format_gives_the_same_samples(form, splits, tmp_path):
    out = tmp_path / form
    WRITERS[form](splits, out)
    assert recognise(out) == form
    for dataset in splits:
        loaded = load(out, dataset.split)
        same(loaded, dataset)
        np.testing.assert_array_equal(loaded.read(3), dataset.read(3))


def test_flags_survive_where_the_format_has_them(make, tmp_path):
    dataset = make(flags=True, count=12)
    assert any(item.difficult.any() for item in dataset.items) and any(item.crowd.any() for item in dataset.items)
    write_coco([dataset], tmp_path / "coco")
    same(load(tmp_path / "coco", "train"), dataset)
    write_voc([dataset], tmp_path / "voc")
    for read, item in zip(load(tmp_path / "voc", "train").items, dataset.items, strict=True):
        assert read.difficult.tolist() == (item.difficult | item.crowd).tolist()
    write_yolo([dataset], tmp_path / "yolo")
    for read, item in zip(load(tmp_path / "yolo", "train").items, dataset.items, strict=True):
        assert read.label.tolist() == item.label[~(item.difficult | item.crowd)].tolist()


@settings(deadline=None, max_examples=15)
@given(
    st.integers(1, 5000),
    st.integers(1, 5000),
    st.lists(st.tuples(*[st.floats(0, 1)] * 4, st.integers(0, 1)), max_size=5, unique=True),
)
def test_any_boxes_survive_any_format(tmp_path_factory, width, height, rows):
    root = tmp_path_factory.mktemp("boxes")
    Image.new("L", (width, height)).save(root / "x.png")
    corners = np.array([row[:4] for row in rows]).reshape(-1, 2, 2)
    xyxy = np.concatenate([corners.min(1), corners.max(1)], 1) * [width, height, width, height]
    keep = ((xyxy[:, 2:] - xyxy[:, :2]) > 0.01).all(1)
    label = np.array([row[4] for row in rows], np.int64)[keep]
    no = np.zeros(len(label), bool)
    item = Item(root / "x.png", width, height, xyxy[keep].astype(np.float32), label, no, no, no.astype(np.int64))
    dataset = Dataset("x", root, "val", ("a & b", "<c>"), (item,))
    for form, write in WRITERS.items():
        write([dataset], root / form)
        same(load(root / form, "val"), dataset)


# --- VOC

OBJECT = (
    "<object><name>{name}</name><part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>"
    "</bndbox></part>\n<difficult>1</difficult><bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"
)


def voc(root: Path, split: str, name: str, body: str, size: str = "<width>40</width><height>30</height>") -> Path:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(root / "JPEGImages" / f"{name}.jpg")
    xml = root / "Annotations" / f"{name}.xml"
    xml.write_text(f"<annotation>\n<size>{size}</size>\n{body}\n</annotation>")
    with (root / "ImageSets" / "Main" / f"{split}.txt").open("a") as file:
        file.write(f"{name} 1\n")
    return xml


def test_voc_coordinates_are_one_based_and_inclusive(tmp_path):
    voc(tmp_path, "train", "a", OBJECT.format(1, 1, 40, 30, name="cat") + OBJECT.format(2.5, 3, 3, 4.5, name="dog"))
    item = load(tmp_path, "train").items[0]
    assert item.xyxy.tolist() == [[0, 0, 40, 30], [1.5, 2, 3, 4.5]]
    assert item.line.tolist() == [3, 4] and item.difficult.all()
    assert load(tmp_path, "train").classes == ("cat", "dog")  # and not the part's "head"


def test_voc_years_in_one_folder_are_read_together(tmp_path):
    voc(tmp_path / "VOC2007", "train", "a", OBJECT.format(1, 1, 9, 9, name="cat"))
    voc(tmp_path / "VOC2012", "train", "b", OBJECT.format(1, 1, 9, 9, name="dog"))
    voc(tmp_path / "VOC2007", "test", "c", OBJECT.format(1, 1, 9, 9, name="dog"))
    assert [item.path.stem for item in load(tmp_path, "train").items] == ["a", "b"]
    assert len(load(tmp_path, "test")) == 1
    assert load(tmp_path, "test").classes == ("cat", "dog")  # the same in every split


def test_voc_without_a_size_measures_the_photo(tmp_path):
    voc(tmp_path, "train", "a", "", size="<width>0</width><height>0</height>")
    with pytest.raises(DataError, match="no classes"):
        load(tmp_path, "train")
    (tmp_path / "classes.txt").write_text("cat\n")
    item = load(tmp_path, "train").items[0]
    assert (item.width, item.height, len(item)) == (40, 30, 0)


def test_photos_beside_their_xml(tmp_path):
    folder = tmp_path / "valid"
    folder.mkdir()
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    (folder / "a.xml").write_text(f"<annotation>{OBJECT.format(1, 1, 9, 9, name='cat')}</annotation>")
    assert load(tmp_path, "val").items[0].path == folder / "a.png"


BAD_VOC = {
    "negative size": (OBJECT.format(9, 1, 5, 9, name="cat"), 3, "negative size"),
    "outside": (OBJECT.format(90, 1, 95, 9, name="cat"), 3, "outside the 40x30 photo"),
    "not a number": (OBJECT.format("nan", 1, 5, 9, name="cat"), 3, "not a number"),
    "words": (OBJECT.format("left", 1, 5, 9, name="cat"), 3, "no number"),
    "no box": ("<object>\n<name>cat</name></object>", 3, "no <bndbox/xmin>"),
    "not closed": ("<object>\n<name>cat</object>", 4, "not well-formed"),
    "unknown": (OBJECT.format(1, 1, 5, 9, name="cow"), 3, "unknown class 'cow'"),
    "nameless": ("<object><bndbox/></object>", 3, "no <name>"),
}


@pytest.mark.parametrize("case", BAD_VOC)
def test_bad_voc_is_refused_with_file_and_line(case, tmp_path):
    body, line, message = BAD_VOC[case]
    xml = voc(tmp_path, "train", "a", body)
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(DataError, match=re.escape(f"{xml}:{line}: ") + ".*" + re.escape(message)):
        load(tmp_path, "train")


@pytest.mark.parametrize(("said", "right"), [("0", False), ("1", True), ("False", False), ("true", True), ("Unspecified", False)])
def test_difficult_is_a_flag(said, right, tmp_path):
    voc(tmp_path, "train", "a", OBJECT.format(1, 1, 9, 9, name="cat").replace("<difficult>1<", f"<difficult>{said}<"))
    assert load(tmp_path, "train").items[0].difficult.tolist() == [right]


def test_voc_names_with_spaces_and_lists_of_one_class(tmp_path):
    for name in ("a b", "a", "x 1"):
        voc(tmp_path, "train", name, OBJECT.format(1, 1, 9, 9, name="cat"))
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_bytes("\ufeffa b\r\na  -1\r\nx 1\r\n".encode())
    assert [item.path.stem for item in load(tmp_path, "train").items] == ["a b", "a", "x 1"]


def test_texts_in_other_encodings_are_refused(tmp_path):
    xml = voc(tmp_path, "train", "a", OBJECT.format(1, 1, 9, 9, name="cat"))
    text = xml.read_text()
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfcat\n")
    assert load(tmp_path, "train").classes == ("cat",)
    for encoding in ("gbk", "nonsense"):
        xml.write_text(f'<?xml version="1.0" encoding="{encoding}"?>{text}')
        with pytest.raises(DataError, match=r"cannot be read as XML|not well-formed"):
            load(tmp_path, "train")
    for content, message in ((b"caf\xe9\n", "not text in UTF-8"), (b"cat\ncat\n", "the same class twice")):
        (tmp_path / "classes.txt").write_bytes(content)
        with pytest.raises(DataError, match=message):
            load(tmp_path, "train")


def test_entities_are_refused(tmp_path):
    xml = voc(tmp_path, "train", "a", "")
    (tmp_path / "classes.txt").write_text("cat\n")
    bomb = '<!DOCTYPE x [\n<!ENTITY a "aaaa">\n<!ENTITY b "&a;&a;&a;&a;">\n]>'
    xml.write_text(f"{bomb}<annotation><object><name>&b;</name></object></annotation>")
    with pytest.raises(DataError, match=f"{re.escape(str(xml))}:2: XML entities"):
        load(tmp_path, "train")
    outside = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>'
    xml.write_text(f"{outside}<annotation><object><name>&a;</name></object></annotation>")
    with pytest.raises(DataError, match="XML entities"):
        load(tmp_path, "train")


# --- COCO


def coco(root: Path, annotations: list, **more: object) -> Path:
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").mkdir()
    Image.new("RGB", (40, 30)).save(root / "val2017" / "a.jpg")
    Image.new("RGB", (40, 30)).save(root / "val2017" / "b.jpg")
    file = root / "annotations" / "instances_val2017.json"
    images = [{"id": 7, "file_name": "a.jpg", "width": 40, "height": 30}, {"id": 3, "file_name": "b.jpg"}]
    categories = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}]
    content = {"info": {"x": [1]}, "images": images, "annotations": annotations, "categories": categories}
    file.write_text(json.dumps(content | more, indent=1))
    return file


def test_coco_ids_crowds_and_empty_photos(tmp_path):
    crowd = {"id": 1, "image_id": 7, "category_id": 90, "bbox": [1, 2, 3.5, 4], "iscrowd": 1}
    file = coco(tmp_path, [crowd, {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 40, 30]}])
    dataset = load(tmp_path, "val")
    assert dataset.classes == ("person", "toothbrush")
    first, second = dataset.items
    assert first.label.tolist() == [1, 0] and first.crowd.tolist() == [True, False]
    assert first.xyxy.tolist() == [[1, 2, 4.5, 6], [0, 0, 40, 30]]
    assert (len(second), second.width, second.height) == (0, 40, 30)
    assert file.read_text().splitlines()[first.line[1] - 1].strip() == "{"
    assert '"id": 2' in file.read_text().splitlines()[first.line[1]]
    same(load(file, "val"), dataset)


BAD_COCO = {
    "bbox": ({"id": 5, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3]}, "annotation 5 has bbox [1, 2, 3]"),
    "class": ({"id": 5, "image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4]}, "annotation 5 has unknown class 2"),
    "image": ({"id": 5, "image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4]}, "annotation 5 belongs to image 9"),
    "negative": ({"id": 5, "image_id": 7, "category_id": 1, "bbox": [9, 2, -3, 4]}, "negative size"),
    "nan": ({"id": 5, "image_id": 7, "category_id": 1, "bbox": [float("nan"), 2, 3, 4]}, "not a number"),
    "list": ([], "annotations[1] is no object"),
    "id": ({"id": 5, "image_id": [7], "category_id": 1, "bbox": [1, 2, 3, 4]}, "annotation 5 belongs to image [7]"),
    "category": ({"id": 5, "image_id": 7, "category_id": {}, "bbox": [1, 2, 3, 4]}, "annotation 5 has unknown class {}"),
    "huge": ({"id": 5, "image_id": 7, "category_id": 1, "bbox": [10**400, 2, 3, 4]}, "annotation 5 has bbox"),
}


@pytest.mark.parametrize("case", BAD_COCO)
def test_bad_coco_is_refused_with_file_and_line(case, tmp_path):
    annotation, message = BAD_COCO[case]
    file = coco(tmp_path, [{"id": 4, "image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4]}, annotation])
    with pytest.raises(DataError) as error:
        load(tmp_path, "val")
    place, _, text = str(error.value).partition(": ")
    assert message in text
    name, _, line = place.rpartition(":")
    assert name == str(file)
    lines = file.read_text().splitlines()
    assert lines[int(line) - 1].strip() in ("{", "[]") and (annotation == [] or '"id": 5' in lines[int(line)])


def test_categories_of_one_name_are_one_class(tmp_path):
    annotations = [{"id": k, "image_id": 7, "category_id": k, "bbox": [k, 1, 9, 9]} for k in (1, 2)]
    coco(tmp_path, annotations, categories=[{"id": 1, "name": "car"}, {"id": 2, "name": "car"}])
    dataset = load(tmp_path, "val")
    assert dataset.classes == ("car",) and dataset.items[0].label.tolist() == [0, 0]
    with pytest.raises(DataError, match="'car' is chosen twice"):
        load(tmp_path, "val", ["car", "car"])


def test_broken_json_names_its_line(tmp_path):
    file = coco(tmp_path, [])
    file.write_text('{"images": [],\n"annotations": [\n,]}')
    with pytest.raises(DataError, match=re.escape(f"{file}:3: not well-formed JSON")):
        load(tmp_path, "val")


# --- all


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no such data set"):
        load(tmp_path / "nothing", "train")
    with pytest.raises(DataError, match="no data set recognised"):
        load(tmp_path, "train")
    for name in ("one.yaml", "two.yaml"):
        (tmp_path / name).write_text("names: [cat]\n")
    with pytest.raises(DataError, match=r"which one: one\.yaml, two\.yaml\?"):
        load(tmp_path, "train")


@pytest.mark.parametrize("form", WRITERS)
def test_a_missing_photo_is_named(form, splits, tmp_path):
    WRITERS[form](splits, tmp_path / form)
    photo = next((tmp_path / form).rglob("train_002.png"))
    photo.unlink()
    if form == "yolo":
        assert len(load(tmp_path / form, "train")) == len(splits[0]) - 1  # the folder is the list
    else:
        with pytest.raises(DataError, match="missing"):
            load(tmp_path / form, "train")


def test_select_keeps_photos_and_renumbers(splits):
    dataset = splits[0]
    chosen = dataset.select(["traffic light", "cat"])
    assert len(chosen) == len(dataset) and chosen.classes == ("traffic light", "cat")
    for before, after in zip(dataset.items, chosen.items, strict=True):
        names = [dataset.classes[label] for label in before.label if label != 1]
        assert [chosen.classes[label] for label in after.label] == names
        np.testing.assert_array_equal(after.xyxy, before.xyxy[before.label != 1])
    with pytest.raises(DataError, match="no class 'cow'; it has: cat, dog"):
        dataset.select(["cow"])
