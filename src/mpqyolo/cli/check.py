"""`mpqyolo check`: is this data set fit to train on?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from mpqyolo.cli.console import Json, Progress, emit, say
from mpqyolo.core.errors import ConfigError


def check(data: Path, /, *, workers: int = 2, json: Json = False) -> int:
    """Name every fault of a data set before anything trains on it.

    Bad labels with file and line, missing and broken photos, duplicates (also across splits). The exit code is 1 if there
    are errors; warnings are what readers mend by themselves.

    Parameters
    ----------
    data
        The data set: a VOC folder, a COCO folder or JSON file, a YOLO folder or `data.yaml`.
    workers
        Threads that decode photos.
    """
    if not 1 <= workers <= 64:
        raise ConfigError(f"--workers {workers}: must be 1..64")
    from mpqyolo.data.check import check as check_data

    with Progress("checking", "photos") as progress:
        report = check_data(data, workers, progress)
    if json:
        emit({"ok": report.ok, **report.counts, "problems": [asdict(problem) for problem in report.problems]})
        return 0 if report.ok else 1
    for problem in report.problems:
        print(f"{problem.severity}: {problem}")
    counts = report.counts
    for name, split in counts["splits"].items():
        extra = [f"{split[key]} {key.replace('_', ' ')}" for key in ("difficult", "crowd", "without_labels") if split[key]]
        print(f"{name:<6}  {split['images']} photos  {split['boxes']} boxes{''.join(f'  {words}' for words in extra)}")
    print("boxes by class: " + ", ".join(f"{name} {boxes}" for name, boxes in counts["per_class"].items()))
    kinds = [problem.severity for problem in report.problems]
    say(f"{data} ({counts['format']}): {kinds.count('error')} errors, {kinds.count('warning')} warnings")
    return 0 if report.ok else 1
