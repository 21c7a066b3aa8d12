"""What share of a finished run's 4-bit weights lies beyond its scale's range: python experiments/clipped.py NAME ... [--seed S]

A run of another version is read by that version's checkout.
"""

from __future__ import annotations

import argparse

from common import experiments, percent, places, studies

from mpqyolo.quantize.apply import handles
from mpqyolo.quantize.health import clip_rate
from mpqyolo.quantize.lsq import LsqWeight
from mpqyolo.train.checkpoint import load_checkpoint


def main() -> None:
    known = experiments() | studies()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=sorted(known), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    places(parser)
    options = parser.parse_args()
    for name in options.names:
        model, _ = load_checkpoint(known[name].folder(options.runs, options.seed))
        rates = [
            clip_rate(handle.quantiser, model.get_parameter(f"{handle.name}.weight"))
            for handle in handles(model)
            if isinstance(handle.quantiser, LsqWeight) and handle.bits == 4
        ]
        print(f"{name}: {percent(sum(rates) / len(rates))} % of a layer's weights, at most {percent(max(rates))} %")


if __name__ == "__main__":
    main()
