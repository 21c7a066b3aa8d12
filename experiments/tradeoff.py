"""What a byte and a millisecond buy: mAP50 of the packed models over their bytes and over the engine's time.

    python experiments/tradeoff.py [--data-root DIR] [--isa avx2] [--rounds 40]

Takes the packed runs that docs/results.json knows, times networks of their shape and bits in turns on one thread (on a quiet
machine; times do not depend on weights), and writes docs/tradeoff.json and a picture for each data set; table.py puts them into
docs/results.md. Scores are for val and test together, means over seeds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, Experiment, commit, experiments, machine, percent, places, replaced, table_row

from mpqyolo.data.formats import load
from mpqyolo.format.writer import write_model
from mpqyolo.pack.pack import graph_of
from mpqyolo.runtime.session import Model, Session
from mpqyolo.train.checkpoint import make_model
from mpqyolo.train.recipe_file import load_recipe

DOCS = HERE.parent / "docs"
WARM_UP = 3  # rounds
COLOURS = {
    "mpq": "#1f6f4a",
    "sign": "#1f6f4a",
    "mixed": "#2a5f9f",
    "w1a2": "#2f8f8f",
    "w1a4": "#6f9f3f",
    "w4a4": "#b4552d",
    "deep": "#6f4a9f",
}


def median_ms(runs: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median time of each call; they take turns."""
    times: list[list[float]] = []
    for _ in range(WARM_UP + rounds):
        times.append([])
        for run in runs:
            begin = time.perf_counter()
            run()
            times[-1].append(1e3 * (time.perf_counter() - begin))
    return [float(ms) for ms in np.median(times[WARM_UP:], 0)]


def packed_run(chosen: Experiment, image_size: int, options: argparse.Namespace) -> Callable[[], object]:
    """One run of the engine, on one thread, through a network of this entry's shape and bits."""
    recipe = load_recipe(chosen.recipe, chosen.set, **chosen.sections(options.weights, options.runs, options.data_root))
    classes = load(recipe.data.path, "val", recipe.model.classes or None).classes
    network = make_model(recipe.model.model_copy(update={"classes": classes}))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.mpqy"
        write_model(graph_of(network.eval(), image_size), file)
        session = Session(Model(file), threads=1, isa=options.isa)
    return partial(session.run, np.zeros((image_size, image_size, 3), np.uint8))


def measure(chosen: list[tuple[Experiment, dict[str, Any]]], options: argparse.Namespace) -> list[dict[str, Any]]:
    times = median_ms([packed_run(c, e["image_size"], options) for c, e in chosen], options.rounds)
    return [
        {"data": c.data, "model": c.model, "role": c.role, "map50": e["packed_both_map50"], "bytes": e["bytes"], "ms": ms}
        for (c, e), ms in zip(chosen, times, strict=True)
    ]


def apart(points: list[tuple[float, float]]) -> list[float]:
    """Heights for words to the right of points (x, y), so that no two of them lie on each other."""
    (left, right), (low, high) = ((min(values), max(values)) for values in zip(*points, strict=True))
    placed: dict[int, float] = {}
    for k in sorted(range(len(points)), key=lambda k: points[k][1]):
        x, y = points[k]
        for other in sorted(placed, key=lambda other: placed[other]):
            if abs(points[other][0] - x) < (right - left) / 3:
                y = max(y, placed[other] + (high - low) / 22) if placed[other] > y - (high - low) / 22 else y
        placed[k] = y
    return [placed[k] for k in range(len(points))]


def draw(points: list[dict[str, Any]], floats: dict[str, float], words: tuple[str, str], path: Path) -> None:
    """Points over bytes and over ms; lines are the float networks. words: the title, and on which photos the scores are."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    panels = (("bytes", 1e3, "KB of the packed file"), ("ms", 1, "ms a photo, network only, 1 thread"))
    for axis, (key, unit, label) in zip(axes, panels, strict=True):
        places = apart([(point[key] / unit, 100 * point["map50"]) for point in points])
        for point, place in zip(points, places, strict=True):
            x, y = point[key] / unit, 100 * point["map50"]
            axis.plot(x, y, "o", color=COLOURS.get(point["role"].split("_")[0], "#555555"))
            axis.annotate(f"  {point['model']} {point['role']}".rstrip(), (x, place), fontsize=8, va="center")
        for name, value in floats.items():
            axis.axhline(100 * value, color="#b8bcc2", lw=1)
            place = {"xy": (0.99, 100 * value), "xycoords": ("axes fraction", "data")}
            axis.annotate(name, **place, fontsize=8, ha="right", va="bottom", color="#777777")
        axis.set_xlabel(label, fontsize=9)
        axis.set_xlim(0, 1.3 * max(point[key] / unit for point in points))
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    axes[0].set_ylabel(f"mAP50, {words[1]}, %", fontsize=9)
    figure.suptitle(words[0], fontsize=10)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def tradeoff_lines() -> list[str]:
    """Lines of docs/results.md; none if nothing was measured."""
    file = DOCS / "tradeoff.json"
    if not file.is_file():
        return []
    document = json.loads(file.read_text())
    made = f"`{document['command']}` ({document['date']}, commit {document['commit']}, {document['machine']})"
    lines = ["", "## What a byte and a millisecond buy", "", made, ""]
    lines += [table_row(("data", "model", "mAP50, val+test", "bytes", "ms", "mAP50 per 100 KB", "per ms")), "|---" * 7 + "|"]
    for p in document["points"]:
        per = (f"{1e7 * p['map50'] / p['bytes']:.1f}", f"{100 * p['map50'] / p['ms']:.1f}")
        cells = (p["data"], f"{p['model']} {p['role']}", percent(p["map50"]), f"{p['bytes']:,}", f"{p['ms']:.2f}", *per)
        lines.append(table_row(cells))
    for data in dict.fromkeys(p["data"] for p in document["points"]):
        lines += ["", f"![mAP50 over bytes and over time, {data}](tradeoff-{data}.png)"]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", default="avx2")
    parser.add_argument("--rounds", type=int, default=40)
    places(parser)
    options = parser.parse_args()
    results = json.loads((DOCS / "results.json").read_text())["results"]
    chosen = []
    for run in experiments().values():
        entry = results.get(run.data, {}).get(run.model, {}).get(run.role, {})
        if "packed_both_map50" in entry:
            chosen.append((run, entry))
    points = measure(chosen, options)
    for data in dict.fromkeys(point["data"] for point in points):
        now = {(m, role): e for m, roles in results[data].items() for role, e in roles.items() if not replaced(role, roles)}
        mine = [point for point in points if point["data"] == data and (point["model"], point["role"]) in now]
        entries = {" ".join(name): entry for name, entry in now.items()}
        floats = {name: e["both_map50"] for name, e in entries.items() if "bytes" not in e and "both_map50" in e}
        draw(mine, floats, (data, "val and test"), DOCS / f"tradeoff-{data}.png")
    document = {
        "command": f"python experiments/tradeoff.py --isa {options.isa} --rounds {options.rounds}",
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine(),
        "points": points,
    }
    (DOCS / "tradeoff.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
