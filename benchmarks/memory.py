"""Peak resident memory of the C example (examples/c/detect.c) with a packed model and one photo of 1280x720.

    python benchmarks/memory.py MODEL.mpqy [--tool build/engine/detect] [--most MIB]

Nothing but the standard library is imported: Linux counts what the parent held before exec, too, so the parent must be small.
Exits with 1 if it is more than --most.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def peak_bytes(command: list[str]) -> int:
    """Peak resident bytes of a program that ends well. Raises SystemExit with its last line else."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command[0]} failed")
    return usage.ru_maxrss * 1024


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("model", type=Path)
    parse.add_argument("--tool", type=Path, default=ROOT / "build" / "engine" / "detect")
    parse.add_argument("--most", type=float, help="MiB that are allowed")
    options = parse.parse_args()
    with tempfile.NamedTemporaryFile(suffix=".ppm") as photo:
        photo.write(b"P6\n1280 720\n255\n")
        for _ in range(720):
            photo.write(random.randbytes(1280 * 3))
        photo.flush()
        peak = peak_bytes([str(options.tool), str(options.model), photo.name]) / 2**20
    print(f"{peak:.1f} MiB")
    sys.exit(options.most is not None and peak > options.most)


if __name__ == "__main__":
    main()
