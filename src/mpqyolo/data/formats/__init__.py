"""Readers of labelled photos: VOC folders, COCO instances JSON, YOLO folders. `load` recognises which it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from mpqyolo.core.errors import DataError
from mpqyolo.data.faults import Faults
from mpqyolo.data.formats import coco, voc, yolo
from mpqyolo.data.sample import Dataset

# Every format module has recognise(path), available(path) and read(path, split, faults); asked in this order.
FORMATS: dict[str, ModuleType] = {"yolo": yolo, "coco": coco, "voc": voc}


def recognise(path: Path) -> str:
    """The name of the format that lies at `path`. Raises DataError if it is none."""
    if not path.exists():
        raise DataError(f"{path}: there is no such data set; give a folder, a data.yaml, a COCO JSON or a list of photos")
    for name, module in FORMATS.items():
        if module.recognise(path):
            return name
    raise DataError(
        f"{path}: no data set recognised; expected data.yaml (YOLO), annotations/instances_*.json (COCO), "
        "or JPEGImages, Annotations and ImageSets/Main (VOC)"
    )


def load(path: Path | str, split: str, classes: Sequence[str] | None = None) -> Dataset:
    """Read one split of the data set at `path` (its folder, data.yaml, COCO JSON, or text list of photos).

    `split`: 'train', 'val' (also found as 'valid'), 'test', or another name that the set has. `classes`: keep only these.
    Raises DataError `file:line: what; what to do` at the first label that cannot be used.
    """
    path = Path(path)
    module = FORMATS[recognise(path)]
    dataset = module.read(path, split, Faults())
    if dataset is None:
        raise DataError(f"{path}: no split '{split}'; it has: {', '.join(module.available(path)) or 'none'}")
    if not dataset.classes:
        raise DataError(f"{path}: no classes; label something, or list the classes in classes.txt")
    return dataset if classes is None else dataset.select(classes)
