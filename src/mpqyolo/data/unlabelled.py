"""Photos without labels: a folder tree of them as a data set whose photos have no boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mpqyolo.core.errors import DataError
from mpqyolo.core.photo import photos_under
from mpqyolo.data.faults import Faults
from mpqyolo.data.formats.common import make_item
from mpqyolo.data.sample import Dataset


def load_unlabelled(folder: Path | str, classes: Sequence[str] = ()) -> Dataset:
    """All photos in the folder and below it, sorted by name. classes: of the data that they are mixed with.

    Only headers are read. Raises DataError for a folder without photos, or for a file that is named like a photo and is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder of unlabelled photos")
    faults = Faults()
    found = (make_item(path, None, (), None, faults) for path in photos_under(folder))
    items = tuple(item for item in found if item is not None)
    if not items:
        raise DataError(f"{folder}: no photos in this folder or below it")
    return Dataset(folder.name, folder, "unlabelled", tuple(classes), items)
