"""Files that are whole or not there: a kill at any moment leaves the old or the new one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mpqyolo.core.errors import ConfigError


def part_of(path: Path) -> Path:
    """Where to write what will take the name `path`; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(path.name + ".part")


def settle(path: Path) -> None:
    """Bring the finished part file to disk, then to its name."""
    part = part_of(path)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8."""
    part_of(path).write_text(text, encoding="utf-8")
    settle(path)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The folder, made if need be, is this process's alone until the block or the process ends, however that is.

    Raises ConfigError if another holds it. File systems that cannot lock a folder (NFS) hold nothing.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{folder}: a training is running in it; wait for its end, or choose another --out") from None
        except OSError:
            pass
        yield
    finally:
        os.close(handle)
        if made:
            with suppress(OSError):  # it holds something
                folder.rmdir()
