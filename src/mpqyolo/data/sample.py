"""A data set in memory: which photos, which boxes, which classes. Photos are decoded when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mpqyolo.core.errors import DataError
from mpqyolo.core.photo import read_photo


@dataclass(frozen=True, eq=False)
class Item:
    """One photo and its boxes.

    width, height: pixels of the upright photo (EXIF rotation applied).
    xyxy: (n, 4) float32, absolute pixels, x2 and y2 exclusive. label: (n,) int64 into the data set's classes.
    difficult, crowd: (n,) bool; crowds are never trained on, difficult boxes where the recipe says so; evaluation ignores both.
    line: (n,) int64, line of each box in `label_file`, 0 where the format has none.
    """

    path: Path
    width: int
    height: int
    xyxy: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    label: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    difficult: np.ndarray = field(default_factory=lambda: np.zeros(0, np.bool_))
    crowd: np.ndarray = field(default_factory=lambda: np.zeros(0, np.bool_))
    line: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    label_file: Path | None = None

    def __len__(self) -> int:
        return len(self.label)

    def only(self, keep: np.ndarray, label: np.ndarray | None = None) -> Item:
        """The same photo with the kept boxes (mask or indices of n), under new labels (n,) if given."""
        label = self.label if label is None else label
        return replace(
            self,
            xyxy=self.xyxy[keep],
            label=label[keep],
            difficult=self.difficult[keep],
            crowd=self.crowd[keep],
            line=self.line[keep],
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set. `classes[label]` is a class's name."""

    name: str
    root: Path
    split: str
    classes: tuple[str, ...]
    items: tuple[Item, ...]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def has_boxes(self) -> bool:
        """Whether there is a box that can be learned and scored: neither difficult nor a crowd."""
        return any((~(item.crowd | item.difficult)).any() for item in self.items)

    def read(self, index: int) -> np.ndarray:
        """Decode photo `index`: (height, width, 3) uint8 RGB, the same pixels that deployment sees.

        Raises ImageError for a photo that cannot be decoded, DataError if its size is not what its labels say.
        """
        item = self.items[index]
        photo = read_photo(item.path)
        if photo.shape[:2] != (item.height, item.width):
            raise DataError(
                f"{item.path}: the photo is {photo.shape[1]}x{photo.shape[0]}, its labels say {item.width}x{item.height}; "
                "its boxes would be misplaced: run `mpqyolo check`"
            )
        return photo

    def select(self, classes: Sequence[str]) -> Dataset:
        """The same photos with the boxes of these classes only, labelled in this order.

        Raises DataError for a class that the data set does not have.
        """
        for name in classes:
            if list(classes).count(name) > 1:
                raise DataError(f"{self.root}: class '{name}' is chosen twice; name it once")
            if name not in self.classes:
                raise DataError(f"{self.root}: no class '{name}'; it has: {', '.join(self.classes)}")
        new = np.full(len(self.classes), -1, np.int64)
        for label, name in enumerate(classes):
            new[self.classes.index(name)] = label
        items = tuple(item.only(new[item.label] >= 0, new[item.label]) for item in self.items)
        return replace(self, classes=tuple(classes), items=items)

    def subset(self, indices: Sequence[int]) -> Dataset:
        """The photos with these indices, in this order."""
        return replace(self, items=tuple(self.items[i] for i in indices))
