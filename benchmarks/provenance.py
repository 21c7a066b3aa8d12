"""Where a figure comes from: the command, the day, the commit and the class of machine, without names or places."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WIDE = ("avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8")  # beyond AVX2


def cpu_flags() -> set[str]:
    """What /proc/cpuinfo lists for the first core."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return set(next((line for line in info.splitlines() if line.startswith("flags")), "").split())


def machine_class() -> str:
    """Architecture, vector instructions that matter here, cores."""
    wide = [name for name in ("avx2", *WIDE) if name in cpu_flags()]
    return f"{platform.machine()} with {', '.join(wide) or 'no AVX2'}, {os.cpu_count()} cores"


def provenance() -> dict[str, Any]:
    """command (of paths the last part alone), date, commit, and the machine's class."""
    words = [Path(word).name if "/" in word else word for word in sys.argv[1:]]
    git = ["git", "rev-parse", "--short", "HEAD"]
    return {
        "command": " ".join([f"python benchmarks/{Path(sys.argv[0]).name}", *words]),
        "date": datetime.date.today().isoformat(),
        "commit": subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip(),
        "machine": {"class": machine_class(), "python": platform.python_version()},
    }
