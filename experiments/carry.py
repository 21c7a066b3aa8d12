"""Pack a run as a model that the package carries: python experiments/carry.py RUN NAME --data WORDS [--teacher WORDS].

The card says where the data (and a teacher) are from and under which licence; the packed file's scores in docs/results.json are
added to it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace

from common import HERE, experiments, places

from mpqyolo.format.card import check_card
from mpqyolo.format.reader import read_model
from mpqyolo.format.writer import write_model
from mpqyolo.pack.pack import pack

MODELS = HERE.parent / "src" / "mpqyolo" / "models"


def main() -> None:
    known = experiments()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", choices=sorted(known))
    parser.add_argument("name")
    parser.add_argument("--data", required=True, help="name, source and licence of the photos")
    parser.add_argument("--teacher", default="", help="who taught, if not its own float network: name, data, licence")
    places(parser)
    options = parser.parse_args()
    MODELS.mkdir(exist_ok=True)
    target = MODELS / f"{options.name}.mpqy"
    pack(options.runs / options.run, target, name=options.name)
    model, chosen = read_model(target), known[options.run]
    results = json.loads((HERE.parent / "docs" / "results.json").read_text())["results"]
    entry = results.get(chosen.data, {}).get(chosen.model, {}).get(chosen.role, {})
    own = entry.get("seeds", {}).get("0", entry)  # the run that is packed, not the mean over seeds
    metrics = {key: round(own[key], 4) for key in ("packed_val_map50", "packed_test_map50", "packed_test_map") if key in own}
    teacher = {"teacher": options.teacher} if options.teacher else {}
    card = {**model.card, "data": options.data, **teacher, "metrics": {**model.card.get("metrics", {}), **metrics}}
    check_card(card)
    write_model(replace(model, card=card), target)
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
