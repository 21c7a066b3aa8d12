"""What `make demo` shows: `demo.py detect` needs the deploy package only, `demo.py train` goes the whole way in miniature."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from mpqyolo.cli.app import main as mpqyolo

ROOT = Path(__file__).resolve().parents[1]
PHOTOS = ROOT / "assets" / "photos"
CARRIED = "vehicles-n"


def command(*words: str | Path) -> None:
    """Show a command as a person would type it, run it, and stop the demo if it fails."""
    here = Path.cwd()
    shown = [str(Path(word).relative_to(here)) if Path(word).is_relative_to(here) else str(word) for word in words]
    print(f"\n$ mpqyolo {' '.join(shown)}", flush=True)
    if code := mpqyolo([str(word) for word in words]):
        sys.exit(code)


def detect(out: Path) -> None:
    """Part 1: the carried model on the carried photos."""
    from mpqyolo.runtime import Model, Session
    from mpqyolo.runtime.detector import carried_models

    print("Part 1: a packed model on photos, by numpy, Pillow and the native engine")
    path = carried_models().get(CARRIED)
    if path is None:
        print(
            f"this checkout carries no trained model yet (src/mpqyolo/models/{CARRIED}.mpqy), so there is nothing to detect with"
        )
        return
    command("predict", CARRIED, PHOTOS / "images", "--out", out / "photos")
    model = Model(path)
    session = Session(model)
    policy = model.header["policy"]
    print(f"\nfile          {path.stat().st_size:,} bytes")
    print("bits          " + ", ".join(f"{region} {w}-bit weights on {a}-bit maps" for region, (w, a) in policy["bits"].items()))
    print(f"kernels       {session.info.isa}")
    print(f"memory        {session.info.arena_bytes:,} bytes for all maps, planned before the first run")
    print(f"pictures      {out / 'photos'}")
    if "torch" in sys.modules:
        sys.exit("torch was imported, which must not happen here")


def train(out: Path) -> None:
    """Part 2: train, pack, prove, detect, compare."""
    print("Part 2: the whole way in miniature: sixteen photos learned by heart (no measure of quality, but of the way)")
    run, file = out / "run", out / "tiny.mpqy"
    shutil.rmtree(run, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    recipe = ROOT / "tools" / "demo.toml"
    command("train", "--data", PHOTOS, "--model", "n", "--recipe", recipe, "--set", "data.val=train", "--out", run)
    trained = time.monotonic() - start
    command("pack", run, "--out", file)
    command("predict", file, PHOTOS / "images" / "train", "--out", out / "tiny", "--verify")
    compare(run, file)
    print(f"\ntraining took {trained:.0f} s; curves: {run / 'results.png'}; pictures: {out / 'tiny'}")


def compare(run: Path, file: Path) -> None:
    """One table: the float network that taught, its quantised self, and the packed file, on the photos they learned."""
    from mpqyolo.cli.resolve import open_predictor
    from mpqyolo.data.formats import load
    from mpqyolo.evaluate import evaluate
    from mpqyolo.train.checkpoint import load_checkpoint

    dataset = load(PHOTOS, "train")
    floats = 4 * sum(p.numel() for p in load_checkpoint(run)[0].parameters())
    rows = (
        ("float", run / "checkpoints" / "teacher.safetensors", floats),
        ("quantised", run, floats),
        ("packed", file, file.stat().st_size),
    )
    print(f"\n{'':<10}  {'mAP':>5}  {'mAP50':>5}  {'bytes':>10}  {'ms':>6}   on the 16 photos, 1 thread")
    for name, model, size in rows:
        predict = open_predictor(str(model), None, 0.001, 1, as_trained=model != file)
        result, speed = evaluate(predict, dataset), milliseconds(predict, dataset)
        print(f"{name:<10}  {result.map:5.3f}  {result.map50:5.3f}  {size:10,}  {speed:6.1f}   {predict.backend}")


def milliseconds(predict: Callable[[list[Any]], Any], dataset: Any) -> float:
    """Median time of one photo, letterbox and boxes included."""
    photos = [dataset.read(index) for index in range(len(dataset))]
    times = []
    for photo in photos[:2] + photos:  # the first two warm up
        start = time.perf_counter()
        predict([photo])
        times.append((time.perf_counter() - start) * 1e3)
    return median(times[2:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("detect", "train"))
    parser.add_argument("--out", type=Path, default=Path("demo-out"))
    arguments = parser.parse_args()
    {"detect": detect, "train": train}[arguments.part](arguments.out)
