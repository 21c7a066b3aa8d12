"""Files that are whole or not there: a kill at any moment leaves the old or the new one."""

from __future__ import annotations

import os
from pathlib import Path


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
