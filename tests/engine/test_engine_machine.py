"""The engine and the machine: instruction sets, an old CPU, the C example, memory."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engine_build import run_tool
from engine_models import isas_here

from mpqyolo.core.errors import EngineError
from mpqyolo.format.writer import dumps, write_model
from mpqyolo.graph.sample import random_model
from mpqyolo.runtime.session import Model, Session


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A model, a photo as PPM, and the lines that the C example must print, from Python."""
    folder = tmp_path_factory.mktemp("example")
    rng = np.random.default_rng(11)
    write_model(random_model(rng, size=(64, 64)), folder / "x.mpqy")
    photo = rng.integers(0, 256, (90, 120, 3)).astype(np.uint8)
    (folder / "x.ppm").write_bytes(b"P6\n120 90\n255\n" + photo.tobytes())
    found = Session(Model(folder / "x.mpqy")).detect(photo, 0.1)
    assert len(found) > 5
    lines = [
        f"{found.name(int(c))} {s:.6f} " + " ".join(f"{v:.2f}" for v in box)
        for box, s, c in zip(found.xyxy, found.score, found.class_id, strict=True)
    ]
    return folder / "x.mpqy", folder / "x.ppm", lines


def test_the_c_example_is_short_and_finds_what_python_finds(built: Path, example):
    model, photo, lines = example
    assert len(Path(__file__).parents[2].joinpath("examples/c/detect.c").read_text().splitlines()) <= 60
    assert run_tool(built / "detect", model, photo, "0.1").stdout.splitlines() == lines
    assert run_tool(built / "detect", model, photo, "0.1", MPQ_ISA="serial").stdout.splitlines() == lines
    done = run_tool(built / "detect", photo, photo)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "magic" in done.stderr


def test_a_small_c_program_runs_s_at_640_in_24_mib(built: Path, tmp_path: Path):
    from mpqyolo.cli.resolve import graph_model

    write_model(graph_model("s", (640, 640))[0], tmp_path / "s.mpqy")
    script = Path(__file__).parents[2] / "benchmarks" / "memory.py"
    done = run_tool(sys.executable, script, tmp_path / "s.mpqy", "--tool", built / "detect", "--most", "24")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("cpu, isa", [("Nehalem", "serial"), ("Haswell", "avx2")])
def test_the_same_library_runs_on_an_emulated_cpu(built: Path, example, cpu: str, isa: str):
    if not shutil.which("qemu-x86_64"):
        pytest.skip("qemu-x86_64 (package qemu-user) is not installed")
    model, photo, lines = example
    done = run_tool(shutil.which("qemu-x86_64"), "-cpu", cpu, built / "detect", model, photo, "0.1")
    assert done.stdout.splitlines() == lines, (cpu, done.returncode, done.stderr)
    refused = run_tool(shutil.which("qemu-x86_64"), "-cpu", cpu, built / "detect", model, photo, MPQ_ISA="avx2")
    assert (refused.returncode == 0) == (isa == "avx2")
    assert isa == "avx2" or "this CPU does not have it" in refused.stderr


def test_isa_by_environment_and_argument(monkeypatch: pytest.MonkeyPatch):
    model = Model(dumps(random_model(np.random.default_rng(1))))
    best = Session(model).info.isa
    monkeypatch.setenv("MPQ_ISA", "serial")
    session = Session(model)
    kernels = {layer.kernel for layer in session.layers()}
    assert session.info.isa == "serial" and {k for k in kernels if k.startswith("conv_")} == {"conv_serial"}
    assert Session(model, isa=best).info.isa == best == isas_here()[-1]
    monkeypatch.setenv("MPQ_ISA", "mmx")
    with pytest.raises(EngineError, match=r"isa 'mmx' is unknown; known: serial, avx2, avxvnni, avx512"):
        Session(model)


def test_no_code_for_one_instruction_set_can_be_taken_by_the_rest(built: Path):
    """A function that the linker may merge (weak) must not come from a file with flags of its own, but for that file's space."""
    if not shutil.which("nm"):
        pytest.skip("nm is not installed")
    objects = list((built / "CMakeFiles").glob("mpq_avx*.dir/src/kernels/*.cpp.o"))
    assert objects or isas_here() == ["serial"]
    for path in objects:
        lines = subprocess.run(["nm", "-C", path], capture_output=True, text=True, check=True).stdout.splitlines()
        space = f"mpq::{path.parts[-4].removeprefix('mpq_').removesuffix('.dir')}::"
        weak = [line for line in lines if re.match(r"\w* [WVu] ", line) and space not in line]
        assert not weak, (path.name, weak)


def test_a_run_allocates_nothing(built: Path, example):
    done = run_tool(built / "mpq_exam_memory", example[0])
    assert done.returncode == 0 and done.stdout.count(": 0 allocations") == 3, done.stdout + done.stderr


def test_memory_is_known_before_the_first_run():
    model = random_model(np.random.default_rng(2), nodes=30, size=(64, 64))
    engine = Model(dumps(model))
    session, kept = Session(engine), Session(engine, keep_tensors=True)
    before = session.info
    maps = sum(int(np.prod(t.shape)) * (2 if t.dtype == "s16" else 1) for t in model.graph.tensors.values() if t.dtype != "b1")
    assert kept.info.arena_bytes > maps and 0 < before.arena_bytes < kept.info.arena_bytes
    image = np.zeros((64, 64, 3), np.uint8)
    for _ in range(3):
        session.run(image)
    assert session.info == before
    assert Session(engine, 64, 128).info.arena_bytes > before.arena_bytes if _takes(engine, 64, 128) else True


def _takes(engine: Model, height: int, width: int) -> bool:
    try:
        Session(engine, height, width)
    except EngineError:
        return False
    return True


@pytest.mark.parametrize(
    "options, fault",
    [
        ({"height": 33}, "multiple"),
        ({"width": 1 << 20}, "1..8192"),
        ({"threads": 65}, "1..64"),
        ({"threads": 0}, "from 1 on"),
        ({"height": 0}, "from 1 on"),
        ({"isa": "sse9"}, "unknown"),
    ],
)
def test_senseless_options_are_refused_with_one_line(options: dict, fault: str):
    model = Model(dumps(random_model(np.random.default_rng(1))))
    with pytest.raises(EngineError, match=fault) as caught:
        Session(model, **options)
    assert "\n" not in str(caught.value)


def test_one_session_takes_photos_of_any_sizes_in_any_order():
    rng = np.random.default_rng(3)
    model = Model(dumps(random_model(rng, size=(64, 64))))
    photos = [rng.integers(0, 256, (*side, 3), np.uint8) for side in ((90, 120), (120, 90), (90, 33), (64, 64), (1, 700))]
    session = Session(model)
    for index in (0, 1, 0, 2, 3, 1, 4, 0):
        found, fresh = session.detect(photos[index], 0.05), Session(model).detect(photos[index], 0.05)
        assert np.array_equal(found.xyxy, fresh.xyxy) and np.array_equal(found.score, fresh.score)
