"""YOLO: data.yaml with `names` and a folder (or list) of photos a split; labels/x.txt beside images/x.jpg.

A line is `class x_centre y_centre width height`, or `class x1 y1 x2 y2 x3 y3 ...` for an outline, in fractions of the photo.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from mpqyolo.core.errors import DataError
from mpqyolo.core.photo import is_photo, photos_under
from mpqyolo.data.faults import Faults
from mpqyolo.data.formats.common import SPLITS, Box, listed_classes, make_item, photo_size, read_lines, split_names
from mpqyolo.data.sample import Dataset, Item


def find_yaml(path: Path) -> Path | None:
    """The data set's description: the file itself, `data.yaml` in the folder, or the folder's one other YAML file with names."""
    if path.suffix in (".yaml", ".yml"):
        return path
    if (path / "data.yaml").is_file():
        return path / "data.yaml"
    with_names = [file for file in sorted(path.glob("*.y*ml")) if re.search(r"(?m)^names\s*:", file.read_text(errors="replace"))]
    if len(with_names) > 1:
        raise DataError(f"{path}: which one: {', '.join(file.name for file in with_names)}? give the path of the file")
    return with_names[0] if with_names else None


def recognise(path: Path) -> bool:
    """Whether this is a YOLO data set: a YAML description, or a text file that lists photos."""
    return path.suffix == ".txt" if path.is_file() and path.suffix not in (".yaml", ".yml") else find_yaml(path) is not None


def describe(file: Path) -> dict[str, Any]:
    """Parse the YAML description. Raises DataError with its line."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        raise DataError(f"{where}: not readable as YAML ({getattr(error, 'problem', None) or error}); correct it") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    if not isinstance(content, dict):
        raise DataError(f"{file}:1: expected keys `names`, `train`, `val`; write them")
    return content


def class_names(file: Path, content: dict[str, Any]) -> tuple[str, ...]:
    """`names` as a list, or as a mapping 0..n-1 -> name."""
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(map(str, names)) != sorted(map(str, range(len(names)))):
            raise DataError(f"{file}: the keys of `names` must be 0..{len(names) - 1}, each once; number them so")
        names = [names[key] for key in sorted(names, key=int)]
    if not isinstance(names, list) or not names or any(isinstance(name, (list, dict)) or name is None for name in names):
        raise DataError(f"{file}: `names` must list the classes, like names: [cat, dog]")
    if len(set(map(str, names))) != len(names):
        raise DataError(f"{file}: `names` has the same class twice; rename one")
    if any(isinstance(name, bool) for name in names):
        raise DataError(
            f"{file}: `names` has a bare yes, no, true or false, which YAML takes for a truth value; put it into quotes"
        )
    return tuple(map(str, names))


def available(path: Path) -> list[str]:
    """Names of the splits that the description has."""
    file = find_yaml(path)
    keys = {name for split in SPLITS for name in split_names(split)}
    return sorted(keys & {str(key) for key, entry in describe(file).items() if entry}) if file else ["train"]


def read(path: Path, split: str, faults: Faults) -> Dataset | None:
    """Read one split; None if the description does not have it. What is wrong goes to `faults`."""
    if path.is_file() and path.suffix == ".txt":
        classes, photos = _listed_classes(path), list(_from_list(path, faults))
        root = path.parent
    else:
        file = find_yaml(path)
        assert file is not None, "recognise() said there is one"
        content = describe(file)
        if "kpt_shape" in content:
            raise DataError(f"{file}: kpt_shape says that labels are poses; write boxes, `class x y width height`, and remove it")
        classes, root = class_names(file, content), file.parent
        entry = next((content[name] for name in split_names(split) if content.get(name)), None)
        if entry is None:
            return None
        places = entry if isinstance(entry, list) else [entry]
        photos = [photo for place in places for photo in _photos(file, content, str(place), faults)]
        if not photos:
            faults.error(file, 0, f"no photos for '{split}' in {entry}; correct the path")
    items = []
    for photo in photos:
        with faults.caught():
            if (item := _item(photo, classes, faults)) is not None:
                items.append(item)
    _report_orphans(items, faults)
    _report_shared(items, faults)
    return Dataset(root.resolve().name, root, split, classes, tuple(items))


def _photos(file: Path, content: dict[str, Any], entry: str, faults: Faults) -> list[Path]:
    """Photos of one entry. It is relative to `path:`, or to the YAML file; tools differ, so the first that exists is taken."""
    base = file.parent / str(content.get("path") or ".")
    bare = re.sub(r"^(\.\./)+|^\./", "", entry)
    for place in (base / entry, file.parent / entry, file.parent / bare, file.parent / bare / "images"):
        if place.is_dir() and (photos := photos_under(place)):
            return photos
        if place.is_file():
            return list(_from_list(place, faults))
    raise DataError(f"{file}: '{entry}' is neither a folder with photos nor a list of them; correct the path")


def _from_list(file: Path, faults: Faults) -> Iterator[Path]:
    for number, line in enumerate(read_lines(file), 1):
        if name := line.strip():
            if not is_photo(Path(name)):
                faults.error(file, number, f"'{name}' is no photo's name; one photo a line")
                continue
            yield next((place for place in (file.parent / name, Path(name)) if place.is_file()), file.parent / name)


def _listed_classes(file: Path) -> tuple[str, ...]:
    """Classes of a bare list: classes.txt or data.yaml beside it."""
    if (names := file.parent / "classes.txt").is_file():
        return listed_classes(names)
    if described := find_yaml(file.parent):
        return class_names(described, describe(described))
    raise DataError(f"{file}: no class names; put classes.txt (one a line) or data.yaml beside the list")


def label_file(photo: Path) -> Path:
    """`.../labels/x.txt` for `.../images/x.jpg`; beside the photo where there is no such file or no `images` folder."""
    beside, parts = photo.with_suffix(".txt"), list(photo.parts)
    for k in range(len(parts) - 2, -1, -1):
        if parts[k] == "images":
            parts[k] = "labels"
            usual = Path(*parts).with_suffix(".txt")
            return beside if beside.is_file() and not usual.is_file() else usual
    return beside


def _item(photo: Path, classes: tuple[str, ...], faults: Faults) -> Item | None:
    file = label_file(photo)
    if not file.is_file():
        return make_item(photo, None, (), None, faults)
    try:
        size = photo_size(photo)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return make_item(photo, None, (), file, faults)  # which says why
    lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    boxes = [box for number, line in enumerate(lines, 1) if (box := _box(file, number, line, size, classes, faults))]
    return make_item(photo, size, boxes, file, faults)


def _box(file: Path, line: int, text: str, size: tuple[int, int], classes: tuple[str, ...], faults: Faults) -> Box | None:
    words = text.split()
    if not words:
        return None
    try:
        label, *numbers = map(float, words)
    except ValueError as error:
        faults.error(file, line, f"{error}; write `class x y width height`")
        return None
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        faults.error(file, line, f"{len(words)} fields; write `class x y width height`, or a class and 3 or more points")
        return None
    if label not in range(len(classes)):
        faults.error(file, line, f"unknown class {words[0]}; the data set has {len(classes)}, numbered from 0")
        return None
    if len(numbers) == 4:
        x, y, w, h = numbers
        edges = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    else:
        edges = (min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2]))
    if max(map(abs, numbers)) > 2:
        faults.error(file, line, f"{text.strip()[:60]!r} is not in fractions of the photo; divide by its width and height")
        return None
    x1, y1, x2, y2 = (edge * side for edge, side in zip(edges, size * 2, strict=True))
    return Box(int(label), (x1, y1, x2, y2), line, what=f"'{classes[int(label)]}'")


def _report_shared(items: list[Item], faults: Faults) -> None:
    first: dict[Path, Path] = {}
    for item in items:
        if item.label_file and (other := first.setdefault(item.label_file, item.path)) != item.path:
            faults.warning(item.label_file, 0, f"belongs to {other.name} and to {item.path.name}; rename one photo and its label")


def _report_orphans(items: list[Item], faults: Faults) -> None:
    photos: dict[Path, set[str]] = {}  # label folder -> names of all photos that it may speak of, of any split
    for folder, labels in {(item.path.parent, item.label_file.parent) for item in items if item.label_file}:
        photos.setdefault(labels, set()).update(file.stem for file in folder.iterdir() if is_photo(file))
    for labels in sorted(photos):
        for file in sorted(labels.glob("*.txt")):
            if file.stem not in photos[labels] and file.name != "classes.txt":
                faults.warning(file, 0, "a label without a photo; restore the photo or remove the file")
