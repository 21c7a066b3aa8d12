"""The built engine, as in tests/engine, and a model to run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mpqyolo.format.writer import dumps
from mpqyolo.graph.ir import Model
from mpqyolo.graph.sample import random_model

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))

from engine_build import build_engine


@pytest.fixture(scope="session", autouse=True)
def engine() -> Iterator[Path]:
    """The library that Python loads, which is the one just built."""
    path = build_engine() / "libmpqyolo.so"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPQ_ENGINE", str(path))
        patch.delenv("MPQ_ISA", raising=False)
        from mpqyolo.runtime._load import library

        library()
        yield path


@pytest.fixture(scope="session")
def model() -> Model:
    """A small model that finds something in noise."""
    return random_model(np.random.default_rng(5), size=(64, 64))


@pytest.fixture(scope="session")
def model_file(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "x.mpqy"
    path.write_bytes(dumps(model))
    return path
