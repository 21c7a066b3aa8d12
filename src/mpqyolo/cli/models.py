"""`mpqyolo models`: the names that MODEL can be."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpqyolo.cli.console import Json, emit
from mpqyolo.cli.resolve import RANDOM

SECONDS = 0.2  # that a model is timed for


def models(*, json: Json = False) -> int:
    """The models that come with the package: bytes, accuracy, milliseconds here on one core, data and licences; and the names of
    networks with random weights (for info and bench).
    """
    from mpqyolo.runtime.detector import carried_models

    rows = [_row(name, path) for name, path in carried_models().items()]
    if json:
        emit({"carried": rows, "random": list(RANDOM)})
        return 0
    for row in rows:
        _show(row)
    if not rows:
        print("no trained model comes with this installation")
    print(f"with random weights: {', '.join(RANDOM)}")
    return 0


def _row(name: str, path: Path) -> dict[str, Any]:
    from mpqyolo.cli.bench import measure
    from mpqyolo.format.reader import read_model

    model = read_model(path)
    return {
        "name": name,
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "classes": list(model.classes),
        "image_size": list(model.graph.tensors[model.graph.input].shape[1:]),
        "policy": model.policy.get("name"),
        "median_ms": measure(str(path), seconds=SECONDS)["median_ms"],
        "card": dict(model.card),
    }


def _show(row: dict[str, Any]) -> None:
    card, (height, width) = row["card"], row["image_size"]
    metrics = card.get("metrics", {})
    scores = [
        f"{name} {100 * metrics[key]:.1f}"
        for name, key in (("test", "packed_test_map50"), ("val", "packed_val_map50"))
        if isinstance(metrics.get(key), float)
    ]
    print(f"{row['name']}")
    for key, value in (
        ("size", f"{row['bytes']:,} bytes, policy {row['policy']}"),
        ("mAP50", ", ".join(scores) or "not stated"),
        ("time", f"{row['median_ms']:.2f} ms at {height}x{width} px, network alone, one thread, on this machine now"),
        ("classes", ", ".join(row["classes"])),
        ("trained", _recipe(card.get("recipe"))),
        ("data", card.get("data", "not stated")),
        ("teacher", card.get("teacher") or _teacher(card.get("recipe"))),
        ("licence", card.get("licence", "not stated")),
        ("sha256", row["sha256"]),
    ):
        print(f"  {key:<8} {value}")


def _teacher(recipe: Any) -> str:
    if not isinstance(recipe, Mapping):
        return "not stated"
    own = any(stage.get("distil") for stage in recipe.get("stages", ()))
    return recipe.get("teacher", {}).get("path") or ("its own float network" if own else "none")


def _recipe(recipe: Any) -> str:
    """The recipe in a line; `mpqyolo info NAME` prints it whole."""
    if not isinstance(recipe, Mapping):
        return str(recipe or "not stated")
    stages = ", ".join(stage["name"] for stage in recipe.get("stages", ()))
    return f"{recipe.get('epochs', 100)} epochs" + (f": {stages}" if stages else "")
