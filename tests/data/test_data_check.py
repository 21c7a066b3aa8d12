import shutil

import numpy as np
from PIL import Image

from mpqyolo.data.check import check
from mpqyolo.data.convert import write_coco, write_voc, write_yolo


def found(report, severity):
    return [str(problem) for problem in report.problems if problem.severity == severity]


def test_a_clean_set_has_no_faults(splits, tmp_path):
    for write in (write_voc, write_coco, write_yolo):
        out = tmp_path / write.__name__
        write(splits, out)
        seen = []
        report = check(out, progress=lambda done, total, seen=seen: seen.append((done, total)))
        assert report.ok and not found(report, "warning")
        assert len(found(report, "info")) == 2  # each split has a photo without boxes
        assert report.counts["images"] == 12 and report.counts["splits"]["val"]["images"] == 4
        assert report.counts["per_class"] == {
            name: sum(int((item.label == k).sum()) for split in splits for item in split.items)
            for k, name in enumerate(splits[0].classes)
        }
        assert report.counts["boxes"] == sum(report.counts["per_class"].values())
        assert seen == [(k, 12) for k in range(1, 13)]


def test_every_planted_fault_is_named(splits, tmp_path):
    out = tmp_path / "yolo"
    write_yolo(splits, out)
    photos, labels = out / "train" / "images", out / "train" / "labels"
    bad = ["0 0.5 0.5 0.2 0.2", "x", "9 0.5 0.5 0.2 0.2", "0 nan 0.5 0.2 0.2", "0 0.5 0.5 -0.2 0.2", "0 3 0.5 0.2 0.2"]
    (labels / "train_000.txt").write_text("\n".join([*bad, ""]))
    (labels / "train_002.txt").write_text("0 0.5 0.5 0 0.2\n1 0.9 0.5 0.6 0.2\n1 0.3 0.5 0.2 0.2\n1 0.3 0.5 0.2 0.2\n")
    (labels / "orphan.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (photos / "train_003.png").write_bytes((photos / "train_003.png").read_bytes()[:-700])
    (photos / "train_004.png").write_bytes(b"not a photo")
    shutil.copy(photos / "train_005.png", photos / "train_006.png")
    Image.open(photos / "train_007.png").save(out / "val" / "images" / "val_002.bmp")
    report = check(out)
    errors, warnings = "\n".join(found(report, "error")), "\n".join(found(report, "warning"))
    for line in (2, 3, 4, 5, 6):
        assert f"{labels / 'train_000.txt'}:{line}: " in errors
    assert f"{photos / 'train_003.png'}: " in errors
    assert f"{photos / 'train_004.png'}: " in errors
    assert f"{labels / 'train_002.txt'}:1: " in warnings and "zero size" in warnings
    assert f"{labels / 'train_002.txt'}:2: " in warnings and "clipped" in warnings
    assert f"{labels / 'train_002.txt'}:4: " in warnings and "as on line 3" in warnings
    assert f"{labels / 'orphan.txt'}: a label without a photo" in warnings
    assert f"{photos / 'train_006.png'}: the same bytes as {photos / 'train_005.png'};" in warnings
    leak = f"val_002.bmp: the same pixels as {photos / 'train_007.png'}, a leak from 'train' into 'val'"
    assert leak in warnings
    assert not report.ok
    assert "belongs to val_002.bmp and to val_002.png" in warnings
    assert len(found(report, "error")) == 7 and len(found(report, "warning")) == 7


def test_voc_faults(splits, tmp_path):
    out = tmp_path / "voc"
    write_voc(splits, out)
    xml = out / "Annotations"
    item = splits[0].items[0]
    Image.new("RGB", (item.height, item.width)).save(out / "JPEGImages" / "train_000.png")
    (xml / "train_002.xml").unlink()
    (out / "JPEGImages" / "train_003.png").unlink()
    (xml / "train_004.xml").write_text("<annotation>\n<object>\n</annotation>")
    with (out / "ImageSets" / "Main" / "val.txt").open("a") as file:
        file.write("train_005\n")
    report = check(out)
    errors = found(report, "error")
    assert len(errors) == 4
    assert any(f"{xml / 'train_000.xml'}: labels are for {item.width}x{item.height}" in error for error in errors)
    assert any(f"train.txt:3: annotation {xml / 'train_002.xml'} is missing" in error for error in errors)
    assert any("train_003.jpg is missing" in error for error in errors)
    assert any(f"{xml / 'train_004.xml'}:3: not well-formed XML" in error for error in errors)
    assert any("listed in 'train' and in 'val', a leak" in warning for warning in found(report, "warning"))


def test_a_description_that_cannot_be_read_is_one_problem(splits, tmp_path):
    write_yolo(splits, tmp_path / "yolo")
    (tmp_path / "yolo" / "data.yaml").write_text("names: [a\ntrain: x")
    report = check(tmp_path / "yolo")
    assert len(report.problems) == 1 and report.problems[0].line == 2 and not report.ok


def test_coco_faults_do_not_hide_each_other(splits, tmp_path):
    write_coco(splits, tmp_path / "coco")
    file = tmp_path / "coco" / "annotations" / "instances_train.json"
    lines = file.read_text().splitlines()
    first = next(k for k, line in enumerate(lines) if '"bbox"' in line)
    lines[first] = '{"id": 1, "image_id": 1, "category_id": 77, "bbox": [0, 0, 5, 5]},'
    lines[first + 1] = '{"id": 2, "image_id": 1, "category_id": 1, "bbox": [500, 0, 5, 5]},'
    file.write_text("\n".join(lines))
    broken = tmp_path / "coco" / "val" / "val_000.png"
    broken.write_bytes(np.random.default_rng(0).bytes(100))
    errors = found(check(tmp_path / "coco"), "error")
    assert [error.split(": ")[0] for error in errors] == [f"{file}:{first + 1}", f"{file}:{first + 2}", str(broken)]


def test_classes_that_no_packed_file_holds_are_named(splits, tmp_path):
    write_yolo(splits, tmp_path)
    text = (tmp_path / "data.yaml").read_text()
    (tmp_path / "data.yaml").write_text(text.replace("dog", "d" * 300))
    (warning,) = found(check(tmp_path), "warning")
    assert "has 300 bytes" in warning and "--classes" in warning


def test_what_training_would_refuse_is_an_error(splits, tmp_path):
    write_yolo(splits[:1], tmp_path)
    assert any("no split 'val'" in warning for warning in found(check(tmp_path), "warning"))
    labels = sorted((tmp_path / "train" / "labels").glob("*.txt"))
    for file in labels[:-1]:
        file.unlink()
    warnings = found(check(tmp_path), "warning")
    assert any(f"of {len(splits[0])} photos in split 'train' have no label file" in text for text in warnings)
    labels[-1].unlink()
    (error,) = found(check(tmp_path), "error")
    assert "no box in split 'train' can be learned" in error


def test_two_photos_with_one_label_file_are_named(splits, tmp_path):
    write_yolo(splits, tmp_path)
    photo = next((tmp_path / "train" / "images").glob("*.png"))
    Image.new("RGB", (50, 50)).save(photo.with_suffix(".jpg"))
    assert any(f"belongs to {photo.stem}.jpg and to {photo.name}" in text for text in found(check(tmp_path), "warning"))
