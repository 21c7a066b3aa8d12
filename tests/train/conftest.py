"""What all training tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from train_squares import make_squares


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_squares(tmp_path_factory.mktemp("squares") / "data")


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Bit for bit means: sums in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
