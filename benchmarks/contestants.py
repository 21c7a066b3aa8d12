"""One contestant in its own process: `contestants.py SPEC`, where SPEC is a JSON object.

    {"runtime": "engine" | "ort" | "openvino" | "ncnn" | "peer", "file": ..., "edge": 640, "threads": 1,
     "photo": null | path}     with a photo: the whole pipeline, from the file to boxes; else the network alone

It prints a line of JSON when it has given its first result, and one more for each line that it reads.  Between them
it sleeps, so contestants can take turns on one core.  Beside each sample a sentinel is timed: products of small matrices,
which need the same ports that kernels do and nothing from memory.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402 (after the variables above, which it reads)

Call = Callable[[], Any]


def sentinel_loop() -> Callable[[], float]:
    """A function that times the sentinel: microseconds, best of a few."""
    a = np.random.default_rng(0).random((96, 96), dtype=np.float32)
    b, c = a.copy(), a.copy()

    def measure() -> float:
        best = 1e9
        for _ in range(4):
            start = time.perf_counter_ns()
            for _ in range(4):
                np.dot(a, b, out=c)
            best = min(best, time.perf_counter_ns() - start)
        return best / 1e3

    return measure


def noise(edge: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (edge, edge, 3), dtype=np.uint8)


def planar(edge: int) -> np.ndarray:
    return np.ascontiguousarray(noise(edge).transpose(2, 0, 1)[None] / np.float32(255))


def engine(file: str, edge: int, threads: int, photo: str | None) -> Call:
    if photo:
        from mpqyolo.runtime.detector import Detector

        detector = Detector(file, edge, threads)
        return lambda: detector.predict(photo)
    from mpqyolo.runtime.session import Model, Session

    session, image = Session(Model(file), edge, edge, threads), noise(edge)
    return lambda: session.run(image)


def ort(file: str, edge: int, threads: int, photo: str | None) -> Call:
    if photo:
        from mpqyolo.core.photo import as_photo
        from mpqyolo.evaluate.onnx_predictor import OnnxPredictor

        find = OnnxPredictor(file, (edge, edge), threads, min_score=0.25)
        return lambda: find([as_photo(photo)])
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: planar(edge)}
    return lambda: session.run(None, feed)


def openvino(file: str, edge: int, threads: int, photo: str | None) -> Call:
    import openvino as ov

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    settings |= {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
    request = ov.Core().compile_model(file, "CPU", settings).create_infer_request()
    image = planar(edge)
    return lambda: request.infer([image])


def ncnn(file: str, edge: int, threads: int, photo: str | None) -> Call:
    import ncnn as library

    net = library.Net()
    net.opt.num_threads, net.opt.use_vulkan_compute = threads, False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = net.opt.use_bf16_storage = False
    assert net.load_param(file) == 0 and net.load_model(str(Path(file).with_suffix(".bin"))) == 0
    names, image = net.output_names(), planar(edge)[0]

    def run() -> None:
        extractor = net.create_extractor()
        extractor.input("in0", library.Mat(image))
        for name in names:
            assert extractor.extract(name)[0] == 0

    return run


def peer(file: str, edge: int, threads: int, photo: str | None) -> Call:
    """file: peers.py, a colon, and a name that it knows; at the peer's own size."""
    from PIL import Image

    path, _, name = file.rpartition(":")
    sys.path.insert(0, str(Path(path).parent))
    found = __import__("peers").load(name, threads)
    if photo:
        return lambda: found.detect(Image.open(photo))
    image = found.pre(Image.fromarray(noise(480)))[0]
    return lambda: found.run(image)


RUNTIMES = {"engine": engine, "ort": ort, "openvino": openvino, "ncnn": ncnn, "peer": peer}


def status(key: str) -> int:
    """A figure of /proc/self/status, in bytes; this process alone, where getrusage begins with its parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return 0


def switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def main() -> None:
    spec = json.loads(sys.argv[1])
    run = RUNTIMES[spec["runtime"]](spec["file"], spec["edge"], spec["threads"], spec.get("photo"))
    run()
    say = sys.stdout
    print(json.dumps({"peak_rss": status("VmHWM")}), file=say, flush=True)
    sentinel = sentinel_loop()
    for _ in sys.stdin:
        run()  # caches are the last one's
        before, lost = sentinel(), switches()
        start = time.perf_counter_ns()
        run()
        taken = (time.perf_counter_ns() - start) / 1e6
        lost = switches() - lost
        print(json.dumps({"ms": taken, "sentinel_us": max(before, sentinel()), "switches": lost}), file=say, flush=True)


if __name__ == "__main__":
    main()
