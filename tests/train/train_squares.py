"""Small photos of coloured squares, and runs on them that take seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mpqyolo.train.recipe import Recipe
from mpqyolo.train.recipe_file import load_recipe

TINY = "model.options={stem = 8, widths = [8, 8, 8, 8], depths = [1, 1, 1, 1], neck = [8, 8, 8]}"
COLOURS = {"red": (220, 40, 30), "blue": (30, 60, 220)}


def make_squares(root: Path, count: int = 8, side: int = 64) -> Path:
    """A YOLO data set: one square a photo, red or blue; train and val are the same photos."""
    rng = np.random.default_rng(7)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for index in range(count):
        pixels = rng.integers(90, 140, (side, side, 3), np.uint8)
        size, label = int(rng.integers(20, 40)), index % 2
        x, y = rng.integers(0, side - size, 2)
        pixels[y : y + size, x : x + size] = list(COLOURS.values())[label]
        Image.fromarray(pixels).save(root / "images" / f"{index}.png")
        box = ((x + size / 2) / side, (y + size / 2) / side, size / side, size / side)
        (root / "labels" / f"{index}.txt").write_text(f"{label} " + " ".join(f"{v:.6f}" for v in box))
    (root / "data.yaml").write_text("train: images\nval: images\nnames: [red, blue]\n")
    return root


def tiny_recipe(data: Path, source: str = "pnq", *overrides: str) -> Recipe:
    """Six epochs of two steps at 64 px, a network of some thousand weights; its own float network, passed at once, teaches on."""
    lengths = ("epochs=6", "batch=4", "image_size=64", "mosaic_off_epochs=1", "evaluate.every=3", "save_steps=1")
    alike = ("data.workers=0", "teacher.until_passed=false")
    return load_recipe(source, (TINY, *lengths, *alike, *overrides), data={"path": str(data)})
