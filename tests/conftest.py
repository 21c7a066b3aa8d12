"""What the tests of all rooms share: the built engine, and torch on one thread."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_build import build_engine

os.environ["OMP_NUM_THREADS"] = "1"  # of commands in processes of their own, too


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: of files that run side by side, the last should not be the one that takes minutes."""
    items.sort(key=lambda item: item.path.parent.name != "whole")


@pytest.fixture(scope="session")
def built() -> Path:
    """Folder of the plain build."""
    return build_engine()


@pytest.fixture(scope="session")
def sanitized() -> Path:
    """Folder of the build with AddressSanitizer and UBSan."""
    return build_engine(sanitize=True)


@pytest.fixture(scope="session")
def engine(built: Path) -> Iterator[Path]:
    """The library that Python loads, which is the one just built."""
    path = built / "libmpqyolo.so"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPQ_ENGINE", str(path))
        patch.delenv("MPQ_ISA", raising=False)
        patch.delenv("MPQ_KERNEL", raising=False)
        from mpqyolo.runtime._load import library

        library()
        yield path


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Bit for bit means: sums in one order. Networks of tests are so small that a second thread only waits."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
