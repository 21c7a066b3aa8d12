import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mpqyolo.core.errors import DataError
from mpqyolo.data.convert import write_coco, write_voc, write_yolo
from mpqyolo.data.formats import load, recognise
from mpqyolo.data.sample import Dataset, Item

WRITERS = {"voc": write_voc, "coco": write_coco, "yolo": write_yolo}


def same(a: Dataset, b: Dataset, flags: bool = True) -> None:
    assert a.classes == b.classes
    assert [item.path.name for item in a.items] == [item.path.name for item in b.items]
    for one, other in zip(a.items, b.items, strict=True):
        assert (one.width, one.height) == (other.width, other.height)
        assert one.label.tolist() == other.label.tolist()
        np.testing.assert_allclose(one.xyxy, other.xyxy, atol=1e-3)
        if flags:
            assert one.difficult.tolist() == other.difficult.tolist()
            assert one.crowd.tolist() == other.crowd.tolist()


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


# --- YOLO


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
