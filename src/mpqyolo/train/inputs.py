"""What a run is given: its photos, how many of them a step takes, and the device."""

from __future__ import annotations

from pathlib import Path

import torch

from mpqyolo.core.errors import ConfigError, DataError, FileFormatError
from mpqyolo.data.formats import load
from mpqyolo.data.loader import Loader
from mpqyolo.data.sample import Dataset
from mpqyolo.format.validate import check_classes
from mpqyolo.train.parallel import Ranks
from mpqyolo.train.recipe import Recipe


def load_data(recipe: Recipe) -> tuple[Dataset, Dataset]:
    """Train and val split, with equal classes, and boxes in both. Raises DataError or ConfigError."""
    path, names = recipe.data.path, (recipe.data.train, recipe.data.val)
    if not path:
        raise ConfigError("data.path is empty: say --data DATA")
    train_set = load(path, names[0], recipe.model.classes or None)
    try:
        check_classes(train_set.classes)
    except FileFormatError as fault:
        raise DataError(f"{path}: {fault}: no packed file can hold that; rename it, or choose with --classes") from None
    val_set = load(path, names[1], train_set.classes)
    for name, found in zip(names, (train_set, val_set), strict=True):
        if not found.has_boxes:
            raise DataError(
                f"{path}: split '{name}' has no box of {', '.join(train_set.classes)}; label some, or choose other classes"
            )
    if names[0] != names[1] and Path(path).suffix in (".json", ".txt") and Path(path).is_file():
        raise ConfigError(
            f"{path}: is one split, so scores would be those of the photos trained on; give the folder (or YAML file) that has "
            f"'{names[0]}' and '{names[1]}', or say --set data.val={names[0]} if that is what you want"
        )
    return train_set, val_set


def pick_device(name: str, ranks: Ranks) -> torch.device:
    """ "auto": this process's GPU if there is one, else the CPU. Raises ConfigError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device '{name}' is unknown; use auto, cpu or cuda")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"device '{name}': no CUDA here; use auto or cpu")
        device = torch.device("cuda", ranks.local if device.index is None else device.index)
        if device.index >= torch.cuda.device_count():
            raise ConfigError(f"there is no GPU {device.index}: this machine has {torch.cuda.device_count()}, numbered from 0")
        torch.cuda.set_device(device)
    return device


def check_batch(loader: Loader, recipe: Recipe) -> None:
    """Raise ConfigError if batch norm would see one value a channel: at stride 32, in one photo of 32 px."""
    if loader.batch == 1 and min(recipe.side(epoch) for epoch in range(recipe.epochs)) == 32:
        raise ConfigError("one labelled photo of 32 px a step is too little for batch norm: take larger images, or more photos")


def small_batch(loader: Loader, recipe: Recipe) -> list[str]:
    """What to tell if there are fewer photos than a step asks for."""
    asked, step = recipe.batch, (loader.batch + loader.extra) * loader.world
    if step == asked:
        return []
    return [f"batch: a step takes {step} of {asked} photos, since there are no more; the default rate is that of {asked}"]
