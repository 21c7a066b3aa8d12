"""The engine refuses every hostile file with one line and touches no memory that is not its own; the valid ones it runs."""

import re
from pathlib import Path

import numpy as np
from engine_build import run_tool
from make_attacks import attacks, base_model, valid_files

from mpqyolo.format.writer import dumps
from mpqyolo.graph.sample import random_model


def check_files(sanitized: Path, folder: Path, files: list[bytes]) -> list[str]:
    """What mpq_check_file says of each; it loads, plans, runs and decodes, under AddressSanitizer and UBSan."""
    paths = []
    for i, data in enumerate(files):
        paths.append(folder / f"{i}.mpqy")
        paths[-1].write_bytes(data)
    done = run_tool(sanitized / "mpq_check_file", *paths)
    assert done.returncode in (0, 1) and not done.stderr, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) == len(files)  # one line each
    return [line.removeprefix(f"{path}: ") for line, path in zip(lines, paths, strict=True)]


def test_every_attack_is_refused(sanitized: Path, tmp_path: Path):
    tried = attacks()
    for attack, line in zip(tried, check_files(sanitized, tmp_path, [a.data for a in tried]), strict=True):
        assert line != "accepted", attack.name
        assert 3 < len(line) < 500 and line.isprintable(), (attack.name, line)


def test_valid_files_are_accepted(sanitized: Path, tmp_path: Path):
    assert set(check_files(sanitized, tmp_path, list(valid_files().values()))) == {"accepted"}


def test_random_models_run_clean(sanitized: Path, tmp_path: Path):
    models = [dumps(random_model(np.random.default_rng(seed), size=(None, (32, 64))[seed % 2])) for seed in range(40)]
    assert set(check_files(sanitized, tmp_path, models)) == {"accepted"}


def test_damage_anywhere_is_noticed(sanitized: Path, tmp_path: Path):
    """A flipped bit anywhere without a mended checksum: refused, whatever it hit."""
    good, rng = dumps(base_model()), np.random.default_rng(5)
    files = []
    for bit in rng.integers(0, 8 * len(good), 200):
        flipped = bytearray(good)
        flipped[bit // 8] ^= 1 << bit % 8
        files.append(bytes(flipped))
    assert not any(re.fullmatch("accepted", line) for line in check_files(sanitized, tmp_path, files))
