"""What tests of packing share: the built engine, photos of squares, and small networks trained on them for some steps."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))

from engine_build import build_engine
from train_squares import make_squares, tiny_recipe

from mpqyolo.train import loop

POLICIES = ("default", "paper", "w4a4")


@pytest.fixture(scope="session")
def engine() -> Iterator[Path]:
    """The library that Python loads, which is the one just built."""
    path = build_engine() / "libmpqyolo.so"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPQ_ENGINE", str(path))
        patch.delenv("MPQ_ISA", raising=False)
        yield path


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_squares(tmp_path_factory.mktemp("squares") / "data", count=16)


@pytest.fixture(scope="session")
def runs(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run folder for each policy: a tiny network that finds squares, quantised from the first step."""
    torch.set_num_threads(1)
    root, found = tmp_path_factory.mktemp("runs"), {}
    for policy in POLICIES:
        found[policy] = root / policy
        wishes = ("epochs=60", "evaluate.every=60", "optimiser.lr=4e-3", "batch=8", f"model.policy={policy}")
        widths = "model.options={stem = 16, widths = [16, 32, 64, 64], depths = [1, 1, 1, 1], neck = [16, 16, 24]}"
        loop.train(tiny_recipe(squares, "direct", *wishes, "save_steps=1000", widths), found[policy])
    return found
