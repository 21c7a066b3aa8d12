"""Photos to prove a packed model on: given ones, the validation photos of its run, or made-up ones where these are gone."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from mpqyolo.core.errors import DataError, ImageError, MpqError
from mpqyolo.core.photo import is_photo, photos_under, read_photo
from mpqyolo.data.formats import load
from mpqyolo.train.recipe import Recipe

COUNT = 4  # every tensor of every photo is compared, so a few say a lot
MOST = 32  # of given ones


def proof_photos(given: Sequence[np.ndarray] | Path | None, recipe: Recipe) -> tuple[list[np.ndarray], str]:
    """Photos (h, w, 3) uint8 RGB and, in words, where they are from.

    given: photos, a folder of photos, or a data set. Raises DataError or ImageError for given ones that cannot be read.
    """
    if isinstance(given, Path):
        return _from_folder(given), f"photos of {given.name}"
    if given is not None:
        if not len(given):
            raise DataError("no photos are given for the proof")
        return [given[i] for i in _spread(len(given), MOST)], "given photos"
    found: list[np.ndarray] = []
    with suppress(MpqError):  # the data set has moved on; the proof needs photos, not these photos
        dataset = load(recipe.data.path, recipe.data.val)
        for i in _spread(len(dataset), COUNT):
            with suppress(ImageError):  # a damaged photo says nothing of the others
                found.append(dataset.read(i))
    if found:
        return found, f"photos of the '{recipe.data.val}' split"
    return made_up(COUNT), "made-up photos, since the run's data set cannot be read"


def made_up(count: int, height: int = 240, width: int = 320) -> list[np.ndarray]:
    """Photos of nothing, the same ones every time: shaded backgrounds, boxes, and noise, the last at full range."""
    rng = np.random.default_rng(0)
    photos = []
    for number in range(count):
        across, down = np.linspace(0, 1, width), np.linspace(0, 1, height)[:, None]
        shade = rng.uniform(0, 255, (4, 3))
        photo = (shade[0] * (1 - across)[:, None] + shade[1] * across[:, None]) * (1 - down)[..., None]
        photo = photo + (shade[2] * (1 - across)[:, None] + shade[3] * across[:, None]) * down[..., None]
        for _ in range(6):
            y, x = rng.integers(0, height - 16), rng.integers(0, width - 16)
            photo[y : y + rng.integers(8, height // 2), x : x + rng.integers(8, width // 2)] = rng.uniform(0, 255, 3)
        photo += rng.normal(0, 300 if number == count - 1 else 8, photo.shape)
        photos.append(np.clip(photo, 0, 255).astype(np.uint8))
    return photos


def _from_folder(path: Path) -> list[np.ndarray]:
    files = photos_under(path) if path.is_dir() else []
    if path.is_file() and is_photo(path):
        files = [path]
    if not files:
        dataset = load(path, "val")
        files = [item.path for item in dataset.items]
    if not files:
        raise DataError(f"{path}: no photos here")
    return [read_photo(files[i]) for i in _spread(len(files), MOST)]


def _spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of `count` places, evenly."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, wanted))})
