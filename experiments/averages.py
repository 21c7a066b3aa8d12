"""What averaged weights and re-estimated statistics of batch norm give: the last weights of a finished run, scored several ways.

python experiments/averages.py NAME [--seed S] [--data-root DIR] [--runs DIR]

Statistics: those of training; of the batches that evaluations take, of this and of other epochs; of four times as many; of the
training photos as a detector sees them, not augmented. On val, with the quantisers' float operations (`val --as-trained`). Writes
into docs/averages.json.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import Any

import torch
from common import HERE, commit, experiments, machine, places
from torch import Tensor

from mpqyolo.data.formats import load
from mpqyolo.data.loader import val_batches
from mpqyolo.detector.decode import TorchPredictor
from mpqyolo.evaluate import evaluate
from mpqyolo.train.ema import reestimate_bn
from mpqyolo.train.parallel import processes
from mpqyolo.train.recipe_file import run_recipe
from mpqyolo.train.run import Run

FILE = HERE.parent / "docs" / "averages.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(experiments()))
    parser.add_argument("--seed", type=int, default=0)
    places(parser)
    options = parser.parse_args()
    chosen = experiments()[options.name]
    folder = chosen.folder(options.runs, options.seed)
    recipe = run_recipe(folder)
    with processes() as ranks:
        run = Run(recipe, folder, ranks)
        run.restore()
    val = load(str(options.data_root / chosen.data), "val")

    def drawn(epoch: int, count: int = recipe.evaluate.bn_batches) -> Iterator[Tensor]:
        batches = chain.from_iterable(run.loader.epoch(epoch + k, mosaic=False, size=recipe.image_size) for k in range(count))
        return (batch.images[: batch.labelled] for batch in islice(batches, count))

    plain = val_batches(run.train_set, recipe.image_size, recipe.batch)
    ways: dict[str, Callable[[], Iterable[Tensor]]] = {
        "training": lambda: (),
        **{f"batches of epoch {epoch}": partial(drawn, epoch) for epoch in range(4)},
        "four times as many": partial(drawn, 0, 4 * recipe.evaluate.bn_batches),
        "photos as deployed": lambda: (batch.images for batch in plain),
    }
    scores = {}
    for name, source, wanted in (("average", run.ema.model, list(ways)), ("last", run.model, list(ways)[:2])):
        for way in wanted:
            model = copy.deepcopy(source).eval()
            if way != "training":
                reestimate_bn(model, ways[way]())
            with torch.no_grad():
                result = evaluate(TorchPredictor(model, recipe.image_size, names=run.recipe.model.classes), val)
            scores[f"{name}, statistics of {way}"] = round(result.map50, 4)
            print(f"{name:<8} statistics of {way:<20} mAP50 {100 * result.map50:.1f}", flush=True)
    document: dict[str, Any] = json.loads(FILE.read_text()) if FILE.is_file() else {}
    command = f"python experiments/averages.py {options.name} --seed {options.seed}"
    about = {"command": command, "date": datetime.date.today().isoformat(), "commit": commit(), "machine": machine()}
    document[f"{options.name}/{options.seed}"] = about | {"val_map50": scores}
    FILE.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
