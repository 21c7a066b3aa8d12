"""What all training tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from train_squares import make_squares


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_squares(tmp_path_factory.mktemp("squares") / "data")
