"""Finding the library, and what a bare installation may import."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import mpqyolo
from mpqyolo.core.errors import EngineError
from mpqyolo.runtime import _load
from mpqyolo.runtime._load import library

SOURCES = Path(mpqyolo.__file__).parents[1]


def in_subprocess(code: str, **environment: str) -> str:
    """What the code prints in a fresh Python that sees our sources."""
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(SOURCES)} | environment
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_on_the_way_to_boxes_imports_a_training_library(engine: Path, model_file: Path):
    code = f"""
import sys, numpy as np, mpqyolo
detector = mpqyolo.Detector({str(model_file)!r}, threads=2)
detector.predict(np.zeros((40, 50, 3), np.uint8)).to_dict()
print(sorted({{name.split(".")[0] for name in sys.modules}} & {{"torch", "cv2", "pydantic", "onnx", "matplotlib", "cyclopts"}}))
"""
    assert in_subprocess(code, MPQ_ENGINE=str(engine)) == "[]\n"


def test_importing_the_package_loads_no_engine():
    assert in_subprocess("import sys, mpqyolo; print('ctypes' in sys.modules)") == "False\n"


FAULT = """
from mpqyolo.core.errors import EngineError
from mpqyolo.runtime._load import library
try:
    library()
except EngineError as fault:
    print(fault)
"""


@pytest.mark.parametrize(
    "content, fault",
    [(None, "cannot be loaded"), (b"text", "cannot be loaded"), ("libm.so.6", "not the library of mpqyolo")],
)
def test_a_wrong_library_is_one_line(content: bytes | str | None, fault: str, tmp_path: Path):
    path = tmp_path / "libmpqyolo.so"
    if isinstance(content, bytes):
        path.write_bytes(content)
    told = in_subprocess(FAULT, MPQ_ENGINE=content if isinstance(content, str) else str(path))
    assert fault in told and "cmake -S engine" in told and told.count("\n") == 1


def test_another_abi_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_load, "ABI_VERSION", 99)
    with pytest.raises(EngineError, match="has ABI version 1, this package needs 99; build it again"):
        inspect.unwrap(library)()


def test_order_of_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    package, checkout = tmp_path / "site" / "mpqyolo", tmp_path / "checkout" / "src" / "mpqyolo"
    built, installed = tmp_path / "checkout" / "build" / "engine" / _load.NAME, package / "_engine" / _load.NAME
    monkeypatch.setattr(mpqyolo, "__path__", [str(checkout), str(package)])
    monkeypatch.setattr(mpqyolo, "__file__", str(checkout / "__init__.py"))
    monkeypatch.delenv("MPQ_ENGINE")
    with pytest.raises(EngineError, match=r"is not built; in the checkout: cmake -S engine -B build/engine"):
        _load.find()
    for path in (built, installed):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
        assert _load.find() == path
    monkeypatch.setenv("MPQ_ENGINE", "/elsewhere.so")
    assert _load.find() == Path("/elsewhere.so")
