"""How long does a photo take: our engine against the runtimes and small detectors that people use.

    python benchmarks/latency.py --work build/contest --rounds 15 [--peers .../peers.py] [--photos DIR] [--only n-640 s-640]

Every contestant is a process of its own (contestants.py); all of them sit on the same core and take turns, one sample each
a round, so that what the machine does besides hits all alike.  A sample counts as quiet when the sentinel beside it was
within 12 % of its best and the sample was not interrupted; medians and minima are given for both states.
Ratios are of medians over all rounds (interleaved), and of minima.

With --isa avx2 every contestant, ours and theirs, finds an AVX2 machine without AVX-512, VNNI and AMX (only_avx2.c).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import exports
import numpy as np
from provenance import ROOT, WIDE, cpu_flags, provenance

HERE = Path(__file__).resolve().parent
QUIET = 1.12


@dataclass
class Contestant:
    group: str  # n-640, ...: what is compared
    name: str
    spec: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    size_bytes: int = 0
    samples: list[dict[str, float]] = field(default_factory=list)
    start_s: list[float] = field(default_factory=list)
    peak_rss: int = 0
    fault: str = ""
    process: subprocess.Popen[str] | None = None

    def begin(self, core: list[int]) -> None:
        """Start the process and wait for its first result."""
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")} | self.environment
        command = [sys.executable, str(HERE / "contestants.py"), json.dumps(self.spec)]
        started = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, core),
        )
        first = self._line()
        self.start_s.append(time.perf_counter() - started)
        self.peak_rss = int(first.get("peak_rss", 0))

    def sample(self) -> None:
        assert self.process and self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.samples.append(self._line())

    def _line(self) -> dict[str, float]:
        assert self.process and self.process.stdout and self.process.stderr
        while line := self.process.stdout.readline():
            if line.startswith("{"):  # libraries talk, too
                return dict(json.loads(line))
        raise RuntimeError((self.process.stderr.read().strip().splitlines() or ["died"])[-1])

    def end(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


def held_to_avx2(work: Path) -> dict[str, str]:
    """The environment in which a process sees no more than AVX2.  Exits with a line where that cannot be had."""
    if not set(WIDE) & cpu_flags():
        return {}
    library = work / "only_avx2.so"
    work.mkdir(parents=True, exist_ok=True)
    command = [os.environ.get("CC", "cc"), "-O1", "-shared", "-fPIC", str(HERE / "only_avx2.c"), "-o", str(library)]
    if "cpuid_fault" not in cpu_flags() or subprocess.run(command, check=False).returncode:
        raise SystemExit("--isa avx2: needs a C compiler, and a CPU whose /proc/cpuinfo lists cpuid_fault")
    return {"LD_PRELOAD": str(library)}


def bytes_of(*files: Path) -> int:
    return sum(f.stat().st_size for f in files)


def contestants(options: argparse.Namespace) -> list[Contestant]:
    """All of them, their files made.  A runtime that is not installed is left out and said so."""
    work, found = options.work, []
    environment = held_to_avx2(work) if options.isa == "avx2" else {}

    def add(group: str, name: str, runtime: str, make: Any, edge: int) -> None:
        """One for each number of threads; the name says which where there are several."""
        if options.contest and not any(word in name for word in options.contest):
            return
        try:
            file = make()
            path = Path(file)
            size = bytes_of(path, *([path.with_suffix(".bin")] if runtime in ("openvino", "ncnn") else []))
        except Exception as fault:  # any library's own classes
            print(f"left out: {group} {name}: {' '.join(str(fault).split())[:200]}", file=sys.stderr)
            return
        for threads in options.threads:
            spec = {"runtime": runtime, "file": str(file), "edge": edge, "threads": threads}
            full = name + (f", {threads} threads" if threads != options.threads[0] else "")
            found.append(Contestant(group, full, spec, environment, size))

    def of_group(group: str) -> None:
        size, edge = group.split("-")[0], int(group.split("-")[1])
        for family, policy in (("mpq", None), ("mpq", "w1a2"), ("mpq", "w4a4"), ("paper", None)):
            packed = lambda f=family, p=policy: exports.mpqy(work, f, size, edge, p)  # noqa: E731
            add(group, " ".join(filter(None, ("engine", family, policy))), "engine", packed, edge)
        floats = ["yolov5-relu"] if options.quick else ["yolov5-relu", "yolov5-silu", "mpq-float", "paper-float"]
        for net in floats:
            add(group, f"ort fp32 {net}", "ort", lambda n=net: exports.onnx_float(work, n, size, edge), edge)
        photos = options.photos
        for net in floats[:2]:
            add(group, f"ort int8 {net}", "ort", lambda n=net: exports.onnx_int8(work, n, size, edge, photos), edge)
            for int8 in (False, True):
                word = "int8" if int8 else "fp32"
                make = lambda n=net, q=int8: exports.openvino(work, n, size, edge, photos, q)  # noqa: E731
                add(group, f"openvino {word} {net}", "openvino", make, edge)
            add(group, f"ncnn fp32 {net}", "ncnn", lambda n=net: exports.ncnn(work, n, size, edge), edge)

    for group in options.only:
        of_group(group)
    if options.peers:
        sys.path.insert(0, str(options.peers.parent))
        listed = __import__("peers")
        for name, (_, files) in listed.PEERS.items():
            spec = {"runtime": "peer", "file": f"{options.peers}:{name}", "edge": 0, "threads": options.threads[0]}
            size = bytes_of(*(Path(listed.w(f)) for f in files))
            found.append(Contestant("peers", name, spec, environment, size))
    if options.photo:
        found += [
            Contestant("pipeline " + c.group, c.name, c.spec | {"photo": str(options.photo)}, c.environment, c.size_bytes)
            for c in found
            if c.spec["runtime"] in ("engine", "peer")
        ]
        for group in options.only:
            size, edge = group.split("-")[0], int(group.split("-")[1])
            file = exports.onnx_float(work, "yolov5-relu", size, edge, decoded=True)
            spec = {"runtime": "ort", "file": str(file), "edge": edge, "threads": options.threads[0], "photo": str(options.photo)}
            found.append(Contestant("pipeline " + group, "ort fp32 yolov5-relu", spec, environment, bytes_of(file)))
    return found


def measure(group: list[Contestant], options: argparse.Namespace) -> None:
    for contestant in group:
        try:
            for again in range(options.starts):
                contestant.begin(options.core[: contestant.spec["threads"]])
                if again + 1 < options.starts:
                    contestant.end()
        except RuntimeError as fault:
            contestant.fault = str(fault)
            contestant.end()
    for _ in range(options.rounds):
        for contestant in group:
            if contestant.process:
                contestant.sample()
    for contestant in group:
        contestant.end()


def figures(contestant: Contestant, best_sentinel: float) -> dict[str, Any]:
    """Medians and minima of all samples, of the quiet ones, and of the others."""

    def of(samples: list[dict[str, float]]) -> dict[str, Any]:
        ms = [s["ms"] for s in samples]
        return {"n": len(ms)} | ({"median_ms": float(np.median(ms)), "min_ms": min(ms)} if ms else {})

    quiet = [s for s in contestant.samples if s["sentinel_us"] <= QUIET * best_sentinel and not s["switches"]]
    states = {"all": of(contestant.samples), "quiet": of(quiet)}
    states["shared"] = of([s for s in contestant.samples if s not in quiet])
    return {
        "group": contestant.group,
        "name": contestant.name,
        "threads": contestant.spec["threads"],
        **states,
        "file_bytes": contestant.size_bytes,
        "peak_rss_bytes": contestant.peak_rss,
        "start_to_first_s": min(contestant.start_s, default=None),
        "fault": contestant.fault,
    }


def add_ratios(rows: list[dict[str, Any]]) -> None:
    """times_mpq, times_paper: how many times longer than our engine, by medians over the same rounds and by minima."""
    for row in rows:
        for family in ("mpq", "paper"):
            ours = next((r for r in rows if r["group"] == row["group"] and r["name"] == f"engine {family}"), None)
            for state in ("all", "quiet"):
                if ours and row[state]["n"] and ours[state]["n"]:
                    for figure in ("median_ms", "min_ms"):
                        row[state][f"times_{family}_{figure[:-3]}"] = row[state][figure] / ours[state][figure]


def held(isa: str) -> dict[str, Any]:
    """What the contestants see of the machine."""
    wide = set(WIDE) & cpu_flags()
    only = isa == "avx2" and wide
    return {
        "isa": "avx2" if only or not wide else "best",
        "note": "All contestants see AVX2 alone (only_avx2.c)." if only else "All contestants take what the CPU has.",
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"{'group':<18}{'contestant':<34}{'median':>9}{'min':>9}{'quiet':>9}{'n':>5}{'x mpq':>8}{'x paper':>8}{'min x':>7}"
        f"{'RSS MiB':>9}{'file KB':>10}{'start s':>9}"
    ]
    for r in rows:
        if r["fault"]:
            lines.append(f"{r['group']:<18}{r['name']:<34} failed: {r['fault'][:90]}")
            continue
        a, q = r["all"], r["quiet"]
        number = lambda x, f: f"{x:{f}}" if x is not None else "-"  # noqa: E731
        lines.append(
            f"{r['group']:<18}{r['name']:<34}{a['median_ms']:>9.2f}{a['min_ms']:>9.2f}"
            f"{number(q.get('median_ms'), '.2f'):>9}{q['n']:>5}"
            f"{number(a.get('times_mpq_median'), '.2f'):>8}{number(a.get('times_paper_median'), '.2f'):>8}"
            f"{number(a.get('times_mpq_min'), '.2f'):>7}{r['peak_rss_bytes'] / 2**20:>9.1f}{r['file_bytes'] / 1e3:>10.1f}"
            f"{number(r['start_to_first_s'], '.2f'):>9}"
        )
    return "\n".join(lines)


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--work", type=Path, default=ROOT / "build" / "contest", help="folder for model files")
    parse.add_argument("--only", nargs="*", default=["n-320", "n-640", "s-320", "s-640", "m-640"], help="SIZE-EDGE ...")
    parse.add_argument("--contest", nargs="*", default=[], help="contestants whose name holds one of these words")
    parse.add_argument("--quick", action="store_true", help="ReLU networks only")
    parse.add_argument("--rounds", type=int, default=15)
    parse.add_argument("--starts", type=int, default=2, help="fresh processes that time the start")
    parse.add_argument("--isa", choices=("best", "avx2"), default="best", help="avx2: for ours and theirs alike")
    parse.add_argument("--threads", type=int, nargs="+", default=[1], help="ratios are to the first")
    parse.add_argument("--core", type=int, nargs="*", default=None, help="cores, as many as threads; default: the last ones")
    parse.add_argument("--photos", type=Path, help="folder of photos to calibrate int8 with")
    parse.add_argument("--photo", type=Path, help="a photo: times the whole pipeline, too")
    parse.add_argument("--peers", type=Path, help="peers.py, a module with PEERS and load(name, threads)")
    parse.add_argument("--json", type=Path, help="file for all figures")
    options = parse.parse_args()
    options.core = options.core or sorted(os.sched_getaffinity(0), reverse=True)
    everyone = contestants(options)
    groups: dict[str, list[Contestant]] = {}
    for contestant in everyone:
        groups.setdefault(contestant.group, []).append(contestant)
    for group in groups.values():
        measure(group, options)
    best = min((s["sentinel_us"] for c in everyone for s in c.samples), default=0.0)
    rows = [figures(c, best) for c in everyone]
    add_ratios(rows)
    document = provenance()
    document["machine"] |= held(options.isa)
    print(document["machine"]["class"] + f"; threads: {', '.join(map(str, options.threads))}\n" + document["machine"]["note"])
    print(table(rows))
    if options.json:
        document |= {"threads": options.threads, "sentinel_us": best, "quiet_within": QUIET, "rows": rows}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
