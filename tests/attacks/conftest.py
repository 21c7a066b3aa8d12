"""The built engine, as in tests/engine."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))

import pytest
from engine_build import build_engine


@pytest.fixture(scope="session")
def sanitized() -> Path:
    """Folder of the build with AddressSanitizer and UBSan."""
    return build_engine(sanitize=True)
