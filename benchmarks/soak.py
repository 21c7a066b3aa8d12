"""Steady service: thousands of photos from many threads through one Detector; memory must not grow, answers must not change.

    python benchmarks/soak.py MODEL [--photos 10000] [--threads 4] [--folder DIR] [--json FILE]

Exits with 1 if memory grew by more than 1 MiB after the first tenth, or an answer differed from the first one for its photo.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from provenance import provenance

from mpqyolo.core.photo import as_photo
from mpqyolo.runtime.detector import Detector

ALLOWED = 1 << 20  # bytes


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def photos_of(folder: Path | None) -> list[np.ndarray]:
    files = sorted(folder.rglob("*.jpg"))[:64] if folder else []
    if files:
        return [as_photo(file) for file in files]
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*rng.integers(100, 700, 2), 3), dtype=np.uint8) for _ in range(16)]


def soak(detector: Detector, photos: list[np.ndarray], count: int, threads: int) -> dict[str, Any]:
    """Every photo in turn, `count` in all; figures of time and memory."""
    right = [detector.predict(photo, min_score=0.05) for photo in photos]
    lock, place = threading.Lock(), iter(range(count))
    times, memory, wrong = np.zeros(count), np.zeros(count, np.int64), []

    def work() -> None:
        while True:
            with lock:
                i = next(place, None)
            if i is None:
                return
            start = time.perf_counter()
            found = detector.predict(photos[i % len(photos)], min_score=0.05)
            times[i] = time.perf_counter() - start
            same = right[i % len(photos)]
            if not (np.array_equal(found.xyxy, same.xyxy) and np.array_equal(found.score, same.score)):
                wrong.append(i)
            memory[i] = resident()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    total, first = time.perf_counter() - start, max(count // 10, 1)
    return {
        "photos": count,
        "threads": threads,
        "photos_per_s": count / total,
        "ms": {
            name: float(np.percentile(times, q) * 1e3) for name, q in (("median", 50), ("p95", 95), ("p99", 99), ("max", 100))
        },
        "drift": float(np.median(times[-first:]) / np.median(times[:first])),
        "rss_bytes": int(memory[-1]),
        "rss_growth_bytes": int(memory[first:].max() - memory[:first].max()),
        "different_answers": len(wrong),
    }


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("model", help="a .mpqy file, or the name of a carried model")
    parse.add_argument("--photos", type=int, default=10_000)
    parse.add_argument("--threads", type=int, default=4)
    parse.add_argument("--folder", type=Path, help="photos to use; noise of many sizes if not given")
    parse.add_argument("--json", type=Path)
    options = parse.parse_args()
    with Detector(options.model) as detector:
        figures = provenance() | soak(detector, photos_of(options.folder), options.photos, options.threads)
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(figures["different_answers"] > 0 or figures["rss_growth_bytes"] > ALLOWED)


if __name__ == "__main__":
    main()
