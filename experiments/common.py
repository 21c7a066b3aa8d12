"""What run.py and table.py share: the lists of runs and studies, and where data, weights and run folders lie."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import tomllib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpqyolo.cli.resolve import RANDOM

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Experiment:
    """An entry of runs.toml, or one variant of a study in studies.toml (`role`: the variant's name).

    start: weights to start from, among the `--weights`. after: a run to start from.
    teacher: an ONNX detector as `model=file` or a YOLOv5 `.pt`, among the `--weights`, or a run.
    """

    name: str
    data: str
    model: str
    role: str
    recipe: str
    set: tuple[str, ...] = ()
    start: str = ""
    after: str = ""
    teacher: str = ""
    study: str = ""

    def sections(self, weights: Path, runs: Path, data_root: Path) -> dict[str, dict[str, Any]]:
        """What the recipe says of the network's size and of places."""
        family, size = RANDOM[self.model]
        sections = {"model": {"family": family, "size": size}, "data": {"path": str(data_root / self.data)}}
        if self.teacher:
            model, _, file = self.teacher.rpartition("=")
            path = weights / file if Path(file).suffix else experiments()[file].folder(runs)
            sections["teacher"] = {"model": model, "path": str(path), "always": True}
        return sections

    def begin(self, weights: Path, runs: Path, seed: int) -> Path | None:
        """What its weights start from."""
        if self.start:
            return weights / self.start
        return experiments()[self.after].folder(runs, seed) if self.after else None

    def about(self) -> dict[str, Any]:
        """What docs/results.json says of how it is trained."""
        origin = {key: value for key in ("start", "after", "teacher") if (value := getattr(self, key))}
        command = f"python experiments/run.py {self.name} --seed SEED"
        return {"command": command, "recipe": self.recipe, "set": list(self.set), **origin}

    def folder(self, runs: Path, seed: int = 0) -> Path:
        """Where its run with this seed lies."""
        return runs / (self.name + (f"-seed{seed}" if seed else ""))


def experiments() -> dict[str, Experiment]:
    """All entries of runs.toml by name."""
    return {entry["name"]: Experiment(**entry | {"set": tuple(entry.get("set", ()))}) for entry in _read("runs.toml")["run"]}


def studies() -> dict[str, Experiment]:
    """All variants of all studies, by `STUDY.VARIANT`."""
    return {chosen.name: chosen for name, study in _read("studies.toml").items() for chosen in _variants(name, study)}


def _variants(name: str, study: dict[str, Any]) -> Iterator[Experiment]:
    common = {key: study[key] for key in ("data", "model", "start", "after", "teacher") if key in study}
    for variant, own in study["variants"].items():
        recipe, *rest = own if own and "=" not in own[0] else (study["recipe"], *own)
        yield Experiment(f"{name}.{variant}", **common, role=variant, recipe=recipe, set=(*study["set"], *rest), study=name)


def _read(name: str) -> dict[str, Any]:
    with (HERE / name).open("rb") as file:
        return tomllib.load(file)


def places(parser: argparse.ArgumentParser) -> None:
    """Options that say where things lie."""
    home = Path.home()
    parser.add_argument("--data-root", type=Path, default=Path(os.environ.get("MPQ_DATA", home / "mpq-data")))
    parser.add_argument("--weights", type=Path, default=Path(os.environ.get("MPQ_WEIGHTS", home / "mpq-weights")))
    parser.add_argument("--runs", type=Path, default=Path(os.environ.get("MPQ_RUNS", home / "mpq-runs")))


def machine() -> str:
    """What kind of machine this is, without its name."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    wide = [name for name, flag in (("AVX2", " avx2 "), ("AVX-512", " avx512f "), ("VNNI", "avx512_vnni")) if flag in flags]
    return f"{os.cpu_count()} cores, {platform.machine()} ({', '.join(wide)})"


def commit() -> str:
    """The commit that the figures were made at."""
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()


def replaced(role: str, roles: Collection[str]) -> bool:
    """Whether an entry was made again by today's recipe, or is of maps that are no default any more.

    Pictures and the README leave it out, docs/results.md keeps it.
    """
    return role.startswith("sign") or (role.endswith("_late") and role.removesuffix("_late") in roles)


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def table_row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
