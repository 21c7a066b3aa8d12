"""What the three formats share: finding photos, measuring them, and judging boxes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mpqyolo.core.errors import DataError
from mpqyolo.data.faults import Faults
from mpqyolo.data.sample import Item

SPLITS = ("train", "val", "test")
_SAME_SPLIT = {"val": ("val", "valid", "validation"), "valid": ("valid", "val"), "test": ("test", "testing")}
_EXIF_ORIENTATION = 0x0112
SLACK = 1.0  # pixels that a box may reach over the edge without a word: rounding of whoever drew it


@dataclass(frozen=True)
class Box:
    """One label as its file has it. `xyxy` in absolute pixels, not judged yet."""

    label: int
    xyxy: tuple[float, float, float, float]
    line: int = 0
    difficult: bool = False
    crowd: bool = False
    what: str = "box"  # how messages call it


def split_names(split: str) -> tuple[str, ...]:
    """The names under which a split may lie: 'val' is also found as 'valid'."""
    return _SAME_SPLIT.get(split, (split,))


def read_lines(file: Path) -> list[str]:
    """Lines of a text file in UTF-8, with or without byte order mark. Raises DataError."""
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except ValueError:
        raise DataError(f"{file}: is not text in UTF-8; save it as such") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None


def listed_classes(file: Path) -> tuple[str, ...]:
    """The classes in a `classes.txt`, one a line. Raises DataError for one that comes twice."""
    names = tuple(line.strip() for line in read_lines(file) if line.strip())
    if len(set(names)) < len(names):
        raise DataError(f"{file}: the same class twice; rename one")
    return names


def photo_size(path: Path) -> tuple[int, int]:
    """(width, height) of the upright photo, from its header alone. Raises OSError or ValueError if there is none."""
    with Image.open(path) as photo:
        width, height = photo.size
        turned = photo.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    return (height, width) if turned else (width, height)


def make_item(
    path: Path, size: tuple[int, int] | None, boxes: Iterable[Box], label_file: Path | None, faults: Faults
) -> Item | None:
    """Judge the boxes and build the Item; clips boxes to the photo. None if the photo is missing or has no readable size.

    `size` is (width, height) as the labels give it, None to take it from the photo.
    """
    present = path.is_file()
    if not present:
        faults.error(label_file or path, 0, f"photo {path} is missing; restore it or remove its label")
    elif size is None:
        try:
            size = photo_size(path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            faults.error(path, 0, f"cannot be read as a photo ({error}); replace or remove it")
    if size is None:
        return None
    width, height = size
    kept = [(box, xyxy) for box in boxes if (xyxy := _judge(box, width, height, label_file or path, faults))]
    _report_twins(kept, label_file or path, faults)
    if not present:
        return None
    return Item(
        path=path,
        width=width,
        height=height,
        xyxy=np.array([xyxy for _, xyxy in kept], np.float32).reshape(-1, 4),
        label=np.array([box.label for box, _ in kept], np.int64),
        difficult=np.array([box.difficult for box, _ in kept], np.bool_),
        crowd=np.array([box.crowd for box, _ in kept], np.bool_),
        line=np.array([box.line for box, _ in kept], np.int64),
        label_file=label_file,
    )


def _judge(box: Box, width: int, height: int, file: Path, faults: Faults) -> tuple[float, float, float, float] | None:
    """The box clipped to the photo, or None if it cannot be used."""
    x1, y1, x2, y2 = box.xyxy
    shown = f"{box.what} ({x1:g}, {y1:g}, {x2:g}, {y2:g})"
    if not all(map(math.isfinite, box.xyxy)):
        faults.error(file, box.line, f"{shown} is not a number; write finite coordinates")
        return None
    if x2 < x1 or y2 < y1:
        faults.error(file, box.line, f"{shown} has a negative size; swap or remove it")
        return None
    if x2 == x1 or y2 == y1:
        faults.warning(file, box.line, f"{shown} has zero size and is skipped; draw it again or remove it")
        return None
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        faults.error(file, box.line, f"{shown} lies outside the {width}x{height} photo; correct or remove it")
        return None
    if min(x1, y1) < -SLACK or x2 > width + SLACK or y2 > height + SLACK:
        faults.warning(file, box.line, f"{shown} reaches outside the {width}x{height} photo and is clipped; correct it")
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))


def _report_twins(kept: list[tuple[Box, tuple[float, float, float, float]]], file: Path, faults: Faults) -> None:
    seen: dict[tuple[object, ...], Box] = {}
    for box, xyxy in kept:
        first = seen.setdefault((box.label, *xyxy), box)
        if first is not box:
            where = f" as on line {first.line}" if first.line else ""
            faults.warning(file, box.line, f"the same {box.what}{where} a second time; remove one")
