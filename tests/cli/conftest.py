"""What the tests of the command line share: a small data set, one trained run, its packed file."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_call import call
from train_squares import TINY, make_squares


@pytest.fixture(scope="session", autouse=True)
def use_engine(engine: Path) -> None:
    """Every test here runs the engine just built."""


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_squares(tmp_path_factory.mktemp("cli") / "squares")


@pytest.fixture(scope="session")
def run(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run through all stages, a few seconds long; it has learned next to nothing."""
    out = tmp_path_factory.mktemp("cli") / "run"
    lengths = ("mosaic_off_epochs=1", "evaluate.every=6", "data.workers=0")
    words = ("--data", squares, "--out", out, "--epochs", 6, "--batch", 4, "--image-size", 64, "--set", TINY, *lengths)
    result = call("train", *words, "--json")
    assert result.code == 0, result.err
    assert result.json["out"] == str(out) and result.json["finished"] == "all epochs done"
    return out


@pytest.fixture(scope="session")
def packed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "tiny.mpqy"
    result = call("pack", run, "--out", out)
    assert result.code == 0 and "proven" in result.err, result.err
    return out
