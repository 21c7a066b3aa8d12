"""What the tests of the engine share: Python runs the one just built."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def use_engine(engine: Path) -> None:
    """Every test here runs the engine just built."""
