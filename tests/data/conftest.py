"""A small data set in memory and on disk: noise photos of many sizes, boxes of three classes, one photo without any."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mpqyolo.data.sample import Dataset, Item

CLASSES = ("cat", "dog", "traffic light")


def make_dataset(root: Path, split: str, count: int, seed: int = 0, flags: bool = False) -> Dataset:
    rng = np.random.default_rng([seed, *map(ord, split)])
    folder = root / "source" / split
    folder.mkdir(parents=True, exist_ok=True)
    items = []
    for number in range(count):
        width, height = (int(side) for side in rng.integers(30, 90, 2))
        path = folder / f"{split}_{number:03}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        n = 0 if number == 1 else int(rng.integers(1, 5))
        corner = rng.uniform(0, 0.6, (n, 2))
        xyxy = np.concatenate([corner, corner + rng.uniform(0.15, 0.4, (n, 2))], 1) * [width, height, width, height]
        difficult = (rng.random(n) < 0.3) & flags
        items.append(
            Item(
                path=path,
                width=width,
                height=height,
                xyxy=xyxy.round(3).astype(np.float32),
                label=rng.integers(0, len(CLASSES), n),
                difficult=difficult,
                crowd=(rng.random(n) < 0.2) & flags & ~difficult,
                line=np.zeros(n, np.int64),
            )
        )
    return Dataset("made", root, split, CLASSES, tuple(items))


@pytest.fixture
def splits(tmp_path: Path) -> list[Dataset]:
    return [make_dataset(tmp_path, "train", 8), make_dataset(tmp_path, "val", 4)]


@pytest.fixture
def make(tmp_path: Path):
    return lambda split="train", count=8, **options: make_dataset(tmp_path, split, count, **options)
