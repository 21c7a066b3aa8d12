"""How good the averaged weights are: what every evaluation of a run does."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps
from torch import nn

from mpqyolo.core.errors import PackError
from mpqyolo.data.sample import Dataset
from mpqyolo.detector.decode import TorchPredictor
from mpqyolo.evaluate import evaluate
from mpqyolo.quantize import health
from mpqyolo.train.ema import reestimate_bn
from mpqyolo.train.run import Run

SCORES = ("map", "map50", "voc_ap50")


def judge(
    run: Run, reestimate: bool, final: bool, progress: Callable[[int, int], None], say: Callable[[str], None]
) -> tuple[dict[str, float], nn.Module]:
    """Scores of the average on the val split, and the very network that got them: a copy, batch norm re-estimated if asked for.

    final: every layer has its bits; then the integer network that a file would hold is judged (`run.exact`), since two roundings
    of one network flip different bits, and scores on few photos differ by more than what one looks for. A network whose numbers
    do not fit a file yet is judged as it was trained, which `say` is told. Training state is not touched. Writes
    val_predictions.png. progress: called with (done, total) photos. Raises TrainingError if a layer's bits are all alike.
    """
    side = run.recipe.image_size if final else run.recipe.side(run.position.epoch)  # objects as large as they were in training
    model = copy.deepcopy(run.ema.model)
    if reestimate:
        with health.watch_bits(model) as shares:
            reestimate_bn(model, run.clean_batches(side))
        health.check_bits(shares)
    part = run.recipe.evaluate
    judged = model
    if final and run.exact and run.slots:
        try:
            judged = run.exact(model, run.recipe.image_size)
        except PackError as fault:
            say(f"scored as trained, since it could not be packed now: {fault}")
    predict = TorchPredictor(judged, side, batch=part.batch, names=run.recipe.model.classes)
    result = evaluate(predict, run.val_set, part.batch, progress)
    predictions_sheet(predict, run.val_set).save(run.out / "val_predictions.png")
    return {name: float(getattr(result, name)) for name in SCORES}, model


def predictions_sheet(predict: TorchPredictor, dataset: Dataset, count: int = 9, side: int = 320) -> Image.Image:
    """The first photos of the data set, spread over it, with what is found on them above a score of 0.25."""
    columns = 3
    chosen = np.unique(np.linspace(0, len(dataset) - 1, count).astype(int))
    sheet = Image.new("RGB", (columns * side, -(-len(chosen) // columns) * side), (114, 114, 114))
    for place, index in enumerate(chosen):
        photo = dataset.read(int(index))
        found = predict([photo])[0]
        picture = found[found.score >= 0.25].draw(photo)
        sheet.paste(ImageOps.contain(picture, (side, side)), (place % columns * side, place // columns * side))
    return sheet
