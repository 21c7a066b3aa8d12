"""GMAC/s and share of the peak of every kernel on the shapes of a detector's layers: mpq_bench_kernels as JSON or a table.

    python benchmarks/kernels.py [--tool build/engine/mpq_bench_kernels] [--filter w1b1] [--rounds 21] [--json FILE]

The peak is what each kernel's file derives: multiplications a cycle if its bounding instruction never waits.  The clock
that the core really has is measured beside every sample, so a share does not depend on the machine's frequency.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument(
        "--tool", type=Path, default=ROOT / "build" / "engine" / "mpq_bench_kernels", help="built with MPQ_TESTS=ON"
    )
    parse.add_argument("--filter", default="", help="part of a layer's or a kernel's name")
    parse.add_argument("--rounds", type=int, default=21)
    parse.add_argument("--json", type=Path)
    options = parse.parse_args()
    if not options.tool.is_file():
        parse.error(f"{options.tool} is not built: cmake -S engine -B build/engine -DMPQ_TESTS=ON && cmake --build build/engine")
    done = subprocess.run(
        [options.tool, options.filter, str(options.rounds)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    rows = []
    for line in done[1:]:
        *layer, kernel, median, best, share = line.rsplit(maxsplit=4)
        rows.append(
            {
                "layer": " ".join(layer),
                "kernel": kernel,
                "gmacs_median": float(median),
                "gmacs_best": float(best),
                "share_of_peak": None if share == "-" else float(share.rstrip("%")) / 100,
            }
        )
    print("\n".join(done))
    if options.json:
        options.json.write_text(json.dumps({"rounds": options.rounds, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
