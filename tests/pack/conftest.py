"""What tests of packing share: photos of squares, and small networks trained on them for some steps."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from train_squares import make_squares, tiny_recipe

from mpqyolo.core.image import letterbox
from mpqyolo.data.formats import load
from mpqyolo.data.sample import Dataset
from mpqyolo.detector.loss import DetectionLoss
from mpqyolo.quantize.apply import handles
from mpqyolo.train.checkpoint import BEST, make_model, save_tensors
from mpqyolo.train.ema import reestimate_bn
from mpqyolo.train.recipe import Recipe
from mpqyolo.train.recipe_file import save_recipe

POLICIES = ("default", "paper", "w1a2", "w4a4")
SIDE = 64
STEPS = 120
RATE = 1e-2


class Trained(NamedTuple):
    """A network that finds squares, and its run folder."""

    model: nn.Module
    recipe: Recipe
    folder: Path


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(make_squares(tmp_path_factory.mktemp("squares") / "data", count=16, side=SIDE), "val")


def fit(model: nn.Module, data: Dataset) -> None:
    """Quantised from the first step, all photos a batch; batch-norm statistics as after training."""
    images = torch.from_numpy(np.stack([letterbox(data.read(i), SIDE, SIDE)[0] for i in range(len(data))])).permute(0, 3, 1, 2)
    rows = [[i, label, *box] for i, item in enumerate(data.items) for label, box in zip(item.label, item.xyxy, strict=True)]
    targets, loss = torch.tensor(np.array(rows, np.float32)), DetectionLoss(len(data.classes), (8, 16, 32))
    for handle in handles(model):
        handle.quantiser.set_strength(1)
    model.train()
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=STEPS)
    for _ in range(STEPS):
        total, _ = loss(model(images), targets, SIDE)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        schedule.step()
    reestimate_bn(model, [images])


@pytest.fixture(scope="session")
def trained(squares: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """One for each policy."""
    root, found = tmp_path_factory.mktemp("runs"), {}
    torch.set_num_threads(1)
    for policy in POLICIES:
        options = "model.options={stem = 16, widths = [16, 32, 32, 64], depths = [1, 1, 1, 1], neck = [16, 16, 24]}"
        recipe = tiny_recipe(squares.root, "direct", f"model.policy={policy}", options)
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"classes": squares.classes})})
        torch.manual_seed(0)
        model = make_model(recipe.model)
        fit(model, squares)
        save_recipe_in(root / policy, recipe)
        save_tensors(root / policy / BEST, model.state_dict(), {"epoch": 7, "map": 0.5, "map50": 0.75})
        found[policy] = Trained(model.eval(), recipe, root / policy)
    return found


def save_recipe_in(folder: Path, recipe: Recipe) -> None:
    folder.mkdir(parents=True)
    save_recipe(folder, recipe)
