"""What the tests of engine, runtime and attacks share: the built engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_build import build_engine


@pytest.fixture(scope="session")
def built() -> Path:
    """Folder of the plain build."""
    return build_engine()


@pytest.fixture(scope="session", autouse=True)
def engine(built: Path) -> Iterator[Path]:
    """The library that Python loads, which is the one just built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPQ_ENGINE", str(built / "libmpqyolo.so"))
        patch.delenv("MPQ_ISA", raising=False)
        patch.delenv("MPQ_KERNEL", raising=False)
        from mpqyolo.runtime._load import library

        library()
        yield built / "libmpqyolo.so"


@pytest.fixture(scope="session")
def sanitized() -> Path:
    """Folder of the build with AddressSanitizer and UBSan."""
    return build_engine(sanitize=True)
