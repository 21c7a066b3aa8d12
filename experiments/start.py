"""What a float YOLOv5 run keeps as the paper family, before any training: python experiments/start.py RUN [WHAT ...]

mAP50 on val of the run, of the start that `--from` makes of it, and of that start with parts at the bits of policy `deep`: WHAT
is one of maps, head, weights-4, weights-1. Batch norm is estimated anew each time.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from common import experiments, percent, places
from torch import nn

from mpqyolo.detector.decode import TorchPredictor
from mpqyolo.evaluate import evaluate
from mpqyolo.quantize.apply import Handle, handles
from mpqyolo.train.ema import reestimate_bn
from mpqyolo.train.parallel import Ranks
from mpqyolo.train.recipe_file import load_recipe
from mpqyolo.train.run import Run


def in_backbone(handle: Handle, part: str) -> bool:
    return handle.name.startswith("backbone") and handle.part == part


PARTS: dict[str, Callable[[Handle], bool]] = {
    "maps": lambda h: in_backbone(h, "activation"),
    "head": lambda h: not h.name.startswith("backbone"),
    "weights-4": lambda h: in_backbone(h, "weight") and h.bits == 4,
    "weights-1": lambda h: in_backbone(h, "weight") and h.bits == 1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", choices=sorted(experiments()))
    parser.add_argument("what", nargs="*", default=list(PARTS))
    places(parser)
    options = parser.parse_args()
    chosen = experiments()[options.run]
    for family in ("yolov5", "paper"):
        recipe = load_recipe(
            "float" if family == "yolov5" else "tuned",
            (f"model.family={family}", f"model.policy={'float' if family == 'yolov5' else 'deep'}", "data.workers=0"),
            data={"path": str(options.data_root / chosen.data)},
            start=str(chosen.folder(options.runs)),
        )
        with tempfile.TemporaryDirectory() as out:
            run = Run(recipe, Path(out), Ranks())

        def score(model: nn.Module, run: Run = run) -> str:
            predict = TorchPredictor(model.eval(), run.recipe.image_size, batch=16, names=run.recipe.model.classes)
            return percent(float(evaluate(predict, run.val_set, 16, None).map50))

        if family == "paper":
            run.fit_start()
        print(f"{family:<10} {score(copy.deepcopy(run.model))}", flush=True)
    for what in options.what:
        model = copy.deepcopy(run.model)
        for handle in filter(PARTS[what], handles(model)):
            handle.quantiser.set_strength(1)
        with torch.no_grad():
            model.train()(next(iter(run.clean_batches())))  # scales are set by the first batch
        reestimate_bn(model, run.clean_batches())
        print(f"{what:<10} {score(model)}", flush=True)


if __name__ == "__main__":
    main()
