"""Annotated pictures and films, written beside the work of the network."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mpqyolo.cli.sources import Frame, import_av
from mpqyolo.core.detections import Detections

KEPT = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
WAITING = 4  # pictures that may wait to be written


class Pictures:
    """A folder of annotated pictures. Names are those of the sources; a second one of the same name gets a number.

    Raises ImageError or OSError, at the latest at the end, for what cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._jobs: deque[Future[Any]] = deque()
        self._names: set[str] = set()
        self._film: _Film | None = None

    def __enter__(self) -> Pictures:
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if self._film:
            self._film.close()
        if kind is None:
            for job in self._jobs:
                job.result()

    def add(self, frame: Frame, found: Detections) -> None:
        """Write the frame with its boxes: films into one film, photos one by one."""
        assert frame.photo is not None
        while len(self._jobs) >= WAITING:
            self._jobs.popleft().result()
        self._jobs.append(self._pool.submit(self._write, frame, frame.photo, found))

    def _write(self, frame: Frame, photo: np.ndarray, found: Detections) -> None:
        if frame.number < 0:
            path = Path(frame.source)
            suffix = path.suffix if path.suffix.lower() in KEPT else ".jpg"
            found.save(self.folder / self._name(path.stem, suffix), photo)
            return
        if self._film is None or frame.number == 0:
            if self._film:
                self._film.close()
            stem = Path(frame.source).stem if not frame.source.isdecimal() else f"camera{frame.source}"
            self._film = _Film(self.folder / self._name(stem, ".mp4"), photo.shape, frame.rate)
        self._film.add(np.asarray(found.draw(photo)))

    def _name(self, stem: str, suffix: str) -> str:
        name, number = stem + suffix, 1
        while name in self._names:
            number += 1
            name = f"{stem}-{number}{suffix}"
        self._names.add(name)
        return name


class _Film:
    def __init__(self, path: Path, shape: tuple[int, ...], rate: float) -> None:
        av = import_av()
        self._av, self._file = av, av.open(str(path), "w")
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        self._stream = self._file.add_stream(codec, rate=Fraction(rate).limit_denominator(1000))
        height, width = shape[:2]
        # These codecs want even sides.
        self._stream.height, self._stream.width, self._stream.pix_fmt = height - height % 2, width - width % 2, "yuv420p"

    def add(self, picture: np.ndarray) -> None:
        picture = np.ascontiguousarray(picture[: self._stream.height, : self._stream.width])
        for packet in self._stream.encode(self._av.VideoFrame.from_ndarray(picture, format="rgb24")):
            self._file.mux(packet)

    def close(self) -> None:
        for packet in self._stream.encode():
            self._file.mux(packet)
        self._file.close()
