"""Batches: for training augmented, shuffled, and mixed with unlabelled photos; for evaluation letterboxed as in deployment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import torch

from mpqyolo.core.errors import ConfigError, DataError
from mpqyolo.core.image import Placement, letterbox
from mpqyolo.data.augment import Augment, augmented
from mpqyolo.data.augment.mosaic import Boxes, Labelled
from mpqyolo.data.prefetch import prefetch
from mpqyolo.data.sample import Dataset

CACHE_BYTES = 1 << 30
Place = tuple[int, int]  # of an unlabelled photo: how often all were seen before, its number
_HEADROOM = 1.25  # photos are kept this much larger than the input, for augmentation that enlarges


class Batch(NamedTuple):
    """images: (B, 3, H, W) uint8 RGB, channels-last in memory. photos: their numbers in their data set.

    targets: (n, 6) float32, [place in the batch, label, x1, y1, x2, y2], pixels of the letterboxed input.
    labelled: how many images, the first ones, have labels; the others are of the unlabelled photos.
    """

    images: torch.Tensor
    targets: torch.Tensor
    photos: list[int]
    labelled: int


class ValBatch(NamedTuple):
    """images as in Batch; placements: how each photo was letterboxed, to bring boxes back."""

    images: torch.Tensor
    placements: list[Placement]
    photos: list[int]


class PhotoCache:
    """Decoded photos in RAM as uint8, with their training boxes, until `budget` bytes are full.

    Photos larger than `limit` (width, height) are shrunk to it once; with or without room in the cache, so that its budget
    changes speed and nothing else. What is in stays: every epoch visits every photo once, so no photo is worth more than another.
    """

    def __init__(self, dataset: Dataset, limit: tuple[float, float] | None, budget: int, difficult: bool) -> None:
        self.dataset, self.limit, self.difficult = dataset, limit, difficult
        self.left = budget
        self._photos: dict[int, np.ndarray] = {}
        self._lock = threading.Lock()

    def take(self, index: int) -> Labelled:
        """Photo `index` as (h, w, 3) uint8 (do not write to it), its boxes (n, 4) in these pixels, labels (n,)."""
        photo = self._photos.get(index)
        if photo is None:
            photo = self._shrunk(self.dataset.read(index))
            with self._lock:
                if index not in self._photos and photo.nbytes <= self.left:
                    self.left -= photo.nbytes
                    self._photos[index] = photo
        item = self.dataset.items[index]
        keep = ~item.crowd if self.difficult else ~(item.crowd | item.difficult)
        ratio = np.array([photo.shape[1] / item.width, photo.shape[0] / item.height] * 2, np.float32)
        return photo, item.xyxy[keep] * ratio, item.label[keep]

    def _shrunk(self, photo: np.ndarray) -> np.ndarray:
        height, width = photo.shape[:2]
        ratio = min(1.0, self.limit[0] / width, self.limit[1] / height) if self.limit else 1.0
        if ratio == 1.0:
            return np.ascontiguousarray(photo)
        size = max(1, round(width * ratio)), max(1, round(height * ratio))
        return cv2.resize(photo, size, interpolation=cv2.INTER_AREA)


class Loader:
    """Training batches. A sample and its augmentation depend on (seed, epoch, photo) alone: not on workers, not on resuming.

    size: input size in pixels, S or (height, width). batch: photos a step and process. rank, world: this process among all.
    difficult: whether to train on VOC's difficult boxes. cache_bytes: budget for decoded photos, per process.
    unlabelled: photos that make up `share` of each batch. An epoch is once through the labelled ones, which keep their order;
    unlabelled ones are taken one pass after the other, so all are seen equally often however many there are.
    Raises ConfigError for sizes that make no sense, DataError for too few photos.
    """

    def __init__(
        self,
        dataset: Dataset,
        size: int | tuple[int, int],
        batch: int,
        augment: Augment | None = None,
        seed: int = 0,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        cache_bytes: int = CACHE_BYTES,
        difficult: bool = False,
        unlabelled: Dataset | None = None,
        share: float = 0.5,
    ) -> None:
        if batch < 1 or min(_pair(size)) < 1 or seed < 0 or not 0 <= rank < world:
            raise ConfigError(f"batch {batch}, size {size}, seed {seed}, rank {rank} of {world}: all must be positive")
        if len(dataset) < world:
            raise DataError(f"{dataset.root}: {len(dataset)} photos in '{dataset.split}' for {world} processes; add photos")
        self.dataset, self.size, self.augment = dataset, _pair(size), augment or Augment()
        self.seed, self.workers, self.rank, self.world = seed, workers, rank, world
        if unlabelled is not None and (batch < 2 or not 0 < share < 1 or not len(unlabelled)):
            raise ConfigError(f"batch {batch}, share {share} of {len(unlabelled)} unlabelled photos: no batch holds both kinds")
        self.extra = 0 if unlabelled is None else min(max(1, round(batch * share)), batch - 1)
        self.batch = min(batch - self.extra, len(dataset) // world)
        height, width = self.size
        limit = None if self.augment.is_none else (width * _HEADROOM, height * _HEADROOM)
        photos = len(dataset) + (0 if unlabelled is None else len(unlabelled))
        self.cache = PhotoCache(dataset, limit, cache_bytes * len(dataset) // photos, difficult)
        rest = cache_bytes - self.cache.left
        self.unlabelled = None if unlabelled is None else PhotoCache(unlabelled, limit, rest, difficult)
        cv2.setNumThreads(1)  # the cores belong to training; the loader has its own workers

    def __len__(self) -> int:
        """Batches an epoch; the incomplete last one is dropped."""
        return len(self.dataset) // (self.batch * self.world)

    def epoch(
        self, epoch: int, start: int = 0, mosaic: bool = True, size: int | tuple[int, int] | None = None
    ) -> Iterator[Batch]:
        """Batches `start`, `start` + 1, ... of this epoch. `mosaic` False turns it off; `size` overrides the input size.

        Raises ImageError or DataError for a photo that cannot be used.
        """
        order = np.random.default_rng([0, self.seed, epoch]).permutation(len(self.dataset))
        step = self.batch * self.world
        first = self.rank * self.batch
        steps = range(start, len(self))
        labelled = [order[k * step + first : k * step + first + self.batch].tolist() for k in steps]
        make = partial(self._batch, epoch=epoch, use_mosaic=mosaic, size=_pair(size or self.size))
        return prefetch(make, list(zip(labelled, self._unlabelled(epoch, steps), strict=True)), self.workers)

    def _unlabelled(self, epoch: int, steps: range) -> list[list[Place]]:
        """This process's unlabelled photos of each step: a pure function of (seed, epoch, step)."""
        if self.unlabelled is None:
            return [[] for _ in steps]
        count = len(self.unlabelled.dataset)
        begins = [((epoch * len(self) + k) * self.world + self.rank) * self.extra for k in steps]
        passes = {at // count for begin in begins for at in range(begin, begin + self.extra)}
        orders = {p: np.random.default_rng([2, self.seed, p]).permutation(count) for p in passes}
        return [[(at // count, int(orders[at // count][at % count])) for at in range(b, b + self.extra)] for b in begins]

    def _batch(self, job: tuple[list[int], list[Place]], epoch: int, use_mosaic: bool, size: tuple[int, int]) -> Batch:
        labelled, unlabelled = job
        images = np.empty((len(labelled) + len(unlabelled), *size, 3), np.uint8)
        targets = []
        for place, index in enumerate(labelled):
            rng = np.random.default_rng([1, self.seed, epoch, index])
            xyxy, label = self._sample(images[place], self.cache, index, rng, use_mosaic)
            targets.append(np.column_stack([np.full(len(label), place), label, xyxy]).astype(np.float32))
        for place, (turn, index) in enumerate(unlabelled, len(labelled)):
            assert self.unlabelled is not None
            rng = np.random.default_rng([3, self.seed, turn, index])
            self._sample(images[place], self.unlabelled, index, rng, use_mosaic)
        photos = labelled + [index for _, index in unlabelled]
        return Batch(_channels_first(images), torch.from_numpy(np.concatenate(targets)), photos, len(labelled))

    def _sample(self, canvas: np.ndarray, cache: PhotoCache, index: int, rng: np.random.Generator, use_mosaic: bool) -> Boxes:
        if not self.augment.is_none:
            return augmented(canvas, cache.take, len(cache.dataset), index, rng, self.augment, use_mosaic)
        photo, xyxy, label = cache.take(index)
        canvas[:], placement = letterbox(photo, *canvas.shape[:2])
        return placement.to_input(xyxy), label


def val_batches(dataset: Dataset, size: int | tuple[int, int], batch: int, workers: int = 0) -> Iterator[ValBatch]:
    """All photos in order, letterboxed to `size` exactly as deployment does it."""
    jobs = [list(range(at, min(at + batch, len(dataset)))) for at in range(0, len(dataset), batch)]

    def make(indices: list[int]) -> ValBatch:
        images = np.empty((len(indices), *_pair(size), 3), np.uint8)
        placements = []
        for place, index in enumerate(indices):
            images[place], placement = letterbox(dataset.read(index), *_pair(size))
            placements.append(placement)
        return ValBatch(_channels_first(images), placements, indices)

    return prefetch(make, jobs, workers)


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _channels_first(images: np.ndarray) -> torch.Tensor:
    """(B, H, W, 3) -> a (B, 3, H, W) view: what convolutions in channels-last format want, without a copy."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)
