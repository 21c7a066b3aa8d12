"""`mpqyolo bench`: how fast is the network alone, layer by layer?"""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from mpqyolo.cli.console import Json, emit, parse_size, say
from mpqyolo.cli.resolve import RandomPolicy, check_threads, graph_model, only_random, resolve
from mpqyolo.core.errors import ConfigError

WARM_UP = 0.3  # share of the measured time that runs before it, uncounted


def bench(
    model: str,
    /,
    *,
    image_size: str | None = None,
    threads: int = 1,
    classes: int | None = None,
    policy: RandomPolicy = None,
    seconds: float = 2.0,
    isa: str | None = None,
    json: Json = False,
) -> int:
    """Time of the network alone in the engine, warmed up: no photo is decoded, no box is drawn.

    Times vary with what else the machine does; compare medians of runs that were interleaved.

    Parameters
    ----------
    model
        A `.mpqy` file, a run folder or checkpoint, or a name: times do not depend on the weights.
    image_size
        Side of the network's input in px, or HEIGHTxWIDTH; multiples of 32. As the model says if not given, else 640.
    threads
        Threads for the network.
    classes
        How many classes a network with random weights has; 80 if not given.
    seconds
        How long to measure, at least.
    isa
        Kernels to use: serial, avx2, avxvnni, avx512; the best that the CPU has if not given.
    """
    document = measure(model, parse_size(image_size), threads, classes, policy, seconds, isa)
    if json:
        emit(document)
        return 0
    width = max(len(layer["name"]) for layer in document["layers"])
    for layer in document["layers"]:
        print(f"{layer['name']:<{width}}  {layer['median_ms']:8.3f} ms  {layer['kernel']}")
    height, wide = document["image_size"]
    where = f"{document['threads']} thread(s), {document['isa']}, {document['cpu']}"
    say(f"{model} at {height}x{wide} px, {where}; {document['runs']} runs")
    print(f"median {document['median_ms']:.2f} ms   min {document['min_ms']:.2f} ms   p95 {document['p95_ms']:.2f} ms", end="   ")
    print(f"arena {document['arena_bytes']:,} bytes")
    return 0


def measure(
    model: str,
    size: tuple[int, int] | None = None,
    threads: int = 1,
    classes: int | None = None,
    policy: str | None = None,
    seconds: float = 2.0,
    isa: str | None = None,
) -> dict[str, Any]:
    """The document of `mpqyolo bench --json`."""
    from mpqyolo.runtime.session import Session

    if not 0 < seconds <= 3600:
        raise ConfigError(f"--seconds {seconds:g}: must be above 0 and at most 3600")
    check_threads(threads)
    height, width = size or (None, None)
    session = Session(_open(model, size, classes, policy), height, width, threads, isa=isa)
    about = session.info
    image = np.random.default_rng(0).integers(0, 256, (about.height, about.width, 3), dtype=np.uint8)
    _run_for(session, image, WARM_UP * seconds)
    times, layers = _run_for(session, image, seconds)
    names = session.layers()
    return {
        "model": model,
        "image_size": [about.height, about.width],
        "median_ms": float(np.median(times)),
        "min_ms": min(times),
        "p95_ms": float(np.percentile(times, 95)),
        "isa": about.isa,
        "threads": about.threads,
        "cpu": cpu_name(),
        "arena_bytes": about.arena_bytes,
        "prepared_bytes": about.prepared_bytes,
        "runs": len(times),
        "layers": [
            {"name": layer.name, "median_ms": float(ms), "kernel": layer.kernel}
            for layer, ms in zip(names, np.median(layers, 0), strict=True)
        ],
    }


def _open(model: str, size: tuple[int, int] | None, classes: int | None, policy: str | None) -> Any:
    from mpqyolo.runtime.session import Model

    ref = resolve(model)
    only_random(ref, classes=classes, policy=policy)
    if ref.kind == "packed":
        return Model(ref.path)
    from mpqyolo.format.writer import dumps

    return Model(dumps(graph_model(model, size, classes, policy)[0]))


def _run_for(session: Any, image: np.ndarray, seconds: float) -> tuple[list[float], list[list[float]]]:
    """(ms of each run, ms of each layer of each run) for at least this long, and at least 3 runs."""
    times: list[float] = []
    layers: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(image)
        times.append((time.perf_counter() - start) * 1e3)
        layers.append([layer.nanoseconds / 1e6 for layer in session.layers()])
    return times, layers


def cpu_name() -> str:
    """What the machine calls its processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
