"""What the tests of the command line share: the built engine, a small data set, one trained run, its packed file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cli_call import TINY, call
from engine_build import build_engine
from train_squares import make_squares


@pytest.fixture(scope="session", autouse=True)
def engine() -> Iterator[Path]:
    library = build_engine() / "libmpqyolo.so"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPQ_ENGINE", str(library))
        patch.delenv("MPQ_ISA", raising=False)
        patch.setenv("OMP_NUM_THREADS", "1")  # of commands in processes of their own
        yield library


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are so small that a second thread only waits; and commands set torch's threads for the whole process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
