"""Finds the native library, once a process: $MPQ_ENGINE, then the installed package, then a development build."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import mpqyolo
from mpqyolo.core.errors import EngineError
from mpqyolo.runtime._abi import ABI_VERSION, declare

NAME = {"darwin": "libmpqyolo.dylib", "win32": "mpqyolo.dll"}.get(sys.platform, "libmpqyolo.so")
BUILD = "cmake -S engine -B build/engine && cmake --build build/engine"


def places(name: str) -> Iterator[Path]:
    """Where a native library of this name may lie, the best first."""
    # An editable install has two package folders: the sources, and the one with what was built.
    for folder in mpqyolo.__path__:
        yield Path(folder) / "_engine" / name
    yield Path(mpqyolo.__file__).resolve().parents[2] / "build" / "engine" / name


def find() -> Path:
    """Path of the library. Raises EngineError with the way to build it if there is none."""
    wanted = os.environ.get("MPQ_ENGINE")
    if wanted:
        return Path(wanted)
    for path in places(NAME):
        if path.is_file():
            return path
    raise EngineError(f"the native engine ({NAME}) is not built; in the checkout: {BUILD}; or set MPQ_ENGINE to its path")


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """The loaded library with typed functions. Raises EngineError, one line."""
    path = find()
    try:
        loaded = ctypes.CDLL(str(path))
        loaded.mpq_abi_version.restype = ctypes.c_int32
        version = loaded.mpq_abi_version()
        if version == ABI_VERSION:
            return declare(loaded)
    except OSError as fault:
        raise EngineError(f"{path}: the native engine cannot be loaded: {fault}; build it: {BUILD}") from None
    except AttributeError:
        raise EngineError(f"{path}: not the library of mpqyolo; build it: {BUILD}") from None
    raise EngineError(f"{path}: has ABI version {version}, this package needs {ABI_VERSION}; build it again: {BUILD}")
