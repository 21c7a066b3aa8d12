"""SOURCE: photos, folders, patterns, video files, a camera; decoded ahead of the network."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np

from mpqyolo.core.errors import ConfigError, DataError, ImageError, MpqError
from mpqyolo.core.photo import photos_under, read_photo
from mpqyolo.data.prefetch import prefetch

VIDEOS = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv"}
DECODERS = 2


@dataclass(frozen=True)
class Frame:
    """One photo, or one picture of a film. photo: (h, w, 3) uint8 RGB, or None and the fault in one line.

    number: which picture of the film; -1 for a photo. rate: pictures a second, of a film.
    """

    source: str
    photo: np.ndarray | None = None
    fault: str = ""
    number: int = -1
    rate: float = 0.0


@dataclass(frozen=True)
class Group:
    """What one SOURCE stands for. kind: photos, film or camera. count: of frames, None if nobody knows."""

    kind: str
    name: str
    paths: tuple[Path, ...] = ()
    count: int | None = None

    def frames(self) -> Iterator[Frame]:
        """All frames in order, prepared ahead by threads."""
        if self.kind == "photos":
            return prefetch(_photo, self.paths, DECODERS)
        return ahead(_film(self.name, self.kind == "camera"))


def expand(source: str, out: Path | None = None) -> Group:
    """What SOURCE means; of a folder not what lies in the folder `out` inside it. Raises DataError if there is no such thing."""
    path = Path(source)
    if path.is_dir():
        paths = tuple(photos_under(path))
        if out is not None and out.resolve() != path.resolve():
            paths = tuple(file for file in paths if not file.resolve().is_relative_to(out.resolve()))
        if not paths:
            raise DataError(f"{source}: no photos in this folder")
        return Group("photos", source, paths, len(paths))
    if not path.exists() and source.isdecimal():
        return Group("camera", source)
    if not path.exists() and glob.has_magic(source):
        found = [Path(name) for name in sorted(glob.glob(source, recursive=True)) if Path(name).is_file()]
        if not found:
            raise DataError(f"{source}: no file fits this pattern")
        return Group("photos", source, tuple(found), len(found))
    if not path.exists():
        raise ImageError(f"{source}: there is no such file, folder or pattern")
    if path.suffix.lower() in VIDEOS:
        return Group("film", source)
    return Group("photos", source, (path,), 1)


def _photo(path: Path) -> Frame:
    try:
        return Frame(str(path), read_photo(path))
    except MpqError as fault:
        return Frame(str(path), fault=" ".join(str(fault).split()))


def _film(name: str, camera: bool) -> Iterator[Frame]:
    av = import_av()
    try:
        with av.open(f"/dev/video{name}", format="v4l2") if camera else av.open(name) as film:
            stream = film.streams.video[0]
            stream.thread_type = "AUTO"
            rate = float(stream.average_rate or 25)
            for number, picture in enumerate(film.decode(stream)):
                yield Frame(name, picture.to_ndarray(format="rgb24"), number=number, rate=rate)
    except (av.FFmpegError, OSError, IndexError, ValueError) as fault:
        what = f"camera {name}" if camera else name
        reason = getattr(fault, "strerror", None) or " ".join(str(fault).split())
        yield Frame(name, fault=f"{what}: cannot be read: {'no pictures in it' if isinstance(fault, IndexError) else reason}")


def import_av() -> Any:
    """The package that reads and writes films. Raises ConfigError if it is not installed."""
    try:
        import av
    except ImportError:
        raise ConfigError("films and cameras need the package av: pip install 'mpqyolo[video]'") from None
    return av


def ahead(frames: Iterator[Frame]) -> Iterator[Frame]:
    """The same frames, in order, the next one made by a thread while this one is in use."""
    take: Callable[[Iterator[Frame]], Frame | None] = lambda rest: next(rest, None)  # noqa: E731
    for frame in prefetch(take, repeat(frames), workers=1):
        if frame is None:
            return
        yield frame


def all_frames(groups: Iterable[Group]) -> Iterator[Frame]:
    """The frames of all groups, one group after the other."""
    return chain.from_iterable(group.frames() for group in groups)
