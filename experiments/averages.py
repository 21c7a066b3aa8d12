"""What averaged weights and re-estimated statistics of batch norm give: the last weights of a finished run, scored four ways.

python experiments/averages.py NAME [--seed S] [--data-root DIR] [--runs DIR]

On val and test together, with the quantisers' float operations (`val --as-trained`). Writes into docs/averages.json.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
from dataclasses import replace
from typing import Any

import torch
from common import HERE, commit, experiments, machine, places

from mpqyolo.data.formats import load
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
    val, test = (load(str(options.data_root / chosen.data), split) for split in ("val", "test"))
    data = replace(val, split="val+test", items=(*val.items, *test.items))
    scores = {}
    for name, source in (("average", run.ema.model), ("last", run.model)):
        for estimated in (True, False):
            model = copy.deepcopy(source).eval()
            if estimated:
                reestimate_bn(model, run.clean_batches(recipe.image_size))
            with torch.no_grad():
                result = evaluate(TorchPredictor(model, recipe.image_size, names=run.recipe.model.classes), data)
            scores[f"{name}, {'statistics re-estimated' if estimated else 'statistics of training'}"] = round(result.map50, 4)
            print(f"{name:<8} re-estimated: {estimated!s:<6} mAP50 {100 * result.map50:.1f}")
    document: dict[str, Any] = json.loads(FILE.read_text()) if FILE.is_file() else {}
    command = f"python experiments/averages.py {options.name} --seed {options.seed}"
    about = {"command": command, "date": datetime.date.today().isoformat(), "commit": commit(), "machine": machine()}
    document[f"{options.name}/{options.seed}"] = about | {"both_map50": scores}
    FILE.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
