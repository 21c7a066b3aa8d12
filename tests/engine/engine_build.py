"""Builds the engine for tests, or finds it up to date: plain in build/engine, with sanitizers in build/engine-sanitize."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def build_engine(sanitize: bool = False) -> Path:
    """The build folder: libmpqyolo, mpq_check_file, mpq_exam_*, mpq_bench, detect. Skips without a compiler."""
    if not shutil.which("cmake") or not (shutil.which("c++") or shutil.which("clang++") or shutil.which("g++")):
        pytest.skip("no cmake or no C++ compiler: the engine cannot be built here")
    folder = ROOT / "build" / ("engine-sanitize" if sanitize else "engine")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:  # test runs side by side build once
        fcntl.flock(lock, fcntl.LOCK_EX)
        options = ["-DMPQ_TESTS=ON", f"-DMPQ_SANITIZE={'ON' if sanitize else 'OFF'}"]
        configure = ["cmake", "-S", ROOT / "engine", "-B", folder, *options]
        if shutil.which("ninja") and not (folder / "CMakeCache.txt").exists():
            configure += ["-G", "Ninja"]
        targets = ["--target", "mpq_check_file", "mpq_exam_kernels"] if sanitize else []
        for command in (configure, ["cmake", "--build", folder, "--parallel", "2", *targets]):
            done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
            assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
            assert "warning:" not in done.stdout + done.stderr, done.stdout[-4000:]
    return folder


def run_tool(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a built program; the environment holds nothing but PATH and what is given."""
    arguments = [str(c) for c in command]
    path = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    return subprocess.run(arguments, capture_output=True, text=True, env=path | environment, timeout=600, check=False)
