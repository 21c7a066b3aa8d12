"""COCO: annotations/instances_<split>*.json and folders of photos; also <split>/_annotations.coco.json beside the photos.

`bbox` is [x, y, width, height] in pixels. `iscrowd` 1 is kept as `crowd`, empty photos stay. Lin et al., 2014 (arXiv:1405.0312).
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from pathlib import Path
from typing import Any

from mpqyolo.core.errors import DataError
from mpqyolo.data.faults import Faults
from mpqyolo.data.formats.common import Box, make_item, split_names
from mpqyolo.data.sample import Dataset, Item


def recognise(path: Path) -> bool:
    """Whether this is a COCO folder or an annotation file."""
    return path.suffix == ".json" if path.is_file() else bool(_files(path))


def _files(path: Path) -> list[Path]:
    return sorted([*path.glob("annotations/instances_*.json"), *path.glob("*/_annotations.coco.json")])


def _split_of(file: Path) -> str:
    """'val' for instances_val2017.json; the folder's name for _annotations.coco.json."""
    return file.stem.removeprefix("instances_").rstrip("0123456789-_") if file.stem[0] != "_" else file.parent.name


def available(path: Path) -> list[str]:
    """Names of the splits that the folder or file has."""
    return sorted({_split_of(file) for file in (_files(path) if path.is_dir() else [path])})


class _Json:
    """The parsed file, and the line on which an element of a top-level list starts (found only when asked for)."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self.text = file.read_text(encoding="utf-8-sig")
            self.content = json.loads(self.text)
        except json.JSONDecodeError as error:
            raise DataError(f"{file}:{error.lineno}: not well-formed JSON ({error.msg}); correct the file") from None
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{file}: cannot be read as JSON ({error})") from None
        if not isinstance(self.content, dict):
            raise DataError(f"{file}:1: expected an object with `images`, `annotations`, `categories`")
        for key in ("images", "annotations", "categories"):
            if not isinstance(self.content.get(key), list):
                raise DataError(f"{file}: no list `{key}`; is this a COCO instances file?")
        self._lines = "\n" in self.text.strip()  # asked once: COCO's own files are one line of 400 MB
        self._starts: dict[str, list[int]] = {}
        self._ends: list[int] = []

    def line(self, key: str, index: int) -> int:
        """The 1-based line of `content[key][index]`; 0 where the whole file is one line."""
        if not self._lines:
            return 0
        if not self._starts:
            self._find_starts()
            self._ends = [at for at, char in enumerate(self.text) if char == "\n"]
        return bisect_left(self._ends, self._starts[key][index]) + 1

    def _find_starts(self) -> None:
        decode, text = json.JSONDecoder().raw_decode, self.text

        def skip(at: int, ignored: str) -> int:
            while text[at] in ignored:
                at += 1
            return at

        blank = " \t\r\n,"
        at = skip(0, blank + "{")
        while text[at] != "}":
            key, at = decode(text, at)
            at = skip(at, blank + ":")
            if text[at] != "[":
                _, at = decode(text, at)
            else:
                starts = self._starts.setdefault(key, [])
                at = skip(at + 1, blank)
                while text[at] != "]":
                    starts.append(at)
                    _, at = decode(text, at)
                    at = skip(at, blank)
                at += 1
            at = skip(at, blank)


def read(path: Path, split: str, faults: Faults) -> Dataset | None:
    """Read one split; None if the folder does not have it. What is wrong goes to `faults`."""
    file: Path | None
    if path.is_file():
        file, root = path, path.parent.parent if path.parent.name == "annotations" else path.parent
    else:
        file = next((file for name in split_names(split) for file in _files(path) if _split_of(file) == name), None)
        root = path
        if file is None:
            return None
    source = _Json(file)
    categories = _by_id(source, "categories", ("name",), faults)
    photos = _by_id(source, "images", ("file_name",), faults)
    called = {key: str(categories[key]["name"]) for key in sorted(categories)}
    classes = tuple(dict.fromkeys(called.values()))
    for name in classes:
        if len(keys := [str(key) for key in called if called[key] == name]) > 1:
            faults.warning(
                file, 0, f"categories {', '.join(keys)} are all called '{name}' and are taken as one; rename or join them"
            )
    label = {key: classes.index(name) for key, name in called.items()}
    boxes: dict[Any, list[Box]] = defaultdict(list)
    for index, annotation in enumerate(source.content["annotations"]):
        _collect(source, index, annotation, photos, label, classes, boxes, faults)
    places = _Places(root, file, split)
    items = []
    for key, photo in photos.items():
        with faults.caught():
            if (item := _item(places, photo, boxes[key], file, faults)) is not None:
                items.append(item)
    return Dataset(root.resolve().name, root, split, classes, tuple(items))


def _by_id(source: _Json, key: str, fields: tuple[str, ...], faults: Faults) -> dict[Any, dict[str, Any]]:
    found: dict[Any, dict[str, Any]] = {}
    for index, entry in enumerate(source.content[key]):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), int) or any(f not in entry for f in fields):
            faults.error(source.file, source.line(key, index), f"{key}[{index}] needs an integer id and {', '.join(fields)}")
        elif entry["id"] in found:
            faults.error(source.file, source.line(key, index), f"{key}[{index}] has id {entry['id']} a second time; renumber it")
        else:
            found[entry["id"]] = entry
    return found


def _collect(
    source: _Json,
    index: int,
    annotation: Any,
    photos: dict[Any, dict[str, Any]],
    label: dict[Any, int],
    classes: tuple[str, ...],
    boxes: dict[Any, list[Box]],
    faults: Faults,
) -> None:
    """Put one annotation with its photo's boxes, or report why not."""
    what = f"annotation {annotation.get('id', f'[{index}]')}" if isinstance(annotation, dict) else f"annotations[{index}]"
    fault = None
    if not isinstance(annotation, dict):
        fault = "is no object; write id, image_id, category_id, bbox"
    elif type(annotation.get("image_id")) is not int or annotation["image_id"] not in photos:
        fault = f"belongs to image {annotation.get('image_id')}, which is not in `images`; add or remove it"
    elif type(annotation.get("category_id")) is not int or annotation["category_id"] not in label:
        fault = f"has unknown class {annotation.get('category_id')}; add it to `categories`"
    elif not _is_bbox(annotation.get("bbox")):
        fault = f"has bbox {annotation.get('bbox')}; write [x, y, width, height]"
    if fault:
        faults.error(source.file, source.line("annotations", index), f"{what} {fault}")
        return
    x, y, w, h = annotation["bbox"]
    k = label[annotation["category_id"]]
    line = source.line("annotations", index)
    flags = bool(annotation.get("difficult")), bool(annotation.get("iscrowd"))
    boxes[annotation["image_id"]].append(Box(k, (x, y, x + w, y + h), line, *flags, what=f"{what}, '{classes[k]}',"))


def _is_bbox(bbox: Any) -> bool:
    return (
        isinstance(bbox, list) and len(bbox) == 4 and all(type(v) is float or (type(v) is int and abs(v) < 1 << 53) for v in bbox)
    )


class _Places:
    """Where a COCO set's photos lie: the folders that tools use, tried in turn, the last hit first."""

    def __init__(self, root: Path, file: Path, split: str) -> None:
        stem = file.stem.removeprefix("instances_")
        names = [stem, *split_names(split)]
        self.folders = [root / n for n in names] + [root / "images" / n for n in names]
        self.folders += [file.parent, root / "images", root / "JPEGImages", root]

    def find(self, name: str) -> Path:
        """The photo's path; in the first folder if it is nowhere."""
        for folder in self.folders:
            if (folder / name).is_file():
                self.folders.remove(folder)
                self.folders.insert(0, folder)
                break
        return self.folders[0] / name


def _item(places: _Places, photo: dict[str, Any], boxes: list[Box], file: Path, faults: Faults) -> Item | None:
    width, height = photo.get("width"), photo.get("height")
    size = (width, height) if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0 else None
    return make_item(places.find(str(photo["file_name"])), size, boxes, file, faults)
