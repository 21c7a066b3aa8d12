"""`mpqyolo models`: the names that MODEL can be."""

from __future__ import annotations

from typing import Any

from mpqyolo.cli.console import Json, emit
from mpqyolo.cli.resolve import RANDOM


def models(*, json: Json = False) -> int:
    """The models that come with the package, and the names of networks with random weights (for info and bench)."""
    from mpqyolo.format.reader import read_model
    from mpqyolo.runtime.detector import carried_models

    rows: list[dict[str, Any]] = []
    for name, path in carried_models().items():
        model = read_model(path)
        rows.append(
            {
                "name": name,
                "path": str(path),
                "bytes": path.stat().st_size,
                "classes": list(model.classes),
                "image_size": list(model.graph.tensors[model.graph.input].shape[1:]),
                "card": dict(model.card),
            }
        )
    if json:
        emit({"carried": rows, "random": list(RANDOM)})
        return 0
    for row in rows:
        height, width = row["image_size"]
        print(f"{row['name']}  {row['bytes']:,} bytes  {height}x{width} px  {', '.join(row['classes'])}")
    if not rows:
        print("no trained model comes with this installation")
    print(f"with random weights: {', '.join(RANDOM)}")
    return 0
