"""Pictures of mAP50 on val over hours of training, stage by stage, of the runs in docs/results.json: docs/curves-DATA.png."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from common import replaced

COLOURS = ("#1f6f4a", "#b4552d", "#2a5f9f", "#8a5fa8", "#b08a1e", "#2f8f8f", "#6b7280", "#a83f5f")
DASHES = ("-", "--", ":")


def timed(models: dict[str, Any]) -> dict[str, list[list[Any]]]:
    """`model role` -> [[epoch, mAP50, hours, stage], ...] of the first seed, of entries that have hours and stand."""
    return {
        f"{model} {role}": entry["curve"]
        for model, roles in models.items()
        for role, entry in roles.items()
        if len(entry["curve"][0]) == 4 and not replaced(role, roles)
    }


def draw_curves(results: dict[str, Any], folder: Path) -> list[str]:
    """Draw one picture for each data set, and return the lines of docs/results.md that show them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = []
    for data, models in results.items():
        curves = timed(models)
        if not curves:
            continue
        figure, axis = pyplot.subplots(figsize=(9, 4), layout="constrained")
        styles = [{"color": colour, "ls": dashes} for dashes in DASHES for colour in COLOURS][: len(curves)]
        for (name, curve), style in zip(curves.items(), styles, strict=True):
            axis.plot([row[2] for row in curve], [100 * row[1] for row in curve], marker="o", ms=3, lw=1.4, label=name, **style)
            for before, row in pairwise(curve):
                if before[3] != row[3]:
                    place = {"xytext": (0, -12), "textcoords": "offset points", "fontsize": 6.5, "ha": "center"}
                    axis.annotate(row[3], (row[2], 100 * row[1]), color=style["color"], **place)
        axis.set(xlabel="hours", ylabel="mAP50 on val, %", ylim=(0, None), xlim=(0, None))
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
        axis.set_title(data, fontsize=10)
        figure.savefig(folder / f"curves-{data}.png", dpi=110)
        pyplot.close(figure)
        lines += ["", f"![mAP50 over hours of training, stage by stage, {data}](curves-{data}.png)"]
    head = "mAP50 on val while training, over hours (first seed; a stage's name stands where its first evaluation is)."
    return ["", "## Curves", "", head, *lines] if lines else []
