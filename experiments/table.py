"""Judge the finished runs of runs.toml and write docs/results.json and docs/results.md.

    python experiments/table.py [--data-root DIR] [--runs DIR] [--only NAME ...] [--costs]

Weights are chosen on val (the run's best.safetensors), figures are for val and test. A quantised run is packed (which proves it)
and the packed file is judged by the engine. Variants of studies.toml are judged on val alone, by their last epoch.
Entries, and single seeds, of runs that are not there stay as docs/results.json has them.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import HERE, Experiment, commit, experiments, machine, percent, places, replaced, studies, table_row
from curves import draw_curves
from peers import peer_lines
from speed import speed_lines, speed_sentence, training_lines
from tradeoff import tradeoff_lines

from mpqyolo.cli.info import describe
from mpqyolo.cli.resolve import open_predictor
from mpqyolo.data.formats import load
from mpqyolo.evaluate import detect, score_detections
from mpqyolo.pack.pack import pack
from mpqyolo.train.checkpoint import BEST, load_tensors
from mpqyolo.train.recipe_file import run_recipe

DOCS = HERE.parent / "docs"
SCORES = {  # keys of an entry, and their columns
    "val_map50": "val",
    "test_map50": "test",
    "test_map": "test mAP",
    "both_map50": "val+test",
    "packed_val_map50": "packed val",
    "packed_test_map50": "packed test",
    "packed_both_map50": "packed val+test",
}
# How roles end whose float runs are others than those of the plain roles, and what the README says of them.
WITH = {
    "_taught": ", with a teacher",
    "_long": "",
    "_person": ", person alone, with a teacher",
    "_late": ", mosaics until ten epochs before the end",
}
FEW = 100  # photos: a smaller test set is judged together with val
SEEDS = 10  # seeds 0.. that an entry may have
FAMILIES = ("n", "s", "m", "paper-n", "paper-s", "paper-m")


def judge(chosen: Experiment, runs: Mapping[int, Path], data_root: Path, earlier: dict[str, Any]) -> dict[str, Any]:
    """Scores of an entry's runs, as trained and, if it is quantised, as packed: of each seed, and their means.

    earlier: the entry as it was; its seeds count, if they were trained alike and no run of theirs is there.
    """
    recipe = run_recipe(next(iter(runs.values())))
    new = {str(seed): judge_seed(chosen, run, data_root) for seed, run in runs.items()}
    latest = next(iter(new.values()))
    seeds = kept(earlier, chosen, "seeds") | new
    numbers = [key for key, value in latest.items() if isinstance(value, float) and all(key in seed for seed in seeds.values())]
    kept_keys = (*numbers, "curve", "weights_of", "loss", "judged")
    return {
        "run": chosen.name,
        **chosen.about(),
        "epochs": recipe.epochs,
        "image_size": recipe.image_size,
        "policy": recipe.model.policy,
        "finished": all(entry["curve"][-1][0] == recipe.epochs for entry in seeds.values()),
        **latest,
        **{key: sum(entry[key] for entry in seeds.values()) / len(seeds) for key in numbers},
        "seeds": {seed: {key: entry[key] for key in kept_keys if key in entry} for seed, entry in sorted(seeds.items())},
    }


def kept(earlier: dict[str, Any], chosen: Experiment, key: str) -> dict[str, Any]:
    """What an earlier entry holds of each seed, if it was trained alike: same recipe, settings, beginning and teacher."""
    wanted = chosen.about()
    same = all(earlier.get(what) == wanted.get(what) for what in ("recipe", "set", "start", "after", "teacher"))
    return earlier.get(key, {}) if same else {}


def judge_seed(chosen: Experiment, run: Path, data_root: Path) -> dict[str, Any]:
    """Scores of one run on val, on test, and on both together."""
    recipe = run_recipe(run)
    with (run / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    entry: dict[str, Any] = {
        "hours": hours(rows[-1]),
        "curve": [
            [int(row["epoch"]), round(float(row["map50"]), 4), hours(row), row["stage"]] for row in rows if row.get("map50")
        ],
        "weights_of": load_tensors(run / BEST)[1]["epoch"],
        "loss": round(float(rows[-1]["loss"]), 3),
        "judged": {"date": datetime.date.today().isoformat(), "commit": commit(), "machine": machine()},
    }
    sources: dict[str, Path] = {"": run / BEST}
    if recipe.model.policy != "float":
        packed = run / "model.mpqy"
        pack(run, packed, name=chosen.name)
        entry["bytes"] = packed.stat().st_size
        sources["packed_"] = packed
    val, test = (load(str(data_root / chosen.data), split, recipe.model.classes or None) for split in ("val", "test"))
    datasets = {"val": val, "test": test}
    if len(test.items) < FEW:
        datasets["both"] = replace(val, split="val+test", items=(*val.items, *test.items))
    for prefix, source in sources.items():
        size = (recipe.image_size, recipe.image_size)
        find = open_predictor(str(source), size, 0.001, 2, as_trained=not prefix)
        found = {split: detect(find.over(datasets[split].classes), datasets[split]) for split in ("val", "test")}
        found["both"] = found["val"] + found["test"]
        for split, dataset in datasets.items():
            result = score_detections(found[split], dataset)
            scores = {"map50": result.map50, "map": result.map, "voc_ap50": result.voc_ap50}
            entry |= {f"{prefix}{split}_{key}": float(score) for key, score in scores.items()}
            entry[f"{split}_images"] = result.images
    return entry


def hours(row: Mapping[str, str]) -> float:
    return round(float(row["seconds"]) / 3600, 3)


def study_entry(chosen: Experiment, runs: Path, earlier: dict[str, Any]) -> dict[str, Any] | None:
    """What a study's variant reached on val in its last epoch, and its loss in it, of each seed whose run is or was complete."""
    scores = {key: dict(kept(earlier, chosen, key)) for key in ("val_map50", "loss")}
    for seed in range(SEEDS):
        run = chosen.folder(runs, seed)
        if (run / "results.csv").is_file():
            with (run / "results.csv").open() as file:
                last = list(csv.DictReader(file))[-1]
            if int(last["epoch"]) == run_recipe(run).epochs:
                scores["val_map50"][str(seed)] = round(float(last["map50"]), 4)
                scores["loss"][str(seed)] = round(float(last["loss"]), 3)
    if not scores["val_map50"]:
        return None
    return chosen.about() | {key: dict(sorted(found.items())) for key, found in scores.items() if found}


def costs(known: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes and operations of both families in all sizes, at 80 and 20 classes and 640 px; what is known is not counted again."""
    table: dict[str, Any] = {}
    for name in FAMILIES:
        for classes in (80, 20):
            for policy in ("default", "paper", *(("mixed", "w1a2", "w4a4") if name in ("n", "s") else ())):
                place = f"{name}/{classes}/{policy}"
                keys = ("size_bytes", "size_ratio", "ops", "ops_ratio", "ops_ratio_elementwise", "elementwise_ops", "macs")
                found = known[place] if place in known else describe(name, classes, (640, 640), policy)
                table[place] = {key: found[key] for key in keys}
    return table


def spread(values: list[float]) -> str:
    """Mean in percent and, of several seeds, half the distance between the best and the worst."""
    if not values:
        return ""
    half = f" ± {50 * (max(values) - min(values)):.1f}" if len(values) > 1 else ""
    return percent(sum(values) / len(values)) + half


def run_row(name: str, entry: dict[str, Any]) -> str:
    """One run's row in docs/results.md."""
    epochs = entry["epochs"] if entry["finished"] else f"{entry['curve'][-1][0]} of {entry['epochs']}, unfinished"
    seeds = list(entry.get("seeds", {"0": entry}).values())
    early = [seed["weights_of"] for seed in seeds if seed.get("weights_of", entry["epochs"]) != entry["epochs"]]
    epochs = f"{epochs}, weights of {', '.join(map(str, early))}" if early else epochs
    scores = [spread([seed[key] for seed in seeds if key in seed]) for key in SCORES]
    size = f"{entry['bytes']:,}" if "bytes" in entry else ""
    return table_row([name, f"`{entry['run']}`", entry["policy"], epochs, len(seeds), *scores, size, f"{entry['hours']:.2f}"])


def how(entry: dict[str, Any]) -> str:
    """One run's command and what its recipe changes."""
    origin = (("from", "start"), ("from", "after"), ("teacher", "teacher"))
    words = [f"{what} {entry[key]}" for what, key in origin if key in entry]
    changes = ", ".join(f"`{word}`" for word in (*words, *entry["set"]))
    return f"- `{entry['command']}`: recipe `{entry['recipe']}`, {changes}"


def page(document: dict[str, Any]) -> str:
    """docs/results.md."""
    about = document["about"]
    lines = [
        "# Results",
        "",
        f"Written by `python experiments/table.py` ({about['date']}, commit {about['commit']}, {about['machine']}); "
        "the figures are in `results.json`. Weights are those of the last epoch, or of the epoch that a "
        "row names, which was better on val; mAP50 is COCO's (101 points) in percent; "
        "`packed` is the `.mpqy` file in the engine. Of several seeds: mean ± half the range. Studies: the "
        "last epoch; the loss is that of the training photos, a teacher's prices included.",
    ]
    for data, models in document["results"].items():
        lines += ["", f"## {data}", ""]
        columns = ("model", "run", "policy", "epochs", "seeds", *SCORES.values(), "bytes", "hours")
        lines += [table_row(columns), "|---" * len(columns) + "|"]
        lines += [run_row(f"{model} {role}", entry) for model, roles in models.items() for role, entry in roles.items()]
        lines += ["", *(how(entry) for roles in models.values() for entry in roles.values())]
        images = next(iter(next(iter(models.values())).values()))
        lines += ["", f"val: {images['val_images']} photos, test: {images['test_images']} photos."]
    for name, variants in document.get("studies", {}).items():
        columns = ("variant", "val mAP50, mean", "of each seed", "loss", "differs by")
        lines += ["", f"## Study: {name}", "", table_row(columns), "|---" * len(columns) + "|"]
        for variant, entry in variants.items():
            values, losses = list(entry["val_map50"].values()), list(entry.get("loss", {}).values())
            own = [word for word in entry["set"] if any(word not in other["set"] for other in variants.values())]
            words = ", ".join(f"`{word}`" for word in own) or f"recipe `{entry['recipe']}`"
            loss = f"{sum(losses) / len(losses):.2f}" if losses else ""
            lines.append(table_row([variant, percent(sum(values) / len(values)), ", ".join(map(percent, values)), loss, words]))
    lines += draw_curves(document["results"], DOCS)
    lines += tradeoff_lines()
    lines += peer_lines()
    lines += speed_lines(DOCS / "latency")
    lines += training_lines(DOCS)
    lines += ["", "## Size and operations", "", document["formula"], ""]
    lines += ["Ratios are against the float YOLOv5 of the same size and classes at 640 px."]
    lines += ["The paper prints 16.3 times fewer operations and 14.2 times smaller (which of its models is not public).", ""]
    lines += ["| model | classes | policy | file bytes | smaller | fewer OPs | with element-wise work |", "|---" * 7 + "|"]
    for key, cost in document["costs"].items():
        name, classes, policy = key.split("/")
        ratios = " | ".join(f"{cost[k]:.1f}" for k in ("size_ratio", "ops_ratio", "ops_ratio_elementwise"))
        lines.append(f"| {name} | {classes} | {policy} | {cost['size_bytes']:,} | {ratios} |")
    return "\n".join(lines) + "\n"


def lineage(entry: dict[str, Any], roles: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The entries that a run goes on from, the first of them first, and its own."""
    before = next((other for other in roles.values() if other["run"] == entry.get("after")), None)
    return [*(lineage(before, roles) if before else ()), entry]


def summary(document: dict[str, Any]) -> str:
    """The block in the README: packed files beside their float networks, of one policy and one float run the best on val.

    What was done again since is left out.
    """
    columns = ("data", "policy", "epochs", "float YOLOv5", "float twin", "packed", "of the twin", "seeds", "bytes")
    lines = [table_row(columns), "|---" * len(columns) + "|"]
    for data, models in document["results"].items():
        for model, roles in models.items():
            best: dict[tuple[str, str], dict[str, Any]] = {}
            for role, entry in roles.items():
                key = entry["policy"], next((end for end in WITH if role.endswith(end)), "")
                value = entry.get("packed_val_map50", 0.0)
                if not replaced(role, roles) and value > best.get(key, {}).get("packed_val_map50", 0.0):
                    best[key] = entry
            for (policy, end), entry in best.items():
                few = "both_" if entry["test_images"] < FEW else "test_"
                floats = [roles.get(name, {}).get(f"{few}map50") for name in (f"yolov5{end}", f"float_twin{end}")]
                score = entry[f"packed_{few}map50"]
                share = f"{score / floats[1]:.2f}" if floats[1] else ""
                way = lineage(entry, roles)
                origin = ", from YOLOv5's weights" if any("start" in run for run in way) else ""
                name = f"{data}, {model}{origin}{WITH.get(end, '')}"
                epochs = " + ".join(str(run["epochs"]) for run in way)
                scores = (*map(percent, floats), percent(score), share, str(len(entry.get("seeds", "1"))))
                lines.append(table_row((name, policy, epochs, *scores, f"{entry['bytes']:,}")))
    lines += [
        "",
        "mAP50 in percent on test photos (vehicles_oi: val and test together, 188 photos); commands, budgets and misses: "
        "[docs/results.md](docs/results.md).",
    ]
    costs = [document["costs"][f"{name}/80/default"] for name in ("n", "s")]
    ratios = [f"{cost['size_ratio']:.1f} times smaller, {cost['ops_ratio']:.1f} times fewer operations" for cost in costs]
    lines += [f"Against the float YOLOv5 of its size at 80 classes, n is {ratios[0]}, and s {ratios[1]}."]
    wide = document["costs"]["n/80/w1a2"]["ops_ratio"]
    lines += [f"These and the times below are of policy `default`; with `w1a2`, n has {wide:.1f} times fewer operations."]
    lines += [speed_sentence(DOCS / "latency")]
    return "\n".join(lines)


def put_into_readme(text: str) -> None:
    """Replace what stands between the results marks."""
    readme = HERE.parent / "README.md"
    before, rest = readme.read_text().split("<!-- results:begin", 1)
    mark, rest = rest.split("-->", 1)
    after = rest.split("<!-- results:end -->", 1)[1]
    readme.write_text(f"{before}<!-- results:begin{mark}-->\n{text}\n<!-- results:end -->{after}")


def main() -> None:
    known = experiments()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=sorted(known), default=None)
    parser.add_argument("--costs", action="store_true", help="count bytes and operations anew, which takes minutes")
    places(parser)
    options = parser.parse_args()
    file = DOCS / "results.json"
    document = json.loads(file.read_text()) if file.is_file() else {"results": {}}
    for name in options.only if options.only is not None else known:
        chosen = known[name]
        folders = {seed: chosen.folder(options.runs, seed) for seed in range(SEEDS)}
        runs = {seed: folder for seed, folder in folders.items() if (folder / BEST).is_file()}
        if runs:
            print(f"judging {name}")
            roles = document["results"].setdefault(chosen.data, {}).setdefault(chosen.model, {})
            roles[chosen.role] = judge(chosen, runs, options.data_root, roles.get(chosen.role, {}))
    for chosen in studies().values():
        variants = document.setdefault("studies", {}).get(chosen.study, {})
        if entry := study_entry(chosen, options.runs, variants.get(chosen.role, {})):
            document["studies"][chosen.study] = {**variants, chosen.role: entry}
    document["costs"] = costs({} if options.costs else document.get("costs", {}))
    document["formula"] = describe("n", 80)["formula"]
    document["about"] = {"date": datetime.date.today().isoformat(), "commit": commit(), "machine": machine()}
    file.write_text(json.dumps(document, indent=1) + "\n")
    (DOCS / "results.md").write_text(page(document))
    put_into_readme(summary(document))


if __name__ == "__main__":
    main()
