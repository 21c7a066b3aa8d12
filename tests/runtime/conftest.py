"""What the tests of the runtime share: a model to run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpqyolo.format.writer import dumps
from mpqyolo.graph.ir import Model
from mpqyolo.graph.sample import random_model


@pytest.fixture(scope="session", autouse=True)
def use_engine(engine: Path) -> None:
    """Every test here runs the engine just built."""


@pytest.fixture(scope="session")
def model() -> Model:
    """A small model that finds something in noise."""
    return random_model(np.random.default_rng(5), size=(64, 64))


@pytest.fixture(scope="session")
def model_file(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "x.mpqy"
    path.write_bytes(dumps(model))
    return path
