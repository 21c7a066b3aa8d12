"""`mpqyolo check`: every fault of a data set, before anything trains on it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpqyolo.core.errors import DataError, FileFormatError
from mpqyolo.core.photo import read_photo
from mpqyolo.data.faults import Faults, Problem
from mpqyolo.data.formats import FORMATS, recognise
from mpqyolo.data.formats.common import SPLITS, split_names
from mpqyolo.data.prefetch import prefetch
from mpqyolo.data.sample import Dataset, Item
from mpqyolo.format.validate import check_classes


@dataclass(frozen=True)
class Report:
    """What `check` found.

    problems: in reading order, none twice. counts: {"format", "classes", "images", "boxes", "per_class": {name: boxes},
    "splits": {split: {"images", "boxes", "difficult", "crowd", "without_labels"}}}.
    """

    problems: list[Problem] = field(default_factory=list)
    counts: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is no error (warnings and infos do not count)."""
        return not any(problem.severity == "error" for problem in self.problems)


@dataclass(frozen=True)
class _Photo:
    """Fingerprints of a photo: of its file, and of its upright pixels where it could be decoded."""

    file: str = ""
    pixels: str = ""
    size: tuple[int, int] | None = None
    fault: str = ""


def check(path: Path | str, workers: int = 2, progress: Callable[[int, int], None] | None = None) -> Report:
    """Read all splits (train, val, test; or whatever splits there are) and decode every photo.

    Never stops at a fault. `progress(done, total)` is called after each photo. Raises DataError only where there is no data set.
    """
    path = Path(path)
    form = recognise(path)
    faults = Faults(strict=False)
    datasets = _read_all(path, form, faults)
    if classes := list(dict.fromkeys(name for dataset in datasets for name in dataset.classes)):
        try:
            check_classes(classes)
        except FileFormatError as fault:
            faults.warning(path, 0, f"{fault}: no packed file can hold that; rename classes, or choose some with --classes")
    _check_splits(path, datasets, faults)
    _check_photos(datasets, faults, workers, progress)
    for dataset in datasets:
        for item in dataset.items:
            if not len(item):
                faults.info(item.path, 0, "no boxes; it is trained on as background")
    return Report(list(dict.fromkeys(faults.problems)), _counts(form, datasets))


def _read_all(path: Path, form: str, faults: Faults) -> list[Dataset]:
    module, available = FORMATS[form], []
    with faults.caught():
        available = module.available(path)
    splits = [split for split in SPLITS if set(split_names(split)) & set(available)] or available
    if not splits and not faults.problems:
        faults.error(path, 0, "no splits; name photos for train and val")
    datasets = []
    for split in splits:
        with faults.caught():
            if (dataset := module.read(path, split, faults)) is not None:
                datasets.append(dataset)
    return datasets


def _check_splits(path: Path, datasets: list[Dataset], faults: Faults) -> None:
    """What training would refuse, or what would make background of labelled photos."""
    for dataset in datasets:
        bare = sum(item.label_file is None for item in dataset.items)
        if not dataset.items:
            faults.error(path, 0, f"no photo in split '{dataset.split}' can be used")
        elif not dataset.has_boxes:
            faults.error(path, 0, f"no box in split '{dataset.split}' can be learned or scored; label some")
        elif bare > len(dataset.items) / 2:
            faults.warning(path, 0, f"{bare} of {len(dataset.items)} photos in split '{dataset.split}' have no label file")
    here = {dataset.split for dataset in datasets}
    if here and not (path.is_file() and path.suffix in (".json", ".txt")):
        for name in ("train", "val"):
            if name not in here:
                faults.warning(path, 0, f"no split '{name}'; training needs one, called so or by --set data.{name}=NAME")


def _check_photos(datasets: list[Dataset], faults: Faults, workers: int, progress: Callable[[int, int], None] | None) -> None:
    pairs = [(dataset.split, item) for dataset in datasets for item in dataset.items]
    by_file: dict[str, tuple[str, Item]] = {}
    by_pixels: dict[str, tuple[str, Item]] = {}
    by_path: dict[Path, str] = {}
    photos = prefetch(_inspect, [item.path for _, item in pairs], workers)
    for done, ((split, item), photo) in enumerate(zip(pairs, photos, strict=True), 1):
        if progress:
            progress(done, len(pairs))
        place = item.path.resolve()
        if place in by_path:
            first = by_path[place]
            faults.warning(item.path, 0, f"the same photo is listed in '{first}' and in '{split}'{_leak(first, split)}")
            continue
        by_path[place] = split
        if photo.fault:
            faults.error(item.path, 0, photo.fault)
        elif photo.size != (item.width, item.height):
            turned = " (EXIF rotation left out?)" if photo.size == (item.height, item.width) else ""
            said = f"labels are for {item.width}x{item.height}, photo {item.path} is {'x'.join(map(str, photo.size or ()))}"
            faults.error(item.label_file or item.path, 0, f"{said}{turned}; label the photo as it is shown")
        for key, seen, what in ((photo.file, by_file, "the same bytes"), (photo.pixels, by_pixels, "the same pixels")):
            twin_split, twin = seen.setdefault(key, (split, item)) if key else (split, item)
            if twin is not item:
                faults.warning(item.path, 0, f"{what} as {twin.path}{_leak(twin_split, split)}; keep one")
                break


def _leak(one: str, other: str) -> str:
    return "" if one == other else f", a leak from '{one}' into '{other}'"


def _inspect(path: Path) -> _Photo:
    file = ""
    try:
        file = hashlib.blake2b(path.read_bytes()).hexdigest()
        photo = read_photo(path)
    except DataError as error:
        return _Photo(file, fault=str(error).removeprefix(f"{path}: "))
    except OSError as error:
        return _Photo(file, fault=f"cannot be read ({error.strerror})")
    size = photo.shape[1], photo.shape[0]
    return _Photo(file, hashlib.blake2b(f"{size}".encode() + photo.tobytes()).hexdigest(), size)


def _counts(form: str, datasets: list[Dataset]) -> dict[str, Any]:
    per_class = Counter({name: 0 for dataset in datasets for name in dataset.classes})
    splits = {}
    for dataset in datasets:
        per_class.update(dataset.classes[label] for item in dataset.items for label in item.label)
        splits[dataset.split] = {
            "images": len(dataset),
            "boxes": sum(len(item) for item in dataset.items),
            "difficult": sum(int(item.difficult.sum()) for item in dataset.items),
            "crowd": sum(int(item.crowd.sum()) for item in dataset.items),
            "without_labels": sum(not len(item) for item in dataset.items),
        }
    return {
        "format": form,
        "classes": len(per_class),
        "images": sum(split["images"] for split in splits.values()),
        "boxes": sum(split["boxes"] for split in splits.values()),
        "per_class": dict(per_class),
        "splits": splits,
    }
