"""results.csv and results.png: what happened, epoch by epoch. Both are made anew from the rows in the checkpoint,
so that a run that was killed and resumed has every row once."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpqyolo.train.files import part_of, settle, write_text

Row = Mapping[str, Any]
_LOSSES = ("loss", "box", "class", "distil_score", "distil_box", "distil_hint", "distil_backbone")
_SCORES = ("map", "map50", "voc_ap50")


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """One line an epoch; what was not measured stays empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _short(value) for name, value in row.items()} for row in rows)
    write_text(path, text.getvalue())


def draw_curves(path: Path, rows: Sequence[Row], stages: Sequence[tuple[str, float]]) -> None:
    """Losses, scores and rate over epochs; stages: (name, first epoch), drawn as vertical lines."""
    from matplotlib.figure import Figure  # slow to import, and a run without a finished epoch never needs it

    figure = Figure(figsize=(12, 4), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, title, names in zip(axes, ("loss", "validation", "rate"), (_LOSSES, _SCORES, ("lr",)), strict=True):
        for name in names:
            points = [(row["epoch"], row[name]) for row in rows if row.get(name) is not None]
            if points:
                axis.plot(*zip(*points, strict=True), marker="." if len(points) < 40 else None, label=name)
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        if title == "validation":
            axis.set_ylim(0, 1)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize=8)
        last = rows[-1]["epoch"] if rows else 1
        axis.set_xlim(0, last * 1.02)
        for name, epoch in stages:
            if 0 < epoch <= last:
                axis.axvline(epoch, color="grey", linestyle=":", linewidth=1)
            if epoch <= last:
                place = {"transform": axis.get_xaxis_transform(), "rotation": 90, "va": "top", "parse_math": False}
                axis.text(epoch, 1.0, f" {name}", fontsize=7, color="grey", **place).set_in_layout(False)
    figure.savefig(part_of(path), format="png", dpi=100)
    settle(path)


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
