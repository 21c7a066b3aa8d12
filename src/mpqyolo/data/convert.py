"""Writing a data set as VOC, COCO or YOLO. Reading what was written gives the same samples, but for what a format cannot say.

VOC has no crowd regions: they become `difficult`. YOLO has neither: crowd regions and difficult objects are left out.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import yaml

from mpqyolo.core.errors import DataError
from mpqyolo.data.sample import Dataset, Item


def write_voc(splits: Sequence[Dataset], out: Path) -> None:
    """Write all splits of a data set into one VOC folder. Raises DataError if two photos have the same name."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    (out / "classes.txt").write_text("".join(f"{name}\n" for name in _classes(splits)))
    seen: dict[str, Path] = {}
    for dataset in splits:
        names = []
        for item in dataset.items:
            name = _copied(item, out / "JPEGImages", seen)
            (out / "Annotations" / f"{Path(name).stem}.xml").write_text(_voc_xml(item, name, dataset.classes))
            names.append(Path(name).stem)
        (out / "ImageSets" / "Main" / f"{dataset.split}.txt").write_text("".join(f"{name}\n" for name in names))


def _voc_xml(item: Item, name: str, classes: tuple[str, ...]) -> str:
    size = f"<width>{item.width}</width><height>{item.height}</height><depth>3</depth>"
    lines = ["<annotation>", f"  <filename>{escape(name)}</filename>", f"  <size>{size}</size>"]
    for xyxy, label, ignored in _boxes(item):
        edges = zip(("xmin", "ymin", "xmax", "ymax"), xyxy + np.array([1, 1, 0, 0]), strict=True)
        box = "".join(f"<{key}>{round(float(value), 4)}</{key}>" for key, value in edges)
        fields = f"<name>{escape(classes[label])}</name><difficult>{int(ignored)}</difficult>"
        lines.append(f"  <object>{fields}<bndbox>{box}</bndbox></object>")
    return "\n".join([*lines, "</annotation>", ""])


def write_coco(splits: Sequence[Dataset], out: Path) -> None:
    """Write annotations/instances_<split>.json and a folder of photos a split. `difficult` is kept as an extra key."""
    (out / "annotations").mkdir(parents=True, exist_ok=True)
    for dataset in splits:
        (out / dataset.split).mkdir(exist_ok=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        seen: dict[str, Path] = {}
        for number, item in enumerate(dataset.items, 1):
            name = _copied(item, out / dataset.split, seen)
            images.append({"id": number, "file_name": name, "width": item.width, "height": item.height})
            for (xyxy, label, _), crowd, difficult in zip(_boxes(item), item.crowd, item.difficult, strict=True):
                x, y, w, h = (round(float(v), 4) for v in (*xyxy[:2], *(xyxy[2:] - xyxy[:2])))
                annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1, "bbox": [x, y, w, h]}
                flags = {"area": round(w * h, 4), "iscrowd": int(crowd), "difficult": int(difficult)}
                annotations.append(annotation | flags)
        categories = [{"id": label, "name": name} for label, name in enumerate(dataset.classes, 1)]
        lists = {"images": images, "annotations": annotations, "categories": categories}
        body = ",\n".join(f'"{key}": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]" for key, rows in lists.items())
        (out / "annotations" / f"instances_{dataset.split}.json").write_text(f"{{\n{body}\n}}\n")


def write_yolo(splits: Sequence[Dataset], out: Path) -> None:
    """Write data.yaml and <split>/images, <split>/labels."""
    for dataset in splits:
        for folder in ("images", "labels"):
            (out / dataset.split / folder).mkdir(parents=True, exist_ok=True)
        seen: dict[str, Path] = {}
        for item in dataset.items:
            name = _copied(item, out / dataset.split / "images", seen)
            lines = []
            for xyxy, label, ignored in _boxes(item):
                x1, y1, x2, y2 = xyxy / (item.width, item.height, item.width, item.height)
                if not ignored:
                    lines.append(f"{label} {(x1 + x2) / 2:.9f} {(y1 + y2) / 2:.9f} {x2 - x1:.9f} {y2 - y1:.9f}\n")
            (out / dataset.split / "labels" / name).with_suffix(".txt").write_text("".join(lines))
    content = {dataset.split: f"{dataset.split}/images" for dataset in splits} | {"names": list(_classes(splits))}
    (out / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def _boxes(item: Item) -> Iterator[tuple[np.ndarray, int, bool]]:
    """(xyxy float64, label, whether it is difficult or crowd) of each box."""
    for xyxy, label, ignored in zip(item.xyxy, item.label, item.difficult | item.crowd, strict=True):
        yield xyxy.astype(np.float64), int(label), bool(ignored)


def _classes(splits: Sequence[Dataset]) -> tuple[str, ...]:
    if len({dataset.classes for dataset in splits}) != 1:
        raise DataError("the splits to write must have the same classes; load them from one data set")
    return splits[0].classes


def _copied(item: Item, folder: Path, seen: dict[str, Path]) -> str:
    """Copy the photo into the folder; returns its file name."""
    stem = item.path.stem
    if stem in seen and seen[stem] != item.path:
        raise DataError(f"{item.path}: has the same name as {seen[stem]}; rename one before converting")
    seen[stem] = item.path
    shutil.copyfile(item.path, folder / item.path.name)
    return item.path.name
