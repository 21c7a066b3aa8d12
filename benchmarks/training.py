"""Images a second of training, stage by stage, and of the loader alone.

    python benchmarks/training.py [--sizes 192 256 320] [--threads 2] [--isa avx2] [--data DIR] [--json FILE]

Networks take turns, several rounds; the median of each is printed, with its ratio to eager YOLOv5n (torch alone) in the same
round. A step is forward, loss, backward, clipping and the optimiser's step on one batch of 16 made-up photos with two boxes
each. With --data, the loader reads that data set (decoded photos in RAM, mosaic and all), without it photos of noise. With
--isa avx2, torch, oneDNN and the choice between them and our own loops see no AVX-512 and no bfloat16.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from provenance import provenance

from mpqyolo.core.bits import policy
from mpqyolo.data.formats import load
from mpqyolo.data.loader import Loader
from mpqyolo.detector.loss import DetectionLoss
from mpqyolo.detector.model import build_model
from mpqyolo.quantize import fused
from mpqyolo.quantize.apply import apply_policy, handles, parameter_kind
from mpqyolo.train.optim import make_optimiser
from mpqyolo.train.recipe import OptimiserPart
from mpqyolo.train.recipe_file import load_recipe
from mpqyolo.train.stages import Slot, make_plan

BATCH, CLASSES = 16, tuple("abcdefghijklmnopqrst")
BASE = "yolov5n, torch alone"


def stepper(family: str, stage: str | None, size: int) -> Callable[[], None]:
    """One training step of a network as it is in the middle of this stage of the recipe pnq."""
    torch.manual_seed(0)
    model = build_model(family, "n", CLASSES)
    if stage is not None:
        apply_policy(model, policy("default"))
        quantisers = {Slot(h.name, h.part, h.bits): h.quantiser for h in handles(model)}
        plan = make_plan(load_recipe("pnq"), 100)
        index = next(i for i, s in enumerate(plan.stages) if s.name == stage)
        for slot, setting in plan.settings(list(quantisers), sum(plan.span(index)) // 2).items():
            quantisers[slot].set_bits(setting.bits)
            quantisers[slot].set_strength(setting.strength)
    model = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = make_optimiser(model, parameter_kind(model), OptimiserPart())
    images = torch.randint(0, 256, (BATCH, size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    corners = ((0.1, 0.1, 0.6, 0.6), (0.4, 0.4, 0.9, 0.9))
    boxes = [[i, k, *(size * corner for corner in corners[k])] for i in range(BATCH) for k in (0, 1)]
    targets, loss = torch.tensor(boxes), DetectionLoss(len(CLASSES))
    amp = torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported())  # as train/run.py

    def step() -> None:
        with amp:
            maps = model(images)
        price, _ = loss(maps, targets, size)
        optimiser.zero_grad(set_to_none=True)
        price.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()

    return step


def noise(folder: Path) -> Path:
    """A YOLO data set of 64 photos of noise, 400 x 300."""
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for k in range(64):
        Image.fromarray(rng.integers(0, 256, (300, 400, 3), np.uint8)).save(folder / "images" / f"{k}.jpg")
        (folder / "labels" / f"{k}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    (folder / "data.yaml").write_text("train: images\nval: images\nnames: [a]\n")
    return folder


def loader_rate(data: Path, size: int) -> float:
    """Images a second of the loader alone, one worker, photos decoded before."""
    loader = Loader(load(str(data), "train"), size, BATCH, workers=1)
    for _ in loader.epoch(0):
        pass
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 3:
        for batch in loader.epoch(1):
            count += len(batch.photos)
    return count / (time.perf_counter() - start)


def measure(size: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median images a second of every network and stage, and the median ratio to YOLOv5n of the same round."""
    yolo = stepper("yolov5", None, size)
    eager = mock.patch.object(fused, "usable", lambda _: False)(yolo)
    steppers = {BASE: eager, "yolov5n": yolo, "float twin": stepper("mpq", "float", size)}
    steppers |= {f"mpq {s.name}": stepper("mpq", s.name, size) for s in load_recipe("pnq").stages[1:]}
    rates: dict[str, list[float]] = {name: [] for name in steppers}
    for step in steppers.values():
        step()
    for _ in range(rounds):
        for name, step in steppers.items():
            start = time.perf_counter()
            step()
            rates[name].append(BATCH / (time.perf_counter() - start))
    base = rates[BASE]
    return {
        name: {"images_per_s": statistics.median(r), "ratio": statistics.median(a / b for a, b in zip(r, base, strict=True))}
        for name, r in rates.items()
    }


def hold_to_avx2() -> None:
    """Before the first operation: torch and oneDNN read these then."""
    os.environ |= {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    for name in ("_is_avx512_supported", "_is_avx512_bf16_supported"):
        mock.patch.object(torch.cpu, name, lambda: False).start()
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        raise SystemExit(f"torch goes by {torch.backends.cpu.get_cpu_capability()}; set ATEN_CPU_CAPABILITY=avx2 in the shell")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[192, 256, 320])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--isa", choices=["avx2"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.isa:
        hold_to_avx2()
    torch.set_num_threads(options.threads)
    fused.keep_memory()  # as train/loop.py does
    document: dict[str, Any] = provenance() | {"isa": options.isa, "threads": options.threads, "batch": BATCH, "sizes": {}}
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or noise(Path(folder))
        for size in options.sizes:
            found = measure(size, options.rounds)
            found["loader"] = {"images_per_s": loader_rate(data, size)}
            document["sizes"][str(size)] = found
            print(f"\n{size} px, {options.threads} thread(s)")
            for name, entry in found.items():
                ratio = f"{entry['ratio']:5.2f} of eager yolov5n" if "ratio" in entry else ""
                print(f"  {name:<26} {entry['images_per_s']:7.1f} images/s  {ratio}")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
