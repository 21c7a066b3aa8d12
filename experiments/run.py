"""Start, or go on with, a run of runs.toml or a variant of studies.toml (STUDY.VARIANT):

python experiments/run.py NAME [--seed S] [--threads N] [--data-root DIR] [--runs DIR]
"""

from __future__ import annotations

import argparse

import torch
from common import experiments, places, studies

from mpqyolo.core.errors import TrainingError
from mpqyolo.pack.folded import folded
from mpqyolo.train.loop import train
from mpqyolo.train.recipe_file import RUN_FILE, load_recipe


def main() -> None:
    known = experiments() | studies()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(known))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    places(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    chosen = known[options.name]
    out = chosen.folder(options.runs, options.seed)
    sections = chosen.sections(options.weights, options.runs, options.data_root)
    recipe = load_recipe(chosen.recipe, [*chosen.set, f"seed={options.seed}"], **sections)
    begin = chosen.begin(options.weights, options.runs, options.seed)
    try:
        train(recipe, out, resume=(out / RUN_FILE).is_file(), from_=begin, exact=folded)
    except TrainingError as error:
        parser.exit(1, f"{options.name}: {error}\n")


if __name__ == "__main__":
    main()
