"""Our packed VOC networks beside small public detectors: mAP50 on VOC's test photos over bytes and milliseconds.

    python experiments/peers.py score --peers PEERS.py [--data-root DIR]
    python experiments/peers.py time --peers PEERS.py [--isa avx2] [--rounds 40]

PEERS.py brings the detectors: PEERS (by name), COCO (class names), load(name) with detect(pillow image) -> boxes, scores,
classes; pre and run are timed as the network alone. `score` judges them as our own files are judged; `time` lets them take turns
with networks of the shape and bits of our entries, on one thread of a quiet machine. Both write into docs/peers.json; table.py
shows it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import HERE, commit, experiments, machine, percent, places, table_row
from PIL import Image
from tradeoff import draw, median_ms, packed_run

from mpqyolo.core.detections import Detections
from mpqyolo.data.formats import load
from mpqyolo.evaluate import class_map, rename, score_detections

DOCS = HERE.parent / "docs"
FILE = DOCS / "peers.json"
DATA = "voc07"
COCO_PHOTOS = "118,287 of COCO"  # train2017


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("score", "time"))
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--isa", default="avx2", help="of our engine; the peers' runtimes take what the CPU has")
    parser.add_argument("--rounds", type=int, default=40)
    places(parser)
    options = parser.parse_args()
    spec = importlib.util.spec_from_file_location("public_detectors", options.peers)
    if not spec or not spec.loader or not options.peers.is_file():
        parser.error(f"{options.peers}: no such file")
    library = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(library)
    document = json.loads(FILE.read_text()) if FILE.is_file() else {}
    words = {"score": f"score --peers {options.peers.name}", "time": f"time --peers {options.peers.name} --isa {options.isa}"}
    words["time"] += f" --rounds {options.rounds}"
    about = {"command": f"python experiments/peers.py {words[options.what]}", "date": time.strftime("%Y-%m-%d")}
    about |= {"commit": commit(), "machine": machine()}
    document[options.what] = about | (score if options.what == "score" else measure)(library, options)
    FILE.write_text(json.dumps(document, indent=1) + "\n")


def score(library: Any, options: argparse.Namespace) -> dict[str, Any]:
    """mAP50 and VOC's AP50 of every peer on the test photos, difficult objects counted neither way, and its bytes."""
    test = load(str(options.data_root / DATA), "test")
    mapping = class_map(library.COCO, test.classes)
    found = {}
    for name in library.PEERS:
        peer = library.load(name)
        result = score_detections([detections(peer, item.path, mapping, test.classes) for item in test.items], test)
        found[name] = {"map50": round(result.map50, 4), "voc_ap50": round(result.voc_ap50, 4), "bytes": peer.bytes}
        print(f"{name:<20} mAP50 {100 * result.map50:.1f}", flush=True)
    return {"images": len(test.items), "train_images": len(load(str(options.data_root / DATA), "train").items), "peers": found}


def detections(peer: Any, photo: Path, mapping: np.ndarray, names: tuple[str, ...]) -> Detections:
    with Image.open(photo) as image:
        xyxy, scores, classes = peer.detect(image.convert("RGB"))
    return rename(Detections(np.float32(xyxy), np.float32(scores), np.int32(classes)), mapping, names)


def measure(library: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Median milliseconds, network alone, of the peers and of our entries."""
    ours = our_entries()
    runs = {run: packed_run(experiments()[run], entry["image_size"], options) for run, entry in ours.items()}
    image = Image.fromarray(np.zeros((320, 320, 3), np.uint8))
    for name in library.PEERS:
        peer = library.load(name)
        runs[name] = partial(peer.run, peer.pre(image)[0])
    return {"ms": dict(zip(runs, median_ms(list(runs.values()), options.rounds), strict=True))}


def our_entries() -> dict[str, dict[str, Any]]:
    """Packed entries of docs/results.json that know all classes of the data, by run."""
    models = json.loads((DOCS / "results.json").read_text())["results"].get(DATA, {})
    entries = {entry["run"]: entry for roles in models.values() for entry in roles.values() if "packed_test_map50" in entry}
    return {run: entry for run, entry in entries.items() if not any("model.classes" in word for word in entry["set"])}


def peer_lines() -> list[str]:
    """Section of docs/results.md, and its picture; none if nothing was measured."""
    if not FILE.is_file():
        return []
    document = json.loads(FILE.read_text())
    times = document.get("time", {}).get("ms", {})
    rows = [(name, p["map50"], p["bytes"], COCO_PHOTOS) for name, p in document["score"]["peers"].items()]
    own = f"{document['score']['train_images']:,} of VOC"
    for run, entry in our_entries().items():
        before = f"{COCO_PHOTOS}, as YOLOv5n; {own}" if {"start", "after"} & set(entry) else own
        saw = before + ("; a teacher" if "teacher" in entry else "")
        rows.append((run, entry["packed_test_map50"], entry["bytes"], saw))
    rows.sort(key=lambda row: -row[1])
    lines = ["", "## VOC, beside small public detectors", ""]
    for about in (document[key] for key in ("score", "time") if key in document):
        lines += [f"`{about['command']}` ({about['date']}, commit {about['commit']}, {about['machine']})", ""]
    lines += [
        f"{document['score']['images']} test photos. ms: the network alone, one thread, medians of runs that took turns.",
        "",
    ]
    columns = ("detector", "mAP50", "bytes", "ms", "mAP50 per 100 KB", "photos that it learned from")
    lines += [table_row(columns), "|---" * len(columns) + "|"]
    for name, map50, size, saw in rows:
        ms = f"{times[name]:.1f}" if name in times else ""
        lines.append(table_row((name, percent(map50), f"{size:,}", ms, f"{1e7 * map50 / size:.1f}", saw)))
    known = experiments()
    points = [
        {"model": f"ours, {known[name].model}" if name in known else name, "role": known[name].role if name in known else ""}
        | {"map50": map50, "bytes": size, "ms": times[name]}
        for name, map50, size, _ in rows
        if name in times
    ]
    if points:
        draw(points, {}, (DATA, "test"), DOCS / "peers.png")
        lines += ["", "![mAP50 on VOC over bytes and over time, beside small public detectors](peers.png)"]
    return lines


if __name__ == "__main__":
    main()
