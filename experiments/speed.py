"""The speed section of docs/results.md, and its bar chart, from what benchmarks/latency.py --json wrote into docs/latency/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FLOAT, INT8 = "ort fp32 yolov5-relu", ("ort int8 yolov5-relu", "openvino int8 yolov5-relu")
WANTED = {  # (group, family): times ONNX Runtime fp32, times the best int8
    ("n-640", "paper"): (3.4, 2.2),
    ("s-640", "paper"): (3.8, 2.2),
    ("n-640", "mpq"): (6.0, 3.5),
    ("s-640", "mpq"): (7.0, 4.0),
}
Rows = dict[str, dict[str, Any]]  # of one group, by name


def groups(document: dict[str, Any]) -> dict[str, Rows]:
    """The rows that gave figures, by group and name."""
    found: dict[str, Rows] = {}
    for row in document["rows"]:
        if not row["fault"]:
            found.setdefault(row["group"], {})[row["name"]] = row
    return found


def _ms(row: dict[str, Any]) -> float:
    return float(row["all"]["median_ms"])


def compared(document: dict[str, Any]) -> dict[tuple[str, str], tuple[float, float, float]]:
    """(group, family) -> our ms, and how many times that ONNX Runtime fp32 and the best int8 take on its YOLOv5 (with ReLU)."""
    found = {}
    for group, rows in groups(document).items():
        int8 = [_ms(rows[name]) for name in INT8 if name in rows]
        for family in ("mpq", "mpq w1a2", "mpq w4a4", "paper"):
            ours = rows.get(f"engine {family}")
            if ours and FLOAT in rows and int8:
                found[group, family] = (_ms(ours), _ms(rows[FLOAT]) / _ms(ours), min(int8) / _ms(ours))
    return found


def ratios(document: dict[str, Any]) -> list[str]:
    """Rows of `compared`, with what was wanted."""
    lines = ["| | ms | x ONNX Runtime fp32 | wanted | x best int8 | wanted |", "|---" * 6 + "|"]
    for (group, family), (ms, fp32, int8) in compared(document).items():
        wanted = WANTED.get((group, family), ("", ""))
        lines.append(f"| {family} {group} | {ms:.2f} | {fp32:.2f} | {wanted[0]} | {int8:.2f} | {wanted[1]} |")
    return lines


def speed_sentence(folder: Path) -> str:
    """For the README: how many times faster than what a user has now."""
    file = folder / "avx2.json"
    if not file.is_file():
        return ""
    found = compared(json.loads(file.read_text()))
    parts = []
    for size in ("n", "s"):
        if (f"{size}-640", "mpq") in found:
            ms, fp32, int8 = found[f"{size}-640", "mpq"]
            faster = f"{fp32:.1f} times faster than ONNX Runtime in float, {int8:.1f} times faster than the best int8"
            parts.append(f"{size} {ms:.1f} ms, {faster}")
    if not parts:
        return ""
    return f"On one AVX2 core at 640 px: {'; '.join(parts)} (on the float YOLOv5 of that size, with ReLU).{wide_sentence(folder)}"


def wide_sentence(folder: Path) -> str:
    """The same with all that a CPU with AVX-512 has; empty if that was not measured."""
    file = folder / "best.json"
    if not file.is_file():
        return ""
    found = compared(json.loads(file.read_text()))
    parts = [f"{size} is {found[f'{size}-640', 'mpq'][2]:.1f} times as fast as the best int8" for size in ("n", "s")]
    return f" Where the CPU has AVX-512 and AMX, {' and '.join(parts)}."


def everything(document: dict[str, Any]) -> list[str]:
    """All contestants of all groups."""
    lines = ["| group | contestant | median ms | min ms | x mpq | x paper | peak RSS MiB | file KB | start s |", "|---" * 9 + "|"]
    for group, rows in groups(document).items():
        for name, row in sorted(rows.items(), key=lambda item: _ms(item[1])):
            times = [row["all"].get(f"times_{family}_median") for family in ("mpq", "paper")]
            cells = [f"{t:.2f}" if t else "" for t in times]
            start = f"{row['start_to_first_s']:.2f}" if row["start_to_first_s"] else ""
            cells += [f"{row['peak_rss_bytes'] / 2**20:.0f}", f"{row['file_bytes'] / 1e3:,.0f}", start]
            lines.append(f"| {group} | {name} | {_ms(row):.2f} | {row['all']['min_ms']:.2f} | {' | '.join(cells)} |")
    return lines


def heading(document: dict[str, Any]) -> str:
    held = "every contestant held to AVX2" if document["machine"]["isa"] == "avx2" else "every contestant with all the CPU has"
    counts = " and ".join(map(str, document["threads"]))
    return f"{held}, {counts} thread{'s' if counts != '1' else ''}"


def panels_of(document: dict[str, Any]) -> list[tuple[str, Rows]]:
    """Groups that have an engine and a float contestant."""
    return [(group, rows) for group, rows in groups(document).items() if FLOAT in rows and "engine mpq" in rows]


def chart(document: dict[str, Any], path: Path) -> None:
    """Bars of median milliseconds, one panel a group."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = panels_of(document)
    figure, axes = pyplot.subplots(len(panels), 1, figsize=(8, 0.9 + 2.6 * len(panels)), squeeze=False, layout="constrained")
    for axis, (group, rows) in zip(axes[:, 0], panels, strict=True):
        shown = sorted((r for r in rows.values() if "silu" not in r["name"] and "-float" not in r["name"]), key=_ms, reverse=True)
        names, times = [r["name"].removesuffix(" yolov5-relu") for r in shown], [_ms(r) for r in shown]
        bars = axis.barh(names, times, color=["#1f6f4a" if name.startswith("engine") else "#b8bcc2" for name in names])
        axis.bar_label(bars, [f"{t:.1f}" for t in times], padding=3, fontsize=8)
        axis.set_title(group.replace("-", " at "), loc="left", fontsize=10)
        axis.set_xlim(0, 1.1 * max(times))
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    axes[-1, 0].set_xlabel(
        "ms a photo, network only, median; engine: ours, others: float YOLOv5 of the same size (ReLU)", fontsize=8
    )
    figure.suptitle(heading(document), fontsize=10)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def training_lines(folder: Path) -> list[str]:
    """Section of docs/results.md: images a second of training, from what benchmarks/training.py --json wrote."""
    lines = []
    for file in sorted(folder.glob("training_speed*.json")):
        document = json.loads(file.read_text())
        sizes = document["sizes"]
        made = f"`{document['command']}` ({document['date']}, commit {document['commit']}, {document['machine']['class']})"
        title = "Held to AVX2, float32" if document["isa"] == "avx2" else "With all the CPU has"
        lines += ["", f"### {title}, {document['threads']} threads", "", made, ""]
        lines += [f"| | {' | '.join(f'{size} px' for size in sizes)} |", "|---" * (1 + len(sizes)) + "|"]
        for name in next(iter(sizes.values())):
            cells = []
            for found in sizes.values():
                ratio = found[name].get("ratio")
                cells.append(f"{found[name]['images_per_s']:.1f}" + (f" ({ratio:.2f})" if ratio else ""))
            lines.append(f"| {name} | {' | '.join(cells)} |")
    if not lines:
        return []
    about = ["Images a second, forward, loss, backward and step on batches of 16; medians of steps that took turns; in brackets"]
    about += ["how many times eager YOLOv5n (torch's operators alone) in the same round.", *lines]
    return ["", "## Training speed", "", *about]


def speed_lines(folder: Path) -> list[str]:
    """Lines of docs/results.md; draws latency/*.png beside the figures. None if nothing was measured."""
    files = sorted(folder.glob("*.json"))
    lines = (
        ["", "## Speed", "", "Medians of samples that took turns on one core; random weights, 80 classes, network only."]
        if files
        else []
    )
    for file in files:
        document = json.loads(file.read_text())
        title = heading(document)
        made = f"`{document['command']}` ({document['date']}, commit {document['commit']}, {document['machine']['class']})"
        lines += ["", f"### {title[0].upper()}{title[1:]}", "", made, ""]
        if panels_of(document):
            chart(document, file.with_suffix(".png"))
            lines += [*ratios(document), "", f"![{title}](latency/{file.stem}.png)", ""]
        lines += ["<details><summary>All contestants</summary>", ""]
        lines += [*everything(document), "", "</details>"]
    return lines
