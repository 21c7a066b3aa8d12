"""Detector: photos in, Detections out."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, overload

import numpy as np

import mpqyolo
from mpqyolo.core.detections import Detections
from mpqyolo.core.errors import ConfigError, EngineError, ImageError
from mpqyolo.core.photo import as_photo
from mpqyolo.runtime.session import Model, Session

MAX_SESSIONS = 4  # at work at the same time in one detector; further threads wait


def carried_models() -> dict[str, Path]:
    """Models that come with the package, by name."""
    files = (path for folder in mpqyolo.__path__ for path in sorted(Path(folder, "models").glob("*.mpqy")))
    return {path.stem: path for path in files}


def resolve(model: str | os.PathLike[str]) -> Path:
    """The file of a carried model's name, which comes first, or of a path. Raises ConfigError for a name that is neither."""
    path, known = Path(model), carried_models()
    if str(model) in known:
        return known[path.name]
    if path.suffix == ".mpqy" or path.exists() or path.name != str(model):
        return path
    names = ", ".join(known) or "none"
    raise ConfigError(f"no model '{model}': give the path of a .mpqy file, or a name that comes with the package: {names}")


class Detector:
    """A packed model, ready for photos. Several threads may call it at once.

    model: path of a `.mpqy` file, its bytes, or the name of a model that comes with the package. image_size: side of the
    network's input or (height, width), px, multiples of the model's stride, default as in the file. threads: for one photo.
    min_score, iou: defaults of `predict`; iou None is the model's own. names: of the classes.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        image_size: int | tuple[int, int] | None = None,
        threads: int = 1,
        min_score: float = 0.25,
        iou: float | None = None,
    ) -> None:
        self._model = Model(model if isinstance(model, (bytes, bytearray, memoryview)) else resolve(model))
        height, width = image_size if isinstance(image_size, (tuple, list)) else (image_size, image_size)
        for name, value in (("min_score", min_score), ("iou", iou)):
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} {value:g}: must be 0..1")
        self.min_score, self.iou, self.names = min_score, iou, self._model.names
        self._options = (height, width, threads)
        self._idle = [Session(self._model, *self._options)]  # made here, so that a wrong size fails here
        self.info = self._idle[0].info
        self._room = threading.Semaphore(MAX_SESSIONS)
        self._closed = False

    @overload
    def predict(
        self, source: list[Any] | tuple[Any, ...], *, min_score: float | None = None, iou: float | None = None
    ) -> list[Detections]: ...

    @overload
    def predict(self, source: Any, *, min_score: float | None = None, iou: float | None = None) -> Detections: ...

    def predict(self, source: Any, *, min_score: float | None = None, iou: float | None = None) -> Detections | list[Detections]:
        """Boxes on a photo, in its pixels, best first; for a list of photos a list.

        source: a path, a PIL image (its EXIF rotation is applied) or a uint8 array: (h, w, 3) RGB, (h, w, 4) RGBA or (h, w) grey.
        Raises ImageError for a photo that cannot be read.
        """
        min_score = self.min_score if min_score is None else min_score
        iou = self.iou if iou is None else iou
        with self._session() as session:
            if isinstance(source, (list, tuple)):
                return [session.detect(as_photo(one), min_score, iou) for one in source]
            return session.detect(as_photo(source), min_score, iou)

    def __call__(self, photos: Sequence[np.ndarray]) -> list[Detections]:
        """One Detections a photo, as `mpqyolo.evaluate.evaluate` wants it."""
        if isinstance(photos, np.ndarray) and photos.ndim < 4:
            raise ImageError("a list of photos is wanted here; for a single one call predict")
        return self.predict(list(photos))

    @contextmanager
    def _session(self) -> Iterator[Session]:
        with self._room:
            if self._closed:
                raise EngineError("this detector is closed")
            try:
                session = self._idle.pop()  # atomic: no lock
            except IndexError:
                session = Session(self._model, *self._options)
            try:
                yield session
            finally:
                if not self._closed:
                    self._idle.append(session)

    def close(self) -> None:
        """Frees memory and threads once no call is at work; later calls raise EngineError."""
        self._closed = True
        self._idle.clear()

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
