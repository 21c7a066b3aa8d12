"""Every kernel of the table, forced, against the serial one and the numpy reference, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engine_build import run_tool
from engine_models import Case, isas_here, one_conv
from hypothesis import given, settings
from hypothesis import strategies as st

from mpqyolo.format.writer import dumps
from mpqyolo.graph.sample import random_image
from mpqyolo.reference.run import run
from mpqyolo.runtime.session import Model, Session

HOME = {  # the maps and weights that a kernel is for
    "conv_w4u4_winograd_avx512": ("u4", "w4"),
    "conv_wx_avx512": ("u4", None),
    "conv_wxu8_avx512": ("u8", None),
    "conv_w4u4_winograd_avxvnni": ("u4", "w4"),
    "conv_wx_avxvnni": ("u4", None),
    "conv_wxu8_avxvnni": ("u8", None),
    "conv_w1b1_avx2": ("b1", "w1"),
    "conv_w4u4_winograd_avx2": ("u4", "w4"),
    "conv_wxu4_avx2": ("u4", None),
    "conv_wxu8_avx2": ("u8", None),
    "conv_serial": (None, None),
}
CHANNELS = (1, 3, 16, 33, 63, 64, 65)
WIDTHS = (1, 2, 7, 20, 33)


@st.composite
def cases(draw: st.DrawFn, source: str | None, weight: str | None) -> Case:
    pick = lambda *options: draw(st.sampled_from(options))  # noqa: E731
    kernel = pick(1, 3, 5, 6)
    outputs = pick(*CHANNELS)
    residual = pick(0, 0, 1, outputs, 2 * outputs)
    return Case(
        source=source or pick("u8", "u4", "b1"),
        weight=weight or pick("w1", "w4", "w8"),
        channels=pick(*CHANNELS),
        outputs=outputs,
        height=pick(1, 2, 5, 8),
        width=pick(*WIDTHS),
        kernel=kernel,
        stride=pick(1, 2),
        pad=pick(kernel // 2, kernel // 2, kernel - 1, 0),
        writes=pick(("s16",), ("u4",), ("b1",), ("b1", "s16"), ("u4", "s16"), ("s16", "u4", "b1")),
        shift=draw(st.integers(-4, 9)),
        residual=residual,
        residual_last=pick(0, 1),
        gain=residual > 0 and pick(False, True),
        slope=pick(False, True),
        post=pick(False, True),
        extreme=draw(st.integers(0, 9)) == 0,
    )


def narrowed(kernel: str, case: Case) -> Case:
    """The case, made one of the few that this kernel is for."""
    if "winograd" not in kernel:
        return case
    few = {"kernel": 3, "stride": 1, "pad": min(case.pad, 2), "writes": ("u4",), "residual": 0, "gain": False}
    return case._replace(channels=max(case.channels, 32), weight="w1" if case.weight == "w1" else "w4", **few)


def isa_of(kernel: str) -> str:
    """Kernels for an instruction set are named after it."""
    return kernel.rsplit("_", 1)[1]


def outputs_of(
    model: Model, image: np.ndarray, names: list[str], threads: int = 1, isa: str | None = None
) -> tuple[dict[str, np.ndarray], str]:
    session = Session(model, threads=threads, isa=isa)
    session.run(image)
    return {name: session.tensor(name) for name in names}, next(k.kernel for k in session.layers() if k.name == "conv")


@pytest.mark.parametrize("kernel", HOME)
def test_forced_kernel_equals_serial_and_reference(kernel: str, monkeypatch: pytest.MonkeyPatch):
    met = 0
    if isa_of(kernel) not in isas_here():
        pytest.skip("this CPU does not have its instructions")

    @settings(max_examples=250, deadline=None, database=None, derandomize=True)
    @given(case=cases(*HOME[kernel]), seed=st.integers(0, 2**31))
    def exam(case: Case, seed: int) -> None:
        nonlocal met
        case = narrowed(kernel, case)
        if not case.fits:
            return
        model = one_conv(case, seed)
        image = random_image(np.random.default_rng(seed), model.graph)
        right = run(model.graph, image)
        engine, names = Model(dumps(model)), [n for n in model.graph.outputs if n.startswith("conv")]
        for forced in (kernel, "conv_serial"):
            monkeypatch.setenv("MPQ_KERNEL", forced)
            found, used = outputs_of(engine, image, names, 1 + seed % 3, isa_of(kernel))
            met += used == kernel
            for name in names:
                assert np.array_equal(found[name], right[name]), (forced, used, name)

    exam()
    assert met > 100, f"{kernel} was met {met} times only"


def test_kernels_stay_in_their_room_and_agree_in_parts(built: Path):
    done = run_tool(built / "mpq_exam_kernels", "3000", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    met = dict(line.split() for line in done.stdout.splitlines())
    assert set(met) == set(HOME), "a kernel without an exam: add it to HOME"
    assert all(int(met[name]) > 100 for name in HOME if isa_of(name) in isas_here()), met


def test_kernels_under_sanitizers(sanitized: Path):
    done = run_tool(sanitized / "mpq_exam_kernels", "250", "2")
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
