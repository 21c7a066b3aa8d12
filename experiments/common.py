"""What run.py and table.py share: the list of runs, and where data, weights and run folders lie."""

from __future__ import annotations

import argparse
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Experiment:
    """An entry of runs.toml."""

    name: str
    data: str
    model: str
    role: str
    recipe: str
    set: tuple[str, ...] = ()
    start: str = ""


def experiments() -> dict[str, Experiment]:
    """All entries of runs.toml by name."""
    with (HERE / "runs.toml").open("rb") as file:
        entries = tomllib.load(file)["run"]
    return {entry["name"]: Experiment(**{**entry, "set": tuple(entry.get("set", ()))}) for entry in entries}


def places(parser: argparse.ArgumentParser) -> None:
    """Options that say where things lie."""
    home = Path.home()
    parser.add_argument("--data-root", type=Path, default=Path(os.environ.get("MPQ_DATA", home / "mpq-data")))
    parser.add_argument("--weights", type=Path, default=Path(os.environ.get("MPQ_WEIGHTS", home / "mpq-weights")))
    parser.add_argument("--runs", type=Path, default=Path(os.environ.get("MPQ_RUNS", home / "mpq-runs")))
